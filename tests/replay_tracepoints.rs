//! Recordings without function lines, written by hand: what follows tells of returns, and what is otherwise
//! impossible tells of returns and kernel FPU sections that nobody saw.

mod recordings;

use fpuswitch::replay::{Agreement, Decision, Options, Report, replay};
use recordings::{Script, tracepoints};

/// Expects agreement, and so much inferred: returns, and kernel FPU sections.
#[track_caller]
fn infers(returns: u64, kernel_fpu: u64, decisions: u64, rows: &str) -> Report {
    let report = tracepoints(rows).agrees(decisions);
    let inferred = (report.agreement.inferred_returns, report.agreement.inferred_kernel_fpu);
    assert_eq!(inferred, (returns, kernel_fpu), "{rows}");
    assert!(!report.has_functions);
    report
}

/// Task 7 was in user mode, and task 8 has the registers since.
const REPLACED: &str = "
    0 7 faults
    0 7 to 8
    0 7 saved
    0 8 faults
    0 8 to 7
    0 8 saved";

#[test]
fn a_return_is_known_from_the_next_line_out_of_user_mode() {
    for next in ["enters", "faults"] {
        let rows = format!("{REPLACED}\n ? 0 7 loaded\n ! 0 7 {next}");
        Script::new("# tracer: nop\n", &rows, false).disagrees(Decision::Return, true);
        let report = Script::new("# tracer: nop\n", &rows, true).report();
        let kernel = report.kernel;
        assert_eq!((kernel.returns, kernel.restores, report.agreement.inferred()), (1, 1, 0));
        infers(0, 0, 2, &format!("0 7 faults\n 0 7 to 0\n 0 7 saved\n 0 0 to 7\n 0 7 {next}"));
    }
}

#[test]
fn a_return_is_known_from_the_load_when_the_task_is_switched_out() {
    infers(0, 0, 4, &format!("{REPLACED}\n 0 7 loaded\n 0 7 to 0\n 0 7 saved\n 0 0 timer"));
    // A task that returned to user has to be saved.
    tracepoints(&format!("{REPLACED}\n 0 7 loaded\n ! 0 7 to 0\n 0 0 timer"))
        .disagrees(Decision::SwitchOut, true);
}

#[test]
fn a_save_proves_a_return_that_nobody_saw() {
    let between = "0 7 faults\n 0 7 to 0\n 0 7 saved\n 0 0 to 7";
    let report = infers(1, 0, 1, &format!("{between}\n 0 7 to 0\n 0 7 saved\n 0 0 timer"));
    assert!(report.agreement.infers_too_much());
    // Nothing of the kind without the save.
    infers(0, 0, 2, &format!("{between}\n 0 7 to 0\n 0 0 timer"));
    // The return that it proves had to load.
    tracepoints(&format!("{REPLACED}\n ! 0 7 to 0\n 0 7 saved\n 0 0 timer"))
        .disagrees(Decision::Return, true);
}

#[test]
fn a_save_proves_a_user_task_that_was_not_seen_before() {
    let report = infers(
        1,
        0,
        1,
        "0 7 to 0
         0 7 saved
         0 0 to 7
         0 7 faults",
    );
    assert_eq!((report.kernel.saves, report.agreement.undecidable), (1, 0));
    let idle = infers(0, 0, 0, "0 0 to 20\n 0 0 saved\n 0 20 timer");
    assert!(idle.policies.iter().all(|policy| policy.saves == 0));
}

#[test]
fn a_load_that_nothing_else_explains_proves_a_kernel_fpu_section() {
    // At a return where the registers were valid,
    infers(0, 1, 1, "0 7 faults\n 0 7 to 0\n 0 7 saved\n 0 0 to 7\n 0 7 loaded\n 0 7 enters");
    // at a return without a switch before,
    infers(0, 1, 0, "0 7 faults\n 0 7 loaded\n 0 7 enters");
    // in a fork,
    infers(0, 1, 0, "0 7 calls 56\n 0 7 loaded\n 0 7 copied\n 0 7 forks 9\n 0 7 leaves 56 9");
    // and for a signal frame, whose own activated line is the second.
    infers(0, 1, 0, "0 7 faults\n 0 7 delivers 401fb0\n 0 7 loaded\n 0 7 loaded\n 0 7 enters");
}

#[test]
fn a_missing_last_save_proves_a_kernel_fpu_section() {
    for drop in ["", "0 7 saved\n 0 7 dropped"] {
        infers(0, 1, 0, &format!("0 7 faults\n 0 7 exits\n {drop}\n 0 7 to 0 Z\n 0 0 timer"));
        infers(0, 0, 1, &format!("0 7 faults\n 0 7 exits\n {drop}\n 0 7 to 0 Z\n 0 7 saved\n 0 0 timer"));
    }
    // A living task has to be saved.
    tracepoints("0 7 faults\n ! 0 7 to 0\n 0 0 timer").disagrees(Decision::SwitchOut, true);
}

#[test]
fn the_dropped_state_of_the_next_task_is_no_save_of_the_one_before() {
    let report = infers(
        0,
        0,
        4,
        "0 8 faults
         0 8 to 7
         0 8 saved
         0 7 faults
         0 7 to 8
         0 7 saved
         0 8 exits
         0 8 to 7 R
         0 7 timer
         0 7 to 8
         0 8 saved
         0 8 dropped",
    );
    assert_eq!((report.kernel.saves, report.kernel.switches), (2, 4));
}

#[test]
fn a_switch_out_of_idle_may_have_no_line() {
    let saved = "0 7 faults\n 0 7 to 0\n 0 7 saved\n 0 0 timer";
    infers(0, 0, 2, &format!("{saved}\n 0 7 enters"));
    infers(0, 0, 2, &format!("{saved}\n 0 8 faults\n 0 8 to 0\n 0 8 saved"));
    tracepoints(&format!("{saved}\n 0 8 faults\n 0 8 to 7\n 0 8 saved\n ! 0 7 enters"))
        .disagrees(Decision::Return, true);
    // On the way to another CPU, too.
    tracepoints(&format!("{saved}\n ! 1 7 enters")).disagrees(Decision::Return, true);
}

#[test]
fn the_line_of_a_save_alone_is_no_sign_of_a_switch() {
    let report = infers(0, 0, 1, "0 8 faults\n 0 7 saved\n 0 8 to 0\n 0 8 saved\n 0 0 timer");
    assert_eq!(report.agreement.undecidable, 0);
}

#[test]
fn signals_are_told_from_returns_by_their_system_calls() {
    let report = infers(
        0,
        0,
        0,
        "0 7 faults
         0 7 delivers 401fb0
         0 7 loaded
         0 7 calls 15
         0 7 loaded
         0 7 leaves 15 0
         0 7 enters",
    );
    assert_eq!(report.kernel.restores, 0);
    // A load before the frame is one.
    let report = infers(
        0,
        0,
        3,
        &format!("{REPLACED}\n 0 7 delivers 401fb0\n 0 7 loaded\n 0 7 loaded\n 0 7 calls 15\n 0 7 loaded"),
    );
    assert_eq!(report.kernel.restores, 1);
    // Without a handler there is no frame: the load is that of the return.
    for handler in ["0", "1"] {
        infers(0, 0, 3, &format!("{REPLACED}\n 0 7 delivers {handler}\n 0 7 loaded\n 0 7 enters"));
    }
}

#[test]
fn a_ptrace_call_that_wrote_registers_is_known_from_its_result() {
    let stopped = "0 104 faults\n 1 105 faults\n 1 105 to 0 t\n 1 105 saved";
    for (call, result, loaded) in [("4205 69 202", "0", true), ("4205 69 202", "-5", false)] {
        let load = if loaded { "1 105 loaded" } else { "" };
        infers(
            0,
            0,
            2,
            &format!(
                "{stopped}
                 0 104 ptraces {call}
                 0 104 leaves 101 {result}
                 1 0 to 105
                 {load}
                 1 105 enters"
            ),
        );
    }
}

#[test]
fn more_than_one_inferred_in_twenty_is_too_much() {
    let agreement = |switches: u64| -> Agreement {
        let mut rows = "0 7 faults\n".to_owned();
        for _ in 0..switches {
            rows += "0 7 to 0\n 0 7 saved\n 0 0 to 7\n 0 7 faults\n";
        }
        // One load too many.
        infers(0, 1, 2 * switches, &(rows + "0 7 loaded\n 0 7 faults")).agreement
    };
    assert!(agreement(9).infers_too_much());
    assert!(!agreement(10).infers_too_much());
}

#[test]
fn a_function_line_tells_that_there_are_function_lines() {
    for line in ["0 7 returns", "0 7 kernel-fpu"] {
        assert!(Script::new("", &format!("{line}\n 0 7 timer"), true).report().has_functions);
    }
    assert!(!Script::new("", "0 7 enters", true).report().has_functions);
}

/// Lines of a recording of 6.18: task 19399 is preempted inside execve, behind the flush, which has no line.
const PREEMPTED_IN_EXEC: &str = "# tracer: nop
           sleep-19399   [001] .....  3522.391649: sys_enter: NR 59 (7f7ba387ad30, 564ae56cffd0, 7ffe90ff4018, 8, 7ffe90ff5ee2, 0)
           sleep-19399   [001] .....  3522.391653: sys_exit: NR 59 = -2
           sleep-19399   [001] .....  3522.391653: sys_enter: NR 59 (7f7ba387ad30, 564ae56cffd0, 7ffe90ff4018, 8, 7ffe90ff5eeb, 0)
           sleep-19399   [001] d..2.  3522.391754: sched_switch: prev_comm=fpuswitch prev_pid=19399 prev_prio=120 prev_state=R+ ==> next_comm=fpuswitch next_pid=19398 next_prio=120
       fpuswitch-19398   [001] d..2.  3522.392262: sched_switch: prev_comm=fpuswitch prev_pid=19398 prev_prio=120 prev_state=R ==> next_comm=fpuswitch next_pid=19399 next_prio=120
           sleep-19399   [001] .....  3522.392366: sched_process_exec: filename=/usr/bin/sleep pid=19399 old_pid=19399
           sleep-19399   [001] .....  3522.392368: sys_exit: NR 59 = 0
           sleep-19399   [001] d....  3522.392368: x86_fpu_regs_activated: x86/fpu: 00000000f59d79c1 load: 1 xfeatures: 0 xcomp_bv: 8000000000000807
           sleep-19399   [001] .....  3522.392390: sys_enter: NR 12 (0, 0, 0, 0, 0, 0)
";

#[test]
fn whether_a_switch_inside_an_exec_saves_cannot_be_told() {
    let read = |text: &str| replay(text.as_bytes(), &Options::default()).expect("a recording").agreement;
    let agreement = read(PREEMPTED_IN_EXEC);
    // The return with the new program's registers is the one decision.
    assert_eq!((agreement.decisions, agreement.disagreements, agreement.undecidable), (1, 0, 1));
    // An exec that has failed has flushed nothing.
    let failed = PREEMPTED_IN_EXEC.lines().enumerate().filter(|(number, _)| *number != 3);
    let failed: String = failed.map(|(_, line)| format!("{line}\n")).collect();
    let agreement = read(&failed);
    let found = &agreement.first[0];
    assert_eq!((found.line, found.decision, found.expected), (4, Decision::SwitchOut, true));
}
