//! Load when the first FPU instruction traps (#NM).
//!
//! Until then user code runs while the registers hold another task's state: a CPU that computes with them before the
//! trap is taken lets them be read (LazyFP, CVE-2018-3665). And PKRU cannot be left to the trap: a memory access
//! raises none.

use super::{Facts, Form, InKernel, InUser, LoadRule, NotRunning, Policy, SaveRule};

/// Saves at switch-out and loads at the first use: Linux before 4.6; without the count XNU, and FreeBSD once.
///
/// A task that has used the FPU in more than [`slices`](Self::slices) slices in a row is loaded at switch-in, unless
/// the registers are still its own. As in Linux (`fpu_counter` and `switch_fpu_prepare`, 3.x), such a slice counts as
/// one with a use, whether it is or not, and the count wraps at 256, where the trap has another look. The trap itself
/// always loads, without a look at the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TrapRestore {
    /// Behind more slices with a use in a row than that, the next is loaded without a trap.
    pub slices: u8,
}

impl TrapRestore {
    /// Linux's [`slices`](Self::slices).
    pub const SLICES: u8 = 5;

    /// The same with another number of slices; a small one keeps an exploration short.
    pub const fn behind(slices: u8) -> Self {
        Self { slices }
    }
}

impl Default for TrapRestore {
    /// As in Linux.
    fn default() -> Self {
        Self::behind(Self::SLICES)
    }
}

impl Policy for TrapRestore {
    fn name(&self) -> &'static str {
        "trap-restore"
    }

    fn form(&self) -> Form {
        Form::new(NotRunning::InMemory, InKernel::Anywhere).with_in_user(InUser::LoadedOrTrap)
    }

    fn switch_out(&self, _: Facts) -> SaveRule {
        SaveRule::Save
    }

    fn switch_in(&self, task: Facts) -> LoadRule {
        if task.uses > self.slices { LoadRule::UnlessValid } else { LoadRule::Trap }
    }

    fn first_use(&self, _: Facts) -> LoadRule {
        LoadRule::Always
    }

    fn return_to_user(&self, _: Facts) -> LoadRule {
        LoadRule::Defer
    }

    fn kernel_fpu_end(&self, _: Facts) -> LoadRule {
        LoadRule::Trap
    }

    fn counts_uses(&self) -> bool {
        true
    }
}

/// Saves when another task needs the registers, and loads at the first use: NetBSD up to 9, OpenBSD once, Hermit.
///
/// The only policy here under which the only copy of a task that runs user code can be on another CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FullLazy;

impl FullLazy {
    /// The trap is armed exactly where the registers are not the task's.
    fn trap_unless_valid(task: Facts) -> LoadRule {
        if task.valid { LoadRule::UnlessValid } else { LoadRule::Trap }
    }
}

impl Policy for FullLazy {
    fn name(&self) -> &'static str {
        "full-lazy"
    }

    fn form(&self) -> Form {
        Form::new(NotRunning::Anywhere, InKernel::Anywhere).with_in_user(InUser::TrapUnlessValid)
    }

    fn switch_out(&self, _: Facts) -> SaveRule {
        SaveRule::Keep
    }

    fn switch_in(&self, task: Facts) -> LoadRule {
        Self::trap_unless_valid(task)
    }

    fn return_to_user(&self, task: Facts) -> LoadRule {
        Self::trap_unless_valid(task)
    }

    fn kernel_fpu_end(&self, current: Facts) -> LoadRule {
        Self::trap_unless_valid(current)
    }
}
