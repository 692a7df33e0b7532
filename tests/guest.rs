//! Guests: two images that change places, and whose the registers are in between. How to read a story:
//! `support/story.rs`.

mod support;

use fpuswitch::{
    Component, ComponentSet, TaskId,
    fpu::{Policy, policy::Builtin},
};
use support::{
    Checked, events,
    register_files::on_every_register_file,
    story::{T0_OUT, T0_RAN, tell_all, tell_where},
};

#[test]
fn the_program_and_its_guest_each_find_their_own_state_again() {
    tell_all(
        T0_RAN,
        "guest-load c0   | saved, restored | saved, restored | saved, load deferred | saved, load deferred | saved, load deferred
         guest-enter c0  | already live    | already live    | restored             | restored             | restored
         user-write c0 AVX 8; guest-exit c0
         guest-put c0    | saved, restored | saved, restored | saved, load deferred | saved, load deferred | saved, load deferred
         return c0 T0    | already live    | already live    | restored             | restored             | restored
         user-write c0 SSE 9; entry c0 system-call
         guest-load c0   | saved, restored | saved, restored | saved, load deferred | saved, load deferred | saved, load deferred
         guest-enter c0  | already live    | already live    | restored             | restored             | restored
         guest-exit c0; guest-put c0; return c0 T0",
    );
}

/// e751732486eb, 2019: a softirq sets need_fpu_load without any switch, and the entry of the guest did not look.
#[test]
fn a_guest_is_loaded_again_behind_a_softirq_that_used_the_registers() {
    tell_all(
        T0_RAN,
        "guest-load c0; guest-enter c0; user-write c0 AVX 8; guest-exit c0
         softirq-begin c0            | –
         kernel-fpu-begin c0 softirq | saved
         kernel-fpu-end c0           | restored     | restored     | load deferred | load deferred | load deferred
         softirq-end c0              | –
         guest-enter c0              | already live | already live | restored      | restored      | restored",
    );
    // Before the first entry, too.
    tell_all(
        T0_RAN,
        "guest-load c0; kernel-fpu-begin c0 task; kernel-fpu-end c0
         guest-enter c0              | already live | already live | restored      | restored      | restored",
    );
}

/// The first of the two errors of e751732486eb: the put saved registers that were not the guest's any more.
#[test]
fn a_put_behind_a_kernel_fpu_section_saves_no_foreign_registers() {
    tell_all(
        T0_RAN,
        "guest-load c0; guest-enter c0; user-write c0 AVX 8; guest-exit c0
         kernel-fpu-begin c0 softirq; kernel-fpu-end c0
         guest-put c0   | saved, restored | saved, restored | already in memory, load deferred | already in memory, load deferred | already in memory, load deferred
         return c0 T0   | already live    | already live    | restored | restored | restored
         entry c0 system-call; guest-load c0; guest-enter c0",
    );
}

#[test]
fn a_guest_moves_with_its_task() {
    tell_all(
        T0_RAN,
        "guest-load c0; guest-enter c0; user-write c0 AVX 8; guest-exit c0
         out c0         | saved           | saved           | saved                | saved                | kept
         in c0 T1; return c0 T1; user-write c0 AVX 9; entry c0 interrupt; out c0; idle c0
         in c1 T0       | restored        | restored        | load deferred        | load deferred        | load deferred
         guest-enter c1 | already live    | already live    | restored             | restored             | restored
         guest-exit c1
         guest-put c1   | saved, restored | saved, restored | saved, load deferred | saved, load deferred | saved, load deferred
         return c1 T0   | already live    | already live    | restored             | restored             | restored",
    );
}

/// A claim is about one image. After the swap it is about another, and the registers still hold the first.
#[test]
fn a_swap_ends_every_claim_on_the_task() {
    tell_all(
        T0_OUT,
        "in c1 T0
         guest-load c1; out c1; idle c1
         in c0 T0       | restored        | restored        | load deferred        | load deferred        | load deferred
         guest-enter c0 | already live    | already live    | restored             | restored             | restored",
    );
}

/// What a program gave up at its system call is no business of its guest, whose state is whole.
#[test]
fn what_a_program_gave_up_at_its_call_is_given_up_again_behind_the_guest() {
    on_every_register_file!(|regs| {
        let mut checked = Checked::on(regs, Builtin::CallBoundary, 1);
        checked.run("spawn T0; spawn T1; in c0 T0; return c0 T0; user-write c0 SSE 3; entry c0 system-call");
        checked.run("guest-load c0; guest-enter c0; user-write c0 AVX 8; guest-exit c0; out c0");
        checked.run("in c0 T1; return c0 T1; user-write c0 AVX 9; entry c0 interrupt; out c0");
        for (text, outcome) in [
            ("in c0 T0", "load deferred"),
            ("guest-enter c0", "restored"),
            ("guest-exit c0", "–"),
            ("guest-put c0", "saved, load deferred"),
            ("return c0 T0", "restored what a call keeps"),
        ] {
            let done = checked.apply(events(text)[0]).map(|outcome| outcome.to_string());
            assert_eq!(done.ok().as_deref(), Some(outcome), "{text}");
        }
    });
}

/// 37486135d3a7, 2020: PKRU is the guest's while it runs, and no longer.
#[test]
fn a_guests_pkru_stays_inside() {
    tell_where(
        ComponentSet::EMPTY.with(Component::PKRU),
        T0_RAN,
        "kernel-pkru c0 0x55555550; guest-load c0
         user-memory c0 T0 read 1 | access allowed
         guest-enter c0; user-pkru c0 0xffffffff; guest-exit c0
         user-memory c0 T0 read 1 | access allowed
         guest-enter c0; guest-exit c0; guest-put c0
         read-pkru T0; return c0 T0",
    );
}

/// A trap can be armed for a guest as for a program.
#[test]
fn a_guests_first_use_loads_it() {
    on_every_register_file!(|regs| for policy in [Builtin::TrapRestore, Builtin::FullLazy] {
        let mut checked = Checked::on(regs, policy, 1);
        checked.run(T0_RAN).run("guest-load c0; guest-enter c0; first-use c0; user-write c0 AVX 8");
        checked.run("guest-exit c0; guest-put c0; return c0 T0; first-use c0; read T0 AVX");
    });
}

/// A program that ends or starts afresh has no guest any more, and neither has a child.
#[test]
fn a_guest_belongs_to_one_program() {
    on_every_register_file!(|regs| for policy in Builtin::ALL {
        let mut checked = Checked::on(regs, policy, 1);
        let has_guest = |checked: &Checked<_, _>, task| {
            let task = checked.machine.task(TaskId::first(task)).expect("a task");
            task.fpstate().guest().is_some()
        };
        checked.run(T0_RAN).run(
            "guest-load c0; guest-enter c0; user-write c0 AVX 8; guest-exit c0; guest-put c0; fork c0 T3",
        );
        assert_eq!([0, 3].map(|task| has_guest(&checked, task)), [true, false], "{}", policy.name());
        checked.run("exec c0; return c0 T0; entry c0 system-call; out c0; in c0 T3");
        assert_eq!([0, 3].map(|task| has_guest(&checked, task)), [false; 2], "{}", policy.name());
        // A new one is blank.
        checked.run("guest-load c0; guest-enter c0; guest-exit c0");
    });
}
