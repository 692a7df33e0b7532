//! Recordings that do not hold everything: they start in the middle of things, lines are lost, lines are damaged.
//! What cannot be told is no disagreement, and what can be told still is.

mod recordings;

use fpuswitch::replay::{Decision, Options, Report, replay};
use recordings::{Script, functions, tracepoints};

/// Expects agreement on so many decisions, and so many that cannot be told.
#[track_caller]
fn cannot_tell(script: &Script, decisions: u64, undecidable: u64) -> Report {
    let report = script.agrees(decisions);
    assert_eq!(report.agreement.undecidable, undecidable, "{}", script.text);
    report
}

#[test]
fn the_first_decision_about_a_task_cannot_be_told_and_the_second_can() {
    for loaded in ["", "0 7 loaded"] {
        let first = format!("0 7 returns\n {loaded}");
        let report = cannot_tell(&functions(&first), 0, 1);
        assert_eq!(report.kernel.returns, 1);
        cannot_tell(&functions(&format!("{first}\n 0 7 to 0\n 0 7 saved\n 0 0 timer")), 1, 1);
        functions(&format!("{first}\n ! 0 7 to 0\n 0 0 timer")).disagrees(Decision::SwitchOut, true);
    }
    for saved in ["", "0 7 saved"] {
        // Nothing says that this is no kernel thread,
        cannot_tell(&functions(&format!("0 7 to 0\n {saved}\n 0 0 timer")), 0, 0);
        // and here nothing says where the state is.
        cannot_tell(&functions(&format!("0 7 frame\n 0 7 to 0\n {saved}\n 0 0 timer")), 0, 1);
    }
    // A fork has it in the registers behind it.
    functions("0 7 copies\n ! 0 7 to 0\n 0 0 timer").disagrees(Decision::SwitchOut, true);
}

#[test]
fn the_child_of_an_unknown_parent_is_unknown() {
    for loaded in ["", "0 9 loaded"] {
        let lost = "0 7 copies\n CPU:0 [LOST EVENTS]\n 0 7 forks 9";
        let rows = format!("{lost}\n 0 7 to 9\n 0 9 returns\n {loaded}\n 0 9 enters");
        cannot_tell(&functions(&rows), 0, 2);
    }
}

#[test]
fn a_cpu_may_appear_late() {
    functions(
        "0 7 enters
         0 7 to 0
         0 7 saved
         8191 0 to 7
         ! 8191 7 returns
         8191 7 enters",
    )
    .disagrees(Decision::Return, true);
    // A CPU that is only named has no line.
    let report = functions("0 7 enters\n 0 20 migrates 7 5\n 0 20 timer").agrees(0);
    assert_eq!(report.cpus, 1);
}

/// Task 7's registers are valid on CPU 0, where it comes back; task 8 runs on CPU 1 all the time.
const BEFORE: &str = "
    1 8 enters
    0 7 enters
    0 7 to 0
    0 7 saved
    0 0 to 7
    0 7 timer";

#[test]
fn a_task_that_may_have_run_where_lines_were_lost_is_unknown() {
    let after = "0 7 returns\n 0 7 loaded\n 0 7 enters";
    functions(&format!("{BEFORE}\n ! {after}")).disagrees(Decision::Return, false);
    for lost in ["CPU:0 [LOST 12 EVENTS]", "CPU:0 [LOST EVENTS]"] {
        let report = cannot_tell(&functions(&format!("{BEFORE}\n {lost}\n {after}")), 1, 1);
        assert_eq!(report.lost, 1);
        // On another CPU as well.
        cannot_tell(&functions(&format!("{BEFORE}\n {lost}\n 2 7 returns\n 2 7 enters")), 1, 1);
        // From its return on it is known again.
        functions(&format!("{BEFORE}\n {lost}\n {after}\n ! 0 7 to 0\n 0 0 timer"))
            .disagrees(Decision::SwitchOut, true);
    }
    let known_before = "0 7 enters\n 0 7 to 0\n 0 7 saved\n 0 0 to 20\n 0 20 timer\n CPU:0 [LOST EVENTS]";
    cannot_tell(&functions(&format!("{known_before}\n 1 0 to 7\n 1 7 returns\n 1 7 enters")), 1, 1);
}

#[test]
fn a_task_that_ran_elsewhere_all_the_time_stays_known() {
    for lost in ["CPU:0 [LOST EVENTS]", "CPU:0 [LOST EVENTS]\n CPU:0 [LOST EVENTS]"] {
        functions(&format!("{BEFORE}\n {lost}\n ! 1 8 to 0\n 1 0 timer"))
            .disagrees(Decision::SwitchOut, true);
        cannot_tell(&functions(&format!("{BEFORE}\n {lost}\n 1 8 to 0\n 1 8 saved")), 2, 0);
    }
}

#[test]
fn what_was_seen_of_a_task_that_stays_known_is_kept() {
    // Its load stands before the gap, and the line that it was for behind it.
    cannot_tell(
        &functions(
            "1 8 enters
             1 8 kernel-fpu
             1 8 kernel-fpu-end
             1 8 frame
             0 7 enters
             0 7 timer
             1 8 loaded
             CPU:0 [LOST EVENTS]
             1 8 handler
             1 8 marks
             1 8 loaded",
        ),
        1,
        0,
    );
    cannot_tell(
        &tracepoints(
            "1 8 faults
             1 9 faults
             1 9 to 8
             1 9 saved
             0 7 faults
             0 7 timer
             1 8 loaded
             CPU:0 [LOST EVENTS]
             1 8 enters",
        ),
        2,
        1,
    );
}

#[test]
fn a_task_that_came_or_left_since_the_gap_began_is_unknown() {
    // It came to CPU 1 when CPU 0 had already written its last line.
    let came = "0 7 enters\n 1 8 enters\n 1 8 to 0\n 1 8 saved\n 1 0 to 8\n CPU:0 [LOST EVENTS]";
    cannot_tell(&functions(&format!("{came}\n 1 8 returns\n 1 8 loaded\n 1 8 enters")), 0, 2);
    // It left CPU 1, may have run on CPU 0, and is back; the line of its switch is the last of CPU 1.
    let left = "1 8 enters\n 1 8 kernel-fpu\n 1 8 kernel-fpu-end\n 1 8 returns\n 1 8 loaded\n 1 8 enters
                1 8 to 0\n 1 8 saved\n 1 0 to 8\n 1 8 timer\n 0 7 enters\n 1 8 to 0\n 0 7 timer
                CPU:0 [LOST EVENTS]";
    let report = cannot_tell(&functions(&format!("{left}\n 1 0 to 8\n 1 8 returns\n 1 8 loaded\n")), 2, 2);
    assert_eq!(report.lost, 1);
}

/// The line of a gap stands behind it, before the next line of its CPU.
#[test]
fn what_was_decided_elsewhere_during_a_gap_is_taken_back() {
    let gap = |before: &str, during: &str| {
        let gap = "CPU:0 [LOST EVENTS]\n 0 20 timer";
        let rows = format!("0 20 timer\n 1 8 enters\n {before}\n 0 20 timer\n {during}\n {gap}");
        functions(&rows).report().agreement
    };
    let (saved, not_saved) = ("1 8 to 0\n 1 8 saved\n 1 0 timer", "1 8 to 0\n 1 0 timer");
    for during in [saved, not_saved] {
        let agreement = gap("", during);
        assert_eq!((agreement.decisions, agreement.disagreements, agreement.undecidable), (0, 0, 1));
        assert_eq!(agreement.first, []);
    }
    // What was decided before the gap stays.
    let agreement = gap(&format!("{not_saved}\n 1 0 to 8\n 1 8 enters"), not_saved);
    assert_eq!((agreement.decisions, agreement.disagreements, agreement.undecidable), (2, 1, 1));
    assert_eq!(agreement.first.len(), 1);
    // A write of a tracer whose lines were lost, seen in its target before the gap is.
    cannot_tell(
        &functions(
            "1 105 enters
             1 105 to 0 t
             1 105 saved
             0 104 ptraces 4207 69 0
             1 0 to 105
             1 105 returns
             1 105 loaded
             1 105 enters
             CPU:0 [LOST 2 EVENTS]
             0 104 leaves 101 0",
        ),
        1,
        1,
    );
}

#[test]
fn gaps_of_two_cpus_may_overlap() {
    let report = cannot_tell(
        &functions(
            "0 20 timer
             1 21 timer
             2 8 enters
             2 8 to 0
             2 0 timer
             CPU:0 [LOST EVENTS]
             0 20 timer
             2 0 to 8
             2 8 enters
             2 8 to 0
             2 0 timer
             CPU:1 [LOST EVENTS]
             1 21 timer",
        ),
        0,
        2,
    );
    assert_eq!(report.lost, 2);
}

#[test]
fn what_a_task_was_at_when_lines_were_lost_is_over() {
    let lost = "CPU:0 [LOST EVENTS]\n 0 7 enters";
    // The line that a mark announces: the next load is one.
    let marked =
        format!("0 7 enters\n 0 7 handler\n 0 7 marks\n {lost}\n 0 7 kernel-fpu\n 0 7 kernel-fpu-end");
    let report = cannot_tell(&functions(&format!("{marked}\n 0 7 frame\n 0 7 loaded\n 0 7 handler")), 1, 0);
    assert_eq!(report.kernel.restores, 1);
    functions(&format!("{marked}\n 0 7 frame\n ! 0 7 handler")).disagrees(Decision::SignalFrame, true);
    // A signal return, a fork, a ptrace call.
    let sigreturn = format!("0 7 enters\n 0 7 sigreturn\n {lost}\n 0 7 frame\n 0 7 handler\n 0 7 marks");
    cannot_tell(&functions(&format!("{sigreturn}\n 0 7 loaded\n 0 7 to 0\n 0 7 saved\n 0 0 timer")), 1, 0);
    let fork = format!("0 7 enters\n 0 7 clones\n 0 7 loaded\n {lost}\n 0 7 to 0\n 0 7 saved\n 0 0 timer");
    cannot_tell(&functions(&fork), 1, 0);
    for then in ["0 104 leaves 230 0", "0 104 leaves 101 0", "0 104 writes"] {
        cannot_tell(
            &functions(&format!(
                "0 104 enters
                 1 105 enters
                 0 104 ptraces 4205 69 202
                 CPU:0 [LOST EVENTS]
                 {then}
                 1 105 enters
                 1 105 to 0
                 1 105 saved
                 1 0 to 105
                 1 105 returns
                 1 105 enters"
            )),
            2,
            0,
        );
    }
    // The same where the tracer has been on the lost CPU in the gap, and is back.
    cannot_tell(
        &functions(
            "2 105 enters
             0 20 timer
             1 104 enters
             1 104 ptraces 4205 69 202
             1 104 to 0
             1 104 saved
             1 0 to 104
             1 104 timer
             CPU:0 [LOST EVENTS]
             1 104 writes
             2 105 to 0
             2 105 saved",
        ),
        1,
        1,
    );
}

#[test]
fn an_exit_whose_first_line_is_missing_clears_the_owner_slot() {
    let dies = "0 8 drops\n 0 8 saved\n 0 8 dropped\n 0 8 to 7 Z\n 0 7 returns\n 0 7 loaded\n 0 7 enters";
    functions(&format!("0 7 enters\n 0 7 to 8\n 0 7 saved\n {dies}")).agrees(2);
    let known = "0 8 enters\n 0 8 exits\n CPU:0 [LOST EVENTS]\n 0 7 enters\n 0 7 to 8\n 0 7 saved";
    cannot_tell(&functions(&format!("{known}\n {dies}")), 2, 1);
}

#[test]
fn an_answer_that_was_lost_cannot_be_told() {
    cannot_tell(&functions("0 7 enters\n 0 7 to 0\n CPU:0 [LOST EVENTS]\n 0 0 timer"), 0, 1);
    cannot_tell(
        &functions("0 7 enters\n 0 7 kernel-fpu\n 0 7 returns\n CPU:0 [LOST EVENTS]\n 0 7 enters"),
        0,
        1,
    );
    // The recording ends before the answer.
    cannot_tell(&functions("0 7 enters\n 0 7 to 0"), 0, 1);
}

#[test]
fn the_start_of_a_cpus_buffer_means_that_earlier_lines_were_overwritten() {
    let started = "##### CPU 1 buffer started ####";
    let rows = |started| {
        format!(
            "0 7 enters\n 0 7 to 0\n 0 7 saved\n {started}\n 1 0 timer\n 0 0 to 7\n 0 7 returns\n 0 7 loaded"
        )
    };
    cannot_tell(&functions(&format!("{}\n 0 7 enters", rows(started))), 0, 2);
    let agreement = functions(&format!("{}\n 0 7 enters", rows("# CPU 1"))).report().agreement;
    assert_eq!((agreement.decisions, agreement.disagreements), (2, 1));
    // Who was there cannot be told either where the CPU has no line before.
    for lost in [started, "CPU:1 [LOST EVENTS]", "##### CPU 8191 buffer started ####"] {
        let report = cannot_tell(&functions(&format!("0 7 enters\n {lost}\n 0 7 to 0\n 0 0 timer")), 0, 1);
        assert_eq!(report.lost, 1);
    }
    cannot_tell(
        &functions("0 7 enters\n ##### CPU 4294967295 buffer started ####\n 0 7 to 0\n 0 7 saved"),
        1,
        0,
    );
}

#[test]
fn a_dying_task_whose_last_lines_were_lost_leaves_its_pid_to_the_next() {
    let dies = "0 7 enters\n 0 7 exits\n 0 7 drops\n 0 7 saved\n 0 7 dropped";
    for rows in [
        "CPU:0 [LOST EVENTS]\n 0 7 to 0 Z\n 0 7 saved\n 0 0 timer",
        "CPU:0 [LOST EVENTS]\n 0 7 enters\n 0 7 to 0\n 0 7 saved\n 0 0 timer",
        "0 8 enters\n 0 7 returns\n 0 7 enters",
        "0 7 returns\n 0 7 enters\n 0 7 to 0\n 0 7 saved",
        "1 7 enters\n 1 7 enters",
    ] {
        assert_eq!(functions(&format!("{dies}\n {rows}")).report().agreement.disagreements, 0, "{rows}");
    }
}

#[test]
fn the_idle_task_is_no_user_task_whatever_a_damaged_line_says() {
    let report = functions("0 0 enters\n 0 0 returns\n 0 0 to 7\n 0 7 enters\n 1 0 faults").agrees(0);
    assert!(report.policies.iter().all(|policy| policy.restores == 1), "{:?}", report.policies);
}

/// Minimised from recordings with shuffled or lost lines: each asked for an event that cannot happen.
#[test]
fn lines_that_contradict_each_other_are_replayed_all_the_same() {
    for rows in [
        // The idle task is no user task, and is on several CPUs at once.
        "0 0 enters\n 1 0 to 7\n 1 7 enters",
        "1 0 enters\n 1 7 enters\n 0 7 to 8\n 1 7 timer",
        // A task is elsewhere before its first telling line.
        "0 7 leaves 1 0\n 1 7 enters\n 0 7 enters",
        "0 7 to 20\n 1 7 returns\n 0 20 timer",
        "0 7 leaves 0 1\n 1 7 returns\n 0 7 to 8",
        // Tasks change places on three CPUs.
        "0 7 enters\n 2 7 to 8\n 8 8 enters\n 1 8 to 7\n 0 7 enters",
        "0 107 enters\n 1 107 to 108\n 0 108 returns\n 2 108 to 107\n 0 107 loaded",
        // A child, or a program, has the pid of a task that runs.
        "0 7 copies\n 0 8 returns\n 1 7 forks 8\n 0 7 clones",
        "1 9 enters\n 0 7 copies\n 0 7 forks 9\n 1 9 enters",
        "0 7 copies\n 0 7 forks 7\n 0 7 enters",
        "0 7 copies\n 0 7 forks 0\n 0 0 enters",
        "1 9 enters\n 0 7 enters\n 0 7 execs 9\n 1 9 enters",
        // A fork that copies in a kernel FPU section.
        "0 7 faults\n 0 7 kernel-fpu\n 0 7 copies",
        // A fork that begins in user mode.
        "0 7 returns\n 0 7 clones\n 0 7 loaded\n 0 7 to 0\n 0 0 timer",
        // A signal return before the end of a delivery that loaded and was switched out.
        "0 7 frame\n 0 7 sigreturn\n 0 7 loaded\n 0 8 timer\n 0 7 handler",
        // A fork, a frame, a signal return behind an exit.
        "0 7 enters\n 0 7 exits\n 0 7 dropped\n 0 7 clones\n 0 7 loaded\n 0 7 to 0\n 0 0 timer",
        "0 7 enters\n 0 7 exits\n 0 7 dropped\n 0 7 frame\n 0 7 handler\n 0 7 sigreturn\n 0 7 marks",
        "0 7 enters\n 0 7 exits\n 0 7 dropped\n 0 7 core-dumps\n 0 7 flushes\n 0 7 copies\n 0 7 forks 8",
        // A dead task is on another CPU.
        "0 7 enters\n 0 7 to 8 Z\n 1 7 enters",
        "0 7 enters\n 0 7 exits\n 0 7 dropped\n 1 7 enters",
    ] {
        for script in [functions(rows), tracepoints(rows)] {
            script.report();
        }
    }
}

#[test]
fn a_chain_of_open_switches_over_all_cpus_needs_no_deep_stack() {
    let mut rows = String::new();
    for cpu in 0..8192 {
        rows += &format!("{cpu} {} enters\n{cpu} {} to {}\n", cpu + 1, cpu + 1, cpu + 2);
    }
    // Each task is on the next CPU; whoever is looked for is found one further.
    let report = replay(functions(&(rows + "0 2 enters\n")).text.as_bytes(), &Options::default()).unwrap();
    assert_eq!(report.cpus, 8192);
}
