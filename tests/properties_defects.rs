//! Random lists of events find the bugs of the corpus where they are planted, and what they find is a short event file.

mod support;

use fpuswitch::{
    Event, EventFile,
    check::{
        Planted, RandomEvents, Violation,
        corpus::{Bug, Defective, Tier, bugs},
        random_events,
    },
    fpu::{Defect, Policy, policy::Builtin},
    machine::Machine,
    registers::{AbstractRegs, UserFrames},
};
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};
use std::iter;
use support::register_files::software_cpus;

/// Those that random lists do not find, and why. What is harmless is not among them.
const NOT_FOUND: [(Defect, &str); 1] = [(
    Defect::DeadOwnerMatches,
    "a task has to die as owner of a CPU on which the task that makes the next child in its slot was loaded last, too, \
     and the child has to come before anything else is loaded there: of 34,000 lists under its own policy one does \
     that. The exploration finds it",
)];

/// Those that they find under every policy: the control of all tests with such lists.
const FOUND_UNDER_ALL: [Defect; 2] = [Defect::KernelFpuKeepsOwner, Defect::WriteKeepsLastCpu];

/// The handful that a debug build plants, each of which the first lists find.
const IN_DEBUG_BUILDS: [Defect; 5] = [
    Defect::RetryTrustsOldOwner,
    Defect::WriteKeepsLastCpu,
    Defect::KernelFpuKeepsOwner,
    Defect::RestoreWhatWasInUse,
    Defect::AreaTooSmall,
];

/// How many lists are tried under each policy on the registers that a bug is for: most are found in the first hundred, a
/// few take more than a thousand.
const LISTS: u32 = 1500;

/// The same on each of several CPUs with bytes, for those that are not found there.
const LISTS_WITH_BYTES: u32 = 20;

/// How many events a list has.
const EVENTS: u32 = 200;

/// What is left of a list, at most.
const SHORT: usize = 20;

/// What the first list that finds anything finds. It is held against its event file.
fn is_found<R: UserFrames + Clone>(regs: &R, lists: u32, defect: Defect, policy: Builtin) -> bool {
    let planted = Planted { policy, defect };
    let found = (0..lists).find_map(|seed| RandomEvents::seeded(seed, EVENTS).check(regs, planted).err());
    found.inspect(|found| assert_is_a_short_event_file(found)).is_some()
}

/// The policy under which lists find a bug on registers like `regs`: its own, or else the first of the others. That of
/// `preload-initialises` counts more slices than lists have, but where it is explored.
fn found_under<R: UserFrames + Clone>(regs: &R, lists: u32, bug: &Bug) -> Option<Builtin> {
    let others = Builtin::ALL.into_iter().filter(|policy| *policy != bug.policy);
    iter::once(bug.policy).chain(others).find(|policy| is_found(regs, lists, bug.defect, *policy))
}

/// What happens to the file is what was found: on as many CPUs as it names, and nothing in it can be left out.
fn assert_is_a_short_event_file<R: UserFrames + Clone, P: Policy>(found: &Violation<R, P>) {
    let file: EventFile = found.event_file().parse().unwrap_or_else(|error| panic!("{error}:\n{found}"));
    let events: Vec<Event> = file.events.iter().map(|(_, event)| *event).collect();
    assert!(events == found.events() && events.len() <= SHORT, "{} events:\n{found}", events.len());

    let machine = found.machine();
    let regs = machine.cpus()[0].regs().clone();
    let new = || {
        let machine = Machine::with_registers(machine.policy().clone(), file.cpus(), regs.clone());
        machine.with_pkru(found.machine().pkru_mode()).expect("as was found")
    };
    let again = Violation::behind(new(), &events).unwrap_or_else(|| panic!("nothing is broken:\n{found}"));
    assert_eq!((again.breach(), again.events()), (found.breach(), found.events()));
    for n in 0..events.len() {
        let fewer: Vec<_> =
            (0..events.len()).filter(|other| *other != n).map(|other| events[other]).collect();
        let invariant = Violation::behind(new(), &fewer).map(|other| other.breach().invariant);
        assert_ne!(invariant, Some(found.breach().invariant), "without {}:\n{found}", events[n]);
    }
}

/// Each on the registers that it is for, and if these do not show it, on those of several CPUs with bytes, which have it
/// too. What is harmless is to be found on none.
#[test]
fn random_lists_find_every_planted_defect() {
    let planted = |bug: &&Bug| !cfg!(debug_assertions) || IN_DEBUG_BUILDS.contains(&bug.defect);
    if cfg!(debug_assertions) {
        println!("{} of {} bugs: a debug build takes long", IN_DEBUG_BUILDS.len(), bugs().len());
    }
    for bug in bugs().iter().filter(planted) {
        let defect = bug.defect;
        let software = Defective::software(Some(defect));
        let mut found = match bug.tier {
            Tier::Explorer => found_under(&AbstractRegs::default(), LISTS, bug),
            Tier::Software | Tier::Host => found_under(&software, LISTS, bug),
        };
        let with_bytes = software_cpus().map(|regs| Defective::new(regs, Some(defect)));
        let mut with_bytes = iter::once(software).chain(with_bytes);
        while found.is_none()
            && let Some(regs) = with_bytes.next()
        {
            found = found_under(&regs, LISTS_WITH_BYTES, bug);
        }
        match found {
            Some(policy) => println!("{} is found under {}", bug.id, policy.name()),
            None => println!("{} is not found", bug.id),
        }
        match NOT_FOUND.iter().find(|(other, _)| *other == defect) {
            _ if bug.harmless => assert_eq!(found, None, "{} is found, though harmless", bug.id),
            None => assert_ne!(found, None, "{} is not found under any policy", bug.id),
            Some((_, why)) => assert_eq!(found, None, "{} is found, though {why}", bug.id),
        }
    }
}

/// In the first hundred lists.
#[test]
fn random_lists_find_the_controls_under_every_policy() {
    for defect in FOUND_UNDER_ALL {
        for policy in Builtin::ALL {
            assert!(
                is_found(&AbstractRegs::default(), 100, defect, policy),
                "{defect:?} under {}",
                policy.name()
            );
        }
    }
}

/// The lists of the strategy, too, and the test that fails prints the file.
#[test]
fn a_failed_property_test_prints_a_short_event_file() {
    let planted = Planted { policy: Builtin::OwnerSlot, defect: Defect::KernelFpuKeepsOwner };
    let config = Config { failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..Config::default() };
    let check = |list: &RandomEvents| list.check(&AbstractRegs::default(), planted);
    let failed = TestRunner::new(config).run(&random_events(120), |list| {
        check(&list)?;
        Ok(())
    });
    let Err(TestError::Fail(reason, list)) = failed else { panic!("expected a failure: {failed:?}") };
    let found = check(&list).expect_err("it failed before");
    assert_is_a_short_event_file(&found);
    assert!(reason.message().ends_with(&found.event_file()), "{reason}");
    // The choices have shrunk, too: what no event needs is gone.
    assert!(list.choices.len() <= SHORT, "{list:?}");
}
