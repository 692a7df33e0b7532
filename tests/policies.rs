//! What the policies decide that the columns of the stories have no room for: those that trap, and those that decide
//! at the entry to the kernel. How to read a story: `support/story.rs`.

mod support;

use fpuswitch::{
    Component, CpuId, EventError, TaskId, Value,
    fpu::{
        LoadRule, Policy, SaveRule,
        policy::{Builtin, CallBoundary, EntryExit, FullLazy, TrapRestore, UnknownPolicy, UseClass},
    },
    machine::Machine,
    registers::{RegisterFile, UserFrames},
};
use support::{
    Checked, events,
    policies::{Answers, ENTRY_EXIT, GiveUpAndTrap},
    register_files::on_every_register_file,
    story::tell,
};

const T0: TaskId = TaskId::first(0);

/// Whether c0's trap is armed, T0 has need_fpu_load set, and T0 is in user mode.
fn armed<R: UserFrames, P: Policy>(machine: &Machine<R, P>) -> [bool; 3] {
    let task = machine.task(T0).expect("T0").fpstate();
    [machine.cpus()[0].slot().trap_armed(), task.need_fpu_load(), task.user_on().is_some()]
}

/// The table in the docs has them in the order of [`Builtin::ALL`]. FPU-free tasks have a row of their own, without a name.
#[test]
fn policies_are_chosen_by_the_names_in_the_docs() {
    let (_, rest) =
        include_str!("../docs/protocol.md").split_once("| | entry | switch-out |").expect("the table");
    let rows = rest.lines().skip(2).map_while(|row| row.strip_prefix("| "));
    let names = rows.filter_map(|row| row.strip_prefix('`')?.split('`').next());
    let chosen: Vec<Result<Builtin, _>> = names.clone().map(str::parse).collect();
    assert_eq!(chosen, Builtin::ALL.map(Ok));
    assert_eq!(names.clone().collect::<Vec<_>>(), Builtin::ALL.map(|policy| policy.name()));
    assert_eq!("lazy".parse::<Builtin>(), Err(UnknownPolicy));
    assert!(names.into_iter().all(|name| UnknownPolicy.to_string().contains(name)));
}

#[test]
fn a_policy_that_traps_runs_user_code_without_its_registers() {
    on_every_register_file!(|regs| {
        let mut checked = Checked::on(regs, TrapRestore::default(), 1);
        tell(
            &mut checked,
            Some(0),
            "spawn T0; spawn T1
             in c0 T0     | trap armed
             return c0 T0 | trap armed",
        );
        assert_eq!(armed(&checked.machine), [true, true, true]);
        let write = events("user-write c0 AVX 7")[0];
        assert_eq!(checked.follow(write), Err(EventError::TrapArmed(CpuId(0))));
        tell(
            &mut checked,
            Some(0),
            "first-use c0                | restored
             user-write c0 AVX 7; entry c0 interrupt
             kernel-fpu-begin c0 softirq | saved
             kernel-fpu-end c0           | trap armed
             return c0 T0                | trap armed
             first-use c0                | restored",
        );
        assert_eq!(armed(&checked.machine), [false, false, true]);
        // T1 uses nothing, so that it costs nothing; but the trap always loads.
        tell(
            &mut checked,
            Some(0),
            "entry c0 interrupt
             out c0       | saved
             in c0 T1     | trap armed
             return c0 T1 | trap armed
             entry c0 interrupt
             out c0       | already in memory
             in c0 T0     | trap armed
             return c0 T0 | trap armed
             first-use c0 | restored
             read T0 AVX  | interrupted c0, saved, trap armed, read 7",
        );
    });
}

/// The same count, from another number on.
#[test]
fn the_count_behind_which_the_state_is_loaded_can_be_chosen() {
    assert_eq!(TrapRestore::default(), TrapRestore::behind(TrapRestore::SLICES));
    on_every_register_file!(|regs| {
        let mut checked = Checked::on(regs, TrapRestore::behind(1), 1);
        checked.run("spawn T0; in c0 T0; return c0 T0; first-use c0; entry c0 interrupt; out c0");
        tell(&mut checked, Some(0), "in c0 T0 | trap armed");
        checked.run("return c0 T0; first-use c0; entry c0 interrupt; out c0");
        tell(&mut checked, Some(0), "in c0 T0 | restore skipped");
    });
}

/// The use counter of Linux before 4.6 (`fpu_counter > 5`).
#[test]
fn after_more_than_five_slices_with_a_use_the_state_is_loaded_at_switch_in() {
    on_every_register_file!(|regs| {
        let mut checked = Checked::on(regs, TrapRestore::default(), 1);
        let uses = |checked: &Checked<TrapRestore, _>| checked.machine.task(T0).expect("T0").fpstate().uses();
        checked.run("spawn T0; spawn T1");
        for slice in 1..=6 {
            tell(
                &mut checked,
                Some(0),
                "in c0 T0     | trap armed
                 return c0 T0 | trap armed
                 first-use c0 | restored
                 entry c0 interrupt
                 out c0       | saved
                 idle c0",
            );
            assert_eq!(uses(&checked), slice);
        }
        // The registers are still T0's.
        tell(
            &mut checked,
            Some(0),
            "in c0 T0     | restore skipped
             return c0 T0 | already live
             user-write c0 AVX 7; entry c0 interrupt
             out c0       | saved
             in c0 T1     | trap armed
             return c0 T1 | trap armed
             first-use c0 | restored
             entry c0 interrupt
             out c0       | saved
             in c0 T0     | restored
             return c0 T0 | already live",
        );
        assert_eq!(uses(&checked), 8);
        // A slice that ends without its state in the registers is one without a use.
        tell(
            &mut checked,
            Some(0),
            "entry c0 interrupt; kernel-fpu-begin c0 softirq; kernel-fpu-end c0
             out c0       | already in memory
             in c0 T0     | trap armed",
        );
        assert_eq!(uses(&checked), 0);
    });
}

#[test]
fn uses_are_counted_for_the_policy_that_asks_for_it_alone() {
    for policy in Builtin::ALL {
        let mut checked = Checked::new(policy, 1);
        checked.run(
            "spawn T0; in c0 T0; return c0 T0; user-write c0 AVX 7; entry c0 interrupt; out c0; in c0 T0",
        );
        let uses = checked.machine.task(T0).expect("T0").fpstate().uses();
        assert_eq!(uses, u8::from(policy == Builtin::TrapRestore), "{}", policy.name());
    }
}

/// A count that stopped at its highest value would never let a task have another look at whether it still uses the FPU.
#[test]
fn the_use_counter_wraps_and_a_new_program_starts_at_zero() {
    let mut checked = Checked::new(TrapRestore::default(), 1);
    let slice = "in c0 T0; return c0 T0; user-write c0 AVX 7; entry c0 interrupt; out c0; idle c0";
    checked.run("spawn T0");
    for _ in 0..256 {
        checked.run(slice);
    }
    assert_eq!(checked.machine.task(T0).expect("T0").fpstate().uses(), 0);
    tell(&mut checked, Some(0), "in c0 T0 | trap armed");
    for _ in 0..7 {
        checked.run("out c0; idle c0; in c0 T0; return c0 T0; user-write c0 AVX 7; entry c0 interrupt");
    }
    tell(&mut checked, Some(0), "fork c0 T1 | saved\nexec c0 | trap armed");
    let uses = |task| checked.machine.task(task).expect("a task").fpstate().uses();
    assert_eq!((uses(T0), uses(TaskId::first(1))), (0, 0));
}

#[test]
fn full_lazy_costs_nothing_while_nobody_else_uses_the_registers() {
    on_every_register_file!(|regs| {
        let mut checked = Checked::on(regs, FullLazy, 2);
        tell(
            &mut checked,
            Some(0),
            "spawn T0; spawn T1
             in c0 T0     | trap armed
             return c0 T0 | trap armed
             first-use c0 | restored
             user-write c0 AVX 7; entry c0 interrupt
             out c0       | kept
             in c0 T1     | trap armed
             return c0 T1 | trap armed
             entry c0 interrupt
             out c0       | kept
             in c0 T0     | already live
             return c0 T0 | already live",
        );
        assert_eq!(armed(&checked.machine), [false, false, true]);
        tell(
            &mut checked,
            Some(0),
            "entry c0 interrupt; out c0; in c0 T1; return c0 T1
             first-use c0 | evicted T0, restored
             entry c0 interrupt; out c0; idle c0
             in c1 T0     | trap armed
             return c1 T0 | trap armed
             first-use c1 | restored
             user-write c1 AVX 8; entry c1 interrupt; out c1; idle c1
             in c0 T0     | trap armed
             return c0 T0 | trap armed
             first-use c0 | flushed T0 on c1, evicted T1, restored",
        );
    });
}

/// A debugger's read takes nothing away; a write and a kernel FPU section do.
#[test]
fn full_lazy_arms_the_trap_exactly_where_the_registers_are_not_the_tasks() {
    on_every_register_file!(|regs| {
        let mut checked = Checked::on(regs, FullLazy, 1);
        checked.run("spawn T0; in c0 T0; return c0 T0; user-write c0 AVX 7");
        tell(
            &mut checked,
            Some(0),
            "read T0 AVX                 | interrupted c0, saved, restore skipped, read 7
             return c0 T0                | already live
             write T0 AVX 9              | interrupted c0, saved, trap armed
             return c0 T0                | trap armed
             first-use c0                | restored
             entry c0 interrupt
             kernel-fpu-begin c0 softirq | saved
             kernel-fpu-end c0           | trap armed
             return c0 T0                | trap armed
             first-use c0                | restored
             read T0 AVX",
        );
    });
}

#[test]
fn a_cpu_that_loses_power_forgets_the_trap() {
    on_every_register_file!(|regs| for loses in ["power-loss c0", "offline c0; online c0"] {
        let mut checked = Checked::on(regs, TrapRestore::default(), 1);
        checked.run("spawn T0; in c0 T0; out c0; idle c0");
        assert!(checked.machine.cpus()[0].slot().trap_armed());
        checked.run(loses);
        assert!(!checked.machine.cpus()[0].slot().trap_armed(), "{loses}");
    });
}

/// Under a policy that gives the registers up at entry, nobody is valid in the kernel.
#[test]
fn a_policy_that_saves_at_entry_owns_nothing_in_the_kernel() {
    on_every_register_file!(|regs| {
        let mut checked = Checked::on(regs, EntryExit, 1);
        tell(
            &mut checked,
            Some(0),
            "spawn T0
             in c0 T0                 | load deferred
             return c0 T0             | restored
             user-write c0 AVX 7
             entry c0 system-call     | saved",
        );
        assert_eq!(checked.machine.cpus()[0].slot().owner(), None);
        tell(
            &mut checked,
            Some(0),
            "kernel-fpu-begin c0 task | already in memory
             kernel-fpu-end c0        | load deferred
             out c0                   | already in memory
             in c0 T0                 | load deferred
             return c0 T0             | restored",
        );
        // A signal's frame is written from the registers.
        tell(
            &mut checked,
            Some(0),
            "entry c0 exception       | saved
             signal-deliver c0
             signal-save c0           | restored, frame written
             signal-enter c0
             out c0                   | saved
             in c0 T0                 | load deferred
             return c0 T0             | restored",
        );
    });
}

/// With the trap armed, the registers that an entry gives up can be another task's only copy, and those of the
/// task itself can be on another CPU.
#[test]
fn a_policy_that_traps_and_saves_at_entry_loses_nothing() {
    on_every_register_file!(|regs| {
        let policy =
            Answers { switch_out: [SaveRule::Keep; 4], switch_in: [LoadRule::Trap; 4], ..ENTRY_EXIT };
        let policy = Answers { return_to_user: [LoadRule::Trap; 4], ..policy };
        let others = "spawn T0; spawn T1; in c0 T1; move-to-cpu c0; out c0; in c0 T0; return c0 T0";
        Checked::on(regs, policy, 1).run(others).run("entry c0 interrupt; read T1 AVX");
        let elsewhere = "spawn T0; in c0 T0; move-to-cpu c0; out c0; idle c0; in c1 T0; return c1 T0";
        Checked::on(regs, policy, 2).run(elsewhere).run("entry c1 interrupt; read T0 AVX");
    });
}

/// A system call gives up all but the components with the control words, an interrupt nothing.
#[test]
fn what_a_program_gives_up_at_a_call_is_neither_saved_nor_loaded() {
    let before = "spawn T0; spawn T1; in c0 T0; return c0 T0; user-write c0 SSE 6; user-write c0 AVX 7";
    on_every_register_file!(|regs| {
        let mut checked = Checked::on(regs, CallBoundary, 2);
        checked.run(before);
        tell(
            &mut checked,
            Some(0),
            "entry c0 system-call | –
             out c0               | saved what a call keeps
             idle c0
             in c0 T0             | load deferred
             return c0 T0         | restore skipped
             entry c0 interrupt   | –
             out c0               | saved
             in c0 T1             | load deferred
             return c0 T1         | restored
             user-write c0 AVX 9
             entry c0 system-call | –
             out c0               | saved what a call keeps
             in c0 T0             | load deferred
             return c0 T0         | restored",
        );
        // T0 was interrupted, so that it has everything; T1 called, and finds T0's registers.
        checked.run("user-write c0 AVX 8");
        tell(
            &mut checked,
            Some(0),
            "entry c0 interrupt   | –
             out c0               | saved
             in c0 T1             | load deferred
             return c0 T1         | restored what a call keeps",
        );
        let state = checked.spec.state(TaskId::first(1)).expect("T1");
        assert_eq!(state.value(Component::AVX), Some(Value::UNSPECIFIED));
        let found = checked.machine.cpus()[0].regs().get(Component::AVX);
        assert_eq!(Some(found), Value::new(8), "it leaks across trust domains");
    });
}

/// From the system call to the return, behind which user code writes whatever it finds.
#[test]
fn a_task_has_given_up_only_behind_a_system_call() {
    on_every_register_file!(|regs| {
        let mut checked = Checked::on(regs, CallBoundary, 1);
        for (event, has_given_up) in [
            ("spawn T0; in c0 T0; return c0 T0", false),
            ("entry c0 interrupt", false),
            ("return c0 T0; entry c0 system-call", true),
            ("out c0", true),
            ("in c0 T0", true),
            ("return c0 T0", false),
        ] {
            checked.run(event);
            let fpstate = checked.machine.task(T0).expect("T0").fpstate();
            assert_eq!(fpstate.has_given_up(), has_given_up, "{event}");
        }
    });
}

/// Whoever writes what was given up makes it count again, and a child takes what its parent still had.
#[test]
fn what_is_written_behind_a_call_is_loaded() {
    let before = "spawn T0; in c0 T0; return c0 T0; user-write c0 SSE 6; user-write c0 AVX 7";
    on_every_register_file!(|regs| {
        let mut checked = Checked::on(regs, CallBoundary, 2);
        checked.run(before);
        tell(
            &mut checked,
            Some(0),
            "entry c0 system-call
             fork c0 T1           | saved what a call keeps
             write T0 AVX 9       | saved what a call keeps, load deferred
             return c0 T0         | restored
             entry c0 system-call; out c0
             in c0 T1             | load deferred
             return c0 T1         | restored what a call keeps",
        );
        // A handler's registers are whole, and so is the frame's state behind it.
        checked
            .run("entry c0 system-call; signal-deliver c0; signal-save c0; signal-enter c0; out c0; idle c0");
        checked.run("in c1 T1; return c1 T1; entry c1 system-call; sigreturn c1; sigreturn-load c1; out c1");
        tell(&mut checked, Some(0), "in c0 T1 | load deferred\nreturn c0 T1 | restored");
    });
}

#[test]
fn a_task_without_fpu_instructions_costs_nothing_and_takes_nothing() {
    on_every_register_file!(|regs| {
        let mut checked = Checked::on(regs, UseClass, 1);
        checked.run("spawn T0; spawn T1; fpu-free T0; in c0 T1; return c0 T1; user-write c0 AVX 7");
        tell(
            &mut checked,
            Some(0),
            "entry c0 interrupt
             out c0             | saved
             in c0 T0           | trap armed
             return c0 T0       | trap armed
             entry c0 interrupt | –
             out c0             | already in memory
             in c0 T1           | load deferred
             return c0 T1       | restore skipped
             entry c0 interrupt
             out c0             | saved
             in c0 T0           | trap armed
             return c0 T0       | trap armed",
        );
        assert_eq!(armed(&checked.machine), [true, true, true]);
        // Its FPU instruction is not executed, and nothing is loaded for it.
        tell(
            &mut checked,
            Some(0),
            "fpu-fault c0       | –
             fork c0 T2         | already in memory
             out c0             | already in memory
             in c0 T2           | trap armed
             return c0 T2       | trap armed
             entry c0 system-call; exec c0
             return c0 T2       | restored
             user-write c0 AVX 1
             entry c0 interrupt; out c0
             in c0 T1           | load deferred
             return c0 T1       | restored
             entry c0 interrupt",
        );
        // A kernel FPU section gives the trap back to an FPU-free task alone.
        tell(
            &mut checked,
            Some(0),
            "kernel-fpu-begin c0 softirq | saved
             kernel-fpu-end c0           | load deferred
             out c0; in c0 T0
             kernel-fpu-begin c0 softirq | already in memory
             kernel-fpu-end c0           | trap armed",
        );
    });
}

/// A signal's frame needs the registers of an FPU-free task, too; the handler runs without them.
#[test]
fn a_signal_of_a_task_without_fpu_instructions_leaves_the_trap_armed() {
    on_every_register_file!(|regs| {
        let mut checked = Checked::on(regs, UseClass, 1);
        tell(
            &mut checked,
            Some(0),
            "spawn T0; fpu-free T0; in c0 T0; return c0 T0; entry c0 interrupt
             signal-deliver c0
             signal-save c0 | restored, frame written
             signal-enter c0
             return c0 T0   | trap armed
             fpu-fault c0
             out c0         | saved",
        );
        assert_eq!(armed(&checked.machine), [true, true, false]);
    });
}

#[test]
fn what_is_written_behind_a_first_use_is_kept() {
    let mut checked = Checked::new(GiveUpAndTrap, 1);
    checked.run(
        "spawn T0; in c0 T0; return c0 T0; first-use c0; user-write c0 AVX 3
         entry c0 system-call; out c0; idle c0; in c0 T0; return c0 T0; first-use c0
         user-write c0 AVX 7; entry c0 interrupt; out c0; idle c0; in c0 T0; return c0 T0; first-use c0",
    );
    assert_eq!(checked.machine.cpus()[0].regs().get(Component::AVX), Value::new(7).expect("a pattern"));
}

#[test]
fn a_new_program_is_not_loaded_for_the_sake_of_the_old_one() {
    let mut checked = Checked::new(FullLazy, 1);
    checked.run("spawn T0; in c0 T0; return c0 T0; first-use c0; user-write c0 AVX 7; entry c0 system-call");
    tell(&mut checked, Some(0), "exec c0 | trap armed");
}
