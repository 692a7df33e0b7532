//! Recordings with function lines, written by hand: one decision each, and the traps for their reader.

mod recordings;

use fpuswitch::replay::{Decision, Quirk, Report};
use recordings::{Script, functions};

/// A kernel that answers as it must agrees; one that answers the other way disagrees at the marked row only.
#[track_caller]
fn decides(decision: Decision, expected: bool, rows: &str) -> Report {
    let script = |answer| Script::new("# tracer: function\n", rows, answer);
    script(!expected).disagrees(decision, expected);
    let report = script(expected).report();
    assert_eq!(report.agreement.disagreements, 0, "{rows}");
    assert!(report.agreement.decisions > 0 && report.agreement.undecidable == 0, "{:?}", report.agreement);
    report
}

fn quirks(report: &Report, quirk: Quirk) -> u64 {
    report.agreement.quirks.get(&quirk).copied().unwrap_or(0)
}

#[test]
fn a_task_that_ran_user_code_is_saved_when_it_is_switched_out() {
    decides(
        Decision::SwitchOut,
        true,
        "0 7 enters
         ! 0 7 to 0
         ? 0 7 saved
         0 0 timer",
    );
}

#[test]
fn a_task_that_did_not_return_to_user_since_is_not_saved_again() {
    decides(
        Decision::SwitchOut,
        false,
        "0 7 enters
         0 7 to 0
         0 7 saved
         0 0 to 7
         ! 0 7 to 0
         ? 0 7 saved
         0 0 timer",
    );
}

#[test]
fn a_task_that_a_kernel_fpu_section_saved_is_not_saved_again() {
    decides(
        Decision::SwitchOut,
        false,
        "0 7 enters
         0 7 kernel-fpu
         0 7 kernel-fpu-end
         ! 0 7 to 0
         ? 0 7 saved
         0 0 timer",
    );
}

#[test]
fn registers_that_another_task_had_are_loaded_at_the_return() {
    decides(
        Decision::Return,
        true,
        "0 7 enters
         0 7 to 8
         0 7 saved
         0 8 enters
         0 8 to 7
         0 8 saved
         ! 0 7 returns
         ? 0 7 loaded
         0 7 enters",
    );
}

#[test]
fn registers_that_nobody_else_had_are_not_loaded_at_the_return() {
    decides(
        Decision::Return,
        false,
        "0 7 enters
         0 7 to 0
         0 7 saved
         0 0 to 7
         ! 0 7 returns
         ? 0 7 loaded
         0 7 enters",
    );
}

#[test]
fn a_task_that_ran_on_another_cpu_since_is_loaded() {
    decides(
        Decision::Return,
        true,
        "0 7 enters
         0 7 to 0
         0 7 saved
         1 0 to 7
         1 7 returns
         1 7 loaded
         1 7 to 0
         1 7 saved
         0 0 to 7
         ! 0 7 returns
         ? 0 7 loaded
         0 7 enters",
    );
}

#[test]
fn a_kernel_fpu_section_of_a_kernel_thread_or_of_idle_costs_the_owner_a_load() {
    for user in [0, 20] {
        decides(
            Decision::Return,
            true,
            &format!(
                "0 7 enters
                 0 7 to {user}
                 0 7 saved
                 0 {user} kernel-fpu
                 0 {user} kernel-fpu-end
                 0 {user} to 7
                 ! 0 7 returns
                 ? 0 7 loaded
                 0 7 enters"
            ),
        );
    }
}

#[test]
fn a_kernel_that_forgets_to_call_for_the_load_is_found_at_the_next_line_from_user_mode() {
    functions(
        "0 7 enters
         0 7 kernel-fpu
         0 7 kernel-fpu-end
         ! 0 7 enters",
    )
    .disagrees(Decision::Return, true);
    // Without a section between, need_fpu_load is clear and nothing is called.
    functions("0 7 enters\n 0 7 enters\n 0 7 faults").agrees(0);
}

#[test]
fn the_answer_to_a_question_is_a_line_of_the_same_task() {
    functions(
        "0 7 enters
         0 7 kernel-fpu
         0 7 kernel-fpu-end
         ! 0 7 returns
         0 8 loaded",
    )
    .disagrees(Decision::Return, true);
    functions("0 7 enters\n ! 0 7 to 8\n 0 8 saved").disagrees(Decision::SwitchOut, true);
}

#[test]
fn fork_loads_the_parent_unless_its_registers_are_valid() {
    let report = decides(
        Decision::Fork,
        true,
        "0 7 enters
         0 7 kernel-fpu
         0 7 kernel-fpu-end
         0 7 clones
         ? 0 7 loaded
         ! 0 7 copies
         0 7 copied
         0 7 forks 9
         0 7 enters",
    );
    assert_eq!((quirks(&report, Quirk::ForkLoadsParent), report.kernel.restores), (1, 1));
    let report = decides(
        Decision::Fork,
        false,
        "0 7 enters
         0 7 to 0
         0 7 saved
         0 0 to 7
         0 7 clones
         ? 0 7 loaded
         ! 0 7 copies
         0 7 copied
         0 7 forks 9
         0 7 enters",
    );
    assert_eq!((quirks(&report, Quirk::ForkLoadsParent), report.kernel.restores), (0, 0));
}

#[test]
fn a_signal_frame_is_written_from_registers_that_are_loaded_unless_valid() {
    decides(
        Decision::SignalFrame,
        true,
        "0 7 enters
         0 7 kernel-fpu
         0 7 kernel-fpu-end
         0 7 frame
         ? 0 7 loaded
         ! 0 7 handler
         0 7 marks
         0 7 loaded
         0 7 enters",
    );
    decides(
        Decision::SignalFrame,
        false,
        "0 7 enters
         0 7 to 0
         0 7 saved
         0 0 to 7
         0 7 frame
         ? 0 7 loaded
         ! 0 7 handler
         0 7 marks
         0 7 loaded
         0 7 enters",
    );
}

#[test]
fn a_new_program_and_a_child_have_to_be_loaded() {
    decides(
        Decision::Return,
        true,
        "0 7 enters
         0 7 flushes
         0 7 execs 7
         ! 0 7 returns
         ? 0 7 loaded
         0 7 enters",
    );
    decides(
        Decision::Return,
        true,
        "0 7 enters
         0 7 clones
         0 7 copies
         0 7 copied
         0 7 forks 9
         0 7 to 9
         0 7 saved
         ! 0 9 returns
         ? 0 9 loaded
         0 9 enters",
    );
}

#[test]
fn the_deactivated_line_of_an_exit_is_no_save() {
    let report = decides(
        Decision::SwitchOut,
        true,
        "0 7 enters
         0 7 exits
         0 7 drops
         0 7 saved
         0 7 dropped
         ! 0 7 to 0 Z
         ? 0 7 saved
         0 0 timer",
    );
    assert_eq!((report.kernel.saves, quirks(&report, Quirk::ExitSavesDeadTask)), (1, 1));
    // A state that memory holds already is not saved when its task is dead.
    let report = decides(
        Decision::SwitchOut,
        false,
        "0 7 enters
         0 7 kernel-fpu
         0 7 kernel-fpu-end
         0 7 exits
         0 7 drops
         0 7 saved
         0 7 dropped
         ! 0 7 to 0 Z
         ? 0 7 saved
         0 0 timer",
    );
    assert_eq!((report.kernel.saves, quirks(&report, Quirk::ExitSavesDeadTask)), (0, 0));
}

#[test]
fn a_task_may_be_preempted_between_its_exit_and_its_last_switch() {
    let report = functions(
        "0 7 enters
         0 7 exits
         0 7 drops
         0 7 saved
         0 7 dropped
         0 7 to 20 R+
         0 7 saved
         0 20 to 7
         0 7 timer
         0 7 to 0 Z
         0 0 timer
         0 0 to 8
         0 8 enters",
    )
    .agrees(1);
    assert_eq!(quirks(&report, Quirk::ExitSavesDeadTask), 1);
}

#[test]
fn the_activated_line_behind_a_mark_is_no_load() {
    for between in ["", "0 7 timer", "1 20 timer", "1 8 enters"] {
        let report = functions(&format!(
            "0 7 enters
             0 7 frame
             0 7 handler
             0 7 marks
             {between}
             0 7 loaded
             0 7 enters
             0 7 calls 15
             0 7 sigreturn
             0 7 marks
             {between}
             0 7 loaded
             0 7 enters"
        ))
        .agrees(0);
        assert_eq!(report.kernel.restores, 0, "{between}");
    }
}

#[test]
fn a_signal_return_leaves_nothing_to_load() {
    decides(
        Decision::SwitchOut,
        true,
        "0 7 enters
         0 7 kernel-fpu
         0 7 kernel-fpu-end
         0 7 sigreturn
         0 7 marks
         0 7 loaded
         ! 0 7 to 0
         ? 0 7 saved
         0 0 timer",
    );
    // Nor does one that fails: the task gets the initial registers, and a signal.
    decides(
        Decision::SwitchOut,
        true,
        "0 7 enters
         0 7 sigreturn
         0 7 kernel-fpu
         0 7 kernel-fpu-end
         0 7 handler
         0 7 marks
         0 7 loaded
         ! 0 7 to 0
         ? 0 7 saved
         0 0 timer",
    );
}

const BEGINS_AND_ENDS: [(Decision, &str, &str); 2] =
    [(Decision::Fork, "clones", "copies"), (Decision::SignalFrame, "frame", "handler")];

#[test]
fn the_load_of_an_operation_may_come_long_after_its_line() {
    for (decision, begins, ends) in BEGINS_AND_ENDS {
        let report = decides(
            decision,
            true,
            &format!(
                "0 7 enters
                 0 7 kernel-fpu
                 0 7 kernel-fpu-end
                 0 7 {begins}
                 0 7 to 0
                 0 0 to 7
                 ? 0 7 loaded
                 ! 0 7 {ends}"
            ),
        );
        assert_eq!((report.agreement.decisions, report.kernel.restores), (2, 1));
    }
}

#[test]
fn nobody_can_tell_whether_an_operation_was_done_before_its_switch() {
    for (_, begins, ends) in BEGINS_AND_ENDS {
        let rows = format!(
            "0 7 enters
             0 7 {begins}
             0 7 to 8
             0 7 saved
             0 8 enters
             0 8 to 7
             0 8 saved
             ? 0 7 loaded
             0 7 {ends}"
        );
        let replayed = |answer| Script::new("# tracer: function\n", &rows, answer).report();
        // A load says that it was not; without one it must have been, as the registers were another's by then.
        let (with, without) = (replayed(true).agreement, replayed(false).agreement);
        assert_eq!((with.decisions, with.disagreements, with.undecidable), (3, 0, 0), "{begins}");
        assert_eq!((without.decisions, without.disagreements, without.undecidable), (2, 0, 1), "{begins}");
    }
}

#[test]
fn a_load_before_a_switch_inside_an_operation_is_saved_at_the_switch() {
    for (_, begins, ends) in BEGINS_AND_ENDS {
        decides(
            Decision::SwitchOut,
            true,
            &format!(
                "0 7 enters
                 0 7 kernel-fpu
                 0 7 kernel-fpu-end
                 0 7 {begins}
                 0 7 loaded
                 ! 0 7 to 0
                 ? 0 7 saved
                 0 0 to 7
                 0 7 {ends}"
            ),
        );
    }
}

#[test]
fn nobody_can_tell_whether_a_valid_state_was_taken_over_before_the_switch() {
    for (_, begins, ends) in BEGINS_AND_ENDS {
        for answer in [false, true] {
            let rows = format!(
                "0 7 enters
                 0 7 to 0
                 0 7 saved
                 0 0 to 7
                 0 7 {begins}
                 0 7 to 0
                 ? 0 7 saved
                 0 0 to 7
                 0 7 {ends}"
            );
            let agreement = Script::new("# tracer: function\n", &rows, answer).report().agreement;
            assert_eq!((agreement.disagreements, agreement.undecidable), (0, 1), "{begins}, {answer}");
        }
    }
}
