//! Decide at the entry to the kernel.

use super::{Calls, Facts, Form, InKernel, LoadRule, NotRunning, Policy, SaveRule};
use crate::EntryKind;

/// Saves at kernel entry and loads at the return to user: Haiku, gVisor.
///
/// In the kernel the registers are nobody's, until a signal's frame or a verb needs them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EntryExit;

impl Policy for EntryExit {
    fn name(&self) -> &'static str {
        "entry-exit"
    }

    fn form(&self) -> Form {
        Form::new(NotRunning::InMemory, InKernel::InMemory)
    }

    fn entry(&self, _: EntryKind, _: Facts) -> SaveRule {
        SaveRule::Save
    }

    /// Nothing is left to save, but behind a verb or a step of a signal.
    fn switch_out(&self, _: Facts) -> SaveRule {
        SaveRule::Save
    }

    fn switch_in(&self, _: Facts) -> LoadRule {
        LoadRule::Defer
    }

    fn return_to_user(&self, _: Facts) -> LoadRule {
        LoadRule::Always
    }

    fn kernel_fpu_end(&self, _: Facts) -> LoadRule {
        LoadRule::Defer
    }
}

/// As [`OwnerSlot`](super::OwnerSlot), but a system call gives up all but the components with the control words: the
/// RISC-V vector and arm64 SVE system calls, cooperative runtimes.
///
/// A program that asks for the kernel calls it like a function, and a function keeps no vector register. What it gave up
/// is neither saved nor loaded. A program that was interrupted gave up nothing.
///
/// **It leaks across trust domains**: behind a system call a task finds in the other components what whoever ran there
/// before left. Between tasks that do not trust each other, something has to clear them (arm64 does).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CallBoundary;

impl Policy for CallBoundary {
    fn name(&self) -> &'static str {
        "call-boundary"
    }

    fn form(&self) -> Form {
        Form::new(NotRunning::InMemory, InKernel::Anywhere).with_calls(Calls::KeepControl)
    }

    fn entry(&self, _: EntryKind, _: Facts) -> SaveRule {
        SaveRule::GiveUp
    }

    fn switch_out(&self, _: Facts) -> SaveRule {
        SaveRule::Save
    }

    fn switch_in(&self, _: Facts) -> LoadRule {
        LoadRule::Defer
    }

    fn return_to_user(&self, _: Facts) -> LoadRule {
        LoadRule::UnlessValid
    }

    fn kernel_fpu_end(&self, _: Facts) -> LoadRule {
        LoadRule::Defer
    }
}
