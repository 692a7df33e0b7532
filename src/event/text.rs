//! The text form of events: one line each.

use super::{EntryKind, Event, FrameChange, KernelContext, Verb};
use crate::{CpuId, IdError, PageAccess, Pkru, TaskId, UnknownComponent, ValueError};
use core::{fmt, str::FromStr};

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Event::*;
        match *self {
            Spawn(task) => write!(f, "spawn {task}"),
            KernelThread(task) => write!(f, "kernel-thread {task}"),
            FpuFree(task) => write!(f, "fpu-free {task}"),
            Entry(cpu, kind) => write!(f, "entry {cpu} {}", word(&ENTRY_KINDS, kind)),
            ScheduleOut(cpu) => write!(f, "out {cpu}"),
            ScheduleIn(cpu, task) => write!(f, "in {cpu} {task}"),
            Idle(cpu) => write!(f, "idle {cpu}"),
            Return(cpu, task) => write!(f, "return {cpu} {task}"),
            FirstUse(cpu) => write!(f, "first-use {cpu}"),
            FpuFault(cpu) => write!(f, "fpu-fault {cpu}"),
            KernelFpuBegin(cpu, context) => {
                write!(f, "kernel-fpu-begin {cpu} {}", word(&KERNEL_CONTEXTS, context))
            }
            KernelFpuEnd(cpu) => write!(f, "kernel-fpu-end {cpu}"),
            SoftIrqBegin(cpu) => write!(f, "softirq-begin {cpu}"),
            SoftIrqEnd(cpu) => write!(f, "softirq-end {cpu}"),
            Migrate(task, cpu) => write!(f, "migrate {task} {cpu}"),
            Fork(cpu, child) => write!(f, "fork {cpu} {child}"),
            UserWorker(cpu, child) => write!(f, "user-worker {cpu} {child}"),
            Exec(cpu) => write!(f, "exec {cpu}"),
            Exit(cpu) => write!(f, "exit {cpu}"),
            Read(task, component) => write!(f, "read {task} {component}"),
            Write(task, component, value) => write!(f, "write {task} {component} {value}"),
            UserWrite(cpu, component, value) => write!(f, "user-write {cpu} {component} {value}"),
            UserPkru(cpu, pkru) => write!(f, "user-pkru {cpu} {pkru}"),
            KernelPkru(cpu, pkru) => write!(f, "kernel-pkru {cpu} {pkru}"),
            ReadPkru(task) => write!(f, "read-pkru {task}"),
            WritePkru(task, Some(pkru)) => write!(f, "write-pkru {task} {pkru}"),
            WritePkru(task, None) => write!(f, "write-pkru {task} none"),
            UserMemory(cpu, task, access) => write!(f, "user-memory {cpu} {task} {access}"),
            Access(cpu, verb) => write!(f, "{} {cpu}", word(&VERBS, verb)),
            InvalidateRegisters(cpu) => write!(f, "invalidate-registers {cpu}"),
            SignalDeliver(cpu) => write!(f, "signal-deliver {cpu}"),
            SignalSave(cpu) => write!(f, "signal-save {cpu}"),
            SignalFaultIn(cpu) => write!(f, "signal-fault-in {cpu}"),
            SignalEnter(cpu) => write!(f, "signal-enter {cpu}"),
            SigReturn(cpu) => write!(f, "sigreturn {cpu}"),
            SigReturnLoad(cpu) => write!(f, "sigreturn-load {cpu}"),
            SigReturnCopy(cpu) => write!(f, "sigreturn-copy {cpu}"),
            GuestLoad(cpu) => write!(f, "guest-load {cpu}"),
            GuestPut(cpu) => write!(f, "guest-put {cpu}"),
            GuestEnter(cpu) => write!(f, "guest-enter {cpu}"),
            GuestExit(cpu) => write!(f, "guest-exit {cpu}"),
            Permit(cpu, component) => write!(f, "permit {cpu} {component}"),
            DynamicUse(cpu, component) => write!(f, "dynamic-use {cpu} {component}"),
            DynamicGrow(cpu) => write!(f, "dynamic-grow {cpu}"),
            Frame(task, FrameChange::Pkru(Some(pkru))) => write!(f, "frame {task} pkru {pkru}"),
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
const FRAME_CHANGES: Words<FrameChange, 9> = [
    (FrameChange::Absent, "absent"),
    (FrameChange::RestAbsent, "rest-absent"),
    (FrameChange::Unmapped, "unmapped"),
    (FrameChange::BadHeader, "bad-header"),
    (FrameChange::BadMxcsr, "bad-mxcsr"),
    (FrameChange::BadMagic, "bad-magic"),
    (FrameChange::BadSize, "bad-size"),
    (FrameChange::Short, "short"),
    (FrameChange::Pkru(None), "no-pkru"),
];

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

    fn pkru_or_none(&mut self) -> Result<Option<Pkru>, ParseEventError> {
        match self.text("a PKRU value, or none")? {
            "none" => Ok(None),
            word => Ok(Some(word.parse()?)),
        }
    }

    fn page_access(&mut self) -> Result<PageAccess, ParseEventError> {
        const KEY: &str = "a protection key from 0 to 15";
        let write = self.choice(&[(false, "read"), (true, "write")], "read or write")?;
        let text = self.text(KEY)?;
        let key = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        key.and_then(|key| PageAccess::new(key, write)).ok_or(ParseEventError::UnknownWord(KEY))
    }

    fn frame_change(&mut self) -> Result<FrameChange, ParseEventError> {
        const WHAT: &str = "a change of a frame such as absent or bad-header";
        match self.text(WHAT)? {
            "pkru" => Ok(FrameChange::Pkru(Some(self.next("a PKRU value")?))),
            word => item(&FRAME_CHANGES, word).ok_or(ParseEventError::UnknownWord(WHAT)),
        }
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
            "fpu-free" => Event::FpuFree(r.task()?),
            "entry" => Event::Entry(r.cpu()?, r.choice(&ENTRY_KINDS, "system-call, exception or interrupt")?),
            "out" => Event::ScheduleOut(r.cpu()?),
            "in" => Event::ScheduleIn(r.cpu()?, r.task()?),
            "idle" => Event::Idle(r.cpu()?),
            "return" => Event::Return(r.cpu()?, r.task()?),
            "first-use" => Event::FirstUse(r.cpu()?),
            "fpu-fault" => Event::FpuFault(r.cpu()?),
            "kernel-fpu-begin" => {
                Event::KernelFpuBegin(r.cpu()?, r.choice(&KERNEL_CONTEXTS, "task, softirq or hardirq")?)
            }
            "kernel-fpu-end" => Event::KernelFpuEnd(r.cpu()?),
            "softirq-begin" => Event::SoftIrqBegin(r.cpu()?),
            "softirq-end" => Event::SoftIrqEnd(r.cpu()?),
            "migrate" => Event::Migrate(r.task()?, r.cpu()?),
            "fork" => Event::Fork(r.cpu()?, r.task()?),
            "user-worker" => Event::UserWorker(r.cpu()?, r.task()?),
            "exec" => Event::Exec(r.cpu()?),
            "exit" => Event::Exit(r.cpu()?),
            "read" => Event::Read(r.task()?, r.next("a state component")?),
            "write" => Event::Write(r.task()?, r.next("a state component")?, r.next("a value")?),
            "user-write" => Event::UserWrite(r.cpu()?, r.next("a state component")?, r.next("a value")?),
            "user-pkru" => Event::UserPkru(r.cpu()?, r.next("a PKRU value")?),
            "kernel-pkru" => Event::KernelPkru(r.cpu()?, r.next("a PKRU value")?),
            "read-pkru" => Event::ReadPkru(r.task()?),
            "write-pkru" => Event::WritePkru(r.task()?, r.pkru_or_none()?),
            "user-memory" => Event::UserMemory(r.cpu()?, r.task()?, r.page_access()?),
            "invalidate-registers" => Event::InvalidateRegisters(r.cpu()?),
            "signal-deliver" => Event::SignalDeliver(r.cpu()?),
            "signal-save" => Event::SignalSave(r.cpu()?),
            "signal-fault-in" => Event::SignalFaultIn(r.cpu()?),
            "signal-enter" => Event::SignalEnter(r.cpu()?),
            "sigreturn" => Event::SigReturn(r.cpu()?),
            "sigreturn-load" => Event::SigReturnLoad(r.cpu()?),
            "sigreturn-copy" => Event::SigReturnCopy(r.cpu()?),
            "guest-load" => Event::GuestLoad(r.cpu()?),
            "guest-put" => Event::GuestPut(r.cpu()?),
            "guest-enter" => Event::GuestEnter(r.cpu()?),
            "guest-exit" => Event::GuestExit(r.cpu()?),
            "permit" => Event::Permit(r.cpu()?, r.next("a state component")?),
            "dynamic-use" => Event::DynamicUse(r.cpu()?, r.next("a state component")?),
            "dynamic-grow" => Event::DynamicGrow(r.cpu()?),
            "frame" => Event::Frame(r.task()?, r.frame_change()?),
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
