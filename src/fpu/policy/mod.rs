//! When to save and when to load: the part of the protocol that kernels disagree on.
//!
//! A policy answers at fixed points, the hooks; the mechanism does the work, keeps the claims, and asks for
//! evictions and flushes. Whatever a policy answers, the mechanism does not load over another task's only copy,
//! and does not let a task reach user mode with need_fpu_load set, unless the first-use trap is armed. The one
//! answer that loses a state is [`SaveRule::Keep`] at kernel FPU begin.
//!
//! | | entry | switch-out | switch-in | first use | return | kernel FPU begin / end |
//! |---|---|---|---|---|---|---|
//! | [`Eager`] | – | save | load | – | – | save / load |
//! | [`EagerOwner`] | – | save | load unless valid | – | – | save / load |
//! | [`Deferred`] | – | save | – | – | load | save / – |
//! | [`OwnerSlot`] | – | save | – | – | load unless valid | save / – |
//! | [`LazySave`] | – | – | – | – | load unless valid | save / – |
//!
//! *Save* does nothing for a task whose image is the truth already, *load* nothing for one whose registers
//! are. At kernel FPU begin it is the owner of the registers that is saved, whoever is current.

mod deferred;
mod eager;
mod lazy;

pub use deferred::{Deferred, OwnerSlot};
pub use eager::{Eager, EagerOwner};
pub use lazy::LazySave;

use super::Defect;
use crate::EntryKind;
use core::{fmt::Debug, hash::Hash, str::FromStr};

/// Whether a hook saves the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SaveRule {
    /// Leave the state where it is.
    Keep,
    /// Save it unless memory holds it already.
    Save,
}

/// Whether a hook loads the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LoadRule {
    /// Leave it to a later hook.
    Defer,
    /// Load unless the registers are still valid for the task.
    UnlessValid,
    /// Load whenever memory is the truth, without a look at the owner.
    Always,
    /// Arm the first-use trap instead.
    Trap,
}

/// What a hook is told about the task it decides for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// This CPU's registers hold the task's state.
    pub valid: bool,
    /// The image is the truth.
    pub need_fpu_load: bool,
}

/// Why a state was thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Release {
    /// The task starts a new program.
    Exec,
    /// The task is dead.
    Exit,
    /// The task is a new child.
    Fork,
}

/// Where the state of a task that is not running is (the policy's form of I3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotRunning {
    /// In memory: need_fpu_load is set.
    InMemory,
    /// In memory, or in the registers of one CPU that owns it.
    Anywhere,
}

/// Where the state of the current task is while it runs in the kernel, outside kernel FPU sections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InKernel {
    /// In the registers: need_fpu_load is clear.
    Loaded,
    /// In either place.
    Anywhere,
}

/// The forms of the invariants that differ between policies. What a program sees (I1, I2, I7) is the same
/// for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Form {
    /// I3, for tasks that are not running.
    pub not_running: NotRunning,
    /// A further promise for the current task in the kernel.
    pub in_kernel: InKernel,
}

impl Form {
    /// The form with these promises, and no others.
    pub const fn new(not_running: NotRunning, in_kernel: InKernel) -> Self {
        Self { not_running, in_kernel }
    }
}

/// A switching policy.
///
/// `Clone + Eq + Hash` because it is part of a machine's state. It decides from what it is told, and keeps
/// nothing.
pub trait Policy: Clone + Eq + Hash + Debug {
    /// The name, as in the table of [`policy`](self).
    fn name(&self) -> &'static str;

    /// Which forms of the invariants hold under this policy.
    fn form(&self) -> Form;

    /// The task enters the kernel. [`SaveRule::Save`] also gives its registers up: it does not own them then.
    fn entry(&self, _kind: EntryKind, _task: Facts) -> SaveRule {
        SaveRule::Keep
    }

    /// The task is switched out.
    fn switch_out(&self, task: Facts) -> SaveRule;

    /// The task is switched in.
    fn switch_in(&self, task: Facts) -> LoadRule;

    /// The task's first FPU instruction trapped. Asked only if the policy armed the trap.
    fn first_use(&self, _task: Facts) -> LoadRule {
        LoadRule::UnlessValid
    }

    /// The task returns to user mode. [`LoadRule::Defer`] says that an earlier hook has loaded; if something
    /// has set need_fpu_load since (a ptrace write, say), the mechanism loads all the same.
    fn return_to_user(&self, task: Facts) -> LoadRule;

    /// Kernel code is about to use the registers. [`SaveRule::Keep`] loses the only copy that they may hold.
    fn kernel_fpu_begin(&self) -> SaveRule {
        SaveRule::Save
    }

    /// The current task's registers were taken from it, and are free again.
    fn kernel_fpu_end(&self, current: Facts) -> LoadRule;

    /// A state was thrown away. The answer counts for [`Release::Exec`], where the task goes on.
    fn release(&self, _why: Release, task: Facts) -> LoadRule {
        self.kernel_fpu_end(task)
    }

    /// A planted error in the mechanism below; `None`, but for a checker's negative controls.
    fn defect(&self) -> Option<Defect> {
        None
    }
}

/// The policies of this crate, to be chosen by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Builtin {
    /// [`Eager`]
    Eager,
    /// [`EagerOwner`]
    EagerOwner,
    /// [`Deferred`]
    Deferred,
    /// [`OwnerSlot`]
    OwnerSlot,
    /// [`LazySave`]
    LazySave,
}

impl Builtin {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 5] =
        [Self::Eager, Self::EagerOwner, Self::Deferred, Self::OwnerSlot, Self::LazySave];
}

/// Calls a method of the policy that a [`Builtin`] names.
macro_rules! named {
    ($self:ident, $policy:ident => $call:expr) => {
        match $self {
            Builtin::Eager => {
                let $policy = Eager;
                $call
            }
            Builtin::EagerOwner => {
                let $policy = EagerOwner;
                $call
            }
            Builtin::Deferred => {
                let $policy = Deferred;
                $call
            }
            Builtin::OwnerSlot => {
                let $policy = OwnerSlot;
                $call
            }
            Builtin::LazySave => {
                let $policy = LazySave;
                $call
            }
        }
    };
}

impl Policy for Builtin {
    fn name(&self) -> &'static str {
        named!(self, policy => policy.name())
    }

    fn form(&self) -> Form {
        named!(self, policy => policy.form())
    }

    fn entry(&self, kind: EntryKind, task: Facts) -> SaveRule {
        named!(self, policy => policy.entry(kind, task))
    }

    fn switch_out(&self, task: Facts) -> SaveRule {
        named!(self, policy => policy.switch_out(task))
    }

    fn switch_in(&self, task: Facts) -> LoadRule {
        named!(self, policy => policy.switch_in(task))
    }

    fn first_use(&self, task: Facts) -> LoadRule {
        named!(self, policy => policy.first_use(task))
    }

    fn return_to_user(&self, task: Facts) -> LoadRule {
        named!(self, policy => policy.return_to_user(task))
    }

    fn kernel_fpu_begin(&self) -> SaveRule {
        named!(self, policy => policy.kernel_fpu_begin())
    }

    fn kernel_fpu_end(&self, current: Facts) -> LoadRule {
        named!(self, policy => policy.kernel_fpu_end(current))
    }

    fn release(&self, why: Release, task: Facts) -> LoadRule {
        named!(self, policy => policy.release(why, task))
    }
}

/// A name that no policy of this crate has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such policy; there are eager, eager-owner, deferred, owner-slot and lazy-save")]
pub struct UnknownPolicy;

impl FromStr for Builtin {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL.into_iter().find(|policy| policy.name() == name).ok_or(UnknownPolicy)
    }
}
