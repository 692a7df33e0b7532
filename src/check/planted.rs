//! A policy with a planted error.

use crate::{
    EntryKind,
    fpu::{Defect, Facts, Form, LoadRule, Policy, SaveRule, policy::Release},
};

/// A policy on a mechanism with one [`Defect`]: a negative control for a checker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Planted<P> {
    /// The policy, which is right.
    pub policy: P,
    /// What is wrong below it.
    pub defect: Defect,
}

impl<P: Policy> Policy for Planted<P> {
    fn name(&self) -> &'static str {
        self.policy.name()
    }

    fn form(&self) -> Form {
        self.policy.form()
    }

    fn entry(&self, kind: EntryKind, task: Facts) -> SaveRule {
        self.policy.entry(kind, task)
    }

    fn switch_out(&self, task: Facts) -> SaveRule {
        self.policy.switch_out(task)
    }

    fn switch_in(&self, task: Facts) -> LoadRule {
        self.policy.switch_in(task)
    }

    fn first_use(&self, task: Facts) -> LoadRule {
        self.policy.first_use(task)
    }

    fn return_to_user(&self, task: Facts) -> LoadRule {
        self.policy.return_to_user(task)
    }

    fn kernel_fpu_begin(&self) -> SaveRule {
        self.policy.kernel_fpu_begin()
    }

    fn kernel_fpu_end(&self, current: Facts) -> LoadRule {
        self.policy.kernel_fpu_end(current)
    }

    fn release(&self, why: Release, task: Facts) -> LoadRule {
        self.policy.release(why, task)
    }

    fn counts_uses(&self) -> bool {
        self.policy.counts_uses()
    }

    fn defect(&self) -> Option<Defect> {
        Some(self.defect)
    }
}
