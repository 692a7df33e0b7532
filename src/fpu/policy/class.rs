//! Tell tasks that use the FPU from those that never do.

use super::{Facts, Form, InKernel, InUser, LoadRule, NotRunning, Policy, SaveRule};

/// As [`OwnerSlot`](super::OwnerSlot) for tasks that use the FPU; FPU-free tasks are skipped: Theseus, seL4's flag.
///
/// An FPU-free task runs with the FPU switched off, which is the armed trap, and over whatever registers are there. An
/// FPU instruction of its is a fault, and is never executed: nothing is loaded for it. Where the CPU computes with the
/// registers before it takes the trap, they can be read (LazyFP) by a task that has such instructions after all; a
/// compiler that emits none (Theseus) leaves nothing to read them with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UseClass;

impl UseClass {
    fn trap_if_fpu_free(task: Facts, otherwise: LoadRule) -> LoadRule {
        if task.fpu_free { LoadRule::Trap } else { otherwise }
    }
}

impl Policy for UseClass {
    fn name(&self) -> &'static str {
        "use-class"
    }

    fn form(&self) -> Form {
        Form::new(NotRunning::InMemory, InKernel::Anywhere).with_in_user(InUser::TrapIfFpuFree)
    }

    /// An FPU-free task has nothing to save, but behind a verb or a step of a signal.
    fn switch_out(&self, _: Facts) -> SaveRule {
        SaveRule::Save
    }

    fn switch_in(&self, task: Facts) -> LoadRule {
        Self::trap_if_fpu_free(task, LoadRule::Defer)
    }

    fn return_to_user(&self, task: Facts) -> LoadRule {
        Self::trap_if_fpu_free(task, LoadRule::UnlessValid)
    }

    fn kernel_fpu_end(&self, current: Facts) -> LoadRule {
        Self::trap_if_fpu_free(current, LoadRule::Defer)
    }
}
