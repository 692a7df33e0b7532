//! Every state that a machine can reach, under every policy: that there is an end, how many there are, and what is found
//! where something is wrong.

mod support;

use fpuswitch::{
    Event, EventFile, PageAccess,
    check::{
        ExploreError, Explored, Group, Invariant, Judge, Planted, Scope, ScopeError, Violation, beginning,
        corpus, explore,
    },
    fpu::{
        Defect, PkruMode, Policy,
        policy::{Builtin, OwnerSlot},
    },
    machine::Machine,
    registers::{AbstractRegs, SoftRegs, UserFrames},
};
use std::{collections::BTreeMap, num::NonZero};
use support::policies::Spoiled;

/// The table in the docs: by the scope's words, a count for each policy.
fn documented() -> BTreeMap<String, Vec<usize>> {
    let text = include_str!("../docs/testing.md");
    let (_, section) = text.split_once("\n### Exact counts\n").expect("the section");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")).skip(1);
    let rows = rows.take_while(|row| row.starts_with(|c: char| c.is_ascii_digit()));
    rows.map(|row| {
        let mut cells = row.trim_end_matches('|').split('|').map(str::trim);
        let scope = cells.next().unwrap_or_default().to_owned();
        (scope, cells.map(|cell| cell.parse().expect("a count")).collect())
    })
    .collect()
}

/// What is explored: two CPUs and two slots in full, and the core on larger machines.
fn scopes() -> Vec<Scope> {
    let larger = [Scope { tasks: 3, ..Scope::default() }, Scope { cpus: 3, ..Scope::default() }];
    Scope::all().into_iter().chain(larger).collect()
}

/// More states than that take minutes.
const MANY: usize = 1_000_000;

/// Explores those scopes under all policies that `wanted` names by their documented count, and compares.
fn compare(wanted: impl Fn(usize) -> bool) {
    let documented = documented();
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let (mut table, mut is_right) = (String::new(), true);
    for scope in scopes() {
        table += &format!("| {scope} |");
        for (n, policy) in Builtin::ALL.into_iter().enumerate() {
            let ought = documented.get(&scope.to_string()).and_then(|row| row.get(n)).copied();
            if let Some(ought) = ought.filter(|ought| !wanted(*ought)) {
                table += &format!(" {ought} |");
                continue;
            }
            let counts = explore(Explored::from(policy), &Scope { threads, ..scope.clone() });
            let counts = counts.unwrap_or_else(|found| panic!("{}, {scope}:\n{found}", policy.name()));
            assert!(counts.never.is_empty(), "{}, {scope}: never {:?}", policy.name(), counts.never);
            is_right &= Some(counts.states) == ought;
            table += &format!(" {} |", counts.states);
            eprintln!("{}, {scope}: {} states", policy.name(), counts.states);
        }
        table += "\n";
    }
    assert!(is_right, "the table in docs/testing.md ought to be:\n{table}");
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes even in release")]
fn every_scope_closes_under_every_policy_with_the_documented_states() {
    compare(|states| states <= MANY);
}

#[test]
#[ignore = "takes half an hour: for a change of operations or of what is told apart"]
fn the_largest_scopes_close_with_the_documented_states() {
    compare(|states| states > MANY);
}

/// What the above says, small enough for every build.
#[test]
fn the_core_closes_with_the_documented_states() {
    let documented = documented();
    let scope = Scope::default();
    for policy in [Builtin::Eager, Builtin::EntryExit] {
        let counts = explore(Explored::from(policy), &scope).unwrap_or_else(|found| panic!("{found}"));
        let n = Builtin::ALL.iter().position(|other| *other == policy).expect("a policy");
        let row = documented.get(&scope.to_string()).expect("the row of the core");
        assert_eq!(Some(&counts.states), row.get(n), "{}", policy.name());
    }
}

/// Policies that are wrong, each in a way that takes operations which the right ones do not need.
#[test]
fn a_policy_that_promises_too_much_is_found() {
    let promising = |policy: Builtin, form: Builtin| Spoiled::promising(policy, form.form());
    let found = |policy| violation(policy, &Scope::default()).breach().invariant;
    // Gives up at every entry, which counts at system calls.
    assert_eq!(found(promising(Builtin::CallBoundary, Builtin::OwnerSlot)), Invariant::I4);
    // Arms the trap for FPU-free programs.
    assert_eq!(found(promising(Builtin::UseClass, Builtin::OwnerSlot)), Invariant::I1);
    assert_eq!(found(promising(Builtin::LazySave, Builtin::OwnerSlot)), Invariant::I3);
    assert_eq!(found(Spoiled::losing(Builtin::OwnerSlot)), Invariant::I2);
}

fn violation<P: Policy + Send + Sync + 'static>(policy: P, scope: &Scope) -> Violation<AbstractRegs, P> {
    match explore(policy, scope) {
        Err(ExploreError::Violation(found)) => *found,
        Err(ExploreError::Scope(error)) => panic!("{error}"),
        Ok(counts) => panic!("expected a violation: {counts:?}"),
    }
}

#[test]
fn a_violation_has_a_table_and_a_file_that_shows_it_again_on_other_registers() {
    let planted = Planted { policy: OwnerSlot, defect: Defect::KernelFpuKeepsOwner };
    let found = violation(planted, &Scope::default());
    assert_eq!(found.breach().invariant, Invariant::I5);
    let text = found.to_string();
    assert!(text.contains("owner slots") && text.contains("I5 is broken"), "{text}");

    let file: EventFile = found.event_file().parse().expect("a file of events");
    let events: Vec<_> = file.events.iter().map(|(_, event)| *event).collect();
    assert_eq!(events, found.events());
    fn again<R: UserFrames + Clone>(
        regs: R,
        planted: Planted<OwnerSlot>,
        events: &[Event],
    ) -> Option<Invariant> {
        let found = Violation::behind(Machine::with_registers(planted, 2, regs), events)?;
        Some(found.breach().invariant)
    }
    assert_eq!(again(AbstractRegs::default(), planted, &events), Some(Invariant::I5));
    assert_eq!(again(SoftRegs::default(), planted, &events), Some(Invariant::I5));
    assert!(Violation::behind(Machine::<AbstractRegs, _>::new(OwnerSlot, 2), &events).is_none());
}

/// A latent error is found when the claim is wrong, and by user code when it is trusted: later.
#[test]
fn user_code_sees_an_error_later_than_the_invariants() {
    let planted = Planted { policy: OwnerSlot, defect: Defect::KernelFpuKeepsOwner };
    let by = |judge| violation(planted, &Scope { judge, ..Scope::default() });
    let (early, late) = (by(Judge::Invariants), by(Judge::UserCode));
    assert_eq!((early.breach().invariant, late.breach().invariant), (Invariant::I5, Invariant::I2));
    assert_eq!((corpus::length(&early.events()), corpus::length(&late.events())), (2, 3));
}

/// The case of the mailing list: PKRU inside images, and a restore put off.
#[test]
fn pkru_in_images_meets_the_wrong_keys_under_a_deferred_restore() {
    let scope = |policy| {
        let scope = Scope { pkru_mode: PkruMode::InXsave, ..Scope::with([Group::Pkru]) };
        explore(Explored::from(policy), &scope)
    };
    let found = |policy| match scope(policy) {
        Err(ExploreError::Violation(found)) => found,
        other => panic!("expected a violation: {:?}", other.map(|counts| counts.states)),
    };
    let is_about_a_worker = |events: &[Event]| events.iter().any(|e| matches!(e, Event::UserWorker(..)));
    let eager = found(Builtin::Eager);
    let found = found(Builtin::OwnerSlot);
    assert_eq!(found.breach().invariant, Invariant::I7);
    let last = found.events().last().copied();
    let page = PageAccess::new(1, false).expect("a key");
    assert!(matches!(last, Some(Event::UserMemory(_, _, access)) if access == page), "{found}");
    assert!(!is_about_a_worker(&found.events()), "{found}");
    // Where all is loaded at the switch, that of user workers alone is not: they have no image that it could come with.
    assert!(is_about_a_worker(&eager.events()), "{eager}");
}

#[test]
fn a_machine_that_cannot_be_explored_is_refused_by_name() {
    let refused = |policy, scope: Scope| match explore(policy, &scope) {
        Err(ExploreError::Scope(error)) => error,
        other => panic!("{:?}", other.map(|counts| counts.states)),
    };
    let owner_slot = Builtin::OwnerSlot;
    assert_eq!(refused(owner_slot, Scope { cpus: 0, ..Scope::default() }), ScopeError::Cpus(0));
    assert_eq!(refused(owner_slot, Scope { cpus: 4, ..Scope::default() }), ScopeError::Cpus(4));
    assert_eq!(refused(owner_slot, Scope { tasks: 9, ..Scope::default() }), ScopeError::Tasks(9));
    let in_images = Scope { pkru_mode: PkruMode::InXsave, ..Scope::default() };
    assert!(matches!(refused(Builtin::FullLazy, in_images), ScopeError::Pkru(_)));
}

#[test]
fn every_exploration_begins_with_a_task_in_user_mode_and_kernel_threads() {
    for policy in Builtin::ALL {
        let mut machine = Machine::<AbstractRegs, _>::new(policy, 2);
        for event in beginning(2) {
            // A first use where no trap is armed is left out.
            let refused = machine.apply(event).is_err();
            assert!(!refused || matches!(event, Event::FirstUse(_)), "{}: {event}", policy.name());
        }
        let user = machine.tasks()[0].fpstate().user_on();
        assert_eq!(user, Some(fpuswitch::CpuId(0)), "{}", policy.name());
    }
}
