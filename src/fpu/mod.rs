//! The protocol: which copy of a task's FPU state is valid, who may claim it, and when it moves.
//!
//! Pure functions over the parties: a task's [`Fpstate`], a CPU's slot and registers (together a
//! [`PreemptOff`] section), and a [`Policy`]. No ids into a store, no threads, no asm, so that a simulated
//! machine, a checker and a runtime on real registers run the same code.
//!
//! # Where the newest state is
//!
//! | state | newest in | need_fpu_load | [valid](Fpstate::is_valid_on) |
//! |---|---|---|---|
//! | 1 | the registers only; user code may be writing them | clear | yes, on one CPU |
//! | 2a | both, equal; nobody may write either | set | yes, on one CPU |
//! | 2b | memory only | set | no |
//!
//! `valid(task, cpu) := owner[cpu] == task && last_cpu[task] == cpu`. A claim has two halves so that either
//! side can break it alone, and **the two ways to break it are not interchangeable**:
//!
//! - whoever changes the *image* resets the task's `last_cpu`: no CPU may claim it any more;
//! - whoever clobbers *registers* clears the CPU's `owner`: no task may claim that CPU any more.
//!
//! # Sections and what they ask for
//!
//! Every function here is one preemption-off section. It either happens whole or changes nothing and asks
//! for something else first: a [`Before`]. The caller does that and calls again. An operation that cannot be
//! one section, such as signal delivery, is an enum of steps kept with the task ([`SignalStep`]), one call
//! each, and anything may happen in between. A guest ([`Guest`]) and the growth of an area ([`dynamic_use`]) have
//! their steps too.
//!
//! `docs/protocol.md` has a row for each event and each invariant.

mod access;
mod defect;
mod dynamic;
mod fpstate;
mod guest;
mod kernel_fpu;
mod lifecycle;
mod owner;
mod pkru;
pub mod policy;
mod signal;
mod switch;

pub use access::{copy_to_cpu, copy_to_memory, move_to_cpu, move_to_memory, read, write, write_image};
#[cfg(not(feature = "explore"))]
pub(crate) use defect::Defect;
#[cfg(feature = "explore")]
pub use defect::Defect;
pub use dynamic::{DynamicUse, dynamic_grow, dynamic_use, permit};
pub use fpstate::{Fpstate, TaskKind};
pub use guest::{Guest, guest_enter, guest_exit, guest_load, guest_put};
pub use kernel_fpu::{
    NotUsable, kernel_fpu_begin, kernel_fpu_end, kernel_fpu_usable, softirq_begin, softirq_end,
};
pub use lifecycle::{exec, exit, fork, invalidate_registers, offline, online, power_loss};
pub use owner::{OwnerSlot, PreemptOff, Validity};
pub use pkru::{PkruMode, PkruNeedsEager, UserAccess, read_pkru, user_memory, write_pkru};
pub use policy::{Facts, Form, LoadRule, Policy, SaveRule};
pub use signal::{
    FaultIn, FrameLoad, FrameSave, SignalStep, signal_deliver, signal_enter, signal_fault_in, signal_save,
    sigreturn, sigreturn_copy, sigreturn_load,
};
pub use switch::{entry, first_use, migrate, resume, return_to_user, switch_in, switch_out};

use crate::{Component, ComponentSet, CpuId, EntryKind, TaskId};

/// What a system call keeps under a policy that lets it give up the rest ([`SaveRule::GiveUp`]): the components that
/// hold the control words, FCW and MXCSR. A register file may move these words alone
/// ([`save_control`](crate::registers::RegisterFile::save_control)); those that this crate's machines run on move the components
/// whole, vector registers of SSE and all.
pub const CALL_KEEPS: ComponentSet = ComponentSet::EMPTY.with(Component::X87).with(Component::SSE);

/// What has to be done before a protocol function can do its work. Nothing has changed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Before {
    /// This CPU's registers hold this task's only copy: save it here ([`copy_to_memory`]).
    Evict(TaskId),
    /// The task's newest state is in that CPU's registers: save it there ([`copy_to_memory`]).
    Flush {
        /// The CPU that holds the state.
        cpu: CpuId,
        /// The task.
        task: TaskId,
    },
    /// The task runs user code on that CPU: bring it into the kernel there ([`entry`]).
    Interrupt {
        /// The CPU.
        cpu: CpuId,
    },
}

/// What became of a save.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Save {
    /// The registers were saved to memory.
    Saved,
    /// What a system call keeps was saved to memory; the rest is unspecified.
    SavedKept,
    /// Nothing to do: memory holds the state already.
    AlreadyInMemory,
    /// The policy left the state in the registers.
    Kept,
    /// Nothing to do: the task has no FPU state.
    NotUser,
}

/// What became of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Load {
    /// The registers were restored from memory.
    Restored,
    /// What a system call keeps was restored from memory; the rest is unspecified, and may be another task's.
    RestoredKept,
    /// The restore was skipped: the task comes back, and the registers still hold its state.
    Skipped,
    /// Nothing to do: the registers are the truth.
    AlreadyLive,
    /// The policy put the load off.
    Deferred,
    /// The policy put the load off until the first FPU instruction traps.
    TrapArmed,
    /// The image was refused; the task goes on in the initial configuration.
    Initialised,
    /// Nothing to do: the task has no FPU state.
    NotUser,
}
