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
    vec::Vec,
};

/// The groups of tracks, as the format's processes.
const CPUS: u32 = 1;
const TASKS: u32 = 2;
const POLICIES: u32 = 3;

/// Writes a timeline as JSON for the Perfetto UI: a track a CPU (whose state the registers hold, with instants for what
/// was saved, restored and skipped), a track a task (where it and its newest state are), and what each policy had
/// saved and restored by then. Times are µs as recorded; events come in the order of time.
///
/// # Errors
/// Those of the writer.
pub fn perfetto(out: &mut impl Write, name: &str, timeline: &Timeline) -> io::Result<()> {
    let mut events: Vec<(u64, Value)> = Vec::new();
    cpus(timeline, &mut events);
    tasks(timeline, &mut events);
    for sample in &timeline.samples {
        let args = json!({"saves": sample.saves, "restores": sample.restores});
        let name = timeline.policies[sample.policy];
        events.push((
            sample.at_us,
            json!({"ph": "C", "pid": POLICIES, "name": name, "ts": sample.at_us, "args": args}),
        ));
    }
    events.sort_by_key(|(at, _)| *at);
    let metadata = json!({"recording": name, "policy": timeline.policy});
    write!(out, "{{\"displayTimeUnit\":\"ns\",\"metadata\":{metadata},\"traceEvents\":[")?;
    let groups = [
        (CPUS, format!("registers under {}", timeline.policy)),
        (TASKS, "tasks".into()),
        (POLICIES, "saves and restores".into()),
    ];
    let mut separator = "\n";
    let groups = groups.into_iter().flat_map(|(pid, name)| {
        [
            json!({"ph": "M", "pid": pid, "name": "process_name", "args": {"name": name}}),
            json!({"ph": "M", "pid": pid, "name": "process_sort_index", "args": {"sort_index": pid}}),
        ]
    });
    for event in groups.chain(events.into_iter().map(|(_, event)| event)) {
        write!(out, "{separator}{event}")?;
        separator = ",\n";
    }
    writeln!(out, "\n]}}")
}

fn thread(pid: u32, tid: usize, name: String) -> Value {
    json!({"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": name}})
}

fn span(pid: u32, tid: usize, name: String, (from, to): (u64, u64)) -> (u64, Value) {
    (from, json!({"ph": "X", "pid": pid, "tid": tid, "name": name, "ts": from, "dur": to - from}))
}

fn cpus(timeline: &Timeline, events: &mut Vec<(u64, Value)>) {
    for (cpu, lane) in timeline.lanes.iter().enumerate().filter(|(_, lane)| lane.seen) {
        // A thread 0 has a meaning of its own.
        let tid = cpu + 1;
        events.push((0, thread(CPUS, tid, format!("CPU {cpu}"))));
        for (from, to, holder) in timeline.spans(&lane.holders) {
            let name = match holder {
                Holder::Nobody => continue,
                Holder::KernelFpu => "kernel FPU section".into(),
                Holder::Task(task) => label(&timeline.tasks[task as usize]),
                Holder::Outdated(task) => format!("{} (outdated)", label(&timeline.tasks[task as usize])),
            };
            events.push(span(CPUS, tid, name, (from, to)));
        }
        for (at, mark) in &lane.marks {
            let name = match mark {
                Mark::Saved => "saved",
                Mark::Restored => "restored",
                Mark::Skipped => "restore skipped",
                Mark::KernelFpu => "kernel FPU section begins",
            };
            let event = json!({"ph": "i", "s": "t", "pid": CPUS, "tid": tid, "name": name, "ts": at});
            events.push((*at, event));
        }
    }
}

fn tasks(timeline: &Timeline, events: &mut Vec<(u64, Value)>) {
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
                events.push((0, thread(TASKS, tid, label(task))));
                named = true;
            }
            events.push(span(TASKS, tid, name, (from, to)));
        }
    }
}
