//! Everything that can happen, one value and one line of text each.
//!
//! `docs/events.md` holds the grammar, `docs/protocol.md` what each event requires, does and leaves behind.

mod file;
mod text;

pub use file::{EventFile, EventFileError};
pub use text::ParseEventError;

use crate::{Component, CpuId, PageAccess, Pkru, TaskId, Value};

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
    /// Its pages are no longer present: the next access faults.
    Absent,
    /// All of its pages but the first are no longer present: an access gets as far as legacy region and header.
    RestAbsent,
    /// Its pages are unmapped: an access faults, and no page can be faulted in.
    Unmapped,
    /// Its header asks for what the restore instruction refuses.
    BadHeader,
    /// Its MXCSR has reserved bits, which the restore instruction refuses.
    BadMxcsr,
    /// FP_XSTATE_MAGIC1 is gone: what is behind the legacy region does not count.
    BadMagic,
    /// Its software bytes say a size of 0, which is less than legacy region and header: only the legacy region counts.
    BadSize,
    /// XSTATE_BV says that it holds x87 and SSE only.
    Short,
    /// PKRU in it is another, with the bit in the header set; `None`: the bit is clear, which means 0.
    Pkru(Option<Pkru>),
}

/// One thing that happens to a simulated machine. Events on a CPU act on that CPU's current task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// A user task appears, in the initial configuration, on no CPU.
    Spawn(TaskId),
    /// A kernel thread appears, on no CPU.
    KernelThread(TaskId),
    /// The program of a user task that is not in user mode has no FPU instruction: the task is FPU-free, and so are its
    /// children, until it starts another program.
    FpuFree(TaskId),
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
    /// The current task, which is FPU-free, comes to an FPU instruction all the same: it is not executed, and the
    /// task enters the kernel (an exception).
    FpuFault(CpuId),
    /// Kernel code begins to use the registers.
    KernelFpuBegin(CpuId, KernelContext),
    /// Kernel code is done with them.
    KernelFpuEnd(CpuId),
    /// A softirq begins to be served: until its end nothing else happens on the CPU but kernel FPU sections of its own.
    SoftIrqBegin(CpuId),
    /// The softirq is served.
    SoftIrqEnd(CpuId),
    /// A task that is not running is moved to another CPU's queue.
    Migrate(TaskId, CpuId),
    /// The current task makes a child, a user task that starts with a copy of its state.
    Fork(CpuId, TaskId),
    /// The current task makes a user worker (io_uring, vhost): it runs in the kernel only, on the program's memory.
    UserWorker(CpuId, TaskId),
    /// The current task starts a new program in the initial configuration.
    Exec(CpuId),
    /// The current task dies; it stays current until it is switched out, and never runs user code again.
    Exit(CpuId),
    /// Another task's component is read (ptrace, core dump).
    Read(TaskId, Component),
    /// Another task's component is written (ptrace).
    Write(TaskId, Component, Value),
    /// User code writes a component of its own registers.
    UserWrite(CpuId, Component, Value),
    /// User code writes PKRU.
    UserPkru(CpuId, Pkru),
    /// The kernel writes the PKRU of the current task (execute-only pages, a new key).
    KernelPkru(CpuId, Pkru),
    /// Another task's PKRU is read (ptrace).
    ReadPkru(TaskId),
    /// Another task's PKRU is written (ptrace); `None`: by an image whose header bit is clear, which means 0.
    WritePkru(TaskId, Option<Pkru>),
    /// Kernel code on a CPU accesses a page of a task's user memory: the current task's own, which PKRU guards, or that
    /// of another, which it does not.
    UserMemory(CpuId, TaskId, PageAccess),
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
    /// Signal return copies the frame to a kernel buffer instead, and makes it the task's image (the slow path).
    SigReturnCopy(CpuId),
    /// The newest frame of a task changes in user memory.
    Frame(TaskId, FrameChange),
    /// The current task gets the state of its vCPU: the two images change places. The first time there is a new vCPU.
    GuestLoad(CpuId),
    /// The current task gets its own state back.
    GuestPut(CpuId),
    /// The current task enters its guest.
    GuestEnter(CpuId),
    /// The guest leaves to the kernel.
    GuestExit(CpuId),
    /// The current task's program is permitted to use a dynamic component.
    Permit(CpuId, Component),
    /// User code comes to an instruction that needs a component which XFD disables (#NM): the task enters the kernel.
    DynamicUse(CpuId, Component),
    /// The kernel gives the current task the room that it asked for so.
    DynamicGrow(CpuId),
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
            Spawn(_) | KernelThread(_) | FpuFree(_) | Read(..) | Write(..) | ReadPkru(_) | WritePkru(..)
            | Frame(..) => None,
            Entry(cpu, _)
            | ScheduleOut(cpu)
            | ScheduleIn(cpu, _)
            | Idle(cpu)
            | Return(cpu, _)
            | FirstUse(cpu)
            | FpuFault(cpu)
            | KernelFpuBegin(cpu, _)
            | KernelFpuEnd(cpu)
            | SoftIrqBegin(cpu)
            | SoftIrqEnd(cpu)
            | Migrate(_, cpu)
            | Fork(cpu, _)
            | UserWorker(cpu, _)
            | Exec(cpu)
            | Exit(cpu)
            | UserWrite(cpu, ..)
            | UserPkru(cpu, _)
            | KernelPkru(cpu, _)
            | UserMemory(cpu, ..)
            | Access(cpu, _)
            | InvalidateRegisters(cpu)
            | SignalDeliver(cpu)
            | SignalSave(cpu)
            | SignalFaultIn(cpu)
            | SignalEnter(cpu)
            | SigReturn(cpu)
            | SigReturnLoad(cpu)
            | SigReturnCopy(cpu)
            | GuestLoad(cpu)
            | GuestPut(cpu)
            | GuestEnter(cpu)
            | GuestExit(cpu)
            | Permit(cpu, _)
            | DynamicUse(cpu, _)
            | DynamicGrow(cpu)
            | Offline(cpu)
            | Online(cpu)
            | PowerLoss(cpu) => Some(cpu),
        }
    }
}
