//! PKRU in all its homes: the register, memory while a task is out, signal frames, a debugger's images; and, where it is
//! kept inside XSAVE images, why that goes wrong. How to read a story: `support/story.rs`. They happen on register files
//! that have PKRU.

mod support;

use fpuswitch::{
    Component, ComponentSet, CpuId, Event, PageAccess, Pkru, TaskId,
    check::{Invariant, check, random_events, spec_for},
    fpu::{PkruMode, Policy, UserAccess, policy::Builtin},
    machine::{Machine, Outcome},
    registers::{AbstractRegs, RegisterFile, UserFrames},
};
use proptest::prelude::*;
use support::{
    Checked, STEPS, Stopped, cases, events,
    register_files::on_every_register_file,
    story::{T0_RAN, tell_where},
    watched::{Calls, Watched},
};

const HAS_PKRU: ComponentSet = ComponentSet::EMPTY.with(Component::PKRU);

/// Nothing denied; what a new program has; everything denied.
const VALUES: [&str; 3] = ["0x0", "0x55555554", "0xffffffff"];

/// The policies that can keep PKRU in images.
fn without_trap() -> impl Iterator<Item = Builtin> {
    Builtin::ALL.into_iter().filter(|policy| !policy.form().lets_foreign_registers_into_user_mode())
}

fn in_xsave<R: UserFrames + Clone>(regs: &R, policy: Builtin, cpus: usize) -> Checked<Builtin, R> {
    let mut checked = Checked::on(regs, policy, cpus);
    checked.machine = checked.machine.with_pkru(PkruMode::InXsave).expect("no trap");
    checked
}

#[test]
fn the_kernel_accesses_memory_with_the_keys_of_its_current_task() {
    tell_where(
        HAS_PKRU,
        T0_RAN,
        "user-memory c0 T0 read 0  | access allowed
         user-memory c0 T0 write 1 | access denied
         kernel-pkru c0 0x55555558
         user-memory c0 T0 read 1  | access allowed
         user-memory c0 T0 write 1 | access denied
         out c0
         in c0 T1
         user-memory c0 T1 read 1  | access denied
         user-memory c0 T1 read 0  | access allowed
         out c0
         in c0 T0
         user-memory c0 T0 read 1  | access allowed",
    );
}

/// Linux enforces no keys on another's address space (arch_vma_access_permitted).
#[test]
fn the_memory_of_another_task_is_accessed_without_keys() {
    tell_where(
        HAS_PKRU,
        T0_RAN,
        "kernel-pkru c0 0xffffffff
         user-memory c0 T0 read 0  | access denied
         user-memory c0 T1 write 3 | access allowed
         out c0; in c0 T2
         user-memory c0 T0 write 0 | access allowed",
    );
}

#[test]
fn a_user_worker_has_the_keys_of_the_program_that_made_it() {
    tell_where(
        HAS_PKRU,
        T0_RAN,
        "kernel-pkru c0 0x55555550; user-worker c0 T3
         kernel-pkru c0 0xffffffff; out c0
         in c0 T3                  | –
         user-memory c0 T3 write 1 | access allowed
         user-memory c0 T3 write 2 | access denied
         out c0; in c1 T3
         user-memory c1 T3 write 1 | access allowed
         user-memory c1 T0 write 2 | access denied
         user-memory c1 T1 write 2 | access allowed",
    );
    // It is the program's memory, whoever's keys it is accessed with; a task that has exited has none.
    tell_where(
        HAS_PKRU,
        T0_RAN,
        "user-worker c0 T3; kernel-pkru c0 0x0
         user-memory c0 T3 write 2 | access allowed
         kernel-pkru c0 0xffffffff
         user-memory c0 T3 write 2 | access denied
         exit c0
         user-memory c0 T3 write 2 | access allowed",
    );
}

#[test]
fn every_value_goes_every_way() {
    for value in VALUES {
        // Written by the program, by the kernel, by a debugger while it is out, runs, or waits elsewhere.
        for write in [
            format!("return c0 T0; user-pkru c0 {value}; entry c0 interrupt"),
            format!("kernel-pkru c0 {value}"),
            format!("out c0; idle c0; write-pkru T0 {value}; in c0 T0"),
            format!("return c0 T0; write-pkru T0 {value}"),
            format!("out c0; idle c0; in c1 T0; write-pkru T0 {value}; out c1; idle c1; in c0 T0"),
        ] {
            // Read by a debugger, copied to a child, carried through a signal and to another CPU.
            tell_where(
                HAS_PKRU,
                T0_RAN,
                &format!(
                    "{write}
                     read-pkru T0; fork c0 T3; read-pkru T3
                     signal-deliver c0; signal-save c0; signal-enter c0; read-pkru T0; sigreturn c0; sigreturn-load c0
                     read-pkru T0; out c0; idle c0; in c1 T0; read-pkru T0; return c1 T0"
                ),
            );
        }
    }
}

/// A header bit that is clear means 0, not the default (4a804c4f8356, d7e5aceace51).
#[test]
fn a_clear_bit_in_a_debuggers_image_means_nothing_denied() {
    tell_where(
        HAS_PKRU,
        T0_RAN,
        "kernel-pkru c0 0xffffffff; out c0; idle c0
         write-pkru T0 none
         in c0 T0
         user-memory c0 T0 write 7 | access allowed
         return c0 T0",
    );
}

#[test]
fn a_handler_has_the_default_and_its_return_brings_pkru_back() {
    for value in VALUES {
        for way in ["sigreturn-load c0", "sigreturn-copy c0"] {
            tell_where(
                HAS_PKRU,
                T0_RAN,
                &format!(
                    "kernel-pkru c0 {value}; signal-deliver c0; signal-save c0; signal-enter c0
                     user-memory c0 T0 read 1 | access denied
                     return c0 T0; user-pkru c0 0x55555550; entry c0 system-call; sigreturn c0; {way}
                     read-pkru T0; return c0 T0"
                ),
            );
        }
    }
}

/// What a frame says of PKRU: another value, and a clear bit with stale bytes behind it, which means 0 (510b80a6a0f1,
/// ae6012d72fa6).
#[test]
fn a_return_takes_pkru_from_the_frame() {
    for way in ["sigreturn-load c0", "sigreturn-copy c0"] {
        for (change, page, access) in [
            ("pkru 0x55555550", 1, "allowed"),
            ("pkru 0x55555550", 2, "denied"),
            ("pkru 0xffffffff", 0, "denied"),
            ("no-pkru", 15, "allowed"),
            ("short", 15, "allowed"),
            ("bad-magic", 15, "allowed"),
            // The default, with the rest of a refused frame.
            ("bad-mxcsr", 1, "denied"),
            ("unmapped", 1, "denied"),
        ] {
            tell_where(
                HAS_PKRU,
                T0_RAN,
                &format!(
                    "kernel-pkru c0 0x5555555c; signal-deliver c0; signal-save c0; signal-enter c0; frame T0 {change}
                     sigreturn c0; {way}
                     user-memory c0 T0 write {page} | access {access}
                     return c0 T0"
                ),
            );
        }
    }
}

#[test]
fn a_new_program_has_the_default() {
    tell_where(
        HAS_PKRU,
        T0_RAN,
        "kernel-pkru c0 0x0; exec c0
         user-memory c0 T0 read 1 | access denied
         read-pkru T0; return c0 T0",
    );
}

/// The case of the mailing list (2016): PKRU inside XSAVE, restores put off to the return to user. In between the kernel
/// accesses the user memory of the task that is current with the keys of the one before.
#[test]
fn in_images_the_kernel_uses_the_wrong_keys_before_the_return() {
    let story =
        "spawn T0; spawn T1; in c0 T0; return c0 T0; user-pkru c0 0x55555550; entry c0 interrupt; out c0
        in c0 T1";
    let page = PageAccess::new(1, false).expect("a key below 16");
    let access = Event::UserMemory(CpuId(0), TaskId::first(1), page);
    on_every_register_file!(|regs| if regs.enabled().contains(Component::PKRU) {
        for policy in without_trap() {
            let mut checked = in_xsave(regs, policy, 1);
            checked.run(story);
            let eager = matches!(policy, Builtin::Eager | Builtin::EagerOwner);
            match checked.apply(access) {
                // Loaded at the switch, there is nothing in between.
                Ok(Outcome { user_memory: Some(UserAccess::Denied), .. }) if eager => {}
                // T1 may not touch key 1; T0 may, and the register is still T0's.
                Err(Stopped::Broken(broken)) if !eager => assert_wrong_keys(&broken.to_string()),
                other => panic!("{}: {other:?}", policy.name()),
            }
            // Switched eagerly, it is right under every policy.
            let mut checked = Checked::on(regs, policy, 1);
            let denied = checked.run(story).apply(access).map(|outcome| outcome.user_memory);
            assert!(matches!(denied, Ok(Some(UserAccess::Denied))), "{}: {denied:?}", policy.name());
        }
    });
}

fn assert_wrong_keys(broken: &str) {
    assert!(broken.starts_with("I7 is broken: c0 accesses T1"), "{broken}");
}

/// User code runs before its registers are loaded, and a memory access raises no #NM.
#[test]
fn trap_policies_are_refused_by_name() {
    for policy in Builtin::ALL {
        let machine = Machine::<AbstractRegs, _>::new(policy, 2).with_pkru(PkruMode::InXsave);
        match machine {
            Ok(machine) => {
                assert!(without_trap().any(|other| other == policy), "{}", policy.name());
                assert_eq!((machine.pkru_mode(), machine.cpus().len()), (PkruMode::InXsave, 2));
                assert!(machine.cpus().iter().all(|cpu| cpu.slot().pkru_mode() == PkruMode::InXsave));
            }
            Err(error) => {
                assert_eq!(error.policy, policy.name());
                let message = error.to_string();
                assert!(
                    message.contains("PKRU cannot be switched inside XSAVE under")
                        && message.contains(policy.name())
                );
            }
        }
    }
    let refused = Builtin::ALL.into_iter().filter(|policy| PkruMode::InXsave.check(policy).is_err());
    assert_eq!(refused.collect::<Vec<_>>(), [Builtin::TrapRestore, Builtin::FullLazy, Builtin::UseClass]);
    assert!(Builtin::ALL.iter().all(|policy| PkruMode::Eager.check(policy).is_ok()));
}

/// The slow path of a return gives no registers up before it has copied the frame: with PKRU in images it would lose PKRU.
#[test]
fn a_copy_that_faults_changes_nothing() {
    on_every_register_file!(|regs| if regs.enabled().contains(Component::PKRU) {
        for policy in without_trap() {
            let mut checked = in_xsave(regs, policy, 1);
            checked.run("spawn T0; in c0 T0; return c0 T0; user-pkru c0 0x55555550; entry c0 system-call");
            checked.run("sigreturn c0; frame T0 absent; sigreturn-copy c0; read-pkru T0");
        }
    });
}

/// Nothing moves where PKRU is no part of the state: no trap is armed, nothing is saved.
#[test]
fn a_read_of_pkru_leaves_registers_where_they_are() {
    on_every_register_file!(|regs| if regs.enabled().contains(Component::PKRU) {
        for policy in [Builtin::TrapRestore, Builtin::FullLazy, Builtin::LazySave] {
            let mut checked = Checked::on(regs, policy, 1);
            checked.run("spawn T0; in c0 T0; return c0 T0; user-write c0 AVX 7; entry c0 system-call");
            let before = checked.machine.clone();
            checked.run("read-pkru T0; kernel-pkru c0 0x55555554");
            assert!(checked.machine.cpus() == before.cpus() && !before.cpus()[0].slot().trap_armed());
        }
    });
}

/// WRPKRU serialises loads.
#[test]
fn a_switch_writes_pkru_only_where_it_differs() {
    for policy in Builtin::ALL {
        let mut checked = Checked::on(&Watched::default(), policy, 1);
        for (event, pkru_writes) in [
            ("spawn T0; spawn T1; in c0 T0; out c0", 0),
            ("in c0 T1", 0),
            ("kernel-pkru c0 0x55555550", 1),
            ("out c0", 0),
            ("in c0 T0", 1),
        ] {
            Calls::take();
            checked.run(event);
            assert_eq!(Calls::take().pkru_writes, pkru_writes, "{event} under {}", policy.name());
        }
    }
}

/// In user mode PKRU is right in either mode, whatever happens.
#[test]
fn in_images_pkru_goes_every_way_too() {
    on_every_register_file!(|regs| if regs.enabled().contains(Component::PKRU) {
        for (policy, value) in without_trap().flat_map(|policy| VALUES.map(|value| (policy, value))) {
            let mut checked = in_xsave(regs, policy, 2);
            checked.run("spawn T0; spawn T1; in c0 T0; return c0 T0").run(&format!("user-pkru c0 {value}"));
            checked.run(
                "entry c0 interrupt; out c0; in c0 T1; return c0 T1; entry c0 interrupt; out c0; idle c0",
            );
            checked.run("read-pkru T0; in c1 T0; fork c1 T2; return c1 T0; entry c1 exception; read-pkru T2");
            checked.run(
                "signal-deliver c1; signal-save c1; signal-enter c1; return c1 T0; entry c1 system-call",
            );
            checked.run("sigreturn c1; sigreturn-load c1; read-pkru T0; return c1 T0; entry c1 system-call");
            checked
                .run(&format!("kernel-pkru c1 {value}; return c1 T0; entry c1 interrupt; out c1; idle c1"));
            checked.run(
                "write-pkru T0 none; in c0 T0; return c0 T0; entry c0 system-call; exec c0; return c0 T0",
            );
            let pkru = checked.machine.cpus()[0].regs().pkru();
            assert_eq!(pkru, Some(Pkru::DEFAULT), "{}", policy.name());
        }
    });
}

proptest! {
    #![proptest_config(cases(128))]

    /// All but kernel access to user memory, which is what is wrong with it.
    #[test]
    fn in_images_every_other_invariant_holds(list in random_events(STEPS)) {
        for policy in without_trap() {
            let machine = Machine::<AbstractRegs, _>::new(policy, list.cpus).with_pkru(PkruMode::InXsave)?;
            list.check_on(&machine, |event| !matches!(event, Event::UserMemory(..)))?;
        }
    }
}

/// The control of the above: PKRU of another task is caught in both modes.
#[test]
fn a_wrong_pkru_is_caught() {
    for mode in [PkruMode::Eager, PkruMode::InXsave] {
        let mut machine =
            Machine::<AbstractRegs, _>::new(Builtin::OwnerSlot, 1).with_pkru(mode).expect("no trap");
        let mut spec = spec_for(machine.cpus()[0].regs(), &Builtin::OwnerSlot);
        for event in events("spawn T0; in c0 T0; return c0 T0; user-pkru c0 0x0") {
            machine.apply(event).map(drop).expect("an event that can be");
            // The model was told another value.
            spec.apply(if let Event::UserPkru(cpu, _) = event {
                Event::UserPkru(cpu, Pkru(4))
            } else {
                event
            });
        }
        let broken = check(&machine, &spec).map_err(|violation| violation.invariant);
        assert_eq!(broken, Err(Invariant::I7), "{mode:?}");
    }
}
