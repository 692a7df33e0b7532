//! Policies for tests only.

use fpuswitch::{
    EntryKind,
    fpu::{Facts, Form, LoadRule, Policy, SaveRule, policy::InKernel, policy::NotRunning, policy::Release},
};

/// Save at switch-out, load when the first FPU instruction traps: `trap-restore`, without a use counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Trap;

impl Policy for Trap {
    fn name(&self) -> &'static str {
        "trap-restore"
    }

    fn form(&self) -> Form {
        Form { not_running: NotRunning::InMemory, in_kernel: InKernel::Anywhere }
    }

    fn switch_out(&self, _: Facts) -> SaveRule {
        SaveRule::Save
    }

    fn switch_in(&self, _: Facts) -> LoadRule {
        LoadRule::Trap
    }

    fn first_use(&self, _: Facts) -> LoadRule {
        LoadRule::UnlessValid
    }

    fn return_to_user(&self, _: Facts) -> LoadRule {
        LoadRule::Defer
    }

    fn kernel_fpu_end(&self) -> LoadRule {
        LoadRule::Trap
    }
}

/// Save when another task needs the registers, load when the first FPU instruction traps: `full-lazy`. The
/// only policy here under which a running task's only copy can be on another CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FullLazy;

impl Policy for FullLazy {
    fn name(&self) -> &'static str {
        "full-lazy"
    }

    fn form(&self) -> Form {
        Form { not_running: NotRunning::Anywhere, in_kernel: InKernel::Anywhere }
    }

    fn switch_out(&self, _: Facts) -> SaveRule {
        SaveRule::Keep
    }

    fn switch_in(&self, task: Facts) -> LoadRule {
        if task.valid { LoadRule::UnlessValid } else { LoadRule::Trap }
    }

    fn return_to_user(&self, _: Facts) -> LoadRule {
        LoadRule::Defer
    }

    fn kernel_fpu_end(&self) -> LoadRule {
        LoadRule::Trap
    }
}

/// Answers what it was told to, sensible or not, for each of the four [`Facts`] there are. Only the save at
/// kernel FPU begin is given: a policy that keeps the registers there loses them, and the trait says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Answers {
    pub(crate) entry: [SaveRule; 4],
    pub(crate) switch_out: [SaveRule; 4],
    pub(crate) switch_in: [LoadRule; 4],
    pub(crate) first_use: [LoadRule; 4],
    pub(crate) return_to_user: [LoadRule; 4],
    pub(crate) kernel_fpu_end: LoadRule,
    pub(crate) release: LoadRule,
}

fn index(facts: Facts) -> usize {
    usize::from(facts.valid) * 2 + usize::from(facts.need_fpu_load)
}

impl Policy for Answers {
    fn name(&self) -> &'static str {
        "answers"
    }

    fn form(&self) -> Form {
        Form { not_running: NotRunning::Anywhere, in_kernel: InKernel::Anywhere }
    }

    fn entry(&self, _: EntryKind, task: Facts) -> SaveRule {
        self.entry[index(task)]
    }

    fn switch_out(&self, task: Facts) -> SaveRule {
        self.switch_out[index(task)]
    }

    fn switch_in(&self, task: Facts) -> LoadRule {
        self.switch_in[index(task)]
    }

    fn first_use(&self, task: Facts) -> LoadRule {
        self.first_use[index(task)]
    }

    fn return_to_user(&self, task: Facts) -> LoadRule {
        self.return_to_user[index(task)]
    }

    fn kernel_fpu_end(&self) -> LoadRule {
        self.kernel_fpu_end
    }

    fn release(&self, _: Release) -> LoadRule {
        self.release
    }
}

/// A policy that lets kernel code use registers without a save: it loses states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Losing<P>(pub(crate) P);

impl<P: Policy> Policy for Losing<P> {
    fn name(&self) -> &'static str {
        "losing"
    }

    fn form(&self) -> Form {
        self.0.form()
    }

    fn entry(&self, kind: EntryKind, task: Facts) -> SaveRule {
        self.0.entry(kind, task)
    }

    fn switch_out(&self, task: Facts) -> SaveRule {
        self.0.switch_out(task)
    }

    fn switch_in(&self, task: Facts) -> LoadRule {
        self.0.switch_in(task)
    }

    fn first_use(&self, task: Facts) -> LoadRule {
        self.0.first_use(task)
    }

    fn return_to_user(&self, task: Facts) -> LoadRule {
        self.0.return_to_user(task)
    }

    fn kernel_fpu_begin(&self) -> SaveRule {
        SaveRule::Keep
    }

    fn kernel_fpu_end(&self) -> LoadRule {
        self.0.kernel_fpu_end()
    }

    fn release(&self, why: Release) -> LoadRule {
        self.0.release(why)
    }
}
