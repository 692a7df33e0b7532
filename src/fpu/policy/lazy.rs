//! Save only when another task needs the registers.

use super::{Facts, Form, InKernel, LoadRule, NotRunning, Policy, SaveRule};

/// Leaves a task's only copy in the registers when it is switched out: seL4.
///
/// The copy is saved when another task is loaded there, when kernel code uses the registers, and when the
/// task moves to another CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LazySave;

impl Policy for LazySave {
    fn name(&self) -> &'static str {
        "lazy-save"
    }

    fn form(&self) -> Form {
        Form::new(NotRunning::Anywhere, InKernel::Anywhere)
    }

    fn switch_out(&self, _: Facts) -> SaveRule {
        SaveRule::Keep
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
