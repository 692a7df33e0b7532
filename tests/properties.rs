//! What holds for every list of events: the invariants under every policy, and what follows from a policy being
//! able to make a machine faster or slower, but nothing else.

mod support;

use fpuswitch::{
    Event, EventError, Value,
    check::{RandomEvents, machines, random_events},
    fpu::{
        Before, Load, Policy, Save,
        policy::{Builtin, Deferred, Eager, EagerOwner, OwnerSlot, TrapRestore},
    },
    machine::{Cpu, Done, Machine, Outcome},
    registers::AbstractRegs,
};
use proptest::{prelude::*, test_runner::TestCaseResult};
use std::{
    collections::{BTreeSet, HashSet},
    hash::{BuildHasher, RandomState},
};
use support::{
    Checked, STEPS, any_event, cases, choices,
    policies::{answers, builtins},
    random,
    watched::{Calls, Watched},
};

/// The events that `policy` makes of the choices, with the machine before each and its outcome.
fn history<P: Policy>(
    policy: P,
    list: &RandomEvents,
) -> Result<Vec<(Checked<P>, Event, Outcome)>, TestCaseError> {
    let mut checked = Checked::new(policy, list.cpus);
    let mut history = Vec::new();
    for raw in &list.choices {
        let before = checked.clone();
        if let Some((event, outcome)) = checked.step(*raw)? {
            history.push((before, event, outcome));
        }
    }
    Ok(history)
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn no_answers_of_a_policy_lose_a_state(policy in answers(), list in random_events(STEPS)) {
        random(policy, &list)?;
    }
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn the_policies_of_this_crate_keep_every_invariant(list in random_events(STEPS)) {
        for policy in Builtin::ALL {
            random(policy, &list)?;
        }
    }

    /// With the invariants, which include what programs see: policies differ in cost only.
    #[test]
    fn what_can_happen_does_not_depend_on_the_policy(list in random_events(STEPS)) {
        let mut machines = Builtin::ALL.map(|policy| Machine::<AbstractRegs, _>::new(policy, list.cpus));
        for raw in list.choices {
            for choice in choices(raw) {
                let event = any_event(&machines[0], choice);
                let [first, others @ ..] = &mut machines;
                let first = first.apply(event).map(drop);
                for machine in others {
                    let other = machine.apply(event).map(drop);
                    match event {
                        // Whether the trap is armed is the policy's business.
                        Event::FirstUse(_) => prop_assert!(first.is_err(), "eager arms no trap"),
                        Event::UserWrite(cpu, ..) | Event::DynamicUse(cpu, _)
                            if other == Err(EventError::TrapArmed(cpu)) =>
                        {
                            prop_assert!(machine.apply(Event::FirstUse(cpu)).is_ok());
                            prop_assert_eq!(machine.apply(event).map(drop), first);
                        }
                        _ => prop_assert_eq!(first, other, "{} under {}", event, machine.policy().name()),
                    }
                }
                if first.is_ok() {
                    break;
                }
            }
        }
    }

    #[test]
    fn an_event_that_is_refused_changes_nothing(policy in builtins(), list in random_events(STEPS)) {
        let mut machine = Machine::<AbstractRegs, _>::new(policy, list.cpus);
        let mut refused = 0;
        for raw in &list.choices {
            for choice in choices(*raw) {
                let before = machine.clone();
                if machine.apply(any_event(&machine, choice)).is_ok() {
                    break;
                }
                refused += 1;
                prop_assert_eq!(&machine, &before);
            }
        }
        prop_assert!(refused > 0 || list.choices.len() < 20, "all {} events were accepted", list.choices.len());
    }

    #[test]
    fn the_same_events_lead_to_the_same_machine(
        once in builtins().prop_flat_map(|policy| machines(&Machine::<AbstractRegs, _>::new(policy, 3), STEPS)),
    ) {
        let mut again = Checked::new(*once.machine().policy(), 3);
        for event in once.events() {
            prop_assert!(again.follow(event).is_ok(), "{event} was refused the second time");
        }
        let hasher = RandomState::new();
        prop_assert_eq!(hasher.hash_one(once.machine()), hasher.hash_one(&again.machine));
        prop_assert_eq!((once.machine(), once.spec()), (&again.machine, &again.spec));
    }

    #[test]
    fn a_clone_goes_its_own_way(policy in builtins(), list in random_events(STEPS), more: [u32; 20]) {
        let mut one = random(policy, &list)?;
        let mut other = one.clone();
        let before = format!("{other:?}");
        for raw in more {
            one.step(raw)?;
        }
        prop_assert_eq!(format!("{other:?}"), before);
        for raw in more {
            other.step(raw)?;
        }
        prop_assert_eq!(one, other);
    }

    /// Deferred writes owner and last_cpu and reads neither, and so does eager: the loads that owner-slot and
    /// eager-owner skip put into the registers what is there already.
    #[test]
    fn a_skipped_restore_makes_no_other_difference(list in random_events(STEPS)) {
        fn compare(always: impl Policy, unless_valid: impl Policy, list: &RandomEvents) -> TestCaseResult {
            let mut other = Machine::<AbstractRegs, _>::new(unless_valid, list.cpus);
            for (before, event, loaded) in history(always, list)? {
                prop_assert_eq!(before.machine.cpus(), other.cpus());
                prop_assert_eq!(before.machine.tasks(), other.tasks());
                let outcome = other.apply(event).map_err(|error| TestCaseError::fail(error.to_string()))?;
                let skipped = outcome.load == Some(Load::Skipped) && loaded.load == Some(Load::Restored);
                prop_assert!(skipped || outcome == loaded, "{}: {}, and {}", event, loaded, outcome);
            }
            Ok(())
        }
        compare(Deferred, OwnerSlot, &list)?;
        compare(Eager, EagerOwner, &list)?;
    }

    #[test]
    fn an_outcome_counts_what_was_done_to_the_registers(policy in builtins(), list in random_events(STEPS)) {
        let mut watched = Machine::<Watched, _>::new(policy, list.cpus);
        for (_, event, outcome) in history(policy, &list)? {
            Calls::take();
            prop_assert_eq!(watched.apply(event), Ok(outcome));
            let (saves, restores, kept) = (outcome.saves(), outcome.restores(), outcome.kept_by_calls());
            let calls = Calls::take();
            prop_assert_eq!(calls.saves + calls.restores, saves + restores + kept, "{}: {}", event, outcome);
            prop_assert!(calls.saves >= saves && calls.restores >= restores, "{}: {}", event, outcome);
            prop_assert_eq!(calls.of_control, kept, "{}: {}", event, outcome);
        }
    }

    #[test]
    fn decisions_are_those_of_the_table_of_policies(policy in builtins(), list in random_events(STEPS)) {
        for (before, event, outcome) in history(policy, &list)? {
            for done in outcome.before.iter().flatten() {
                prop_assert!(was_needed(&before, *done), "{event}: {outcome}, under {}", policy.name());
            }
            let Some((load, save)) = table(policy, &before, event, outcome) else { continue };
            prop_assert_eq!((outcome.load, outcome.save), (load, save), "{} under {}", event, policy.name());
        }
    }
}

/// What was asked for first was so, and doing it helped.
fn was_needed(before: &Checked<Builtin>, done: Done) -> bool {
    let holds_only_copy =
        |cpu: &Cpu<_>, task| cpu.slot().owner() == Some(task) && cpu.slot().holds_only_copy();
    let mut cpus = before.machine.cpus().iter();
    let saved = matches!(done.save, Save::Saved | Save::SavedKept);
    match done.asked {
        Before::Evict(task) => cpus.any(|cpu| holds_only_copy(cpu, task)) && saved,
        Before::Flush { cpu: on, task } => {
            cpus.any(|cpu| cpu.slot().cpu() == on && holds_only_copy(cpu, task)) && saved
        }
        Before::Interrupt { cpu } => {
            let saves = *before.machine.policy() == Builtin::EntryExit;
            before.spec.in_user_mode(cpu) && done.save == if saves { Save::Saved } else { Save::Kept }
        }
    }
}

/// The load and the save of a switch or a return: the table in the docs of `fpu::policy`.
fn table(
    policy: Builtin,
    before: &Checked<Builtin>,
    event: Event,
    outcome: Outcome,
) -> Option<(Option<Load>, Option<Save>)> {
    let cpu = before.machine.cpu(event.cpu()?)?;
    let task = match event {
        Event::ScheduleIn(_, task) | Event::Return(_, task) => task,
        Event::ScheduleOut(cpu) => before.spec.current(cpu)?,
        _ => return None,
    };
    let fpstate = before.machine.task(task)?.fpstate();
    let flush = |done: &Done| matches!(done.asked, Before::Flush { .. });
    let in_memory = fpstate.need_fpu_load() || outcome.before.iter().flatten().any(flush);
    let valid = fpstate.is_valid_on(cpu.slot());
    let restored = if fpstate.has_given_up() { Load::RestoredKept } else { Load::Restored };
    let unless_valid = if valid { Load::Skipped } else { restored };
    let eager = matches!(policy, Builtin::Eager | Builtin::EagerOwner);
    let lazy = matches!(policy, Builtin::LazySave | Builtin::FullLazy);
    let armed = cpu.slot().trap_armed();
    let loads_by_count = policy == Builtin::TrapRestore && fpstate.uses() > TrapRestore::SLICES;
    Some(match event {
        _ if !fpstate.is_user() && matches!(event, Event::ScheduleOut(_)) => (None, Some(Save::NotUser)),
        _ if !fpstate.is_user() => (Some(Load::NotUser), None),
        Event::ScheduleOut(_) if lazy => (None, Some(Save::Kept)),
        Event::ScheduleOut(_) if in_memory => (None, Some(Save::AlreadyInMemory)),
        Event::ScheduleOut(_) if fpstate.has_given_up() => (None, Some(Save::SavedKept)),
        Event::ScheduleOut(_) => (None, Some(Save::Saved)),
        _ if policy == Builtin::UseClass && fpstate.is_fpu_free() => (Some(Load::TrapArmed), None),
        Event::ScheduleIn(..) if loads_by_count => (Some(unless_valid), None),
        Event::ScheduleIn(..) if policy == Builtin::TrapRestore => (Some(Load::TrapArmed), None),
        Event::Return(..) if policy == Builtin::TrapRestore && armed => (Some(Load::TrapArmed), None),
        _ if policy == Builtin::FullLazy && !valid => (Some(Load::TrapArmed), None),
        Event::ScheduleIn(..) if policy == Builtin::FullLazy && !in_memory => (Some(Load::AlreadyLive), None),
        Event::ScheduleIn(..) if policy == Builtin::FullLazy => (Some(Load::Skipped), None),
        Event::ScheduleIn(..) if policy == Builtin::Eager => (Some(Load::Restored), None),
        Event::ScheduleIn(..) if eager => (Some(unless_valid), None),
        // Lazy-save finds the only copy where it left it.
        Event::ScheduleIn(..) if lazy && !in_memory => (Some(Load::Skipped), None),
        Event::ScheduleIn(..) => (Some(Load::Deferred), None),
        _ if eager || !in_memory => (Some(Load::AlreadyLive), None),
        _ if matches!(policy, Builtin::Deferred | Builtin::EntryExit) => (Some(Load::Restored), None),
        _ => (Some(unless_valid), None),
    })
}

/// The control of all the above: whatever is never picked is never checked.
#[test]
fn random_events_reach_every_event_and_every_decision() {
    let mut names = BTreeSet::new();
    let mut seen = HashSet::new();
    let mut read_back = false;
    let mut note = |event: Event, outcome: Outcome| {
        names.extend(event.to_string().split(' ').next().map(str::to_owned));
        for done in outcome.before.iter().flatten() {
            seen.insert(match done.asked {
                Before::Evict(_) => "evict".to_owned(),
                Before::Flush { .. } => "flush".to_owned(),
                Before::Interrupt { .. } => "interrupt".to_owned(),
            });
        }
        let Outcome { save, load, frame_save, frame_load, value, user_memory, dynamic, .. } = outcome;
        seen.extend(save.map(|save| format!("{save:?}")));
        seen.extend(load.map(|load| format!("{load:?}")));
        seen.extend(frame_save.map(|save| format!("frame {save:?}")));
        seen.extend(frame_load.map(|load| format!("frame {load:?}")));
        seen.extend(user_memory.map(|access| format!("access {access:?}")));
        seen.extend(dynamic.map(|dynamic| format!("dynamic {dynamic:?}")));
        read_back |= value.is_some_and(|value| value != Value::INITIAL);
    };
    for seed in 0..40 {
        let list = RandomEvents::seeded(seed, 200);
        for policy in Builtin::ALL {
            let history = history(policy, &list).expect("every invariant holds");
            history.into_iter().for_each(|(_, event, outcome)| note(event, outcome));
        }
    }
    assert_eq!(names, documented_names());
    let decisions = [
        "evict",
        "flush",
        "interrupt",
        "Saved",
        "SavedKept",
        "AlreadyInMemory",
        "Kept",
        "NotUser",
        "Restored",
        "RestoredKept",
        "Skipped",
        "AlreadyLive",
        "Deferred",
        "TrapArmed",
        "frame Saved",
        "frame Faulted",
        "frame Loaded",
        "frame Refused",
        "frame Failed",
        "frame Copied",
        "access Allowed",
        "access Denied",
        "dynamic Asked",
        "dynamic NotPermitted",
        "dynamic Grown",
    ];
    // All but Initialised and NoRoom: no image becomes bad here, and there is always room.
    assert_eq!(seen, decisions.map(str::to_owned).into());
    assert!(read_back, "no written value was ever read");
}

/// The first words of the table of events in the docs, which another test compares with the enum.
fn documented_names() -> BTreeSet<String> {
    let (_, table) =
        include_str!("../docs/events.md").split_once("|---|---|---|\n").expect("the table of events");
    let rows = table.lines().map_while(|row| row.strip_prefix("| `"));
    rows.filter_map(|row| row.split([' ', '`']).next()).map(str::to_owned).collect()
}
