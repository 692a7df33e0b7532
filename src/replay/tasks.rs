//! What the driver knows of the tasks and CPUs of a recording, beside the machines.

use super::{agreement::Mark, attribution::Name, drive::UNKNOWN, line::What};
use crate::TaskId;

/// An operation whose function line marks its start; the load that it may do comes later, and the task can be
/// switched out before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Window {
    /// `fpu_clone`, until the copy.
    Fork,
    /// `copy_fpstate_to_sigframe`, until the handler's registers are set.
    SignalFrame,
}

/// A user task.
#[derive(Clone, Copy, Debug)]
pub(super) struct TaskTrack {
    pub(super) task: TaskId,
    /// The task's state is known if this is the current epoch: lost events begin a new one.
    pub(super) epoch: u64,
    /// Loads seen that no decision has used yet.
    pub(super) loads: u32,
    pub(super) window: Option<Window>,
    /// The window's operation may be done already, without a line that says so.
    pub(super) maybe_done: bool,
    /// Fork has copied the state; the child's name comes later.
    pub(super) copied: bool,
    /// `fpu_flush_thread` was seen; the exec event that follows says nothing new.
    pub(super) flushed: bool,
    /// Inside an execve call that has not ended: somewhere in it the state is flushed.
    pub(super) executing: bool,
    /// `sched_process_exit` was seen.
    pub(super) exiting: bool,
    /// The kernel dropped the state while it was only in registers, and will save it at the next switch.
    pub(super) saved_when_dead: bool,
    /// Saved for its own core dump, with need_fpu_load clear: the next save is one too many.
    pub(super) dumped: bool,
    /// `fpregs_mark_activate`, which is no load, is about to activate the task.
    pub(super) marked: bool,
    /// Inside a signal return.
    pub(super) restoring: bool,
    /// Without function lines: a signal with a handler was delivered.
    pub(super) delivering: bool,
    /// The arguments of the ptrace call that the task is in.
    pub(super) ptrace: Option<Ptrace>,
}

impl TaskTrack {
    pub(super) fn new(task: TaskId, epoch: u64) -> Self {
        Self {
            task,
            epoch,
            loads: 0,
            window: None,
            maybe_done: false,
            copied: false,
            flushed: false,
            executing: false,
            exiting: false,
            saved_when_dead: false,
            dumped: false,
            marked: false,
            restoring: false,
            delivering: false,
            ptrace: None,
        }
    }

    /// Nothing is known of the task any more, but that it is there.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.task, UNKNOWN);
    }
}

/// A ptrace call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ptrace {
    request: u64,
    pub(super) target: u32,
    addr: u64,
}

impl Ptrace {
    /// From the text behind `sys_enter: `.
    pub(super) fn parse(call: &[u8]) -> Option<Self> {
        let (request, target, addr) = super::line::ptrace_args(call)?;
        Some(Self { request, target, addr })
    }

    /// Whether the call writes FPU registers (uapi/linux/ptrace.h, uapi/linux/elf.h).
    pub(super) fn writes_fpu(self) -> bool {
        const SETFPREGS: u64 = 15;
        const SETREGSET: u64 = 0x4205;
        const NT_PRFPREG: u64 = 2;
        const NT_X86_XSTATE: u64 = 0x202;
        match self.request {
            SETFPREGS => true,
            SETREGSET => self.addr == NT_PRFPREG || self.addr == NT_X86_XSTATE,
            _ => false,
        }
    }
}

/// What the next line of a CPU decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Pending {
    #[default]
    Nothing,
    /// A switch: saved if `prev` is deactivated.
    Switch { prev: u32, next: u32, dead: bool },
    /// A return to user: loaded if the task is activated.
    Return { pid: u32, expected: Option<bool> },
}

impl Pending {
    /// With other names for the tasks.
    pub(super) fn renamed(self, name: impl Fn(u32) -> u32) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::Switch { prev, next, dead } => Self::Switch { prev: name(prev), next: name(next), dead },
            Self::Return { pid, expected } => Self::Return { pid: name(pid), expected },
        }
    }

    /// Whether this line of the CPU is the one that says yes.
    pub(super) fn is_answered_by(self, pid: u32, what: What<'_>) -> bool {
        match self {
            Self::Nothing => false,
            Self::Switch { prev, .. } => what == What::Deactivated && pid == prev,
            Self::Return { pid: who, .. } => what == What::Activated && pid == who,
        }
    }
}

/// A CPU.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CpuTrack {
    /// Who runs; `None` before the first line and behind lost events.
    pub(super) current: Option<u32>,
    /// A pid, and the name that a line here has for it.
    pub(super) name: (u32, Name),
    /// Likewise, of the task that the last switch here is to.
    pub(super) next: (u32, Name),
    pub(super) pending: Pending,
    /// The line that opened it.
    pub(super) opened: u64,
    /// The task whose claim the exit of another took away here.
    pub(super) cleared: Option<TaskId>,
    /// The CPU has a line.
    pub(super) seen: bool,
    /// When the last line came.
    pub(super) last_us: u64,
    /// What had been decided by then.
    pub(super) decided: Mark,
    /// When the current task came.
    pub(super) since_us: u64,
}
