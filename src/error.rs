//! Events that a machine refuses.

use crate::{Component, CpuId, FrameChange, KernelContext, TaskId, fpu::SignalStep, xstate::ViewError};
use core::fmt;

/// Who runs on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Current {
    /// Nobody: between schedule-out and schedule-in.
    Switching,
    /// The idle task.
    Idle,
    /// A task.
    Task(TaskId),
}

impl fmt::Display for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switching => f.write_str("between two tasks"),
            Self::Idle => f.write_str("idle"),
            Self::Task(task) => write!(f, "running {task}"),
        }
    }
}

/// An event that cannot happen in the state that the machine is in. The machine is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// The CPU does not exist.
    #[error("{cpu} does not exist: the machine has {cpus} CPUs, from c0")]
    UnknownCpu {
        /// The CPU named.
        cpu: CpuId,
        /// How many there are.
        cpus: usize,
    },
    /// The CPU is offline.
    #[error("{0} is offline")]
    Offline(CpuId),
    /// The CPU is online.
    #[error("{0} is online already")]
    Online(CpuId),
    /// The task does not exist.
    #[error("{0} does not exist")]
    UnknownTask(TaskId),
    /// The task is dead and its slot belongs to another.
    #[error("{named} is dead: its slot holds {holds}")]
    ReusedSlot {
        /// The task named.
        named: TaskId,
        /// The task in its slot.
        holds: TaskId,
    },
    /// A new task was given the slot of one that is not gone.
    #[error("slot of {new} still belongs to {holds}, which has not exited or still runs")]
    SlotInUse {
        /// The new task.
        new: TaskId,
        /// The task in its slot.
        holds: TaskId,
    },
    /// A new task has a slot or a generation that is not the next one.
    #[error("{new} cannot be next: expected {expected}")]
    NotNext {
        /// The new task.
        new: TaskId,
        /// The name that is next for this slot, or for a new slot.
        expected: TaskId,
    },
    /// The event needs a current task.
    #[error("{cpu} is {current}: the event needs a task running there")]
    NoTask {
        /// The CPU.
        cpu: CpuId,
        /// Who runs there.
        current: Current,
    },
    /// The event names a task that is not the current one.
    #[error("{cpu} is {current}, not {named}")]
    NotCurrent {
        /// The CPU.
        cpu: CpuId,
        /// The task named.
        named: TaskId,
        /// Who runs there.
        current: Current,
    },
    /// The event needs a CPU on which nobody runs yet, or nobody runs at all.
    #[error("{cpu} is {current}: expected {expected}")]
    Busy {
        /// The CPU.
        cpu: CpuId,
        /// Who runs there.
        current: Current,
        /// What is expected.
        expected: &'static str,
    },
    /// The task runs on a CPU already.
    #[error("{task} runs on {cpu}")]
    Running {
        /// The task.
        task: TaskId,
        /// The CPU.
        cpu: CpuId,
    },
    /// The event happens in the kernel, and the task runs user code.
    #[error("{task} runs user code on {cpu}: expected its kernel entry first")]
    InUserMode {
        /// The CPU.
        cpu: CpuId,
        /// The task.
        task: TaskId,
    },
    /// The event happens in user mode, and the task is in the kernel.
    #[error("{task} is in the kernel on {cpu}: expected its return to user first")]
    InKernel {
        /// The CPU.
        cpu: CpuId,
        /// The task.
        task: TaskId,
    },
    /// Kernel FPU sections do not nest (invariant I11).
    #[error("kernel FPU section ({new:?}) inside another ({open:?}) on {cpu}")]
    NestedKernelFpu {
        /// The CPU.
        cpu: CpuId,
        /// The section that is open.
        open: KernelContext,
        /// The new one.
        new: KernelContext,
    },
    /// A kernel FPU section is open: preemption is off on that CPU, and the task does nothing else.
    #[error("a kernel FPU section ({open:?}) is open on {cpu}: expected its end first")]
    InKernelFpu {
        /// The CPU.
        cpu: CpuId,
        /// The section.
        open: KernelContext,
    },
    /// There is no kernel FPU section to end.
    #[error("no kernel FPU section is open on {0}")]
    NoKernelFpu(CpuId),
    /// The task has exited.
    #[error("{0} has exited")]
    Exited(TaskId),
    /// The task is a kernel thread.
    #[error("{0} is a kernel thread and has no FPU state")]
    NotUser(TaskId),
    /// The task is FPU-free: an FPU instruction of its is a fault, and is never executed.
    #[error("{0} is FPU-free: expected fpu-fault for an FPU instruction of its")]
    FpuFree(TaskId),
    /// The task is not FPU-free.
    #[error("{0} is not FPU-free: expected fpu-free first")]
    NotFpuFree(TaskId),
    /// The task is at another step of a signal delivery or return.
    #[error("{task} is at signal step {step:?}: expected {expected}")]
    WrongStep {
        /// The task.
        task: TaskId,
        /// Where it is.
        step: SignalStep,
        /// What is expected.
        expected: &'static str,
    },
    /// The task has no signal frame.
    #[error("{0} has no signal frame")]
    NoFrame(TaskId),
    /// A softirq is being served on that CPU: its current task does nothing else.
    #[error("a softirq is being served on {0}: expected its end first")]
    InSoftIrq(CpuId),
    /// There is no softirq to end.
    #[error("no softirq is being served on {0}")]
    NoSoftIrq(CpuId),
    /// The kernel's rule says no: a softirq is being served on that CPU.
    #[error("the FPU is not usable ({context:?}) on {cpu} while a softirq is being served there")]
    FpuNotUsable {
        /// The CPU.
        cpu: CpuId,
        /// Who wants to use it.
        context: KernelContext,
    },
    /// The state of the task's vCPU is loaded.
    #[error("the guest of {0} is loaded: expected guest-put first")]
    GuestLoaded(TaskId),
    /// The state of the task's vCPU is not loaded.
    #[error("the guest of {0} is not loaded: expected guest-load first")]
    GuestNotLoaded(TaskId),
    /// The task's guest runs, not its program.
    #[error("{cpu} runs the guest of {task}: expected guest-exit first")]
    InGuest {
        /// The CPU.
        cpu: CpuId,
        /// The task.
        task: TaskId,
    },
    /// The task's program runs, not its guest.
    #[error("{cpu} runs the program of {task}, not its guest")]
    NotInGuest {
        /// The CPU.
        cpu: CpuId,
        /// The task.
        task: TaskId,
    },
    /// The register file has no such dynamic component.
    #[error("{0} is no dynamic component of this machine")]
    NotDynamic(Component),
    /// XFD disables the component: an instruction that needs it cannot retire.
    #[error("XFD disables {component} on {cpu}: expected dynamic-use first")]
    Disabled {
        /// The CPU.
        cpu: CpuId,
        /// The component.
        component: Component,
    },
    /// XFD does not disable the component: no instruction traps.
    #[error("XFD does not disable {component} on {cpu}")]
    NotDisabled {
        /// The CPU.
        cpu: CpuId,
        /// The component.
        component: Component,
    },
    /// The task has come to no dynamic component that it may use and has no room for.
    #[error("{0} wants no dynamic component: expected a dynamic-use that is permitted first")]
    WantsNothing(TaskId),
    /// A signal frame of this machine has no such field.
    #[error("the signal frames of this machine have nothing that {0:?} could change")]
    NotInFrame(FrameChange),
    /// The register file has no such component, or the component is not kept in images.
    #[error("{0} is no component of this machine's images")]
    NoComponent(Component),
    /// The first FPU instruction on that CPU traps: it cannot retire.
    #[error("the first-use trap is armed on {0}: expected first-use first")]
    TrapArmed(CpuId),
    /// No first-use trap is armed on that CPU.
    #[error("no first-use trap is armed on {0}")]
    NoTrap(CpuId),
}

/// Why a register set can not be read or written. The machine is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegsetError {
    /// The task cannot be accessed now.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The bytes are refused, or there is no such form of the image.
    #[error(transparent)]
    View(#[from] ViewError),
}
