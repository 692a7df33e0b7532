//! Load at switch-in: every task in the kernel has its registers.

use super::{Facts, Form, InKernel, LoadRule, NotRunning, Policy, SaveRule};

const FORM: Form = Form::new(NotRunning::InMemory, InKernel::Loaded);

/// Saves at switch-out and loads at switch-in: Redox, Zircon, illumos, FreeBSD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Eager;

impl Policy for Eager {
    fn name(&self) -> &'static str {
        "eager"
    }

    fn form(&self) -> Form {
        FORM
    }

    fn switch_out(&self, _: Facts) -> SaveRule {
        SaveRule::Save
    }

    fn switch_in(&self, _: Facts) -> LoadRule {
        LoadRule::Always
    }

    fn return_to_user(&self, _: Facts) -> LoadRule {
        LoadRule::Defer
    }

    fn kernel_fpu_end(&self, _: Facts) -> LoadRule {
        LoadRule::Always
    }
}

/// As [`Eager`], but loads only what is no longer there: Linux 4.6 to 5.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EagerOwner;

impl Policy for EagerOwner {
    fn name(&self) -> &'static str {
        "eager-owner"
    }

    fn form(&self) -> Form {
        FORM
    }

    fn switch_out(&self, _: Facts) -> SaveRule {
        SaveRule::Save
    }

    fn switch_in(&self, _: Facts) -> LoadRule {
        LoadRule::UnlessValid
    }

    fn return_to_user(&self, _: Facts) -> LoadRule {
        LoadRule::Defer
    }

    fn kernel_fpu_end(&self, _: Facts) -> LoadRule {
        LoadRule::Always
    }
}
