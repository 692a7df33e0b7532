//! A policy of your own: written, checked, and compared on a recording of the real kernel.
//!
//! `cargo run --release --features proptest,explore --example own_policy`. `docs/own-policy.md` walks through it.

use fpuswitch::{
    check::{
        ExploreError, RandomEvents, Scope, Steps,
        corpus::{Finding, corpus},
        explore, random_events,
    },
    fpu::{
        Facts, Form, LoadRule, Policy, SaveRule,
        policy::{InKernel, NotRunning},
    },
    machine::Machine,
    registers::AbstractRegs,
    replay::{Options, replay},
};
use proptest::test_runner::{Config, RngSeed, TestRunner};
use std::{cell::Cell, error::Error};

/// `owner-slot`, but in more of a hurry: a task whose registers are still there takes them at switch-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct TakeEarly {
    /// Whether kernel code that is about to use the registers saves them first. Without, a state is lost.
    careful: bool,
}

impl Policy for TakeEarly {
    fn name(&self) -> &'static str {
        "take-early"
    }

    /// What the checker holds it to: a task that is not running is in memory.
    fn form(&self) -> Form {
        Form::new(NotRunning::InMemory, InKernel::Anywhere)
    }

    fn switch_out(&self, _: Facts) -> SaveRule {
        SaveRule::Save
    }

    /// The look at the owner costs the same here as at the return.
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

/// A waits twice, the second time without having been in user mode.
const STORY: &str = "spawn T0; in c0 T0; return c0 T0; user-write c0 AVX 7
    entry c0 system-call; out c0; idle c0; in c0 T0
    out c0; idle c0; in c0 T0; return c0 T0";

const RECORDING: &[u8] = include_bytes!("../recordings/ptrace-2cpu-6.1.txt.gz");

fn main() -> Result<(), Box<dyn Error>> {
    let (policy, careless) = (TakeEarly { careful: true }, TakeEarly { careful: false });

    // By hand: every invariant is checked behind every event.
    let mut steps = Steps::new(Machine::<AbstractRegs, _>::new(policy, 1));
    for event in STORY.split(['\n', ';']) {
        steps.apply(event.parse()?)??;
    }
    for step in steps.steps() {
        println!(
            "{:24} {:18} newest copy: {}",
            step.event.to_string(),
            step.outcome.to_string(),
            step.newest
        );
    }

    // At random, with the strategies that this crate tests its own policies with. In a test, `proptest!` does the same.
    let happened = Cell::new(0);
    let config = Config { failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..Config::default() };
    TestRunner::new(config).run(&random_events(120), |events| {
        happened.set(happened.get() + events.check(&AbstractRegs::default(), policy)?.len());
        Ok(())
    })?;
    println!("\n{} random events, every invariant checked behind each\n", happened.get());
    assert!(happened.get() > 10_000);

    // What it looks like when there is something to be found: the shortest of what a hundred lists find.
    let lists = (0..100).map(|seed| RandomEvents::seeded(seed, 120));
    let found = lists.filter_map(|list| list.check(&AbstractRegs::default(), careless).err());
    let found = found.min_by_key(|found| found.events().len()).ok_or("nothing is found")?;
    println!("{}", found.event_file());
    assert!(found.events().len() < 10);

    // In full: every state of a small machine, and the shortest list there is when there is something to be found.
    let counts = explore(policy, &Scope::default())?;
    println!("{}: {} states, {} operations", Scope::default(), counts.states, counts.transitions);
    assert!(counts.never.is_empty(), "{:?}", counts.never);
    let Err(ExploreError::Violation(found)) = explore(careless, &Scope::default()) else {
        return Err("nothing is found".into());
    };
    println!("\n{found}");
    assert!(found.events().len() < 15);

    // Would those checks find an error in the mechanism? Each historic bug is planted below the policy.
    let findings = corpus(policy)?;
    let (found, not_found): (Vec<_>, Vec<_>) =
        findings.iter().filter(|finding| !finding.bug.harmless).partition(|finding| finding.breach.is_some());
    let names = |findings: Vec<&Finding>| findings.iter().map(|finding| finding.bug.id).collect::<Vec<_>>();
    println!("{} bugs are found, and not {}\n", found.len(), names(not_found).join(", "));
    assert!(found.len() > 40);

    // On a recording of the kernel, beside what the kernel does.
    let own = replay(RECORDING, &Options { check: true, ..Options::new(vec![policy]) })?;
    let others = replay(RECORDING, &Options::default())?;
    for policy in own.policies.iter().chain(&others.policies) {
        println!("{:12} {:4} saves, {:4} restores", policy.name, policy.saves, policy.restores);
    }
    let owner_slot = others.policies.iter().find(|policy| policy.name == "owner-slot").ok_or("owner-slot")?;
    // Haste saves no restore, and makes images old that need not be: a task that leaves again before user mode has to
    // be saved again.
    assert_eq!(own.policies[0].restores, owner_slot.restores);
    assert!(own.policies[0].saves > owner_slot.saves);
    Ok(())
}
