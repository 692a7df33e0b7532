//! Everything that can happen, one value and one line of text each.
//!
//! `docs/events.md` holds the grammar, `docs/protocol.md` what each event requires, does and leaves behind.

use crate::{Component, CpuId, IdError, Pkru, TaskId, UnknownComponent, Value, ValueError};
use core::{fmt, str::FromStr};

/// Why a CPU entered the kernel from user mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// The task asked: the calling convention says which registers it gave up.
    SystemCall,
    /// The task's own instruction faulted or trapped.
    Exception,
    /// Something else happened; the task may be at any instruction.
    Interrupt,
}

/// Which kernel code uses the FPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KernelContext {
    /// The kernel side of the current task, or a kernel thread.
    Task,
    /// A softirq.
    SoftIrq,
    /// A hard interrupt handler.
    HardIrq,
}

/// The four verbs of the access API, for the current task (the proposal in the 2016 thread).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Make the registers hold the state; memory stays the truth if it was.
    CopyToCpu,
    /// Make the registers the only valid copy.
    MoveToCpu,
    /// Make the image hold the state; the registers stay valid.
    CopyToMemory,
    /// Make the image the only valid copy.
    MoveToMemory,
}

/// What happens to a signal frame in user memory behind the kernel's back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameChange {
    /// Its page is no longer present: the next access faults.
    Absent,
    /// Its header asks for what the restore instruction refuses.
    BadHeader,
    /// It holds the legacy region only.
    Short,
}

/// One thing that happens to a simulated machine. Events on a CPU act on that CPU's current task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// A user task appears, in the initial configuration, on no CPU.
    Spawn(TaskId),
    /// A kernel thread appears, on no CPU.
    KernelThread(TaskId),
    /// The current task stops running user code and enters the kernel.
    Entry(CpuId, EntryKind),
    /// The current task is switched out; the CPU is between tasks until schedule-in or idle.
    ScheduleOut(CpuId),
    /// A task becomes the current one.
    ScheduleIn(CpuId, TaskId),
    /// The idle task becomes the current one.
    Idle(CpuId),
    /// The task, which must be the current one, is about to run user code.
    Return(CpuId, TaskId),
    /// The current task's first FPU instruction traps (#NM), under a policy that armed the trap.
    FirstUse(CpuId),
    /// Kernel code begins to use the registers.
    KernelFpuBegin(CpuId, KernelContext),
    /// Kernel code is done with them.
    KernelFpuEnd(CpuId),
    /// A task that is not running is moved to another CPU's queue.
    Migrate(TaskId, CpuId),
    /// The current task makes a child, a user task that starts with a copy of its state.
    Fork(CpuId, TaskId),
    /// The current task starts a new program in the initial configuration.
    Exec(CpuId),
    /// The current task dies; it may still be scheduled, but never runs user code again.
    Exit(CpuId),
    /// Another task's component is read (ptrace, core dump).
    Read(TaskId, Component),
    /// Another task's component is written (ptrace).
    Write(TaskId, Component, Value),
    /// User code writes a component of its own registers.
    UserWrite(CpuId, Component, Value),
    /// User code writes PKRU.
    UserPkru(CpuId, Pkru),
    /// Kernel code uses one of the four verbs on the current task's state.
    Access(CpuId, Verb),
    /// Kernel code says that this CPU's registers are nobody's any more.
    InvalidateRegisters(CpuId),
    /// Signal delivery to the current task begins, with a new frame.
    SignalDeliver(CpuId),
    /// Signal delivery tries to save the registers to the frame.
    SignalSave(CpuId),
    /// The page on which the frame access faulted is made present.
    SignalFaultIn(CpuId),
    /// Signal delivery gives the handler registers in the initial configuration.
    SignalEnter(CpuId),
    /// The current task's signal return begins, from its newest frame.
    SigReturn(CpuId),
    /// Signal return tries to load the registers from the frame.
    SigReturnLoad(CpuId),
    /// The newest frame of a task changes in user memory.
    Frame(TaskId, FrameChange),
    /// A CPU goes offline.
    Offline(CpuId),
    /// A CPU comes back, its registers as after reset.
    Online(CpuId),
    /// A CPU loses power and wakes up with its registers as after reset (suspend).
    PowerLoss(CpuId),
}

impl Event {
    /// The CPU on which the event happens, if it names one.
    pub const fn cpu(self) -> Option<CpuId> {
        use Event::*;
        match self {
            Spawn(_) | KernelThread(_) | Read(..) | Write(..) | Frame(..) => None,
            Entry(cpu, _)
            | ScheduleOut(cpu)
            | ScheduleIn(cpu, _)
            | Idle(cpu)
            | Return(cpu, _)
            | FirstUse(cpu)
            | KernelFpuBegin(cpu, _)
            | KernelFpuEnd(cpu)
            | Migrate(_, cpu)
            | Fork(cpu, _)
            | Exec(cpu)
            | Exit(cpu)
            | UserWrite(cpu, ..)
            | UserPkru(cpu, _)
            | Access(cpu, _)
            | InvalidateRegisters(cpu)
            | SignalDeliver(cpu)
            | SignalSave(cpu)
            | SignalFaultIn(cpu)
            | SignalEnter(cpu)
            | SigReturn(cpu)
            | SigReturnLoad(cpu)
            | Offline(cpu)
            | Online(cpu)
            | PowerLoss(cpu) => Some(cpu),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Event::*;
        match *self {
            Spawn(task) => write!(f, "spawn {task}"),
            KernelThread(task) => write!(f, "kernel-thread {task}"),
            Entry(cpu, kind) => write!(f, "entry {cpu} {}", word(&ENTRY_KINDS, kind)),
            ScheduleOut(cpu) => write!(f, "out {cpu}"),
            ScheduleIn(cpu, task) => write!(f, "in {cpu} {task}"),
            Idle(cpu) => write!(f, "idle {cpu}"),
            Return(cpu, task) => write!(f, "return {cpu} {task}"),
            FirstUse(cpu) => write!(f, "first-use {cpu}"),
            KernelFpuBegin(cpu, context) => {
                write!(f, "kernel-fpu-begin {cpu} {}", word(&KERNEL_CONTEXTS, context))
            }
            KernelFpuEnd(cpu) => write!(f, "kernel-fpu-end {cpu}"),
            Migrate(task, cpu) => write!(f, "migrate {task} {cpu}"),
            Fork(cpu, child) => write!(f, "fork {cpu} {child}"),
            Exec(cpu) => write!(f, "exec {cpu}"),
            Exit(cpu) => write!(f, "exit {cpu}"),
            Read(task, component) => write!(f, "read {task} {component}"),
            Write(task, component, value) => write!(f, "write {task} {component} {value}"),
            UserWrite(cpu, component, value) => write!(f, "user-write {cpu} {component} {value}"),
            UserPkru(cpu, pkru) => write!(f, "user-pkru {cpu} {pkru}"),
            Access(cpu, verb) => write!(f, "{} {cpu}", word(&VERBS, verb)),
            InvalidateRegisters(cpu) => write!(f, "invalidate-registers {cpu}"),
            SignalDeliver(cpu) => write!(f, "signal-deliver {cpu}"),
            SignalSave(cpu) => write!(f, "signal-save {cpu}"),
            SignalFaultIn(cpu) => write!(f, "signal-fault-in {cpu}"),
            SignalEnter(cpu) => write!(f, "signal-enter {cpu}"),
            SigReturn(cpu) => write!(f, "sigreturn {cpu}"),
            SigReturnLoad(cpu) => write!(f, "sigreturn-load {cpu}"),
            Frame(task, change) => write!(f, "frame {task} {}", word(&FRAME_CHANGES, change)),
            Offline(cpu) => write!(f, "offline {cpu}"),
            Online(cpu) => write!(f, "online {cpu}"),
            PowerLoss(cpu) => write!(f, "power-loss {cpu}"),
        }
    }
}

type Words<T, const N: usize> = [(T, &'static str); N];

const ENTRY_KINDS: Words<EntryKind, 3> = [
    (EntryKind::SystemCall, "system-call"),
    (EntryKind::Exception, "exception"),
    (EntryKind::Interrupt, "interrupt"),
];
const KERNEL_CONTEXTS: Words<KernelContext, 3> =
    [(KernelContext::Task, "task"), (KernelContext::SoftIrq, "softirq"), (KernelContext::HardIrq, "hardirq")];
const VERBS: Words<Verb, 4> = [
    (Verb::CopyToCpu, "copy-to-cpu"),
    (Verb::MoveToCpu, "move-to-cpu"),
    (Verb::CopyToMemory, "copy-to-memory"),
    (Verb::MoveToMemory, "move-to-memory"),
];
const FRAME_CHANGES: Words<FrameChange, 3> =
    [(FrameChange::Absent, "absent"), (FrameChange::BadHeader, "bad-header"), (FrameChange::Short, "short")];

fn word<T: PartialEq>(words: &[(T, &'static str)], item: T) -> &'static str {
    words.iter().find(|(known, _)| *known == item).map_or("", |(_, word)| word)
}

fn item<T: Copy>(words: &[(T, &'static str)], text: &str) -> Option<T> {
    words.iter().find(|(_, word)| *word == text).map(|(item, _)| *item)
}

/// A line that is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseEventError {
    /// The first word names no event.
    #[error("expected an event name such as return or kernel-fpu-begin")]
    UnknownEvent,
    /// A word is missing.
    #[error("expected {0} before the end of the line")]
    Missing(&'static str),
    /// A word stands behind the last one.
    #[error("expected the end of the line behind the last word of the event")]
    TrailingWord,
    /// A word is none of those that fit there.
    #[error("expected {0}")]
    UnknownWord(&'static str),
    /// A word is no CPU or no task.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A word is no state component.
    #[error(transparent)]
    Component(#[from] UnknownComponent),
    /// A word is no value.
    #[error(transparent)]
    Value(#[from] ValueError),
}

/// The words of one line.
struct Reader<'a>(core::str::SplitWhitespace<'a>);

impl<'a> Reader<'a> {
    fn text(&mut self, what: &'static str) -> Result<&'a str, ParseEventError> {
        self.0.next().ok_or(ParseEventError::Missing(what))
    }

    fn next<T: FromStr>(&mut self, what: &'static str) -> Result<T, ParseEventError>
    where
        ParseEventError: From<T::Err>,
    {
        Ok(self.text(what)?.parse()?)
    }

    fn cpu(&mut self) -> Result<CpuId, ParseEventError> {
        self.next("a CPU")
    }

    fn task(&mut self) -> Result<TaskId, ParseEventError> {
        self.next("a task")
    }

    fn choice<T: Copy>(
        &mut self,
        words: &[(T, &'static str)],
        what: &'static str,
    ) -> Result<T, ParseEventError> {
        item(words, self.text(what)?).ok_or(ParseEventError::UnknownWord(what))
    }
}

impl FromStr for Event {
    type Err = ParseEventError;

    /// Parses one event; blanks between the words do not matter, comments are no events.
    fn from_str(line: &str) -> Result<Self, ParseEventError> {
        let mut r = Reader(line.split_whitespace());
        let name = r.text("an event name")?;
        let event = match name {
            "spawn" => Event::Spawn(r.task()?),
            "kernel-thread" => Event::KernelThread(r.task()?),
            "entry" => Event::Entry(r.cpu()?, r.choice(&ENTRY_KINDS, "system-call, exception or interrupt")?),
            "out" => Event::ScheduleOut(r.cpu()?),
            "in" => Event::ScheduleIn(r.cpu()?, r.task()?),
            "idle" => Event::Idle(r.cpu()?),
            "return" => Event::Return(r.cpu()?, r.task()?),
            "first-use" => Event::FirstUse(r.cpu()?),
            "kernel-fpu-begin" => {
                Event::KernelFpuBegin(r.cpu()?, r.choice(&KERNEL_CONTEXTS, "task, softirq or hardirq")?)
            }
            "kernel-fpu-end" => Event::KernelFpuEnd(r.cpu()?),
            "migrate" => Event::Migrate(r.task()?, r.cpu()?),
            "fork" => Event::Fork(r.cpu()?, r.task()?),
            "exec" => Event::Exec(r.cpu()?),
            "exit" => Event::Exit(r.cpu()?),
            "read" => Event::Read(r.task()?, r.next("a state component")?),
            "write" => Event::Write(r.task()?, r.next("a state component")?, r.next("a value")?),
            "user-write" => Event::UserWrite(r.cpu()?, r.next("a state component")?, r.next("a value")?),
            "user-pkru" => Event::UserPkru(r.cpu()?, r.next("a PKRU value")?),
            "invalidate-registers" => Event::InvalidateRegisters(r.cpu()?),
            "signal-deliver" => Event::SignalDeliver(r.cpu()?),
            "signal-save" => Event::SignalSave(r.cpu()?),
            "signal-fault-in" => Event::SignalFaultIn(r.cpu()?),
            "signal-enter" => Event::SignalEnter(r.cpu()?),
            "sigreturn" => Event::SigReturn(r.cpu()?),
            "sigreturn-load" => Event::SigReturnLoad(r.cpu()?),
            "frame" => Event::Frame(r.task()?, r.choice(&FRAME_CHANGES, "absent, bad-header or short")?),
            "offline" => Event::Offline(r.cpu()?),
            "online" => Event::Online(r.cpu()?),
            "power-loss" => Event::PowerLoss(r.cpu()?),
            _ => {
                let verb = item(&VERBS, name).ok_or(ParseEventError::UnknownEvent)?;
                Event::Access(r.cpu()?, verb)
            }
        };
        match r.0.next() {
            None => Ok(event),
            Some(_) => Err(ParseEventError::TrailingWord),
        }
    }
}
