//! Save at the entry to the kernel.

use super::{Facts, Form, InKernel, LoadRule, NotRunning, Policy, SaveRule};
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
