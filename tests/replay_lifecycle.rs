//! Recordings with function lines, written by hand: tasks that act on others, come, go, and change their names.

mod recordings;

use fpuswitch::replay::{Decision, Quirk, Report};
use recordings::functions;

fn quirks(report: &Report, quirk: Quirk) -> u64 {
    report.agreement.quirks.get(&quirk).copied().unwrap_or(0)
}

/// Tracer 104 on CPU 0; tasks 105 (69H), 69 and 106 on CPUs 1, 2 and 3, stopped, their registers still valid.
const STOPPED: &str = "
    0 104 enters
    1 105 enters
    1 105 to 0 t
    1 105 saved
    2 69 enters
    2 69 to 0 t
    2 69 saved
    3 106 enters
    3 106 to 0 t
    3 106 saved";

/// What the three do next: whether each is loaded.
fn resumed(loaded: [bool; 3]) -> String {
    let mut rows = String::new();
    for ((cpu, pid), loaded) in [(1, 105), (2, 69), (3, 106)].into_iter().zip(loaded) {
        rows += &format!("{cpu} 0 to {pid}\n{cpu} {pid} returns\n");
        rows += &if loaded { format!("{cpu} {pid} loaded\n") } else { String::new() };
        rows += &format!("{cpu} {pid} enters\n");
    }
    rows
}

#[test]
fn ptrace_writes_to_the_second_argument_in_hexadecimal_and_to_nobody_else() {
    for write in [
        "0 104 ptraces 4205 69 202\n 0 104 writes\n 0 104 leaves 101 0",
        // PTRACE_SETFPREGS and NT_PRFPREG go through another function, which the recorder does not trace.
        "0 104 ptraces f 69 0\n 0 104 leaves 101 0",
        "0 104 ptraces 4205 69 2\n 0 104 leaves 101 0",
    ] {
        functions(&format!("{STOPPED}\n{write}\n{}", resumed([true, false, false]))).agrees(6);
    }
    let tracer = "
        0 104 ptraces 4205 69 202
        0 104 writes
        0 104 to 0
        0 104 saved
        0 0 to 104
        0 104 returns
        0 104 enters";
    functions(&format!("{STOPPED}\n{tracer}\n{}", resumed([true, false, false]))).agrees(8);
}

#[test]
fn ptrace_calls_that_write_no_registers_change_nothing() {
    for call in [
        "0 104 ptraces 4204 69 202\n 0 104 reads\n 0 104 leaves 101 0",
        "0 104 ptraces 4205 69 202\n 0 104 leaves 101 -14",
        "0 104 ptraces 4205 69 1\n 0 104 leaves 101 0",
        "0 104 ptraces 7 69 0\n 0 104 leaves 101 0",
        // The arguments are those of the call that the tracer is in,
        "0 104 ptraces 4205 69 202\n 0 104 leaves 230 0",
        "0 104 ptraces 4205 69 202\n 0 104 leaves 101 -3\n 0 104 enters\n 0 104 writes",
        "0 104 writes",
    ] {
        functions(&format!("{STOPPED}\n{call}\n{}", resumed([false; 3]))).agrees(6);
    }
}

#[test]
fn a_write_is_seen_wherever_the_target_runs_next() {
    let target = "
        1 0 timer
        0 104 to 105
        0 104 saved
        ! 0 105 returns
        0 105 enters";
    let write = "0 104 ptraces 4205 69 202\n 0 104 writes\n 0 104 leaves 101 0";
    functions(&format!("{STOPPED}\n{write}\n{target}")).disagrees(Decision::Return, true);
    // The last switch of the target is open until the next line of its CPU; the write comes first.
    functions(&format!(
        "0 104 enters
         1 105 enters
         1 105 to 0 t
         1 105 saved
         1 0 to 105
         1 105 to 0 t
         {write}
         1 0 to 105
         1 105 returns
         1 105 loaded
         1 105 enters"
    ))
    .agrees(3);
}

/// Task 7's registers are on CPU 0 when another dies there.
fn exits_beside(other: &str, dying: &str) -> String {
    format!(
        "0 8 enters
         0 8 to 7
         0 8 saved
         0 7 enters
         0 7 to {other}
         0 7 saved
         {dying}
         0 {other} to 7 Z"
    )
}

const EXIT: &str = "0 8 exits\n 0 8 drops\n 0 8 saved\n 0 8 dropped";

#[test]
fn an_exit_clears_the_owner_slot_whoever_it_names() {
    let dies = exits_beside("8", EXIT);
    let report = functions(&format!("{dies}\n 0 7 returns\n 0 7 loaded\n 0 7 enters")).agrees(4);
    assert_eq!((quirks(&report, Quirk::ExitClearsOwner), report.kernel.restores), (1, 1));
    // The machines that are compared do without it.
    let owner_slot = report.policies.iter().find(|policy| policy.name == "owner-slot").unwrap();
    assert_eq!((owner_slot.restores, owner_slot.restores_skipped), (2, 1));
    functions(&format!("{dies}\n ! 0 7 returns\n 0 7 enters")).disagrees(Decision::Return, true);
}

#[test]
fn the_exit_quirk_has_no_price_where_a_load_was_due_anyway() {
    for due in ["0 20 kernel-fpu\n 0 20 kernel-fpu-end", "0 9 enters"] {
        let pid = &due[2..due[2..].find(' ').unwrap() + 2];
        let dies = exits_beside("8", EXIT).replace("to 7 Z", &format!("to {pid} Z"));
        let saved = if pid == "9" { "0 9 saved" } else { "" };
        let report = functions(&format!(
            "{dies}\n {due}\n 0 {pid} to 7\n {saved}\n 0 7 returns\n 0 7 loaded\n 0 7 enters"
        ))
        .report();
        assert_eq!(
            (report.agreement.disagreements, quirks(&report, Quirk::ExitClearsOwner)),
            (0, 0),
            "{due}"
        );
    }
}

#[test]
fn the_exit_of_a_kernel_thread_clears_the_owner_slot_too() {
    let exit = EXIT.replace(" 8 ", " 20 ");
    let dies = exits_beside("20", &exit);
    let report = functions(&format!("{dies}\n 0 7 returns\n 0 7 loaded\n 0 7 enters")).agrees(3);
    assert_eq!(quirks(&report, Quirk::ExitClearsOwner), 1);
}

#[test]
fn newer_kernels_keep_the_owner_slot_at_the_exit_of_a_task_that_does_not_own_it() {
    let dies = exits_beside("8", "0 8 exits\n 0 8 drops");
    functions(&format!("{dies}\n 0 7 returns\n 0 7 enters")).agrees(4);
}

#[test]
fn a_fork_that_fails_drops_the_childs_state_and_not_the_parents() {
    let report = functions(
        "0 7 enters
         0 7 clones
         0 7 copies
         0 7 copied
         0 7 drops
         0 7 dropped
         0 7 to 0
         0 7 saved
         0 0 to 7
         0 7 returns
         0 7 enters",
    )
    .agrees(2);
    assert_eq!(report.agreement.quirks.len(), 0);
}

#[test]
fn a_core_dump_leaves_the_state_in_the_registers_too() {
    functions(
        "0 7 enters
         0 7 core-dumps
         0 7 to 0
         0 7 saved
         0 0 to 7
         0 7 exits
         0 7 to 0 Z
         0 0 timer",
    )
    .agrees(2);
}

/// The dump needs one save; each further one, until the task is dead, is the quirk, and none is a look at the owner.
#[test]
fn a_core_dump_needs_one_save_and_the_others_are_the_quirk() {
    let dies = "0 7 exits\n 0 7 dropped\n 0 7 to 0 Z\n 0 7 saved\n 0 0 timer";
    for (what, rows, redundant, dead) in [
        ("one read", format!("0 7 core-dumps\n {dies}"), 0, 1),
        ("two reads", format!("0 7 core-dumps\n 0 7 core-dumps\n {dies}"), 1, 1),
        ("a switch", "0 7 core-dumps\n 0 7 to 0\n 0 7 saved\n 0 0 timer".to_owned(), 1, 0),
        ("a section", "0 7 core-dumps\n 0 7 kernel-fpu\n 0 7 kernel-fpu-end".to_owned(), 1, 0),
        ("a return", "0 7 core-dumps\n 0 7 returns\n 0 7 enters\n 0 7 to 0\n 0 7 saved".to_owned(), 0, 0),
    ] {
        let report = functions(&format!("0 7 returns\n 0 7 loaded\n 0 7 enters\n {rows}")).report();
        assert_eq!(quirks(&report, Quirk::CoreDumpSavesTwice), redundant, "{what}");
        assert_eq!(quirks(&report, Quirk::ExitSavesDeadTask), dead, "{what}");
        assert_eq!((report.optimum.saves, report.optimum.restores), (1, 1), "{what}");
        assert_eq!(report.reference.restores_skipped, 0, "{what}");
        if what != "a return" {
            assert_eq!(report.beyond_optimum(), [redundant + dead, 0], "{what}");
        }
    }
}

#[test]
fn kernel_threads_decide_nothing() {
    let report = functions(
        "0 20 timer
         0 20 kernel-fpu
         0 20 kernel-fpu-end
         0 20 clones
         0 20 forks 21
         0 20 migrates 21 1
         0 20 to 21
         0 21 kernel-fpu
         0 21 kernel-fpu-end
         0 21 to 0 D
         0 0 to 20
         0 20 to 0 I
         0 0 timer",
    )
    .agrees(0);
    assert_eq!((report.agreement.undecidable, report.kernel.switches), (0, 4));
    assert!(report.policies.iter().all(|policy| policy.saves + policy.restores == 0), "{report:?}");
}

#[test]
fn a_kernel_thread_that_execs_is_a_user_task_from_there_on() {
    functions(
        "0 20 clones
         0 20 forks 21
         0 20 to 21
         0 21 flushes
         0 21 execs 21
         0 21 to 0
         0 0 to 21
         ! 0 21 returns
         0 21 enters",
    )
    .disagrees(Decision::Return, true);
}

#[test]
fn a_pid_that_is_used_again_is_another_task() {
    let dies = "0 7 enters\n 0 7 exits\n 0 7 drops\n 0 7 saved\n 0 7 dropped\n 0 7 to 8 Z\n 0 7 saved";
    let forks = "0 8 enters\n 0 8 clones\n 0 8 copies\n 0 8 copied\n 0 8 forks 7\n 0 8 to 7\n 0 8 saved";
    let report = functions(&format!("{dies}\n {forks}\n 0 7 returns\n 0 7 loaded\n 0 7 enters")).agrees(3);
    assert_eq!(quirks(&report, Quirk::ExitSavesDeadTask), 1);
    functions(&format!("{dies}\n {forks}\n ! 0 7 returns\n 0 7 enters")).disagrees(Decision::Return, true);
}

#[test]
fn a_thread_that_execs_goes_on_under_its_leaders_pid() {
    let leader_dies =
        "1 10 enters\n 1 10 exits\n 1 10 drops\n 1 10 saved\n 1 10 dropped\n 1 10 to 0 Z\n 1 10 saved";
    for between in ["", "0 10 timer\n 0 10 kernel-fpu\n 0 10 kernel-fpu-end"] {
        let report = functions(&format!(
            "0 12 enters
             {leader_dies}
             {between}
             0 10 flushes
             0 10 execs 12
             0 10 returns
             0 10 loaded
             0 10 enters
             0 10 to 0
             0 10 saved
             0 0 to 10
             0 10 returns
             0 10 enters"
        ))
        .agrees(4);
        // The line that is no switch looks like one that has no line.
        assert_eq!(report.agreement.undecidable, 1);
    }
    // The thread's own pid is free again: a child gets it, or a task of which nothing is known.
    let execs = format!("0 12 enters\n {leader_dies}\n 0 10 flushes\n 0 10 execs 12");
    let runs = format!("{execs}\n 0 10 returns\n 0 10 loaded\n 0 10 enters");
    let forks = "0 10 clones\n 0 10 copies\n 0 10 copied\n 0 10 forks 12";
    functions(&format!("{runs}\n {forks}\n 0 10 to 12\n 0 10 saved\n ! 0 12 returns\n 0 12 enters"))
        .disagrees(Decision::Return, true);
    for loaded in ["", "0 12 loaded"] {
        let rows = format!("{runs}\n 0 10 to 12\n 0 10 saved\n 0 12 returns\n {loaded}\n 0 12 enters");
        assert_eq!(functions(&rows).agrees(3).agreement.undecidable, 2);
    }
}

/// Thread 12 waits in exec until its leader 10 is dead, and has its pid before the leader's last switch: the first line
/// of either under the other's pid tells.
#[test]
fn a_thread_that_execs_may_exchange_pids_with_a_leader_that_still_runs() {
    let leader_dies = "1 10 enters\n 1 10 exits\n 1 10 drops\n 1 10 saved\n 1 10 dropped";
    let comes = format!("0 12 enters\n 0 12 to 0 D\n 0 12 saved\n {leader_dies}\n 0 0 to 12");
    let goes_on = "0 10 flushes\n 0 10 execs 12\n 0 10 returns\n 0 10 loaded\n 0 10 enters";
    for comes in [comes.clone(), format!("{comes}\n 0 12 timer")] {
        for rows in [
            // The leader has a line first.
            format!("{comes}\n ! 1 12 to 0 X\n 1 12 saved\n 1 0 timer\n {goes_on}"),
            // The thread has.
            format!("{comes}\n 0 10 timer\n ! 1 12 to 0 X\n 1 12 saved\n 1 0 timer\n {goes_on}"),
            // The leader has its new pid between its last switch and the save.
            format!("{comes}\n ! 1 10 to 0 X\n 1 12 saved\n 1 0 timer\n {goes_on}"),
            // It starts its program before the leader's last switch.
            format!("{comes}\n {goes_on}\n ! 1 12 to 0 X\n 1 12 saved\n 1 0 timer"),
        ] {
            let report = functions(&format!("{rows}\n 0 10 to 0\n 0 10 saved\n 0 0 timer")).agrees(4);
            assert_eq!(report.agreement.undecidable, 0, "{rows}");
            assert_eq!(quirks(&report, Quirk::ExitSavesDeadTask), 1, "{rows}");
            functions(&rows.replace("\n 1 12 saved", "")).disagrees(Decision::SwitchOut, true);
        }
    }
}

#[test]
fn the_optimum_saves_and_restores_what_is_needed() {
    let away =
        "0 7 to 8\n 0 7 saved\n 0 8 enters\n 0 8 to 7\n 0 8 saved\n 0 7 returns\n 0 7 loaded\n 0 7 enters";
    for (what, rows, saves, restores) in [
        ("the first load", "0 7 enters".to_owned(), 0, 1),
        ("valid registers", "0 7 enters\n 0 7 to 0\n 0 7 saved\n 0 0 to 7\n 0 7 enters".to_owned(), 0, 1),
        ("registers of another task", format!("0 7 enters\n {away}"), 1, 3),
        ("a kernel FPU section", "0 7 enters\n 0 7 kernel-fpu\n 0 7 returns\n 0 7 loaded".to_owned(), 1, 2),
        ("two sections in a row", "0 7 enters\n 0 7 kernel-fpu\n 0 7 kernel-fpu".to_owned(), 0, 1),
        ("a dead task", "0 7 enters\n 0 7 exits\n 0 7 dropped\n 0 7 to 8 Z\n 0 8 enters".to_owned(), 0, 2),
        ("a new program", "0 7 enters\n 0 7 flushes\n 0 7 returns\n 0 7 loaded".to_owned(), 0, 2),
        (
            "a fork",
            "0 7 enters\n 0 7 copies\n 0 7 forks 9\n 0 7 to 9\n 0 7 saved\n 0 9 returns".to_owned(),
            1,
            2,
        ),
        (
            "a handler",
            "0 7 enters\n 0 7 frame\n 0 7 handler\n 0 7 marks\n 0 7 loaded\n 0 7 enters".to_owned(),
            1,
            1,
        ),
        // What the registers held before it is not needed any more, and it leaves its own state there.
        (
            "a signal return",
            "0 7 enters\n 0 7 sigreturn\n 0 7 kernel-fpu\n 0 7 marks\n 0 7 loaded\n 0 7 enters".to_owned(),
            0,
            1,
        ),
    ] {
        let optimum = functions(&rows).report().optimum;
        assert_eq!((optimum.saves, optimum.restores), (saves, restores), "{what}\n{rows}");
    }
}

/// Its state is dropped while only the registers have it, and need_fpu_load stays clear.
#[test]
fn a_kernel_fpu_section_saves_a_dead_task_so_that_its_last_switch_does_not() {
    let section = "0 7 kernel-fpu\n 0 7 kernel-fpu-end";
    let dies =
        format!("0 7 enters\n 0 7 exits\n 0 7 drops\n 0 7 saved\n 0 7 dropped\n {section}\n {section}");
    let report = functions(&format!("{dies}\n 0 7 to 0 Z\n 0 0 timer")).agrees(1);
    assert_eq!(quirks(&report, Quirk::KernelFpuSavesDeadTask), 1);
    assert_eq!(quirks(&report, Quirk::ExitSavesDeadTask), 0);
    assert_eq!((report.reference.saves, report.as_the_kernel().saves), (0, 1));
    // Task 8 dies without a section in between: what the kernel saved has both quirks.
    let other =
        "0 0 to 8\n 0 8 enters\n 0 8 exits\n 0 8 drops\n 0 8 saved\n 0 8 dropped\n 0 8 to 0 Z\n 0 8 saved";
    let report = functions(&format!("{dies}\n 0 7 to 0 Z\n {other}\n 0 0 timer")).agrees(2);
    assert_eq!(quirks(&report, Quirk::KernelFpuSavesDeadTask), 1);
    assert_eq!(quirks(&report, Quirk::ExitSavesDeadTask), 1);
    assert_eq!(report.as_the_kernel().saves, report.reference.saves + 2);
    assert_eq!(report.beyond_optimum()[0], 2);
    functions(&format!("{dies}\n ! 0 7 to 0 Z\n 0 7 saved\n 0 0 timer"))
        .disagrees(Decision::SwitchOut, false);
}
