//! Records to events and decisions.
//!
//! A recording starts in the middle of things. A task is the machines' business from its first line that only
//! a user task can cause (it is *adopted*), and its state is known once it was seen in user mode; until then,
//! and for kernel threads for ever, the machines see an idle CPU.

use super::{
    Agreement, Decision, Disagreement, KernelCounts, OptimumCounts, Options, ReplayError, Report, Timeline,
    WindowError,
    attribution::Name,
    fleet::Fleet,
    form::Form,
    line::{Line, Parsed, What, name_of_task, names_of_switch},
    tasks::{CpuTrack, Pending, TaskTrack, Window},
};
use crate::{CpuId, EntryKind, Event, TaskId, fpu::Policy};
use rustc_hash::FxHashMap;
use std::{string::String, vec::Vec};

/// How many names of unknown events are counted apart. Further ones share one count, so that memory is bounded.
const MOST_IGNORED_NAMES: usize = 1000;

/// Drives the machines with one recording.
#[derive(Debug)]
pub(super) struct Driver<P: Policy> {
    pub(super) fleet: Fleet<P>,
    pub(super) agreement: Agreement,
    pub(super) kernel: KernelCounts,
    pub(super) cpus: Vec<CpuTrack>,
    pub(super) tasks: FxHashMap<u32, TaskTrack>,
    /// Whether function lines tell of returns and kernel FPU sections.
    pub(super) functions: bool,
    pub(super) epoch: u64,
    /// While a pending decision is settled: the line that opened it.
    pub(super) opened: Option<u64>,
    ignored: FxHashMap<Vec<u8>, u64>,
    first_us: Option<u64>,
    last_us: u64,
    is_trace: bool,
    form: Form,
    pub(super) lost: u64,
}

pub(super) type Done = Result<(), ReplayError>;

impl<P: Policy> Driver<P> {
    pub(super) fn new(options: &Options<P>) -> Self {
        Self {
            fleet: Fleet::new(options),
            agreement: Agreement::default(),
            kernel: KernelCounts::default(),
            cpus: Vec::new(),
            tasks: FxHashMap::default(),
            functions: false,
            epoch: 0,
            opened: None,
            ignored: FxHashMap::default(),
            first_us: None,
            last_us: 0,
            is_trace: false,
            form: Form::default(),
            lost: 0,
        }
    }

    /// Takes one line.
    pub(super) fn text(&mut self, text: &[u8], number: u64) -> Done {
        self.fleet.line = number;
        match self.form.parse(text) {
            Ok(Parsed::Event(line)) => {
                self.is_trace = true;
                self.event(&line, text)
            }
            Ok(Parsed::Comment) => {
                self.is_trace |= text.starts_with(b"# tracer:");
                self.functions |= text.starts_with(b"# tracer: function");
                Ok(())
            }
            Ok(Parsed::Lost { cpu, .. }) => self.events_lost(cpu),
            Ok(Parsed::Blank) => Ok(()),
            Err(_) if !self.is_trace => Err(ReplayError::NotATrace { line: number }),
            Err(expected) => Err(ReplayError::Malformed { line: number, expected: expected.0 }),
        }
    }

    /// Ends the recording. There is a timeline if the fleet has a recorder.
    pub(super) fn finish(mut self, bytes: u64) -> Result<(Report, Option<Timeline>), ReplayError> {
        if !self.is_trace {
            return Err(ReplayError::NotATrace { line: self.fleet.line + 1 });
        }
        for cpu in 0..self.cpus.len() {
            self.fleet.now_us = self.cpus[cpu].last_us;
            self.settle(CpuId(cpu as u32), None)?;
            self.identify(CpuId(cpu as u32));
        }
        // Loads that nothing follows which would tell what they were for.
        for task in self.tasks.values() {
            let of_signal = if self.functions { 0 } else { task.delivering as u32 + task.restoring as u32 };
            self.kernel.restores += u64::from(task.loads.saturating_sub(of_signal));
        }
        let timeline = self.fleet.recorder.take().map(|recorder| {
            let mut timeline = recorder.finish(self.last_us)?;
            for (lane, track) in timeline.lanes.iter_mut().zip(&self.cpus) {
                lane.seen = track.seen;
            }
            Ok::<_, WindowError>(timeline)
        });
        let timeline = timeline.transpose()?;
        let name = |name: Vec<u8>| String::from_utf8_lossy(&name).into_owned();
        let optimum =
            OptimumCounts { saves: self.fleet.optimum.saves, restores: self.fleet.optimum.restores };
        let report = Report {
            lines: self.fleet.line,
            bytes,
            seconds: self.last_us.saturating_sub(self.first_us.unwrap_or(0)) as f64 / 1e6,
            cpus: self.cpus.iter().filter(|cpu| cpu.seen).count(),
            has_functions: self.functions,
            lost: self.lost,
            kernel: self.kernel,
            agreement: self.agreement,
            fpu_use: self.fleet.fpu_use(),
            policies: self.fleet.counts(),
            optimum,
            schedule: self.fleet.schedule.counts,
            causes: self.fleet.attribution.counts,
            for_frames: self.fleet.attribution.for_frames,
            reference: self.fleet.reference,
            top: self.fleet.attribution.top(),
            ignored: self.ignored.into_iter().map(|(text, count)| (name(text), count)).collect(),
        };
        Ok((report, timeline))
    }

    fn event(&mut self, line: &Line<'_>, text: &[u8]) -> Done {
        if self.first_us.is_none() {
            self.first_us = Some(line.time_us);
            if let Some(recorder) = &mut self.fleet.recorder {
                recorder.begins(line.time_us);
            }
        }
        self.last_us = self.last_us.max(line.time_us);
        if let What::Other(name) = line.what {
            self.ignore(name);
            return Ok(());
        }
        let cpu = CpuId(line.cpu);
        self.grow_cpus(line.cpu);
        let answered = self.is_answered_by(cpu, line);
        if self.track(cpu).pending != Pending::Nothing {
            // It happened when its own line came.
            self.fleet.now_us = self.track(cpu).last_us;
            self.settle(cpu, Some(answered))?;
        }
        self.fleet.now_us = line.time_us;
        let track = self.track(cpu);
        (track.last_us, track.seen) = (line.time_us, true);
        // The deactivated line of a task that was just switched out still carries its name.
        if !answered && line.what != What::Deactivated {
            self.runs(cpu, line.pid, line.time_us)?;
            self.names(cpu, line, text);
            self.record(cpu, line, text)?;
        }
        self.track(cpu).decided = self.agreement.mark();
        Ok(())
    }

    /// Notes what a line calls the task that runs. A name is looked at when its task leaves, and copying it with every
    /// line can be felt.
    fn names(&mut self, cpu: CpuId, line: &Line<'_>, text: &[u8]) {
        let track = &mut self.cpus[cpu.0 as usize];
        match line.what {
            What::Switch { next_pid, .. } => {
                let names = names_of_switch(text);
                if let Some([_, next]) = names {
                    track.next = (next_pid, Name::new(next));
                }
                let name = names.map_or(line.comm, |[prev, _]| prev);
                if name != NO_NAME || track.name.0 != line.pid {
                    track.name = (line.pid, Name::new(name));
                }
            }
            What::Fork { .. } | What::ProcessExit => {
                let name = name_of_task(text).unwrap_or(line.comm);
                track.name = (line.pid, Name::new(name));
            }
            _ if track.name.0 == line.pid => {}
            _ if line.comm == NO_NAME && track.next.0 == line.pid => track.name = track.next,
            _ => track.name = (line.pid, Name::new(line.comm)),
        }
    }

    fn ignore(&mut self, name: &[u8]) {
        if let Some(count) = self.ignored.get_mut(name) {
            *count += 1;
        } else {
            let name = if self.ignored.len() < MOST_IGNORED_NAMES { name } else { b"(further names)" };
            *self.ignored.entry(name.to_vec()).or_default() += 1;
        }
    }

    pub(super) fn grow_cpus(&mut self, cpu: u32) {
        if self.cpus.len() <= cpu as usize {
            self.cpus.resize(cpu as usize + 1, CpuTrack::default());
            self.fleet.grow_cpus(self.cpus.len());
        }
    }

    pub(super) fn track(&mut self, cpu: CpuId) -> &mut CpuTrack {
        &mut self.cpus[cpu.0 as usize]
    }

    /// The last line of a CPU says who runs there.
    pub(super) fn identify(&mut self, cpu: CpuId) {
        let CpuTrack { current, name: (pid, name), .. } = *self.track(cpu);
        if let Some(track) = self.tasks.get(&pid).filter(|_| current == Some(pid)) {
            self.fleet.identify(track.task, pid, name);
        }
    }

    /// Notes something about a task, if it was adopted.
    pub(super) fn update(&mut self, pid: u32, note: impl FnOnce(&mut TaskTrack)) -> Done {
        if let Some(task) = self.tasks.get_mut(&pid) {
            note(task);
        }
        Ok(())
    }

    /// One record, by the task that runs on `cpu`.
    fn record(&mut self, cpu: CpuId, line: &Line<'_>, text: &[u8]) -> Done {
        let pid = line.pid;
        match line.what {
            // The idle task runs no user code, whatever a damaged line says.
            What::Switch { .. } | What::Migrate { .. } | What::KernelFpuBegin | What::KernelFpuEnd => {}
            _ if pid == IDLE => return Ok(()),
            _ => {}
        }
        match line.what {
            What::SysEnter(call) => {
                self.seen_in_user_mode(cpu, pid, EntryKind::SystemCall)?;
                self.system_call_begins(pid, call);
                Ok(())
            }
            What::SysExit(result) => self.system_call_ends(pid, result),
            What::PageFaultUser => self.seen_in_user_mode(cpu, pid, EntryKind::Exception),
            What::Switch { next_pid, dead } => {
                self.kernel.switches += 1;
                self.open(cpu, Pending::Switch { prev: pid, next: next_pid, dead });
                Ok(())
            }
            What::Migrate { pid, cpu } => self.migrate(pid, cpu),
            What::SwitchFpuReturn => {
                self.functions = true;
                self.return_to_user(cpu, pid)
            }
            What::KernelFpuBegin => {
                self.functions = true;
                self.kernel_fpu_begin(cpu)
            }
            What::KernelFpuEnd => self.kernel_fpu_end(cpu),
            What::Activated => {
                match self.tasks.get_mut(&pid) {
                    Some(task) if task.marked => task.marked = false,
                    Some(task) => task.loads += 1,
                    // Which decision it was cannot be told.
                    None => self.kernel.restores += 1,
                }
                Ok(())
            }
            What::Clone => self.update(pid, |task| {
                (task.window, task.maybe_done) = (Some(Window::Fork), false);
                (task.copied, task.loads) = (false, 0);
            }),
            What::CopySrc | What::CopyDst => self.fork_copies(cpu, pid),
            What::Fork { child } => self.fork(cpu, pid, child),
            What::FlushThread => {
                self.exec(cpu, pid)?;
                self.update(pid, |task| task.flushed = true)
            }
            What::Exec { old_pid, .. } => self.exec_event(cpu, pid, old_pid),
            What::ProcessExit => self.update(pid, |task| task.exiting = true),
            What::Dropped => self.dropped(cpu, pid),
            What::SignalDeliver => {
                // Only a handler gets a frame; 0 and 1 are the default action and to ignore.
                const HANDLER: &[u8] = b" sa_handler=";
                let behind = memchr::memmem::find(text, HANDLER).map(|at| &text[at + HANDLER.len()..]);
                let handler = behind.and_then(|text| text.split(|byte| *byte == b' ').next());
                let handled = !matches!(handler, Some(b"0" | b"1"));
                self.update(pid, |task| task.delivering = handled)
            }
            What::CopyToSigframe => self.frame_opens(cpu, pid),
            What::ClearUserStates => self.handler_registers(cpu, pid),
            What::RestoreSig => {
                self.adopt(cpu, pid)?;
                self.update(pid, |task| task.restoring = true)
            }
            What::MarkActivate(_) => {
                self.update(pid, |task| task.marked = true)?;
                self.signal_returned(cpu, pid)
            }
            What::RegsetSet => self.foreign_write(pid),
            What::RegsetGet => self.foreign_read(pid),
            What::SyncFpstate => self.core_dump(cpu, pid),
            What::Drop
            | What::BeforeSave
            | What::AfterSave
            | What::Timer
            | What::Reschedule
            | What::Deactivated
            | What::Other(_) => Ok(()),
        }
    }

    /// Lets an event happen on all machines. An open kernel FPU section whose end was not seen ends first.
    pub(super) fn emit(&mut self, event: Event) -> Done {
        if let Some(cpu) = event.cpu() {
            self.kernel_fpu_end(cpu)?;
        }
        self.fleet.all(event)
    }

    /// Lets an event happen only on the machine that is held against the kernel: a quirk of the kernel.
    pub(super) fn emit_quirk(&mut self, cpu: CpuId, event: Event) -> Result<u32, ReplayError> {
        self.kernel_fpu_end(cpu)?;
        self.fleet.kernel(event)
    }

    /// The task, if it is in user mode as far as the machines know, enters the kernel.
    pub(super) fn enter(&mut self, cpu: CpuId, task: TaskId, kind: EntryKind) -> Done {
        if self.fleet.in_user_mode(task) { self.emit(Event::Entry(cpu, kind)) } else { Ok(()) }
    }

    /// Makes the task that runs in the kernel on `cpu` the machines' business. It is alive: the lines of a task
    /// that has exited are those of another that has its pid by now.
    pub(super) fn adopt(&mut self, cpu: CpuId, pid: u32) -> Result<TaskId, ReplayError> {
        if let Some(track) = self.tasks.get(&pid) {
            let task = track.task;
            if self.fleet.is_alive(task) {
                self.enter(cpu, task, EntryKind::Interrupt)?;
                return Ok(task);
            }
        }
        self.vacate(pid, Some(cpu))?;
        let task = self.fleet.new_task();
        self.emit(Event::Spawn(task))?;
        self.emit(Event::ScheduleIn(cpu, task))?;
        self.tasks.insert(pid, TaskTrack::new(task, UNKNOWN));
        Ok(task)
    }

    /// The pid is about to become another task's: who had it is gone, and runs on no CPU but `on`.
    pub(super) fn vacate(&mut self, pid: u32, on: Option<CpuId>) -> Done {
        if let Some(track) = self.tasks.get(&pid) {
            self.takes_off(pid, track.task)?;
            self.tasks.remove(&pid);
        }
        for track in &mut self.cpus {
            if track.current == Some(pid) {
                (track.current, track.pending) = (None, Pending::Nothing);
            }
        }
        if let Some(cpu) = on {
            self.track(cpu).current = Some(pid);
        }
        Ok(())
    }

    pub(super) fn is_known(&self, pid: u32) -> bool {
        self.tasks.get(&pid).is_some_and(|task| task.epoch == self.epoch)
    }

    /// Compares a decision.
    pub(super) fn compare(&mut self, cpu: CpuId, pid: u32, decision: Decision, expected: bool, found: bool) {
        let line = self.opened.unwrap_or(self.fleet.line);
        self.agreement.compare(Disagreement { line, cpu: cpu.0, pid, decision, expected, found });
    }
}

/// What the kernel prints for the name of a task that it has not cached (`trace_find_cmdline`).
const NO_NAME: &[u8] = b"<...>";

/// The pid of every CPU's idle task.
pub(super) const IDLE: u32 = 0;

/// The epoch of a task whose state was never known.
pub(super) const UNKNOWN: u64 = u64::MAX;
