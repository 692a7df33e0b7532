//! Negative controls: errors that the checker must find, by hand-written lists, by a search of all lists, and
//! by the random lists that the other tests rely on.
//!
//! An error in the claims is *latent* at first: I5 names it when registers and image of a claimed task differ.
//! A program sees it only when something trusts the claim, which not every policy does.

mod support;

use fpuswitch::{
    Event, Value,
    check::{Invariant, Planted, RandomEvents, check, check_outcome},
    fpu::{
        Defect, Policy,
        policy::{Builtin, InUser},
    },
    machine::Outcome,
};
use std::collections::HashSet;
use support::{
    Broken, Checked, Stopped, Wrong, any_event, choices, events, policies::Spoiled, random, watched::Watched,
};

/// What the search of all lists picks from: one CPU, two tasks, one value.
const ALPHABET: &str = "
    spawn T0; in c0 T0; return c0 T0; entry c0 interrupt; out c0; idle c0
    spawn T1; in c0 T1; return c0 T1; user-write c0 AVX 1; write T0 AVX 1; read T0 AVX; first-use c0
    copy-to-cpu c0; move-to-cpu c0; copy-to-memory c0; move-to-memory c0; invalidate-registers c0
    kernel-fpu-begin c0 softirq; kernel-fpu-end c0; fork c0 T1; exec c0; exit c0; power-loss c0
    signal-deliver c0; signal-save c0; signal-enter c0; sigreturn c0; sigreturn-load c0
    fpu-free T0; fpu-fault c0; entry c0 system-call";

/// Checks an event in full, or with [`Checked::watch`].
type Check<P> = fn(&mut Checked<P>, Event) -> Result<(), Stopped>;

fn in_full<P: Policy>(checked: &mut Checked<P>, event: Event) -> Result<(), Stopped> {
    checked.apply(event).map(drop)
}

/// The first list of events that breaks something, of all with at most `most` events from the alphabet, the
/// shortest first. Lists that lead to the same state count once.
fn shortest<P: Policy>(policy: P, most: usize, check: Check<P>) -> Option<Broken> {
    let alphabet = events(ALPHABET);
    let mut known = HashSet::new();
    let mut level = vec![Checked::new(policy, 1)];
    for _ in 0..most {
        let mut next = Vec::new();
        for (state, event) in level.iter().flat_map(|state| alphabet.iter().map(move |event| (state, *event)))
        {
            let mut state = state.clone();
            match check(&mut state, event) {
                Ok(()) if known.insert((state.machine.clone(), state.spec.clone())) => next.push(state),
                Ok(()) | Err(Stopped::Refused(_)) => {}
                Err(Stopped::Broken(broken)) => return Some(broken),
            }
        }
        level = next;
    }
    None
}

/// Asserts that `list` breaks something with its last event, and that no shorter one does. Returns what.
#[track_caller]
fn assert_shortest<P: Policy>(policy: P, list: &str, check: Check<P>) -> Wrong {
    let list = events(list);
    if let Some(shorter) = shortest(policy.clone(), list.len() - 1, check) {
        panic!("{}: {shorter}", policy.name());
    }
    let mut checked = Checked::new(policy.clone(), 1);
    let mut results: Vec<_> = list.iter().map(|event| check(&mut checked, *event)).collect();
    let last = results.pop();
    assert!(results.iter().all(Result::is_ok), "{}: {list:?}: {results:?}", policy.name());
    match last {
        Some(Err(Stopped::Broken(broken))) => broken.wrong,
        other => panic!("{}: expected {list:?} to be caught, got {other:?}", policy.name()),
    }
}

fn assert_breaks(invariant: Invariant, wrong: &Wrong) {
    match wrong {
        Wrong::Invariant(violation) if violation.invariant == invariant => {}
        other => panic!("expected {invariant} to be broken, got {other:?}"),
    }
}

#[test]
fn the_search_finds_nothing_where_nothing_is_wrong() {
    for policy in Builtin::ALL {
        assert!(shortest(policy, 8, in_full).is_none(), "{}", policy.name());
    }
}

/// A defect, a policy, the shortest list after which the checker names I5, and the shortest after which a
/// program sees it.
type Row = (Builtin, &'static str, Option<&'static str>);

const KERNEL_FPU_KEEPS_OWNER: [Row; 10] = [
    // Always loads over whatever the registers hold before the task needs them: the claim is never trusted.
    (Builtin::Eager, "spawn T0; in c0 T0; kernel-fpu-begin c0 task", None),
    // Loads at the end of a section, but not for a task that was out during it.
    (
        Builtin::EagerOwner,
        "spawn T0; in c0 T0; kernel-fpu-begin c0 task",
        Some(
            "spawn T0; in c0 T0; out c0; idle c0; kernel-fpu-begin c0 softirq; kernel-fpu-end c0; in c0 T0
             return c0 T0",
        ),
    ),
    // Always loads at the return, but the access API trusts the claim for it.
    (
        Builtin::Deferred,
        "spawn T0; in c0 T0; copy-to-cpu c0; kernel-fpu-begin c0 task",
        Some(
            "spawn T0; in c0 T0; copy-to-cpu c0; kernel-fpu-begin c0 task; kernel-fpu-end c0; move-to-cpu c0
             return c0 T0",
        ),
    ),
    (
        Builtin::OwnerSlot,
        "spawn T0; in c0 T0; copy-to-cpu c0; kernel-fpu-begin c0 task",
        Some("spawn T0; in c0 T0; copy-to-cpu c0; kernel-fpu-begin c0 task; kernel-fpu-end c0; return c0 T0"),
    ),
    (
        Builtin::LazySave,
        "spawn T0; in c0 T0; copy-to-cpu c0; kernel-fpu-begin c0 task",
        Some("spawn T0; in c0 T0; copy-to-cpu c0; kernel-fpu-begin c0 task; kernel-fpu-end c0; return c0 T0"),
    ),
    // As deferred: the trap always loads.
    (
        Builtin::TrapRestore,
        "spawn T0; in c0 T0; copy-to-cpu c0; kernel-fpu-begin c0 task",
        Some(
            "spawn T0; in c0 T0; copy-to-cpu c0; kernel-fpu-begin c0 task; kernel-fpu-end c0; move-to-cpu c0
             return c0 T0",
        ),
    ),
    (
        Builtin::FullLazy,
        "spawn T0; in c0 T0; copy-to-cpu c0; kernel-fpu-begin c0 task",
        Some("spawn T0; in c0 T0; copy-to-cpu c0; kernel-fpu-begin c0 task; kernel-fpu-end c0; return c0 T0"),
    ),
    // As deferred.
    (
        Builtin::EntryExit,
        "spawn T0; in c0 T0; copy-to-cpu c0; kernel-fpu-begin c0 task",
        Some(
            "spawn T0; in c0 T0; copy-to-cpu c0; kernel-fpu-begin c0 task; kernel-fpu-end c0; move-to-cpu c0
             return c0 T0",
        ),
    ),
    (
        Builtin::CallBoundary,
        "spawn T0; in c0 T0; copy-to-cpu c0; kernel-fpu-begin c0 task",
        Some("spawn T0; in c0 T0; copy-to-cpu c0; kernel-fpu-begin c0 task; kernel-fpu-end c0; return c0 T0"),
    ),
    (
        Builtin::UseClass,
        "spawn T0; in c0 T0; copy-to-cpu c0; kernel-fpu-begin c0 task",
        Some("spawn T0; in c0 T0; copy-to-cpu c0; kernel-fpu-begin c0 task; kernel-fpu-end c0; return c0 T0"),
    ),
];

const WRITE_KEEPS_LAST_CPU: [Row; 9] = [
    // As above. A task that is current gets what was written at once, so that not even I5 is broken.
    (Builtin::Eager, "spawn T0; in c0 T0; out c0; write T0 AVX 1", None),
    (
        Builtin::EagerOwner,
        "spawn T0; in c0 T0; out c0; write T0 AVX 1",
        Some("spawn T0; in c0 T0; out c0; write T0 AVX 1; in c0 T0; return c0 T0"),
    ),
    (
        Builtin::Deferred,
        "spawn T0; in c0 T0; copy-to-cpu c0; write T0 AVX 1",
        Some("spawn T0; in c0 T0; copy-to-cpu c0; write T0 AVX 1; move-to-cpu c0; return c0 T0"),
    ),
    (
        Builtin::OwnerSlot,
        "spawn T0; in c0 T0; copy-to-cpu c0; write T0 AVX 1",
        Some("spawn T0; in c0 T0; copy-to-cpu c0; write T0 AVX 1; return c0 T0"),
    ),
    (
        Builtin::LazySave,
        "spawn T0; in c0 T0; copy-to-cpu c0; write T0 AVX 1",
        Some("spawn T0; in c0 T0; copy-to-cpu c0; write T0 AVX 1; return c0 T0"),
    ),
    (
        Builtin::TrapRestore,
        "spawn T0; in c0 T0; copy-to-cpu c0; write T0 AVX 1",
        Some("spawn T0; in c0 T0; copy-to-cpu c0; write T0 AVX 1; move-to-cpu c0; return c0 T0"),
    ),
    (
        Builtin::EntryExit,
        "spawn T0; in c0 T0; copy-to-cpu c0; write T0 AVX 1",
        Some("spawn T0; in c0 T0; copy-to-cpu c0; write T0 AVX 1; move-to-cpu c0; return c0 T0"),
    ),
    (
        Builtin::CallBoundary,
        "spawn T0; in c0 T0; copy-to-cpu c0; write T0 AVX 1",
        Some("spawn T0; in c0 T0; copy-to-cpu c0; write T0 AVX 1; return c0 T0"),
    ),
    (
        Builtin::UseClass,
        "spawn T0; in c0 T0; copy-to-cpu c0; write T0 AVX 1",
        Some("spawn T0; in c0 T0; copy-to-cpu c0; write T0 AVX 1; return c0 T0"),
    ),
];

/// How far the search goes before it says that no program sees a defect.
const LONG: usize = 11;

#[track_caller]
fn check_row(defect: Defect, (policy, latent, seen): Row) {
    let planted = Planted { policy, defect };
    assert_breaks(Invariant::I5, &assert_shortest(planted, latent, in_full));
    match seen {
        Some(list) => match assert_shortest(planted, list, Checked::watch) {
            Wrong::Seen(_) => {}
            wrong @ Wrong::Invariant(_) => panic!("{wrong:?} while only programs were watched"),
        },
        None => {
            let found = shortest(planted, LONG, Checked::watch);
            assert!(found.is_none(), "{}: {found:?}", planted.name());
        }
    }
}

#[test]
fn a_kernel_fpu_section_that_keeps_the_owner_is_caught_at_once() {
    for row in KERNEL_FPU_KEEPS_OWNER {
        check_row(Defect::KernelFpuKeepsOwner, row);
    }
}

#[test]
fn a_write_that_keeps_last_cpu_is_caught_at_once() {
    for row in WRITE_KEEPS_LAST_CPU {
        check_row(Defect::WriteKeepsLastCpu, row);
    }
}

/// Full-lazy gives a task that is current and valid its registers back at once, so that the claim is trusted within the
/// write itself: I5 has no chance, I2 is broken.
#[test]
fn a_write_that_keeps_last_cpu_is_caught_under_full_lazy() {
    let planted = Planted { policy: Builtin::FullLazy, defect: Defect::WriteKeepsLastCpu };
    let list = "spawn T0; in c0 T0; copy-to-cpu c0; write T0 AVX 1";
    assert_breaks(Invariant::I2, &assert_shortest(planted, list, in_full));
    let seen = "spawn T0; in c0 T0; copy-to-cpu c0; write T0 AVX 1; return c0 T0";
    assert!(matches!(assert_shortest(planted, seen, Checked::watch), Wrong::Seen(_)));
}

#[test]
fn a_policy_that_loses_the_only_copy_is_caught_at_once() {
    for policy in Builtin::ALL {
        let list = match policy {
            Builtin::Eager | Builtin::EagerOwner => "spawn T0; in c0 T0; kernel-fpu-begin c0 task",
            _ => "spawn T0; in c0 T0; move-to-cpu c0; kernel-fpu-begin c0 task",
        };
        assert_breaks(Invariant::I2, &assert_shortest(Spoiled::losing(policy), list, in_full));
        let found = (0..RANDOM_LISTS)
            .find_map(|seed| random(Spoiled::losing(policy), &RandomEvents::seeded(seed, 120)).err());
        let found = found.unwrap_or_else(|| panic!("{}: no random list finds it", policy.name()));
        assert_breaks(Invariant::I2, &found.wrong);
    }
}

const RANDOM_LISTS: u32 = 400;

/// Lets what the choices pick happen, and watches programs only.
fn watch_random<P: Policy>(policy: P, list: &RandomEvents) -> Result<(), Broken> {
    let mut checked = Checked::new(policy, list.cpus);
    for raw in &list.choices {
        for choice in choices(*raw) {
            let event = any_event(&checked.machine, choice);
            match checked.watch(event) {
                Ok(()) => break,
                Err(Stopped::Refused(_)) => {}
                Err(Stopped::Broken(broken)) => return Err(broken),
            }
        }
    }
    Ok(())
}

/// What is found, `properties_defects.rs` says.
#[test]
fn programs_see_what_random_lists_break() {
    for defect in [Defect::KernelFpuKeepsOwner, Defect::WriteKeepsLastCpu] {
        for policy in Builtin::ALL {
            let mut lists = (0..RANDOM_LISTS).map(|seed| RandomEvents::seeded(seed, 120));
            let seen = lists.find_map(|list| watch_random(Planted { policy, defect }, &list).err());
            assert_eq!(seen.is_some(), policy != Builtin::Eager, "{}: {defect:?}: {seen:?}", policy.name());
        }
    }
}

/// Two stories that differ: the machine's, and the one that the reference model is told.
const TWO_STORIES: [(Invariant, &str, &str); 8] = [
    (Invariant::I1, "spawn T0; in c0 T0; move-to-cpu c0", "spawn T0; in c0 T0; return c0 T0"),
    (Invariant::I1, "spawn T0; in c0 T0", "spawn T0"),
    (Invariant::I2, "spawn T0; in c0 T0; move-to-cpu c0", "in c0 T0"),
    (Invariant::I2, "spawn T0; in c0 T0; move-to-cpu c0", "spawn T0; in c0 T0; write T0 AVX 1"),
    (
        Invariant::I2,
        "spawn T0; in c0 T0; return c0 T0; user-write c0 SSE 1",
        "spawn T0; in c0 T0; return c0 T0",
    ),
    (Invariant::I4, "spawn T0", "spawn T0; write T0 AVX 1"),
    (Invariant::I7, "spawn T0; in c0 T0; return c0 T0; user-pkru c0 0x0", "spawn T0; in c0 T0; return c0 T0"),
    (Invariant::I7, "spawn T0; in c0 T0; out c0", "spawn T0; in c0 T0; user-pkru c0 0x0; out c0"),
];

#[test]
fn a_machine_that_did_something_else_is_caught() {
    for policy in [Builtin::Deferred, Builtin::OwnerSlot, Builtin::LazySave] {
        for (invariant, machine, spec) in TWO_STORIES {
            let mut checked = Checked::new(policy, 1);
            checked.run(machine);
            checked.spec = Checked::new(policy, 1).spec;
            events(spec).into_iter().for_each(|event| checked.spec.apply(event));
            let found = check(&checked.machine, &checked.spec).map_err(|violation| violation.invariant);
            assert_eq!(found, Err(invariant), "{}: {machine}, and not {spec}", policy.name());
        }
    }
}

/// A stray write to the image, as it were: nothing is wrong before somebody restores it.
#[test]
fn an_image_that_a_restore_would_refuse_is_caught() {
    let mut checked = Checked::on(&Watched::default(), Builtin::OwnerSlot, 1);
    let poison = format!("user-write c0 SSE {}", Watched::POISON);
    checked.run("spawn T0; in c0 T0; return c0 T0").run(&poison).run("entry c0 interrupt");
    match checked.apply(events("out c0")[0]) {
        Err(Stopped::Broken(broken)) => assert_breaks(Invariant::I9, &broken.wrong),
        other => panic!("{other:?}"),
    }
}

/// The claim of a task that has long been elsewhere breaks no I5, and no program would see it; a kernel FPU
/// section on somebody's registers is wrong all the same.
#[test]
fn a_kernel_fpu_section_on_claimed_registers_is_caught_without_a_state_at_stake() {
    let elsewhere =
        "spawn T0; in c0 T0; move-to-cpu c0; move-to-memory c0; out c0; idle c0; in c1 T0; move-to-cpu c1";
    for policy in [Builtin::Deferred, Builtin::OwnerSlot] {
        let planted = Planted { policy, defect: Defect::KernelFpuKeepsOwner };
        let mut checked = Checked::new(planted, 2);
        match checked.run(elsewhere).apply(events("kernel-fpu-begin c0 softirq")[0]) {
            Err(Stopped::Broken(broken)) => assert_breaks(Invariant::I11, &broken.wrong),
            other => panic!("{}: expected I11 to be broken, got {other:?}", policy.name()),
        }
    }
}

/// A policy that promises more than it keeps.
#[test]
fn a_policy_that_breaks_its_own_form_of_i3_is_caught() {
    let promising = |policy: Builtin, form: Builtin| Spoiled::promising(policy, form.form());
    for (policy, list) in [
        (promising(Builtin::LazySave, Builtin::OwnerSlot), "spawn T0; in c0 T0; move-to-cpu c0; out c0"),
        (promising(Builtin::OwnerSlot, Builtin::Eager), "spawn T0; in c0 T0"),
        (
            promising(Builtin::OwnerSlot, Builtin::EntryExit),
            "spawn T0; in c0 T0; return c0 T0; entry c0 interrupt",
        ),
    ] {
        assert_breaks(Invariant::I3, &assert_shortest(policy, list, in_full));
    }
}

/// A policy that lets user code run behind an armed trap, or with a trap for nothing, and does not say so.
#[test]
fn a_policy_that_breaks_its_own_form_of_i1_is_caught() {
    let armed_and_valid = "spawn T0; in c0 T0; copy-to-cpu c0; return c0 T0";
    let in_user = |policy: Builtin, in_user| Spoiled::promising(policy, policy.form().with_in_user(in_user));
    for (policy, list) in [
        (in_user(Builtin::TrapRestore, InUser::Loaded), "spawn T0; in c0 T0; return c0 T0"),
        (in_user(Builtin::FullLazy, InUser::Loaded), "spawn T0; in c0 T0; return c0 T0"),
        (in_user(Builtin::TrapRestore, InUser::TrapUnlessValid), armed_and_valid),
        (in_user(Builtin::OwnerSlot, InUser::TrapIfFpuFree), "spawn T0; fpu-free T0; in c0 T0; return c0 T0"),
        (in_user(Builtin::UseClass, InUser::Loaded), "spawn T0; fpu-free T0; in c0 T0; return c0 T0"),
        (in_user(Builtin::TrapRestore, InUser::TrapIfFpuFree), "spawn T0; in c0 T0; return c0 T0"),
    ] {
        assert_breaks(Invariant::I1, &assert_shortest(policy, list, in_full));
    }
}

/// A policy that loses what a system call gives up, and promises to keep it. A model that is told less lets more pass:
/// what the call keeps is still held against it.
#[test]
fn a_policy_that_gives_up_what_it_promises_to_keep_is_caught() {
    let keeps_all = Spoiled::promising(Builtin::CallBoundary, Builtin::OwnerSlot.form());
    let list = "spawn T0; in c0 T0; return c0 T0; user-write c0 AVX 1; entry c0 system-call; out c0";
    assert_breaks(Invariant::I4, &assert_shortest(keeps_all, list, in_full));

    for (component, found) in [("AVX", Ok(())), ("SSE", Err(Invariant::I2))] {
        let mut checked = Checked::new(Builtin::CallBoundary, 1);
        checked.run("spawn T0; in c0 T0; return c0 T0; entry c0 system-call");
        checked.machine.apply(events("return c0 T0")[0]).map(drop).expect("a return");
        checked.spec.apply(events("return c0 T0")[0]);
        let write = events(&format!("user-write c0 {component} 9"))[0];
        checked.machine.apply(write).map(drop).expect("a write");
        let now = check(&checked.machine, &checked.spec).map_err(|violation| violation.invariant);
        assert_eq!(now, found, "{component}");
    }
}

/// A read that gives something else than the program of the task must see.
#[test]
fn a_read_that_gives_another_value_is_caught() {
    let story = "spawn T0; in c0 T0; return c0 T0; user-write c0 AVX 7";
    let read = events("read T0 AVX")[0];
    for policy in Builtin::ALL {
        let mut checked = Checked::new(policy, 1);
        checked.run(story);
        let outcome = checked.machine.apply(read).expect("a task that can be read");
        let given = |outcome: &Outcome| check_outcome(&checked.machine, &checked.spec, read, outcome);
        assert_eq!(given(&outcome), Ok(()), "{}", policy.name());
        for value in [None, Value::new(8)] {
            let other = Outcome { value, ..outcome };
            let found = given(&other).map_err(|violation| violation.invariant);
            assert_eq!(found, Err(Invariant::I4), "{}: {value:?}", policy.name());
        }
    }
}
