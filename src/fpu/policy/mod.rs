//! When to save and when to load: the part of the protocol that kernels disagree on.
//!
//! A policy answers at fixed points, the hooks; the mechanism does the work, keeps the claims, and asks for
//! evictions and flushes. Whatever a policy answers, the mechanism does not load over another task's only copy,
//! and does not let a task reach user mode with need_fpu_load set, unless the first-use trap is armed. Two
//! answers lose a state: [`SaveRule::Keep`] at kernel FPU begin all of it, and [`SaveRule::GiveUp`] at the entry what a
//! system call does not keep, which the form has to say.
//!
//! | | entry | switch-out | switch-in | first use | return | kernel FPU begin / end |
//! |---|---|---|---|---|---|---|
//! | [`Eager`] | – | save | load | – | – | save / load |
//! | [`EagerOwner`] | – | save | load unless valid | – | – | save / load |
//! | [`TrapRestore`] | – | save | trap; after more than five slices with a use in a row, load unless valid | load | – | save / trap |
//! | [`FullLazy`] | – | – | trap unless valid | load unless valid | as at switch-in | save / as at switch-in |
//! | [`Deferred`] | – | save | – | – | load | save / – |
//! | [`OwnerSlot`] | – | save | – | – | load unless valid | save / – |
//! | [`LazySave`] | – | – | – | – | load unless valid | save / – |
//! | [`EntryExit`] | save, own nothing | save | – | – | load | save / – |
//! | [`CallBoundary`] | system call: give up all but the control words | save | – | – | load unless valid | save / – |
//! | [`UseClass`], FPU task | – | save | – | – | load unless valid | save / – |
//! | – , FPU-free task | – | save | trap | (a fault) | trap | save / trap |
//!
//! *Save* does nothing for a task whose image is the truth already, *load* nothing for one whose registers
//! are. *Trap* arms the first-use trap. At kernel FPU begin it is the owner of the registers that is saved,
//! whoever is current.
//!
//! What a policy promises beside the invariants that are the same for all is its [`Form`]:
//!
//! | | a task that is not running | the current task, in the kernel | the current task, in user mode |
//! |---|---|---|---|
//! | [`Eager`], [`EagerOwner`] | in memory | loaded | loaded |
//! | [`TrapRestore`] | in memory | anywhere | loaded, or the trap is armed |
//! | [`FullLazy`] | anywhere | anywhere | loaded, or else the trap is armed, never both |
//! | [`Deferred`], [`OwnerSlot`] | in memory | anywhere | loaded |
//! | [`LazySave`] | anywhere | anywhere | loaded |
//! | [`EntryExit`] | in memory | in memory from the entry on | loaded |
//! | [`CallBoundary`] | in memory | anywhere | loaded; a system call leaves the control words alone specified |
//! | [`UseClass`] | in memory | anywhere | FPU task: loaded; FPU-free task: the trap is armed |

mod class;
mod deferred;
mod eager;
mod entry;
mod lazy;
mod trap;

pub use class::UseClass;
pub use deferred::{Deferred, OwnerSlot};
pub use eager::{Eager, EagerOwner};
pub use entry::{CallBoundary, EntryExit};
pub use lazy::LazySave;
pub use trap::{FullLazy, TrapRestore};

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
    /// Leave it, and from here on save and load [`CALL_KEEPS`](super::CALL_KEEPS) alone: the rest of the state is
    /// unspecified, and the task may find another's there. At the entry by a system call only; elsewhere as `Keep`.
    GiveUp,
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
    /// First uses that trapped, and loads at switch-in, since the task was last switched out without its state
    /// in the registers: in how many consecutive slices it has used the FPU, unless kernel FPU sections made one
    /// slice trap several times. 0 unless the policy [counts](Policy::counts_uses) them. Wraps at 256.
    pub uses: u8,
    /// The task's program has no FPU instruction.
    pub fpu_free: bool,
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
    /// In memory from the entry on: need_fpu_load is set and no CPU claims the task, until a verb or a step of a
    /// signal loads it, or the return.
    InMemory,
}

/// What is in the registers while user code runs (the policy's form of I1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InUser {
    /// The task's state; the first-use trap is never armed.
    Loaded,
    /// The task's state, or the trap is armed.
    LoadedOrTrap,
    /// The trap is armed exactly where the registers are not valid for the task.
    TrapUnlessValid,
    /// The trap is armed exactly for FPU-free tasks; the others' state is loaded.
    TrapIfFpuFree,
}

/// What a program finds again behind a system call (the policy's form of S).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Calls {
    /// Every component.
    KeepAll,
    /// The components of [`CALL_KEEPS`](super::CALL_KEEPS); the others are unspecified.
    KeepControl,
}

/// The forms of the invariants that differ between policies. What a program sees is the same for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Form {
    /// I3, for tasks that are not running.
    pub not_running: NotRunning,
    /// A further promise for the current task in the kernel.
    pub in_kernel: InKernel,
    /// I1, for tasks in user mode.
    pub in_user: InUser,
    /// What S(t) is behind a system call.
    pub calls: Calls,
}

impl Form {
    /// The form with these promises, of a policy under which user code never runs without its registers.
    pub const fn new(not_running: NotRunning, in_kernel: InKernel) -> Self {
        Self { not_running, in_kernel, in_user: InUser::Loaded, calls: Calls::KeepAll }
    }

    /// The same for a policy that lets system calls give components up.
    pub const fn with_calls(self, calls: Calls) -> Self {
        Self { calls, ..self }
    }

    /// The same for a policy that arms the first-use trap.
    pub const fn with_in_user(self, in_user: InUser) -> Self {
        Self { in_user, ..self }
    }

    /// Whether user code may run while the registers hold another task's state, behind an armed trap: what LazyFP
    /// (CVE-2018-3665) reads.
    pub fn lets_foreign_registers_into_user_mode(&self) -> bool {
        self.in_user != InUser::Loaded
    }
}

/// A switching policy.
///
/// `Clone + Eq + Hash` because it is part of a machine's state. It decides from what it is told, and keeps
/// nothing; the one count that a policy can ask for is kept with the task ([`counts_uses`](Self::counts_uses)).
pub trait Policy: Clone + Eq + Hash + Debug {
    /// The name, as in the table of [`policy`](self).
    fn name(&self) -> &'static str;

    /// Which forms of the invariants hold under this policy.
    fn form(&self) -> Form;

    /// The task enters the kernel. [`SaveRule::Save`] also clears the owner: the registers are nobody's then.
    /// [`SaveRule::GiveUp`] counts for system calls.
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

    /// Whether the mechanism counts the slices in which each task uses the FPU, for [`Facts::uses`]: a first use
    /// or a load at switch-in counts one up, a slice that ends without its state in the registers begins anew.
    fn counts_uses(&self) -> bool {
        false
    }

    /// A planted error in the mechanism below; `None`, but for a checker's negative controls.
    #[cfg(feature = "explore")]
    fn defect(&self) -> Option<super::Defect> {
        None
    }
}

/// Every [`Facts`] with that count of uses.
#[cfg(feature = "explore")]
fn all_facts(uses: u8) -> impl Iterator<Item = Facts> {
    let flags = (0..8).map(|bits: u8| [0, 1, 2].map(|bit| bits >> bit & 1 == 1));
    flags.map(move |[valid, need_fpu_load, fpu_free]| Facts { valid, need_fpu_load, uses, fpu_free })
}

/// Whether it makes a difference under the policy that a task enters the kernel by a system call.
#[cfg(feature = "explore")]
pub(crate) fn tells_calls(policy: &impl Policy) -> bool {
    // What is given up is so at a system call alone, whatever the policy says at other entries.
    let gives_up = |facts| policy.entry(EntryKind::SystemCall, facts) == SaveRule::GiveUp;
    policy.form().calls != Calls::KeepAll
        || tells_entry(policy, EntryKind::SystemCall)
        || (0..=u8::MAX).flat_map(all_facts).any(gives_up)
}

/// Whether the policy decides otherwise at entries of that kind than at interrupts.
#[cfg(feature = "explore")]
pub(crate) fn tells_entry(policy: &impl Policy, kind: EntryKind) -> bool {
    let differs = |facts| policy.entry(kind, facts) != policy.entry(EntryKind::Interrupt, facts);
    (0..=u8::MAX).flat_map(all_facts).any(differs)
}

/// Whether a return under the policy may leave the first-use trap as it is.
#[cfg(feature = "explore")]
pub(crate) fn may_keep_trap(policy: &impl Policy) -> bool {
    (0..=u8::MAX).flat_map(all_facts).any(|facts| policy.return_to_user(facts) == LoadRule::Defer)
}

/// What all hooks answer.
#[cfg(feature = "explore")]
fn answers(policy: &impl Policy, facts: Facts) -> ([SaveRule; 4], [LoadRule; 7]) {
    let saves = [
        policy.entry(EntryKind::SystemCall, facts),
        policy.entry(EntryKind::Exception, facts),
        policy.entry(EntryKind::Interrupt, facts),
        policy.switch_out(facts),
    ];
    let loads = [
        policy.switch_in(facts),
        policy.first_use(facts),
        policy.return_to_user(facts),
        policy.kernel_fpu_end(facts),
        policy.release(Release::Exec, facts),
        policy.release(Release::Exit, facts),
        policy.release(Release::Fork, facts),
    ];
    (saves, loads)
}

/// Whether it makes a difference under the policy that a program has no FPU instruction.
#[cfg(feature = "explore")]
pub(crate) fn tells_fpu_free(policy: &impl Policy) -> bool {
    let differs = |facts: Facts| {
        let other = Facts { fpu_free: !facts.fpu_free, ..facts };
        answers(policy, facts) != answers(policy, other)
    };
    policy.form().in_user == InUser::TrapIfFpuFree || (0..=u8::MAX).flat_map(all_facts).any(differs)
}

/// The count of [`Facts::uses`] from which on the policy answers the same, whatever the rest.
#[cfg(feature = "explore")]
pub(crate) fn most_uses_told_apart(policy: &impl Policy) -> u8 {
    if !policy.counts_uses() {
        return 0;
    }
    let answers = |uses| all_facts(uses).map(|facts| answers(policy, facts)).collect::<alloc::vec::Vec<_>>();
    let last = answers(u8::MAX);
    (0..u8::MAX).rev().take_while(|uses| answers(*uses) == last).last().unwrap_or(u8::MAX)
}

/// The policies of this crate, to be chosen by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Builtin {
    /// [`Eager`]
    Eager,
    /// [`EagerOwner`]
    EagerOwner,
    /// [`TrapRestore`]
    TrapRestore,
    /// [`FullLazy`]
    FullLazy,
    /// [`Deferred`]
    Deferred,
    /// [`OwnerSlot`]
    OwnerSlot,
    /// [`LazySave`]
    LazySave,
    /// [`EntryExit`]
    EntryExit,
    /// [`CallBoundary`]
    CallBoundary,
    /// [`UseClass`]
    UseClass,
}

impl Builtin {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 10] = [
        Self::Eager,
        Self::EagerOwner,
        Self::TrapRestore,
        Self::FullLazy,
        Self::Deferred,
        Self::OwnerSlot,
        Self::LazySave,
        Self::EntryExit,
        Self::CallBoundary,
        Self::UseClass,
    ];
}

/// Calls a method of the policy that a [`Builtin`] names.
macro_rules! named {
    ($self:ident, $policy:ident => $call:expr) => {
        named!(@each $self, $policy, $call;
            Eager EagerOwner TrapRestore FullLazy Deferred OwnerSlot LazySave EntryExit CallBoundary
            UseClass)
    };
    (@each $self:ident, $policy:ident, $call:expr; $($name:ident)*) => {
        match $self {
            $(Builtin::$name => {
                let $policy = $name::default();
                $call
            })*
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

    fn counts_uses(&self) -> bool {
        named!(self, policy => policy.counts_uses())
    }
}

/// A name that no policy of this crate has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no such policy; there are eager, eager-owner, trap-restore, full-lazy, deferred, owner-slot, lazy-save, entry-exit, call-boundary and use-class"
)]
pub struct UnknownPolicy;

impl FromStr for Builtin {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL.into_iter().find(|policy| policy.name() == name).ok_or(UnknownPolicy)
    }
}
