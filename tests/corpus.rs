//! Each bug of the corpus is found where it is, by the list that it comes with, and nowhere else.

mod support;

use fpuswitch::{
    ComponentSet, EventFile,
    check::{
        Explored, Group, Invariant, Planted, RandomEvents, Steps, Violation,
        corpus::{Bug, Defective, OUT_OF_SCOPE, Tier, bugs},
    },
    fpu::{
        Defect, PkruMode, Policy,
        policy::{Builtin, TrapRestore},
    },
    machine::Machine,
    registers::{AbstractRegs, UserFrames},
};
use std::collections::BTreeSet;
use support::register_files::on_every_register_file;

/// What became of a list.
#[derive(Debug, PartialEq)]
enum Told {
    /// The machine refused an event: the register file has not what it names, or the right machine does no such thing.
    Refused(usize),
    /// The first event behind which an invariant was broken, from 1.
    Broken(usize, Invariant),
    Held,
}

/// Lets the list of a bug happen; with `all`, up to the first event that is refused.
fn tell<R: UserFrames + Clone, P: Policy>(bug: &Bug, regs: &R, policy: P, all: bool) -> Told {
    let file: EventFile = bug.events.parse().expect("a file of events");
    let mode = if bug.pkru_in_xsave { PkruMode::InXsave } else { PkruMode::Eager };
    let machine = Machine::with_registers(policy, file.cpus(), regs.clone()).with_pkru(mode);
    let mut steps = Steps::new(machine.expect("a policy for that"));
    for (n, (_, event)) in (1..).zip(&file.events) {
        match steps.apply(*event) {
            Ok(Ok(())) => {}
            Ok(Err(breach)) => return Told::Broken(n, breach.invariant),
            Err(_) if all => return Told::Refused(n),
            Err(_) => {}
        }
    }
    Told::Held
}

/// Asserts that the bug shows on registers like `wrong`, and that nothing is wrong with `right` ones. Whether these
/// register files have all that the list names.
#[track_caller]
fn shows<R: UserFrames + Clone>(bug: &Bug, wrong: &R, right: &R) -> bool {
    let id = bug.id;
    let policy = Explored::from(bug.policy);
    assert_eq!(tell(bug, right, policy, false), Told::Held, "{id}: the right mechanism");
    let planted = Planted { policy, defect: bug.defect };
    let events = bug.events.parse::<EventFile>().expect("a file of events").events.len();
    let expected = if bug.harmless { Told::Held } else { Told::Broken(events, bug.invariant) };
    match tell(bug, wrong, planted, true) {
        Told::Refused(n) => {
            println!("{id}: event {n} is refused on {}", std::any::type_name::<R>());
            false
        }
        // What a load that faults leaves in the registers is for the CPU to say: real ones change nothing.
        Told::Held if bug.defect == Defect::FailedLoadKeepsOwner => false,
        Told::Held if bug.invariant == Invariant::I7 && wrong.pkru().is_none() => false,
        Told::Held if bug.invariant == Invariant::I8 && wrong.dynamic() == ComponentSet::EMPTY => false,
        told => {
            assert_eq!(told, expected, "{id} on {}", std::any::type_name::<R>());
            true
        }
    }
}

fn of(tiers: &[Tier]) -> impl Iterator<Item = &'static Bug> {
    bugs().iter().filter(|bug| tiers.contains(&bug.tier))
}

#[test]
fn every_list_of_the_corpus_breaks_its_invariant() {
    for bug in of(&[Tier::Explorer]) {
        let mut shown = Vec::new();
        on_every_register_file!(|regs| shown.push(shows(bug, regs, regs)));
        assert!(shown[0], "{}: not on abstract registers", bug.id);
        assert!(shown[1..].contains(&true), "{}: on no registers with bytes", bug.id);
    }
}

/// A part of the above, for the set of tests that mutants are held against.
#[test]
fn every_list_shows_on_abstract_registers() {
    for bug in of(&[Tier::Explorer]) {
        let regs = AbstractRegs::default();
        assert!(shows(bug, &regs, &regs), "{}", bug.id);
    }
}

#[test]
fn what_takes_bytes_shows_on_software_registers() {
    for bug in of(&[Tier::Software, Tier::Host]) {
        let regs = |defect| Defective::software(defect);
        assert!(shows(bug, &regs(Some(bug.defect)), &regs(None)), "{}", bug.id);
    }
}

/// The restore mask is among those of the first tier, which are tried on real registers too.
#[test]
fn hardware_shows_the_bugs_of_the_corpus() {
    #[cfg(feature = "host")]
    match support::register_files::host() {
        Some(host) => {
            let mxcsr = support::emulator::Deviation::AvxWithoutMxcsr;
            for bug in of(&[Tier::Host]) {
                let regs = |defect| Defective::new(host.clone(), defect);
                let wrong = regs(Some(bug.defect));
                if bug.defect == Defect::InitialBehindLoad && mxcsr.is_here() {
                    let planted = Planted { policy: Explored::from(bug.policy), defect: bug.defect };
                    assert_eq!(tell(bug, &wrong, planted, true), Told::Held, "{}", bug.id);
                } else {
                    assert!(shows(bug, &wrong, &regs(None)), "{}", bug.id);
                }
            }
            mxcsr.report("corpus-mxcsr-with-avx");
            let mask = |bug: &&Bug| bug.defect == Defect::RestoreWhatWasInUse;
            let bug = of(&[Tier::Explorer]).find(mask).expect("in the corpus");
            assert!(shows(bug, &host, &host));
            println!("HARDWARE corpus-on-host: ran");
        }
        None => {
            for name in ["corpus-on-host", "corpus-mxcsr-with-avx"] {
                println!("HARDWARE {name}: SKIPPED: not x86-64 Linux, or no AVX");
            }
        }
    }
    #[cfg(not(feature = "host"))]
    println!("HARDWARE corpus-on-host: SKIPPED: built without the feature host");
}

/// The list of the preload of 2008 is for a count of one; the policy as it was counts five slices with a use first.
#[test]
fn the_preload_shows_behind_the_sixth_slice_too() {
    let planted = Planted { policy: TrapRestore::default(), defect: Defect::PreloadInitialises };
    let slices = "return c0 T0; first-use c0; entry c0 interrupt; out c0; in c0 T0\n".repeat(5);
    let events = format!(
        "spawn T0; in c0 T0; return c0 T0; first-use c0; user-write c0 AVX 2; entry c0 interrupt; out c0; in c0 T0
        {slices} signal-deliver c0; out c0; in c0 T0"
    );
    let machine = Machine::<AbstractRegs, _>::new(planted, 1);
    let found = Violation::behind(machine, &support::events(&events)).expect("a violation");
    assert_eq!((found.breach().invariant, found.events().len()), (Invariant::I2, 36));
}

/// What is no error is not found by other lists either.
#[test]
fn what_is_harmless_breaks_nothing() {
    for bug in bugs().iter().filter(|bug| bug.harmless) {
        for policy in Builtin::ALL {
            for seed in 0..20 {
                let planted = Planted { policy, defect: bug.defect };
                let checked = RandomEvents::seeded(seed, 120).check(&AbstractRegs::default(), planted);
                assert!(checked.is_ok(), "{}: {}", bug.id, checked.map(drop).unwrap_err());
            }
        }
    }
}

#[test]
fn every_number_of_the_catalogue_is_accounted_for() {
    let found = bugs().iter().map(|bug| bug.number).chain(OUT_OF_SCOPE.iter().map(|(number, ..)| *number));
    let mut found: BTreeSet<_> = found.map(str::to_owned).collect();
    for number in ["10a", "10b", "28b", "31b", "31c", "32b", "32c", "F", "pattern", "harmless"] {
        assert!(found.remove(number), "{number}");
    }
    let numbers = (1..=43).filter(|number| *number != 10).map(|number| number.to_string());
    assert_eq!(found, numbers.collect());
}

#[test]
fn names_and_defects_are_used_once_and_groups_are_those_of_the_events() {
    let ids: BTreeSet<_> = bugs().iter().map(|bug| bug.id).collect();
    assert_eq!(ids.len(), bugs().len());
    for (n, bug) in bugs().iter().enumerate() {
        assert!(bugs()[..n].iter().all(|before| before.defect != bug.defect), "{}", bug.id);
        let file: EventFile = bug.events.parse().expect("a file of events");
        let needed = |group: &&Group| file.events.iter().any(|(_, event)| Group::of(*event).contains(group));
        assert_eq!(bug.groups, Group::ALL.iter().filter(needed).copied().collect::<Vec<_>>(), "{}", bug.id);
    }
}
