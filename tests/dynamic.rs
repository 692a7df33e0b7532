//! Dynamic components: room at the first use, XFD that fits whoever has the registers. How to read a story:
//! `support/story.rs`. They happen where there are tiles: on the abstract and on software registers.

mod support;

use fpuswitch::{
    Component, ComponentSet, TaskId,
    check::{Invariant, check},
    fpu::{Policy, policy::Builtin},
    registers::{Image, RegisterFile},
};
use support::{
    Checked, events,
    register_files::on_every_register_file,
    story::tell_where,
    watched::{Calls, Watched},
};

const TILES: ComponentSet = ComponentSet::EMPTY.with(Component::TILEDATA);

/// T0 may use tiles and has used AVX; T1 may not; both have run. T0 is in user mode.
const PERMITTED: &str = "spawn T0; spawn T1; kernel-thread T2; in c0 T0; permit c0 TILEDATA
    return c0 T0; user-write c0 AVX 7";

/// T0 has tiles.
const GROWN: &str = "spawn T0; spawn T1; kernel-thread T2; in c0 T0; permit c0 TILEDATA; return c0 T0
    user-write c0 AVX 7; dynamic-use c0 TILEDATA; dynamic-grow c0; return c0 T0; user-write c0 TILEDATA 5";

#[test]
fn the_first_use_of_a_program_that_may_gets_it_room() {
    tell_where(
        TILES,
        PERMITTED,
        "dynamic-use c0 TILEDATA | asked for room
         dynamic-grow c0         | grown
         return c0 T0            | already live
         user-write c0 TILEDATA 5
         read T0 TILEDATA; read T0 AVX",
    );
}

#[test]
fn a_program_without_permission_gets_none() {
    tell_where(
        TILES,
        "spawn T0; in c0 T0; return c0 T0; user-write c0 AVX 7",
        "dynamic-use c0 TILEDATA | not permitted
         return c0 T0            | already live",
    );
}

#[test]
fn tiles_are_saved_and_loaded_with_the_rest() {
    tell_where(
        TILES,
        GROWN,
        "entry c0 interrupt
         out c0        | saved        | saved           | saved         | saved           | kept
         in c0 T1; return c0 T1; user-write c0 AVX 9; entry c0 interrupt; out c0
         in c0 T0      | restored     | restored        | load deferred | load deferred   | load deferred
         return c0 T0  | already live | already live    | restored      | restored        | evicted T1, restored
         user-write c0 TILEDATA 6; entry c0 interrupt; out c0; idle c0
         in c0 T0      | restored     | restore skipped | load deferred | load deferred   | restore skipped
         return c0 T0  | already live | already live    | restored      | restore skipped | already live",
    );
}

/// The kernel sleeps for memory between the trap and the new area: the task can be anywhere by then. The arm64 bug of
/// 2024 (751ecf6afd65) left the task bound to the CPU whose registers it had before.
#[test]
fn an_area_that_grows_elsewhere_ends_the_claim_of_the_old_cpu() {
    tell_where(
        TILES,
        PERMITTED,
        "dynamic-use c0 TILEDATA
         out c0          | saved        | saved        | saved             | saved             | kept
         idle c0
         in c1 T0        | restored     | restored     | load deferred     | load deferred     | flushed T0 on c0, load deferred
         dynamic-grow c1 | grown
         out c1          | saved        | saved        | already in memory | already in memory | kept
         idle c1
         in c0 T0        | restored     | restored     | load deferred     | load deferred     | load deferred
         return c0 T0    | already live | already live | restored          | restored          | restored
         user-write c0 TILEDATA 5",
    );
    // Behind a kernel FPU section the registers are nobody's.
    tell_where(
        TILES,
        PERMITTED,
        "dynamic-use c0 TILEDATA; kernel-fpu-begin c0 softirq; kernel-fpu-end c0
         dynamic-grow c0 | grown
         return c0 T0    | already live | already live | restored          | restored          | restored
         user-write c0 TILEDATA 5",
    );
}

#[test]
fn an_instruction_that_was_not_granted_traps_again() {
    tell_where(
        TILES,
        PERMITTED,
        "dynamic-use c0 TILEDATA; return c0 T0
         dynamic-use c0 TILEDATA | asked for room
         dynamic-grow c0         | grown",
    );
}

#[test]
fn a_child_may_use_tiles_and_has_none() {
    tell_where(
        TILES,
        GROWN,
        "entry c0 exception
         fork c0 T3              | saved
         read T3 TILEDATA        | already in memory, read 0
         read T3 AVX             | already in memory, read 7
         out c0; in c0 T3; return c0 T3
         dynamic-use c0 TILEDATA | asked for room
         dynamic-grow c0; return c0 T3; user-write c0 TILEDATA 8; entry c0 interrupt; out c0
         in c0 T0; return c0 T0; read T0 TILEDATA",
    );
    // Also where the parent's state is in memory.
    tell_where(
        TILES,
        GROWN,
        "entry c0 exception; out c0; in c0 T1; return c0 T1; entry c0 interrupt; out c0; in c0 T0
         fork c0 T3
         read T3 TILEDATA        | already in memory, read 0
         read T3 AVX             | already in memory, read 7",
    );
}

#[test]
fn permission_is_inherited_and_ends_with_the_program() {
    let mut checked = Checked::new(Builtin::OwnerSlot, 1);
    let permitted = |checked: &Checked<_>, task| {
        checked.machine.task(TaskId::first(task)).expect("a task").fpstate().permitted()
    };
    checked.run("spawn T0; in c0 T0; fork c0 T1; permit c0 TILEDATA; fork c0 T2");
    assert_eq!([0, 1, 2].map(|task| permitted(&checked, task)), [TILES, ComponentSet::EMPTY, TILES]);
    checked.run("exec c0");
    assert_eq!([0, 2].map(|task| permitted(&checked, task)), [ComponentSet::EMPTY, TILES]);
}

#[test]
fn a_new_program_has_no_tiles_and_no_permission() {
    tell_where(
        TILES,
        GROWN,
        "entry c0 system-call; exec c0; return c0 T0
         dynamic-use c0 TILEDATA | not permitted",
    );
}

/// Memory can run short, and an exec cannot fail so late: only what has grown is replaced.
#[test]
fn a_new_program_starts_in_the_old_ones_area_unless_that_has_grown() {
    for (before, new_images) in [(PERMITTED, 0), (GROWN, 1)] {
        for policy in Builtin::ALL {
            let mut checked = Checked::on(&Watched::default(), policy, 1);
            checked.run(before).run("entry c0 system-call");
            Calls::take();
            checked.run("exec c0");
            assert_eq!(Calls::take().new_images, new_images, "{}", policy.name());
        }
    }
}

/// CVE-2024-35801 (10e4b5166df9): XFD is 0 after reset, and the kernel remembered what it had been.
#[test]
fn a_cpu_that_was_away_has_xfd_as_it_is_remembered() {
    for (goes, comes) in [("offline c1", "online c1"), ("power-loss c1", "")] {
        tell_where(
            TILES,
            GROWN,
            &format!(
                "entry c0 interrupt; out c0; idle c0; in c1 T1; return c1 T1; entry c1 interrupt; out c1; idle c1
                 {goes}
                 {comes}
                 in c1 T1
                 return c1 T1
                 dynamic-use c1 TILEDATA | not permitted
                 out c1
                 in c1 T0; return c1 T0; user-write c1 TILEDATA 6"
            ),
        );
    }
}

/// A frame has room for what the task has at the delivery; what came later is initial behind the return.
#[test]
fn a_frame_from_before_the_growth_leaves_tiles_initial() {
    tell_where(
        TILES,
        PERMITTED,
        "entry c0 interrupt; signal-deliver c0; signal-save c0; signal-enter c0; return c0 T0
         dynamic-use c0 TILEDATA; dynamic-grow c0; return c0 T0; user-write c0 TILEDATA 5; entry c0 system-call
         sigreturn c0
         sigreturn-load c0 | frame loaded
         read T0 TILEDATA; read T0 AVX; return c0 T0",
    );
    tell_where(
        TILES,
        GROWN,
        "entry c0 interrupt; signal-deliver c0; signal-save c0; signal-enter c0; return c0 T0
         user-write c0 TILEDATA 6; entry c0 system-call; sigreturn c0; sigreturn-copy c0; return c0 T0; read T0 TILEDATA",
    );
}

#[test]
fn a_guest_has_room_of_its_own() {
    tell_where(
        TILES,
        GROWN,
        "entry c0 system-call; guest-load c0; guest-enter c0
         dynamic-use c0 TILEDATA | asked for room
         dynamic-grow c0         | grown
         guest-enter c0; user-write c0 TILEDATA 9; guest-exit c0; guest-put c0; return c0 T0",
    );
}

#[test]
fn a_debugger_writes_no_component_that_there_is_no_room_for() {
    on_every_register_file!(|regs| if regs.enabled() & TILES == TILES {
        let mut checked = Checked::on(regs, Builtin::OwnerSlot, 1);
        checked.run(PERMITTED).run("entry c0 interrupt");
        let before = checked.machine.clone();
        let refused = checked.follow(events("write T0 TILEDATA 3")[0]).map(drop);
        assert_eq!(refused, Err(fpuswitch::EventError::NoComponent(Component::TILEDATA)));
        assert_eq!(checked.machine, before);
        checked
            .run("return c0 T0; dynamic-use c0 TILEDATA; dynamic-grow c0; write T0 TILEDATA 3; return c0 T0");
    });
}

/// The invariant that is broken behind a list of events.
fn broken(xfd: ComponentSet, list: &str) -> Option<Invariant> {
    let mut checked = Checked::on(&Watched::with_stuck_xfd(xfd), Builtin::OwnerSlot, 1);
    for event in events(list) {
        let _ = checked.follow(event).expect("an event that can be");
    }
    check(&checked.machine, &checked.spec).err().map(|violation| violation.invariant)
}

#[test]
fn an_xfd_that_does_not_fit_is_caught() {
    let list = "spawn T0; in c0 T0; return c0 T0";
    // User code could use tiles, and the next save would go beyond the end of the image.
    assert_eq!(broken(ComponentSet::EMPTY, list), Some(Invariant::I10));
    assert_eq!(broken(TILES, list), None);
    // User code could not use what it was given, and a restore of it would be a #NM in the kernel.
    let grows =
        "spawn T0; in c0 T0; permit c0 TILEDATA; return c0 T0; dynamic-use c0 TILEDATA; dynamic-grow c0";
    assert_eq!(broken(TILES, grows), Some(Invariant::I8));
}

#[test]
fn room_is_the_tasks_alone() {
    let mut checked = Checked::new(Builtin::OwnerSlot, 1);
    checked.run(GROWN);
    let room = |task| {
        let task = checked.machine.task(TaskId::first(task)).expect("a task");
        task.fpstate().image().has_room_for(Component::TILEDATA)
    };
    assert_eq!([0, 1].map(room), [true, false]);
}
