//! Random lists of events find every planted defect, and what they find is a short event file.

mod support;

use fpuswitch::{
    Event, EventFile,
    check::{Planted, RandomEvents, Violation, random_events},
    fpu::{Defect, Policy, policy::Builtin},
    machine::Machine,
    registers::{AbstractRegs, RegisterFile},
};
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};
use support::register_files::software_cpus;

/// All that are planted here.
const DEFECTS: [Defect; 2] = [Defect::KernelFpuKeepsOwner, Defect::WriteKeepsLastCpu];

/// Those that random lists do not find, and why.
const NOT_FOUND: [(Defect, &str); 0] = [];

/// Those that they find under every policy: the control of all tests with such lists.
const FOUND_UNDER_ALL: [Defect; 2] = [Defect::KernelFpuKeepsOwner, Defect::WriteKeepsLastCpu];

/// How many lists are tried under each policy, and, where registers have bytes, on each of several CPUs; of how many
/// events.
const LISTS: u32 = 100;
const LISTS_WITH_BYTES: u32 = 20;
const EVENTS: u32 = 120;

/// What is left of a list, at most.
const SHORT: usize = 20;

/// What the first list that finds anything finds under a policy.
fn find<R: RegisterFile + Clone, P: Policy>(regs: &R, lists: u32, policy: P) -> Option<Box<Violation<R, P>>> {
    (0..lists).find_map(|seed| RandomEvents::seeded(seed, EVENTS).check(regs, policy.clone()).err())
}

/// The names of the policies under which lists find the defect on registers like `regs`. What they find is held against
/// its event file.
fn found_under<R: RegisterFile + Clone>(regs: &R, lists: u32, defect: Defect) -> Vec<&'static str> {
    let found = Builtin::ALL.into_iter().filter_map(|policy| find(regs, lists, Planted { policy, defect }));
    let name = |found: Box<Violation<R, Planted<Builtin>>>| {
        assert_is_a_short_event_file(&found);
        found.machine().policy().name()
    };
    found.map(name).collect()
}

/// What happens to the file is what was found: on as many CPUs as it names, and nothing in it can be left out.
fn assert_is_a_short_event_file<R: RegisterFile + Clone, P: Policy>(found: &Violation<R, P>) {
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

/// Each on abstract registers, and if these do not show it, on registers with bytes.
#[test]
fn random_lists_find_every_planted_defect() {
    for defect in DEFECTS {
        let mut found = found_under(&AbstractRegs::default(), LISTS, defect);
        let mut with_bytes = software_cpus().into_iter();
        while found.is_empty()
            && let Some(regs) = with_bytes.next()
        {
            found = found_under(&regs, LISTS_WITH_BYTES, defect);
        }
        println!("{defect:?} is found under {found:?}");
        if FOUND_UNDER_ALL.contains(&defect) {
            assert_eq!(found, Builtin::ALL.map(|policy| policy.name()), "{defect:?}");
        }
        match NOT_FOUND.iter().find(|(other, _)| *other == defect) {
            None => assert_ne!(found, [""; 0], "{defect:?} is not found under any policy"),
            Some((_, why)) => assert_eq!(found, [""; 0], "{defect:?} is found, though {why}"),
        }
    }
}

/// The lists of the strategy, too, and the test that fails prints the file.
#[test]
fn a_failed_property_test_prints_a_short_event_file() {
    let planted = Planted { policy: Builtin::OwnerSlot, defect: Defect::KernelFpuKeepsOwner };
    let config = Config { failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..Config::default() };
    let check = |list: &RandomEvents| list.check(&AbstractRegs::default(), planted);
    let failed = TestRunner::new(config).run(&random_events(EVENTS as usize), |list| {
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
