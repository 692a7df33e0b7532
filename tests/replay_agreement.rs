//! The bundled recordings: every decision of the kernel is explained, the counts are those that an independent
//! reader of the text finds, and other policies than the kernel's are found out.

mod recordings;

use fpuswitch::{
    fpu::{Policy, policy::Builtin},
    replay::{Agreement, Basis, Costs, Decision, OptimumCounts, Options, Quirk, Report, replay},
};
use recordings::{Found, Optimum, TRACEPOINTS_ONLY, WITH_FUNCTIONS, rows, text};
use std::sync::LazyLock;

/// A recording, and what a replay with the default options and an independent reader find in it.
struct Recording {
    name: &'static str,
    text: String,
    report: Report,
    found: Found,
}

impl Recording {
    fn new(name: &'static str) -> Self {
        let text = text(name);
        let report = replay(text.as_bytes(), &Options::default());
        let report = report.unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name, found: Found::in_text(&text), text, report }
    }

    fn against(&self, reference: Builtin) -> Agreement {
        let options = Options { reference, policies: Vec::new(), ..Options::default() };
        replay(self.text.as_bytes(), &options).unwrap().agreement
    }
}

static WITH: LazyLock<Vec<Recording>> = LazyLock::new(|| WITH_FUNCTIONS.map(Recording::new).into());
static WITHOUT: LazyLock<Recording> = LazyLock::new(|| Recording::new(TRACEPOINTS_ONLY));

fn all() -> impl Iterator<Item = &'static Recording> {
    WITH.iter().chain([&*WITHOUT])
}

#[test]
fn every_decision_of_every_recording_is_explained() {
    for Recording { name, report, .. } in all() {
        let agreement = &report.agreement;
        assert_eq!((agreement.disagreements, &agreement.first[..]), (0, &[][..]), "{name}");
        assert!(agreement.decisions > 100, "{name}");
        assert_eq!((report.lost, report.ignored.len()), (0, 0), "{name}");
    }
    for Recording { name, report, .. } in &*WITH {
        assert!(report.has_functions, "{name}");
        // The task that starts the recording is in the middle of things.
        assert_eq!((report.agreement.inferred(), report.agreement.undecidable), (0, 1), "{name}");
    }
    let agreement = &WITHOUT.report.agreement;
    assert!(!WITHOUT.report.has_functions && agreement.inferred() > 0);
    assert!(agreement.inferred() * 20 < agreement.decisions && !agreement.infers_too_much(), "{agreement:?}");
}

#[test]
fn the_kernel_did_what_an_independent_reader_finds() {
    for Recording { name, text, report, found } in &*WITH {
        let kernel = report.kernel;
        assert_eq!(
            (kernel.switches, kernel.returns, kernel.saves, kernel.restores),
            (found.switches, found.returns, found.saves, found.restores),
            "{name}"
        );
        assert_eq!(report.agreement.decisions, found.decisions(), "{name}: {found:?}");
        assert_eq!(report.agreement.undecidable, found.undecidable, "{name}");
        let dead = report.agreement.quirks.get(&Quirk::ExitSavesDeadTask).copied().unwrap_or(0);
        assert_eq!(dead, found.dead.yes, "{name}");
        assert_eq!((report.lines, report.bytes), (text.lines().count() as u64, text.len() as u64), "{name}");
    }
}

#[test]
fn saves_and_restores_without_function_lines_are_those_in_the_text() {
    let Recording { text, report, found, .. } = &*WITHOUT;
    assert_eq!((report.kernel.switches, report.kernel.saves), (found.switches, found.saves));
    // Two of the activated lines of each signal are none: the handler's fresh registers, and the signal return.
    let handlers =
        rows(text).filter(|row| row.name == "signal_deliver" && !row.says("sa_handler=0 ")).count();
    let signal_returns = rows(text).filter(|row| row.name == "sys_enter" && row.says(": NR 15 ")).count();
    assert_eq!((handlers, signal_returns), (4, 4));
    assert_eq!(report.kernel.restores, found.restores - 8);
}

#[test]
fn the_optimum_is_what_an_independent_reader_counts() {
    for Recording { name, text, report, .. } in &*WITH {
        let Optimum { saves, restores, .. } = Optimum::in_text(text);
        assert_eq!(report.optimum, OptimumCounts { saves, restores }, "{name}");
    }
}

/// Switches, returns, saves and restores of the kernel; decisions, inferred returns and kernel FPU sections; the
/// three quirks; the optimum; saves, restores and restores skipped of each policy.
type Counts = ([u64; 4], [u64; 3], [u64; 3], [u64; 2], [[u64; 3]; 5]);

#[rustfmt::skip]
const COUNTS: [(&str, Counts); 11] = [
    ("fork-2cpu-6.1", ([847, 526, 428, 455], [1003, 0, 0], [1, 206, 3], [350, 451],
        [[553, 626, 0], [553, 509, 117], [448, 537, 0], [448, 452, 85], [363, 452, 103]])),
    ("hop-2cpu-6.1", ([639, 253, 251, 251], [512, 0, 0], [0, 4, 0], [249, 251],
        [[262, 263, 0], [262, 259, 4], [252, 254, 0], [252, 252, 2], [250, 252, 4]])),
    ("kfpu-2cpu-6.1", ([78, 1262, 31, 1261], [1323, 0, 0], [0, 4, 0], [1258, 1261],
        [[3757, 3758, 0], [3757, 3755, 3], [1261, 1263, 0], [1261, 1262, 1], [1260, 1262, 1]])),
    ("mix-4cpu-6.1", ([1677, 1370, 1413, 1406], [2874, 0, 0], [7, 35, 0], [1451, 1354],
        [[1592, 1474, 0], [1592, 1448, 26], [1537, 1427, 1], [1537, 1405, 23], [1515, 1405, 24]])),
    ("pipe-2cpu-6.1", ([2606, 2570, 2568, 2564], [5145, 0, 0], [0, 6, 0], [2562, 2564],
        [[2579, 2580, 0], [2579, 2571, 9], [2570, 2571, 0], [2570, 2565, 6], [2563, 2565, 7]])),
    ("pipe-nofp-1cpu-6.1", ([2793, 2780, 2780, 2775], [5564, 0, 0], [1, 6, 0], [2771, 2774],
        [[2791, 2792, 0], [2791, 2783, 9], [2781, 2782, 0], [2781, 2775, 7], [2773, 2775, 9]])),
    ("ptrace-2cpu-6.1", ([355, 171, 169, 60], [344, 0, 0], [0, 2, 0], [58, 60],
        [[175, 176, 0], [175, 63, 113], [170, 172, 0], [170, 61, 111], [59, 61, 112]])),
    ("sig-2cpu-6.1", ([104, 13, 73, 67], [150, 0, 0], [1, 4, 0], [977, 10],
        [[1052, 83, 0], [1052, 73, 10], [1042, 72, 4], [1042, 67, 9], [1035, 67, 9]])),
    ("spin-2cpu-6.1", ([140, 108, 106, 100], [216, 0, 0], [0, 4, 0], [98, 100],
        [[112, 113, 0], [112, 104, 9], [108, 109, 0], [108, 101, 8], [99, 101, 9]])),
    ("yield-2cpu-6.1", ([276, 264, 261, 259], [525, 0, 0], [0, 4, 0], [257, 259],
        [[264, 265, 0], [264, 260, 5], [263, 265, 0], [263, 260, 5], [258, 260, 5]])),
    ("cargo-build-2cpu-6.18", ([1155, 935, 944, 817], [1878, 15, 11], [0, 18, 0], [801, 815],
        [[982, 987, 0], [982, 837, 150], [963, 957, 0], [963, 818, 139], [821, 818, 155]])),
];

#[test]
fn counts_are_those_of_the_table() {
    for (Recording { name, report, .. }, (listed, counts)) in all().zip(COUNTS) {
        let (kernel, agreement, optimum) = (report.kernel, &report.agreement, report.optimum);
        let quirks = [Quirk::ForkLoadsParent, Quirk::ExitSavesDeadTask, Quirk::ExitClearsOwner];
        assert_eq!(*name, listed);
        assert_eq!(
            (
                [kernel.switches, kernel.returns, kernel.saves, kernel.restores],
                [agreement.decisions, agreement.inferred_returns, agreement.inferred_kernel_fpu],
                quirks.map(|quirk| agreement.quirks.get(&quirk).copied().unwrap_or(0)),
                [optimum.saves, optimum.restores],
                [0, 1, 2, 3, 4].map(|policy| {
                    let policy = &report.policies[policy];
                    [policy.saves, policy.restores, policy.restores_skipped]
                }),
            ),
            counts,
            "{name}"
        );
    }
}

/// In a debug build, which takes 40 s for all, the first lines and one policy each.
#[test]
fn every_invariant_holds_after_every_event() {
    for (at, Recording { name, text, .. }) in all().enumerate() {
        let one = &Builtin::ALL[at % Builtin::ALL.len()..][..1];
        let policies = if cfg!(debug_assertions) { one } else { &Builtin::ALL[..] };
        let lines = if cfg!(debug_assertions) { 6000 } else { usize::MAX };
        let text: String = text.split_inclusive('\n').take(lines).collect();
        // Not every slice uses the FPU, so that the trap stays armed in some.
        let policies = policies.to_vec();
        let options = Options { check: true, fpu_use: 0.8, policies, ..Options::default() };
        let report = replay(text.as_bytes(), &options).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(report.agreement.disagreements, 0, "{name}");
    }
}

/// Negative control: a kernel that always loads is not the one that was recorded.
#[test]
fn deferred_disagrees_where_the_kernel_restored_nothing() {
    for recording in &*WITH {
        let Recording { name, text, found, .. } = recording;
        let agreement = recording.against(Builtin::Deferred);
        assert!(agreement.disagreements > 0, "{name}");
        assert_eq!(agreement.disagreements, found.returns_to_user.no, "{name}");
        assert_eq!(agreement.first.len() as u64, agreement.disagreements.min(Agreement::MOST_SHOWN as u64));
        for found in &agreement.first {
            assert_eq!((found.decision, found.expected, found.found), (Decision::Return, true, false));
            let line = text.lines().nth(found.line as usize - 1).unwrap();
            assert!(line.contains(": switch_fpu_return <-"), "{name}: {line}");
            let task_and_cpu = format!("-{:<7} [{:03}] ", found.pid, found.cpu);
            assert!(line.contains(&task_and_cpu), "{name}: {line}");
        }
    }
    let agreement = WITHOUT.against(Builtin::Deferred);
    assert!(agreement.disagreements > 100, "{agreement:?}");
    assert!(agreement.first.iter().all(|found| found.decision == Decision::Return && found.expected));
}

/// Negative control: under an eager policy the state is in the registers from switch-in on, so nothing has to be
/// loaded later, and all has to be saved at every switch.
#[test]
fn eager_policies_disagree_at_every_load_and_at_every_switch_without_a_save() {
    for reference in [Builtin::Eager, Builtin::EagerOwner] {
        for recording in &*WITH {
            let Recording { name, found, .. } = recording;
            let loads = found.returns_to_user.yes + found.forks.yes + found.frames.yes;
            let agreement = recording.against(reference);
            assert!(agreement.disagreements > 0, "{name}");
            assert_eq!(agreement.disagreements, loads + found.switch_outs.no, "{name}");
        }
        let agreement = WITHOUT.against(reference);
        assert!(agreement.disagreements > 0 && agreement.infers_too_much(), "{agreement:?}");
    }
}

/// Negative control: a kernel that saves when another task needs the registers saves nothing at a switch.
#[test]
fn lazy_save_disagrees_at_every_save() {
    for recording in &*WITH {
        let Recording { name, found, .. } = recording;
        let agreement = recording.against(Builtin::LazySave);
        // The saves of dead tasks are the kernel's quirk, whatever the policy; but here the quirk has one more
        // for a task that the kernel had saved at an earlier switch, where this policy had not.
        let saves = found.switch_outs.yes - found.dead.yes;
        assert!(agreement.disagreements > 0, "{name}");
        assert!((saves..=saves + found.dead.no).contains(&agreement.disagreements), "{name}: {found:?}");
        assert!(agreement.first.iter().all(|found| found.decision == Decision::SwitchOut), "{name}");
    }
    // Without function lines, a save that the policy does not explain is taken for a sign of a missed return.
    assert!(WITHOUT.against(Builtin::LazySave).infers_too_much());
}

#[test]
fn policies_keep_their_order_and_none_is_below_the_optimum() {
    for Recording { name, report, .. } in all() {
        let optimum = report.optimum;
        for policy in &report.policies {
            assert!(policy.saves >= optimum.saves, "{name}: {policy:?} {optimum:?}");
            assert!(policy.restores >= optimum.restores, "{name}: {policy:?} {optimum:?}");
            assert!(optimum.saves_ratio(policy.saves).is_some_and(|ratio| ratio >= 1.0), "{name}");
            assert!(optimum.restores_ratio(policy.restores).is_some_and(|ratio| ratio >= 1.0), "{name}");
        }
        let [eager, eager_owner, deferred, owner_slot, lazy_save] = &report.policies[..] else {
            panic!("{name}: {:?}", report.policies)
        };
        // The second of each pair looks before it loads.
        assert_eq!(eager_owner.restores + eager_owner.restores_skipped, eager.restores, "{name}");
        assert!(owner_slot.restores <= deferred.restores, "{name}");
        assert!(deferred.restores <= eager.restores && deferred.saves <= eager.saves, "{name}");
        assert_eq!((eager_owner.saves, owner_slot.saves), (eager.saves, deferred.saves), "{name}");
        // A second fork behind one switch copies the registers again where the state was left there, so this is
        // no law; but saves that nobody needed outweigh it.
        assert!(lazy_save.saves <= owner_slot.saves, "{name}");
        assert_eq!(lazy_save.restores, owner_slot.restores, "{name}");
    }
}

fn replayed(text: &str, policies: &[Builtin], fpu_use: f64) -> Report {
    let options = Options { fpu_use, ..Options::new(policies.to_vec()) };
    replay(text.as_bytes(), &options).unwrap_or_else(|error| panic!("{error}"))
}

/// What the recordings do not say decides what policies that trap do, and nothing else.
#[test]
fn the_share_of_slices_that_use_the_fpu_counts_for_policies_that_trap_only() {
    for Recording { name, text, report, .. } in &*WITH {
        let [always, half, never] = [1.0, 0.5, 0.0].map(|share| replayed(text, &Builtin::ALL, share));
        for counts in &always.policies {
            let of = |report: &Report, name| {
                report.policies.iter().find(|policy| policy.name == name).cloned().unwrap()
            };
            if counts.name == Builtin::UseClass.name() {
                // The class is the program's: few are drawn. If all use the FPU, it is owner-slot.
                let owner_slot = of(&always, Builtin::OwnerSlot.name());
                assert_eq!(
                    (counts.saves, counts.restores),
                    (owner_slot.saves, owner_slot.restores),
                    "{name}"
                );
                let none = of(&never, counts.name);
                assert!(none.restores <= counts.restores && none.traps == 0, "{name}: {none:?}");
            } else if counts.basis == Basis::FpuUse {
                let [half, never] = [&half, &never].map(|report| of(report, counts.name));
                assert!(counts.traps > 0 && never.traps == 0, "{name}: {counts:?}");
                // Slices without a use in between set the count of trap-restore back, so that it traps more often, and a
                // trap loads what is still there.
                let fewer = half.traps < counts.traps && half.restores < counts.restores;
                assert!(fewer || counts.name == Builtin::TrapRestore.name(), "{name}: {counts:?}");
                assert_eq!(counts.over_optimum(&report.optimum), [None; 2]);
            } else {
                assert_eq!([&of(&half, counts.name), &of(&never, counts.name)], [counts; 2], "{name}");
                assert_eq!(counts.traps, 0, "{name}: {counts:?}");
            }
        }
        // The same slices, each time.
        assert_eq!(replayed(text, &Builtin::ALL, 0.5).policies, half.policies, "{name}");
        // Whatever the others are: the five exact ones are those of the default.
        let exact: Vec<_> = always.policies.iter().filter(|p| p.basis == Basis::Schedule).collect();
        assert!(exact.into_iter().eq(&report.policies), "{name}");
        assert_eq!(always.agreement, report.agreement, "{name}");
    }
}

/// Nothing is loaded for a task that never uses the FPU, but where a signal's frame needs its registers.
#[test]
fn policies_that_trap_do_nothing_for_slices_without_a_use() {
    let ping_pong = WITH.iter().find(|recording| recording.name == "pipe-2cpu-6.1").expect("bundled");
    let report = replayed(&ping_pong.text, &[Builtin::TrapRestore, Builtin::FullLazy], 0.0);
    for policy in &report.policies {
        assert!(policy.traps == 0 && policy.restores <= 1, "{policy:?}");
    }
    // With five slices in a row that use it, a trap is spared.
    let report = replayed(&ping_pong.text, &[Builtin::TrapRestore, Builtin::FullLazy], 1.0);
    assert!(report.policies[0].traps * 10 < report.policies[1].traps, "{:?}", report.policies);
}

/// Every entry that is seen costs a save, and every return a restore.
#[test]
fn entry_exit_does_more_than_a_policy_that_acts_at_switches() {
    for Recording { name, text, .. } in all() {
        let report = replayed(text, &[Builtin::EntryExit, Builtin::Deferred], 1.0);
        let [entry_exit, deferred] = &report.policies[..] else { panic!("two policies") };
        assert_eq!(entry_exit.basis, Basis::SeenEntries);
        assert!(entry_exit.saves >= deferred.saves && entry_exit.restores > deferred.restores, "{name}");
        assert!(entry_exit.over_optimum(&report.optimum)[1].is_some_and(|ratio| ratio > 1.0), "{name}");
    }
}

/// Beside saves, restores and looks.
#[test]
fn a_trap_and_a_flush_have_their_price() {
    let text = text("hop-2cpu-6.1");
    let report = replayed(&text, &[Builtin::LazySave, Builtin::FullLazy], 1.0);
    let free = Costs {
        save_ns: 0.0,
        restore_ns: 0.0,
        check_ns: 0.0,
        trap_ns: 0.0,
        flush_ns: 0.0,
        control_words_ns: 0.0,
    };
    for policy in &report.policies {
        assert!(policy.flushes > 0 && policy.flushes <= policy.saves, "{policy:?}");
        assert_eq!(policy.cost_ns(&Costs { flush_ns: 3.0, ..free }), 3.0 * policy.flushes as f64);
        assert_eq!(policy.cost_ns(&Costs { trap_ns: 5.0, ..free }), 5.0 * policy.traps as f64);
    }
    assert!(report.policies[1].traps > 0, "{report:?}");
}

/// What a program gives up at a system call is neither saved nor loaded, and costs less than the optimum for one that
/// gives up nothing.
#[test]
fn call_boundary_moves_only_control_words_for_programs_that_call() {
    let calls = WITH.iter().find(|recording| recording.name == "pipe-2cpu-6.1").expect("bundled");
    let report = replayed(&calls.text, &[Builtin::CallBoundary, Builtin::OwnerSlot], 1.0);
    let [call_boundary, owner_slot] = &report.policies[..] else { panic!("two policies") };
    assert_eq!((call_boundary.basis, call_boundary.over_optimum(&report.optimum)), (Basis::Calls, [None; 2]));
    assert!(call_boundary.saves * 10 < report.optimum.saves, "{call_boundary:?}");
    assert!(call_boundary.restores * 10 < report.optimum.restores, "{call_boundary:?}");
    // As many moves, of less.
    let moves = call_boundary.saves + call_boundary.restores + call_boundary.kept_by_calls;
    assert_eq!(moves, owner_slot.saves + owner_slot.restores, "{call_boundary:?}");
    let table = Costs::TABLE;
    assert!(call_boundary.cost_ns(&table) * 5.0 < owner_slot.cost_ns(&table));
}
