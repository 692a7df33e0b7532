//! Save at switch-out, load at the return to user mode.

use super::{Facts, Form, InKernel, LoadRule, NotRunning, Policy, SaveRule};

const FORM: Form = Form::new(NotRunning::InMemory, InKernel::Anywhere);

/// Loads at every return with need_fpu_load set, without a look at the owner: OpenBSD, Asterinas, NetBSD 10.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Deferred;

impl Policy for Deferred {
    fn name(&self) -> &'static str {
        "deferred"
    }

    fn form(&self) -> Form {
        FORM
    }

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

/// Loads at the return unless the registers are still the task's: the 2016 patch series, Linux from 5.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OwnerSlot;

impl Policy for OwnerSlot {
    fn name(&self) -> &'static str {
        "owner-slot"
    }

    fn form(&self) -> Form {
        FORM
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
