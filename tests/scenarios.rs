//! Short stories and what each policy decides at every step: the ones that the patch series is about, and the
//! historic bugs of kernels, which must not show.
//!
//! How to read a story: `support/story.rs`.

mod support;

use fpuswitch::{
    Component, CpuId, EventError, Pkru, TaskId,
    fpu::{Policy, policy::Builtin},
    registers::{RegisterFile, UserFrames},
};
use support::{
    Checked, events,
    register_files::on_every_register_file,
    story::{T0_OUT, T0_RAN, tell_all},
};

#[test]
fn a_task_that_waits_finds_its_registers_again() {
    let costs = tell_all(
        T0_RAN,
        "out c0        | saved        | saved           | saved         | saved           | kept
         idle c0       | –
         in c0 T0      | restored     | restore skipped | load deferred | load deferred   | restore skipped
         return c0 T0  | already live | already live    | restored      | restore skipped | already live",
    );
    assert_eq!(costs, [(1, 1), (1, 0), (1, 1), (1, 0), (0, 0)]);
}

#[test]
fn a_kernel_thread_in_between_takes_nothing() {
    let costs = tell_all(
        T0_RAN,
        "out c0        | saved        | saved           | saved         | saved           | kept
         in c0 T2      | –
         out c0        | –
         in c0 T0      | restored     | restore skipped | load deferred | load deferred   | restore skipped
         return c0 T0  | already live | already live    | restored      | restore skipped | already live",
    );
    assert_eq!(costs, [(1, 1), (1, 0), (1, 1), (1, 0), (0, 0)]);
}

#[test]
fn a_kernel_thread_that_uses_the_registers_takes_them() {
    tell_all(
        T0_OUT,
        "in c0 T2                  | –
         kernel-fpu-begin c0 task  | already in memory | already in memory | already in memory | already in memory | evicted T0, already in memory
         kernel-fpu-end c0         | –
         out c0                    | –
         in c0 T0      | restored     | restored        | load deferred | load deferred   | load deferred
         return c0 T0  | already live | already live    | restored      | restored        | restored",
    );
}

#[test]
fn a_task_that_waits_again_before_user_mode_costs_no_restore() {
    let costs = tell_all(
        T0_OUT,
        "in c0 T1; return c0 T1; user-write c0 AVX 9; entry c0 interrupt; out c0; idle c0
         in c0 T0      | restored     | restored        | load deferred     | load deferred     | load deferred
         out c0        | saved        | saved           | already in memory | already in memory | kept
         idle c0
         in c0 T0      | restored     | restore skipped | load deferred     | load deferred     | load deferred
         out c0        | saved        | saved           | already in memory | already in memory | kept
         idle c0
         in c0 T1      | restored     | restored        | load deferred     | load deferred     | restore skipped
         return c0 T1  | already live | already live    | restored          | restore skipped   | already live",
    );
    // The first return of T1 is a restore, and its switch-out a save, or an eviction, or neither.
    assert_eq!(costs, [(3, 4), (3, 3), (1, 2), (1, 1), (1, 1)]);
}

#[test]
fn a_run_of_kernel_fpu_sections_saves_once_and_restores_once() {
    let costs = tell_all(
        T0_RAN,
        "kernel-fpu-begin c0 task    | saved
         kernel-fpu-end c0           | restored     | restored     | load deferred     | load deferred     | load deferred
         kernel-fpu-begin c0 softirq | saved        | saved        | already in memory | already in memory | already in memory
         kernel-fpu-end c0           | restored     | restored     | load deferred     | load deferred     | load deferred
         kernel-fpu-begin c0 hardirq | saved        | saved        | already in memory | already in memory | already in memory
         kernel-fpu-end c0           | restored     | restored     | load deferred     | load deferred     | load deferred
         return c0 T0                | already live | already live | restored          | restored          | restored",
    );
    assert_eq!(costs, [(3, 3), (3, 3), (1, 1), (1, 1), (1, 1)]);
}

/// c0's slot still names T0 when it comes back, but T0 names c1.
#[test]
fn a_claim_is_stale_once_the_task_was_loaded_elsewhere() {
    tell_all(
        T0_RAN,
        "out c0        | saved             | saved             | saved             | saved             | kept
         idle c0
         migrate T0 c1 | already in memory | already in memory | already in memory | already in memory | flushed T0 on c0, already in memory
         in c1 T0      | restored          | restored          | load deferred     | load deferred     | load deferred
         return c1 T0  | already live      | already live      | restored          | restored          | restored
         user-write c1 AVX 8; entry c1 interrupt
         out c1        | saved             | saved             | saved             | saved             | kept
         migrate T0 c0 | already in memory | already in memory | already in memory | already in memory | flushed T0 on c1, already in memory
         in c0 T0      | restored          | restored          | load deferred     | load deferred     | load deferred
         return c0 T0  | already live      | already live      | restored          | restored          | restored",
    );
}

#[test]
fn a_claim_holds_for_a_task_that_went_away_and_came_back_without_running() {
    tell_all(
        T0_OUT,
        "migrate T0 c1 | already in memory | already in memory | already in memory | already in memory | flushed T0 on c0, already in memory
         migrate T0 c0 | already in memory
         in c0 T0      | restored          | restore skipped   | load deferred     | load deferred     | load deferred
         return c0 T0  | already live      | already live      | restored          | restore skipped   | restore skipped",
    );
}

#[test]
fn lazy_save_flushes_at_switch_in_and_evicts_at_the_return() {
    tell_all(
        T0_OUT,
        "in c1 T0      | restored     | restored     | load deferred | load deferred | flushed T0 on c0, load deferred
         return c1 T0  | already live | already live | restored      | restored      | restored
         entry c1 system-call; out c1
         in c1 T1      | restored     | restored     | load deferred | load deferred | load deferred
         return c1 T1  | already live | already live | restored      | restored      | evicted T0, restored",
    );
}

/// The CPU whose registers have the only copy is where the copy is wanted.
#[test]
fn a_task_that_is_queued_where_it_was_is_not_flushed() {
    tell_all(
        T0_OUT,
        "migrate T0 c0 | already in memory | already in memory | already in memory | already in memory | kept
         in c0 T0      | restored          | restore skipped   | load deferred     | load deferred     | restore skipped
         return c0 T0  | already live      | already live      | restored          | restore skipped   | already live",
    );
}

#[test]
fn registers_that_are_said_to_be_nobodys_are_saved_first() {
    tell_all(
        T0_RAN,
        "invalidate-registers c0 | evicted T0, restored | evicted T0, restored | evicted T0, load deferred | evicted T0, load deferred | evicted T0, load deferred
         return c0 T0            | already live         | already live         | restored                  | restored                  | restored",
    );
}

#[test]
fn the_four_verbs_do_no_more_than_needed() {
    tell_all(
        T0_RAN,
        "copy-to-memory c0 | saved, restored | saved, restored | saved, load deferred             | saved, load deferred             | saved, load deferred
         copy-to-memory c0 | saved, restored | saved, restored | already in memory, load deferred | already in memory, load deferred | already in memory, load deferred
         copy-to-cpu c0    | already live    | already live    | restore skipped                  | restore skipped                  | restore skipped
         move-to-memory c0 | saved, restored | saved, restored | already in memory, load deferred | already in memory, load deferred | already in memory, load deferred
         copy-to-cpu c0    | already live    | already live    | restored                         | restored                         | restored
         move-to-cpu c0    | already live    | already live    | restore skipped                  | restore skipped                  | restore skipped
         move-to-cpu c0    | already live
         return c0 T0      | already live",
    );
}

#[test]
fn a_debugger_reads_and_writes_a_stopped_task() {
    tell_all(
        T0_OUT,
        "read T0 AVX    | already in memory, read 7 | already in memory, read 7 | already in memory, read 7 | already in memory, read 7 | saved, read 7
         in c0 T0       | restored                  | restore skipped           | load deferred             | load deferred             | load deferred
         return c0 T0   | already live              | already live              | restored                  | restore skipped           | restore skipped",
    );
    // The registers still claimed T0 (089f9fba56fa, 2012).
    tell_all(
        T0_OUT,
        "write T0 AVX 9 | already in memory | already in memory | already in memory | already in memory | saved
         read T0 AVX    | already in memory, read 9
         in c0 T0       | restored          | restored          | load deferred     | load deferred     | load deferred
         return c0 T0   | already live      | already live      | restored          | restored          | restored",
    );
}

#[test]
fn a_debugger_reads_and_writes_a_task_in_the_kernel_elsewhere() {
    tell_all(
        T0_RAN,
        "read T0 AVX    | saved, restored, read 7 | saved, restored, read 7 | saved, load deferred, read 7 | saved, load deferred, read 7 | saved, load deferred, read 7
         write T0 AVX 9 | saved, restored         | saved, restored         | already in memory, load deferred | already in memory, load deferred | already in memory, load deferred
         return c0 T0   | already live            | already live            | restored                         | restored                         | restored",
    );
    // Inside a kernel FPU section the registers are not the task's, and are not given back before its end.
    tell_all(
        T0_RAN,
        "kernel-fpu-begin c0 softirq | saved
         write T0 AVX 9              | already in memory
         kernel-fpu-end c0           | restored     | restored     | load deferred | load deferred | load deferred
         return c0 T0                | already live | already live | restored      | restored      | restored",
    );
}

#[test]
fn a_debugger_interrupts_a_task_in_user_mode() {
    tell_all(
        "spawn T0; in c1 T0; return c1 T0; user-write c1 AVX 7",
        "read T0 AVX    | interrupted c1, saved, restored, read 7 | interrupted c1, saved, restored, read 7 | interrupted c1, saved, load deferred, read 7 | interrupted c1, saved, load deferred, read 7 | interrupted c1, saved, load deferred, read 7
         return c1 T0   | already live | already live | restored | restore skipped | restore skipped
         write T0 AVX 9 | interrupted c1, saved, restored | interrupted c1, saved, restored | interrupted c1, saved, load deferred | interrupted c1, saved, load deferred | interrupted c1, saved, load deferred
         return c1 T0   | already live | already live | restored | restored | restored",
    );
}

/// In the kernel too: with a deferred restore of PKRU, kernel access to user memory would check the previous
/// task's keys.
#[test]
fn pkru_is_the_current_tasks_from_switch_in_on() {
    let mut told = 0;
    on_every_register_file!(|regs| {
        if regs.pkru().is_some() {
            pkru_story(regs);
            told += 1;
        } else {
            without_pkru(regs);
        }
    });
    assert!(told > 0, "no register file has PKRU");
}

fn pkru_story<R: UserFrames + Clone>(regs: &R) {
    for policy in Builtin::ALL {
        let mut checked = Checked::on(regs, policy, 2);
        let live = |checked: &Checked<Builtin, R>, cpu: u32| {
            let live = checked.machine.cpu(CpuId(cpu)).and_then(|cpu| cpu.regs().pkru());
            live.expect("a PKRU on every CPU")
        };
        checked
            .run("spawn T0; spawn T1; in c0 T0; return c0 T0; user-pkru c0 0x55555550; entry c0 interrupt");
        assert_eq!(live(&checked, 0), Pkru(0x5555_5550), "{}", policy.name());
        checked.run("out c0; in c0 T1");
        assert_eq!(live(&checked, 0), Pkru::DEFAULT, "{}", policy.name());
        checked.run("in c1 T0");
        assert_eq!(live(&checked, 1), Pkru(0x5555_5550), "{}", policy.name());
        // The child's comes from the register: memory has an old one.
        checked.run("return c1 T0; user-pkru c1 0x0; entry c1 system-call; fork c1 T2");
        let child = checked.machine.task(TaskId::first(2)).expect("the child").fpstate();
        assert_eq!(child.pkru(), Pkru(0), "{}", policy.name());
        checked.run("out c1; in c1 T2");
        assert_eq!(live(&checked, 1), Pkru(0), "{}", policy.name());
        checked.run("exec c1");
        assert_eq!(live(&checked, 1), Pkru::DEFAULT, "{}", policy.name());
    }
}

fn without_pkru<R: UserFrames + Clone>(regs: &R) {
    for policy in Builtin::ALL {
        let mut checked = Checked::on(regs, policy, 2);
        checked.run("spawn T0; in c0 T0; return c0 T0");
        let write = checked.follow(events("user-pkru c0 0x55555550")[0]);
        assert_eq!(write, Err(EventError::NoComponent(Component::PKRU)), "{}", policy.name());
        checked.run("entry c0 system-call; fork c0 T1; exec c0; out c0; in c0 T1; return c0 T1");
        let pkrus = checked.machine.tasks().iter().map(|task| task.fpstate().pkru());
        assert!(pkrus.eq([Pkru::DEFAULT; 2]), "{}", policy.name());
    }
}
