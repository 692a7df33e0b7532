//! Why the kernel's policy restored, and for whom: on recordings written by hand, and sums on all that are bundled.

mod recordings;

use fpuswitch::replay::{Cause, Options, Report, TaskRestores, replay};
use recordings::{functions, gzip};

/// What each restore was put down to, most frequent first.
#[track_caller]
fn causes(rows: &str) -> Vec<(Cause, u64)> {
    let report = functions(rows).report();
    assert_eq!(report.agreement.disagreements, 0, "{:?}", report.agreement.first);
    assert_eq!(report.causes.total(), report.reference.restores);
    report.causes.sorted()
}

/// Task 7 was loaded on CPU 0 and waits, its state saved.
const WAITS: &str = "
    0 7 returns
    0 7 loaded
    0 7 enters
    0 7 to 0
    0 7 saved
";

#[track_caller]
fn second_restore_of_7(between: &str, cpu: u32) -> Vec<(Cause, u64)> {
    let found = causes(&format!(
        "{WAITS}{between}
        {cpu} 0 to 7
        {cpu} 7 returns
        {cpu} 7 loaded
        {cpu} 7 enters"
    ));
    found.into_iter().filter(|(cause, _)| *cause != Cause::FirstLoad).collect()
}

#[test]
fn a_first_load_has_no_other_cause() {
    assert_eq!(causes(WAITS), [(Cause::FirstLoad, 1)]);
}

#[test]
fn another_task_that_was_loaded_here_is_the_cause() {
    let between = "
        0 0 to 8
        0 8 returns
        0 8 loaded
        0 8 enters
        0 8 to 0
        0 8 saved";
    assert_eq!(second_restore_of_7(between, 0), [(Cause::OtherTask, 1)]);
}

#[test]
fn a_kernel_fpu_section_is_the_cause_if_nobody_else_was_loaded() {
    let section = "
        0 0 kernel-fpu
        0 0 kernel-fpu-end";
    assert_eq!(second_restore_of_7(section, 0), [(Cause::KernelFpu, 1)]);
    let other = "
        0 0 to 8
        0 8 returns
        0 8 loaded
        0 8 enters
        0 8 to 0
        0 8 saved";
    // Without the section it would have been restored all the same.
    assert_eq!(second_restore_of_7(&format!("{section}{other}"), 0), [(Cause::OtherTask, 1)]);
    assert_eq!(second_restore_of_7(&format!("{other}{section}"), 0), [(Cause::OtherTask, 1)]);
}

#[test]
fn another_cpu_is_the_cause_whoever_was_loaded_there() {
    assert_eq!(second_restore_of_7("", 1), [(Cause::Migration, 1)]);
    let section = "
        0 0 kernel-fpu
        0 0 kernel-fpu-end";
    assert_eq!(second_restore_of_7(section, 1), [(Cause::Migration, 1)]);
}

#[test]
fn a_new_program_and_a_write_by_a_tracer_change_the_image() {
    let exec = format!(
        "{WAITS}
        0 0 to 7
        0 7 flushes
        0 7 execs 7
        0 7 returns
        0 7 loaded
        0 7 enters"
    );
    assert_eq!(causes(&exec), [(Cause::ImageChanged, 1), (Cause::FirstLoad, 1)]);
    let written = "
        1 9 ptraces 4205 7 202
        1 9 writes
        1 9 leaves 101 0";
    assert_eq!(second_restore_of_7(written, 0), [(Cause::ImageChanged, 1)]);
}

#[test]
fn the_exit_of_another_task_is_a_cause_of_its_own() {
    // A kernel thread, or a task first seen, exits where the slot names task 7.
    let exit = "
        0 0 to 8
        0 8 exits
        0 8 dropped
        0 8 to 0 Z";
    assert_eq!(second_restore_of_7(exit, 0), [(Cause::ExitClearedOwner, 1)]);
    let clobbered = format!(
        "{exit}
        0 0 kernel-fpu
        0 0 kernel-fpu-end"
    );
    assert_eq!(second_restore_of_7(&clobbered, 0), [(Cause::KernelFpu, 1)]);
}

#[test]
fn a_reference_that_does_not_look_restores_for_no_reason() {
    let rows = format!(
        "{WAITS}
        0 0 to 7
        0 7 returns
        0 7 loaded
        0 7 enters"
    );
    let options = Options { reference: "deferred".parse().expect("a policy"), ..Options::default() };
    let report = replay(functions(&rows).text.as_bytes(), &options).expect("a recording");
    assert_eq!(report.causes.sorted(), [(Cause::FirstLoad, 1), (Cause::NotLooked, 1)]);
}

#[test]
fn the_tasks_with_most_restores_come_first_with_names_and_pids() {
    let mut rows = WAITS.to_owned();
    for pid in [8, 9, 8, 7, 8] {
        rows += &format!(
            "
        0 0 to {pid}
        0 {pid} returns
        0 {pid} loaded
        0 {pid} enters
        0 {pid} to 0
        0 {pid} saved"
        );
    }
    let report = functions(&rows).report();
    let top: Vec<_> = report.top.iter().map(|task| (task.pid, task.restores.total())).collect();
    assert_eq!(top, [(8, 3), (7, 2), (9, 1)]);
    assert!(report.top.iter().all(|task| task.name == "task"));
}

#[test]
fn names_come_from_switches_where_the_front_of_lines_has_none() {
    let name = |rows: &str| {
        let text = functions(rows).text.replace(" task-", " <...>-").replace("comm=task", "comm=a ==> b");
        let report = replay(text.as_bytes(), &Options::default()).expect("a recording");
        report.top[0].name.clone()
    };
    assert_eq!(name(WAITS), "a ==> b");
    // It runs as the recording ends: the switch to it has its name.
    let comes = "0 0 to 7\n 0 7 returns\n 0 7 loaded\n 0 7 enters";
    assert_eq!(name(comes), "a ==> b");
    assert_eq!(name("0 7 returns\n 0 7 loaded\n 0 7 enters\n 0 7 exits"), "a ==> b");
}

#[test]
fn tasks_that_are_gone_are_kept_if_they_have_most() {
    // Twice as many tasks as are kept, each of which dies; the last ones are restored twice.
    let mut rows = String::new();
    let most = TaskRestores::MOST_KEPT as u32;
    for pid in 100..100 + 2 * most {
        let rounds = if pid < 100 + most { 1 } else { 2 };
        for _ in 0..rounds {
            rows += &format!(
                "
                0 0 to {pid}
                0 {pid} returns
                0 {pid} loaded
                0 {pid} enters
                0 {pid} to 0
                0 {pid} saved
                0 0 kernel-fpu
                0 0 kernel-fpu-end"
            );
        }
        rows += &format!(
            "
            0 0 to {pid}
            0 {pid} exits
            0 {pid} dropped
            0 {pid} to 0 Z"
        );
    }
    let report = functions(&rows).report();
    assert_eq!(report.top.len(), TaskRestores::MOST_KEPT);
    assert!(report.top.iter().all(|task| task.pid >= 100 + most && task.restores.total() == 2));
}

fn bundled(name: &str) -> Report {
    replay(&gzip(name)[..], &Options::default()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn causes_and_tasks_add_up_in_every_bundled_recording() {
    for name in recordings::WITH_FUNCTIONS.into_iter().chain([recordings::TRACEPOINTS_ONLY]) {
        let report = bundled(name);
        assert_eq!(report.causes.total(), report.reference.restores, "{name}");
        assert_eq!(report.causes.of(Cause::NotLooked), 0, "{name}");
        let top: u64 = report.top.iter().map(|task| task.restores.total()).sum();
        assert!(top <= report.causes.total(), "{name}");
        assert!(report.top.iter().all(|task| task.pid != 0 && !task.name.is_empty()), "{name}");
        assert!(report.top.is_sorted_by_key(|task| core::cmp::Reverse(task.restores.total())), "{name}");
        let schedule = report.schedule;
        assert!(schedule.valid_returns <= schedule.due_returns, "{name}");
        assert!(schedule.involuntary <= schedule.used_slices, "{name}");
    }
    // Three restores by the quirk, and three that are put down to it.
    let fork = bundled("fork-2cpu-6.1");
    assert_eq!(fork.causes.of(Cause::ExitClearedOwner), 3);
    // One kernel FPU section after the other.
    let kfpu = bundled("kfpu-2cpu-6.1");
    assert!(kfpu.causes.of(Cause::KernelFpu) * 100 > 95 * kfpu.causes.total(), "{:?}", kfpu.causes);
    let hop = bundled("hop-2cpu-6.1");
    assert!(hop.causes.of(Cause::Migration) * 100 > 90 * hop.causes.total(), "{:?}", hop.causes);
}
