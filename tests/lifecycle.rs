//! Tasks that come and go, and CPUs that do: behind each event nothing may claim the old state. How to read a
//! story: `support/story.rs`.

mod support;

use fpuswitch::{
    TaskId,
    fpu::{
        Policy,
        policy::{Builtin, FullLazy},
    },
};
use support::{
    Checked,
    register_files::on_every_register_file,
    story::{T0_OUT, T0_RAN, tell, tell_all},
};

#[test]
fn a_child_takes_a_copy_and_no_claim() {
    // Not even where the registers hold just what it would load.
    tell_all(
        "spawn T0; in c0 T0; return c0 T0; user-write c0 AVX 7; entry c0 system-call",
        "fork c0 T1    | saved
         out c0        | saved        | saved        | saved         | saved         | kept
         idle c0
         in c0 T1      | restored     | restored     | load deferred | load deferred | load deferred
         return c0 T1  | already live | already live | restored      | restored      | evicted T0, restored
         read T1 AVX",
    );
    // A parent whose image is the truth needs no save.
    tell_all(
        T0_OUT,
        "in c0 T0      | restored | restore skipped | load deferred     | load deferred     | restore skipped
         fork c0 T3    | saved    | saved           | already in memory | already in memory | saved
         read T3 AVX   | already in memory, read 7
         return c0 T0  | already live | already live | restored | restore skipped | already live",
    );
    // No half of a claim, even if the other could never match it.
    on_every_register_file!(|regs| for policy in Builtin::ALL {
        let mut checked = Checked::on(regs, policy, 1);
        checked.run(T0_RAN).run("fork c0 T3");
        let child = checked.machine.task(TaskId::first(3)).expect("the child").fpstate();
        assert_eq!((child.last_cpu(), child.need_fpu_load()), (None, true), "{}", policy.name());
        // The registers stay the parent's, where it had them.
        let parent = (policy != Builtin::EntryExit).then_some(TaskId::first(0));
        assert_eq!(checked.machine.cpus()[0].slot().owner(), parent, "{}", policy.name());
    });
    // A kernel thread has nothing to copy.
    tell_all(T0_OUT, "in c0 T2\nfork c0 T3 | –\nread T3 AVX | already in memory, read 0");
}

/// A exits elsewhere, so that c0 still names it, and B's child takes its slot.
#[test]
fn a_child_in_a_dead_tasks_slot_does_not_get_the_dead_tasks_registers() {
    tell_all(
        "spawn T0; in c0 T0; return c0 T0; user-write c0 AVX 7; entry c0 system-call; fork c0 T1; out c0; idle c0",
        "write T1 AVX 9 | already in memory
         in c1 T0       | restored     | restored     | load deferred | load deferred | flushed T0 on c0, load deferred
         exit c1        | –
         out c1
         in c1 T1; fork c1 T0.2
         in c0 T0.2     | restored     | restored     | load deferred | load deferred | load deferred
         return c0 T0.2 | already live | already live | restored      | restored      | restored
         read T0.2 AVX",
    );
}

/// A worker of io_uring or vhost runs on the program's memory and never gets to user mode: it has no state to switch.
#[test]
fn a_user_worker_owns_nothing() {
    tell_all(
        T0_RAN,
        "user-worker c0 T3         | –
         out c0                    | saved        | saved           | saved             | saved             | kept
         in c0 T3                  | –
         kernel-fpu-begin c0 task  | already in memory | already in memory | already in memory | already in memory | evicted T0, already in memory
         kernel-fpu-end c0         | –
         out c0                    | –
         in c0 T0                  | restored     | restored        | load deferred     | load deferred     | load deferred
         return c0 T0              | already live | already live    | restored          | restored          | restored",
    );
    tell_all(
        T0_RAN,
        "user-worker c0 T3; out c0; in c0 T3; out c0
         in c0 T0                  | restored     | restore skipped | load deferred     | load deferred     | restore skipped
         return c0 T0              | already live | already live    | restored          | restore skipped   | already live
         entry c0 exception; out c0; in c0 T3; exit c0; out c0; spawn T3.2",
    );
    // It is made of registers as they are, and takes nothing of them.
    on_every_register_file!(|regs| for policy in Builtin::ALL {
        let mut checked = Checked::on(regs, policy, 2);
        checked.run(T0_RAN).run("user-worker c0 T3; migrate T3 c1; in c1 T3");
        let worker = checked.machine.task(TaskId::first(3)).expect("the worker").fpstate();
        assert_eq!((worker.last_cpu(), worker.is_user()), (None, false), "{}", policy.name());
        checked.run("return c0 T0");
    });
}

#[test]
fn a_task_can_exit_on_any_cpu() {
    tell_all(
        T0_OUT,
        "in c1 T0; return c1 T0; user-write c1 AVX 8; entry c1 interrupt
         exit c1         | –
         out c1; idle c1; spawn T0.2
         in c0 T0.2      | restored     | restored     | load deferred | load deferred | load deferred
         return c0 T0.2  | already live | already live | restored      | restored      | restored",
    );
}

/// Exec has to break the claim of a CPU that it does not run on.
#[test]
fn a_new_program_does_not_get_the_old_ones_registers() {
    tell_all(
        T0_OUT,
        "in c1 T0      | restored     | restored     | load deferred     | load deferred     | flushed T0 on c0, load deferred
         exec c1       | restored     | restored     | load deferred     | load deferred     | load deferred
         out c1        | saved        | saved        | already in memory | already in memory | kept
         in c0 T0      | restored     | restored     | load deferred     | load deferred     | load deferred
         return c0 T0  | already live | already live | restored          | restored          | restored",
    );
}

#[test]
fn a_dead_owner_leaves_nothing_behind() {
    tell_all(
        T0_RAN,
        "exit c0        | –
         out c0         | –
         idle c0
         spawn T0.2
         in c0 T0.2     | restored          | restored          | load deferred     | load deferred     | load deferred
         return c0 T0.2 | already live      | already live      | restored          | restored          | restored",
    );
    on_every_register_file!(|regs| for policy in Builtin::ALL {
        let mut checked = Checked::on(regs, policy, 1);
        checked.run(T0_RAN).run("exit c0");
        assert_eq!(checked.machine.cpus()[0].slot().owner(), None, "{}", policy.name());
    });
}

/// The state is nobody's any more, but the CPU that has the only copy does not know that.
#[test]
fn the_only_copy_of_a_task_that_dies_or_starts_afresh_elsewhere_is_flushed() {
    on_every_register_file!(|regs| for end in ["exit c1", "exec c1"] {
        let loads = if end == "exec c1" { ", trap armed" } else { "" };
        let mut checked = Checked::on(regs, FullLazy, 2);
        tell(
            &mut checked,
            Some(0),
            &format!(
                "spawn T0; in c0 T0; return c0 T0
                 first-use c0 | restored
                 user-write c0 AVX 7; entry c0 interrupt
                 out c0       | kept
                 idle c0
                 in c1 T0     | trap armed
                 {end}        | flushed T0 on c0{loads}"
            ),
        );
        assert!(!checked.machine.cpus()[0].slot().holds_only_copy(), "{end}");
    });
}

/// The suspend bug of 2012 (644c15418638), and CPU hotplug, which is the same.
#[test]
fn a_cpu_that_loses_power_loses_its_claims() {
    for (loses, comes_back) in [("power-loss c0", ""), ("offline c0", "online c0 | –")] {
        tell_all(
            T0_OUT,
            &format!(
                "{loses}       | –            | –            | –             | –             | evicted T0
                 {comes_back}
                 in c0 T0      | restored     | restored     | load deferred | load deferred | load deferred
                 return c0 T0  | already live | already live | restored      | restored      | restored"
            ),
        );
    }
}

#[test]
fn a_task_is_read_and_moved_while_its_last_cpu_is_offline() {
    tell_all(
        T0_OUT,
        "offline c0     | – | – | – | – | evicted T0
         read T0 AVX    | already in memory, read 7
         write T0 SSE 3 | already in memory
         migrate T0 c1  | already in memory
         in c1 T0       | restored     | restored     | load deferred | load deferred | load deferred
         return c1 T0   | already live | already live | restored      | restored      | restored",
    );
}

#[test]
fn power_can_be_lost_under_a_kernel_thread() {
    tell_all(
        T0_OUT,
        "in c0 T2; power-loss c0; out c0
         in c0 T0       | restored     | restored     | load deferred | load deferred | load deferred
         return c0 T0   | already live | already live | restored      | restored      | restored",
    );
}
