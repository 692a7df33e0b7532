//! What holds for every list of events: the invariants under every policy, and what follows from the machine
//! being a value that a policy cannot make do anything else than be faster or slower.

mod support;

use fpuswitch::{
    Current, Event, EventError, TaskId,
    fpu::{
        Before, Load, LoadRule, Policy, Save, SaveRule,
        policy::{Builtin, InKernel},
    },
    machine::{Machine, Outcome},
    registers::AbstractRegs,
};
use proptest::prelude::*;
use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
};
use support::{Answers, Checked, FullLazy, Trap, any_event, cases, choice_lists, choices, hash, random};

const STEPS: usize = 120;

fn builtins() -> impl Strategy<Value = Builtin> {
    prop::sample::select(&Builtin::ALL[..])
}

/// Every answer to every hook, but for the two at the end.
fn answers() -> impl Strategy<Value = Answers> {
    let save = || prop_oneof![Just(SaveRule::Keep), Just(SaveRule::Save)];
    let load = || {
        prop::sample::select(&[LoadRule::Defer, LoadRule::UnlessValid, LoadRule::Always, LoadRule::Trap][..])
    };
    let all = (save(), save(), load(), load(), load(), load(), load());
    all.prop_map(|(entry, switch_out, switch_in, first_use, return_to_user, kernel_fpu_end, release)| {
        Answers { entry, switch_out, switch_in, first_use, return_to_user, kernel_fpu_end, release }
    })
}

proptest! {
    #![proptest_config(cases(160))]

    #[test]
    fn the_policies_of_this_crate_keep_every_invariant(list in choice_lists(STEPS)) {
        for policy in Builtin::ALL {
            random(policy, &list)?;
        }
    }

    #[test]
    fn policies_that_trap_keep_every_invariant(list in choice_lists(STEPS)) {
        random(Trap, &list)?;
        random(FullLazy, &list)?;
    }

    #[test]
    fn no_answers_of_a_policy_lose_a_state(policy in answers(), list in choice_lists(STEPS)) {
        random(policy, &list)?;
    }
}
