//! The proof that lets registers stay in place: optimised builds have it under every policy, builds that are not say what
//! stands against it. `.ci/run` has this in several profiles.

#[path = "support/live_policies.rs"]
mod live_policies;

use fpuswitch::{
    fpu::{
        Facts, Form, LoadRule, Policy, SaveRule,
        policy::{InKernel, NotRunning},
    },
    live::{Config, Gate, GateReport, LiveError, Machine, Step, audit::NotFpuFree},
};
use live_policies::for_live_policies;

/// A policy of a user's own, that asks for what it is told, as that of `examples/own_policy.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct TakeEarly {
    careful: bool,
}

impl Policy for TakeEarly {
    fn name(&self) -> &'static str {
        "take-early"
    }

    fn form(&self) -> Form {
        Form::new(NotRunning::InMemory, InKernel::Anywhere)
    }

    fn switch_out(&self, _: Facts) -> SaveRule {
        SaveRule::Save
    }

    fn switch_in(&self, task: Facts) -> LoadRule {
        if task.valid { LoadRule::UnlessValid } else { LoadRule::Defer }
    }

    fn return_to_user(&self, _: Facts) -> LoadRule {
        LoadRule::UnlessValid
    }

    fn kernel_fpu_begin(&self) -> SaveRule {
        if self.careful { SaveRule::Save } else { SaveRule::Keep }
    }

    fn kernel_fpu_end(&self, _: Facts) -> LoadRule {
        LoadRule::Defer
    }
}

/// Starts a machine with a bare gate, and runs a thread of each kind on it.
fn start<P: Policy + Send + 'static>(policy: P) {
    let name = policy.name();
    let started = Machine::start(policy, Config { cpus: 1, gate: Gate::Bare, ..Config::default() });
    if cfg!(debug_assertions) {
        // Checks and calls that an optimised build does without.
        match started {
            Err(LiveError::NotFpuFree(NotFpuFree { function: Some(_), instruction: Some(_), .. })) => {}
            other => panic!("{name}: {other:?}"),
        }
        return;
    }
    let machine = started.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(matches!(machine.gate(), GateReport::Bare(_)), "{name}: {}", machine.gate());
    println!("{name}: {}", machine.gate());
    let mut left = 3;
    let step = move || {
        left -= 1;
        if left == 0 { Step::Done } else { Step::Again }
    };
    let thread =
        machine.build().spawn_kernel_fpu_free(step).unwrap_or_else(|error| panic!("{name}: {error}"));
    thread.join().expect("no panic");
    assert_eq!(machine.spawn(|| 7).expect("a thread").join().expect("no panic"), 7);
}

#[test]
fn hardware_every_policy_has_a_bare_gate_where_code_is_optimised() {
    for_live_policies!(policy => start(policy));
    start(TakeEarly { careful: true });
    println!("HARDWARE live-audit: ran");
}

/// What is not optimised still runs, and says which instruction is in the way.
#[test]
fn hardware_the_gate_says_why_it_is_parked() {
    let machine = Machine::start(TakeEarly { careful: true }, Config { cpus: 1, ..Config::default() });
    let machine = machine.expect("a machine");
    match machine.gate() {
        GateReport::Bare(proof) => assert!(!cfg!(debug_assertions) && proof.instructions() > 100),
        GateReport::Parked(why) => assert!(cfg!(debug_assertions) && why.instruction.is_some(), "{why}"),
        GateReport::ParkedAsked => panic!("nobody asked for that"),
    }
    println!("HARDWARE live-audit-report: ran");
}
