//! A timeline as a trace that the Perfetto UI opens.
//!
//! Chrome's JSON trace format: the UI and its `trace_processor` read it, people can read it, and it needs no schema.
//! Spans are complete events (`X`) with a duration, so there are no begins without an end.
//!
//! # Reference
//! Trace Event Format (Google), "Complete Events", "Counter Events", "Instant Events", "Metadata Events".

use super::holders::label;
use crate::replay::{Holder, Mark, Place, Timeline};
use serde_json::{Value, json};
use std::{
    format,
    io::{self, Write},
    string::String,
};

/// The groups of tracks, as the format's processes.
const CPUS: u32 = 1;
const TASKS: u32 = 2;
const POLICIES: u32 = 3;

/// Writes a timeline as JSON for the Perfetto UI: a track a CPU (whose state the registers hold, with instants for what
/// was saved, restored and skipped), a track a task (where it and its newest state are), and what each policy had
/// saved and restored by then. Times are µs as recorded; the events of a track come in the order of time, track by
/// track, and none is kept.
///
/// # Errors
/// Those of the writer.
pub fn perfetto(out: &mut impl Write, name: &str, timeline: &Timeline) -> io::Result<()> {
    let metadata = json!({"recording": name, "policy": timeline.policy});
    write!(out, "{{\"displayTimeUnit\":\"ns\",\"metadata\":{metadata},\"traceEvents\":[")?;
    let mut events = Events { out, separator: "\n" };
    let groups = [
        (CPUS, format!("registers under {}", timeline.policy)),
        (TASKS, "tasks".into()),
        (POLICIES, "saves and restores".into()),
    ];
    for (pid, name) in groups {
        events.put(&json!({"ph": "M", "pid": pid, "name": "process_name", "args": {"name": name}}))?;
        events.put(
            &json!({"ph": "M", "pid": pid, "name": "process_sort_index", "args": {"sort_index": pid}}),
        )?;
    }
    cpus(timeline, &mut events)?;
    tasks(timeline, &mut events)?;
    for sample in &timeline.samples {
        let args = json!({"saves": sample.saves, "restores": sample.restores});
        let name = timeline.policies[sample.policy];
        events.put(&json!({"ph": "C", "pid": POLICIES, "name": name, "ts": sample.at_us, "args": args}))?;
    }
    writeln!(out, "\n]}}")
}

/// Writes events as they come.
struct Events<'a, W> {
    out: &'a mut W,
    separator: &'static str,
}

impl<W: Write> Events<'_, W> {
    fn put(&mut self, event: &Value) -> io::Result<()> {
        write!(self.out, "{}{event}", self.separator)?;
        self.separator = ",\n";
        Ok(())
    }

    fn thread(&mut self, pid: u32, tid: usize, name: String) -> io::Result<()> {
        self.put(&json!({"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": name}}))
    }

    fn span(&mut self, pid: u32, tid: usize, name: String, (from, to): (u64, u64)) -> io::Result<()> {
        self.put(&json!({"ph": "X", "pid": pid, "tid": tid, "name": name, "ts": from, "dur": to - from}))
    }

    fn mark(&mut self, tid: usize, at_us: u64, mark: Mark) -> io::Result<()> {
        let name = match mark {
            Mark::Saved => "saved",
            Mark::Restored => "restored",
            Mark::Skipped => "restore skipped",
            Mark::KernelFpu => "kernel FPU section begins",
        };
        self.put(&json!({"ph": "i", "s": "t", "pid": CPUS, "tid": tid, "name": name, "ts": at_us}))
    }
}

fn cpus(timeline: &Timeline, events: &mut Events<'_, impl Write>) -> io::Result<()> {
    for (cpu, lane) in timeline.lanes.iter().enumerate().filter(|(_, lane)| lane.seen) {
        // A thread 0 has a meaning of its own.
        let tid = cpu + 1;
        events.thread(CPUS, tid, format!("CPU {cpu}"))?;
        let mut marks = lane.marks.iter().copied().peekable();
        for (from, to, holder) in timeline.spans(&lane.holders) {
            while let Some((at_us, mark)) = marks.next_if(|(at_us, _)| *at_us < from) {
                events.mark(tid, at_us, mark)?;
            }
            let name = match holder {
                Holder::Nobody => continue,
                Holder::KernelFpu => "kernel FPU section".into(),
                Holder::Task(task) => label(&timeline.tasks[task as usize]),
                Holder::Outdated(task) => format!("{} (outdated)", label(&timeline.tasks[task as usize])),
            };
            events.span(CPUS, tid, name, (from, to))?;
        }
        for (at_us, mark) in marks {
            events.mark(tid, at_us, mark)?;
        }
    }
    Ok(())
}

fn tasks(timeline: &Timeline, events: &mut Events<'_, impl Write>) -> io::Result<()> {
    for (number, task) in timeline.tasks.iter().enumerate() {
        let tid = number + 1;
        let mut named = false;
        for (from, to, place) in timeline.spans(&task.places) {
            let name = match place {
                Place::Running(cpu) => format!("running on CPU {}", cpu.0),
                Place::Registers(cpu) => format!("only in CPU {}'s registers", cpu.0),
                Place::Both(cpu) => format!("in memory and CPU {}'s registers", cpu.0),
                Place::Memory => "in memory".into(),
                Place::Gone => continue,
            };
            if !named {
                events.thread(TASKS, tid, label(task))?;
                named = true;
            }
            events.span(TASKS, tid, name, (from, to))?;
        }
    }
    Ok(())
}
