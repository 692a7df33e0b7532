//! The policies of this crate, as they are explored.

use crate::{
    EntryKind,
    fpu::{
        Facts, Form, LoadRule, Policy, SaveRule,
        policy::{Builtin, Release, TrapRestore},
    },
};

/// A policy of this crate in the form in which it is explored: `trap-restore` loads at switch-in behind the first slice with
/// a use, not behind the sixth. What it decides is the same, and a count to one closes where a count to six takes many
/// times the states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Explored(Choice);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Choice {
    Counting(TrapRestore),
    Other(Builtin),
}

impl From<Builtin> for Explored {
    fn from(policy: Builtin) -> Self {
        Self(match policy {
            Builtin::TrapRestore => Choice::Counting(TrapRestore::behind(0)),
            other => Choice::Other(other),
        })
    }
}

macro_rules! either {
    ($self:ident, $policy:ident => $call:expr) => {
        match &$self.0 {
            Choice::Counting($policy) => $call,
            Choice::Other($policy) => $call,
        }
    };
}

impl Policy for Explored {
    fn name(&self) -> &'static str {
        either!(self, policy => policy.name())
    }

    fn form(&self) -> Form {
        either!(self, policy => policy.form())
    }

    fn entry(&self, kind: EntryKind, task: Facts) -> SaveRule {
        either!(self, policy => policy.entry(kind, task))
    }

    fn switch_out(&self, task: Facts) -> SaveRule {
        either!(self, policy => policy.switch_out(task))
    }

    fn switch_in(&self, task: Facts) -> LoadRule {
        either!(self, policy => policy.switch_in(task))
    }

    fn first_use(&self, task: Facts) -> LoadRule {
        either!(self, policy => policy.first_use(task))
    }

    fn return_to_user(&self, task: Facts) -> LoadRule {
        either!(self, policy => policy.return_to_user(task))
    }

    fn kernel_fpu_begin(&self) -> SaveRule {
        either!(self, policy => policy.kernel_fpu_begin())
    }

    fn kernel_fpu_end(&self, current: Facts) -> LoadRule {
        either!(self, policy => policy.kernel_fpu_end(current))
    }

    fn release(&self, why: Release, task: Facts) -> LoadRule {
        either!(self, policy => policy.release(why, task))
    }

    fn counts_uses(&self) -> bool {
        either!(self, policy => policy.counts_uses())
    }
}
