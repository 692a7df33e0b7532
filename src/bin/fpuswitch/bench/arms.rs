//! What is measured, and in which classes.

use super::blocks::{self, Block};
use fpuswitch::{
    costs::{self, Class, Repeated},
    fpu::{
        Policy,
        policy::{CallBoundary, LazySave, OwnerSlot},
    },
    live::{Config, LiveError, Machine, measure::Registers},
};
use std::{rc::Rc, sync::Arc};

/// What one operation of an arm is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum What {
    Coroutine,
    NullCall,
    NullCallPromised,
    Yield,
    SaveRestore,
    Swap,
    Save,
    KernelThread,
    KernelThreadLazySave,
    EmptyHandler,
    Preemption,
    Futex,
}

impl What {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Coroutine => "coroutine, resume + suspend",
            Self::NullCall => "null system call",
            Self::NullCallPromised => "null system call, control words promised",
            Self::Yield => "yield to another thread, call-boundary",
            Self::SaveRestore => "XSAVEC + XRSTOR",
            Self::Swap => "swap of the registers, owner-slot",
            Self::Save => "XSAVEC",
            Self::KernelThread => "to a kernel thread and back, owner-slot",
            Self::KernelThreadLazySave => "to a kernel thread and back, lazy-save",
            Self::EmptyHandler => "signal to itself, empty handler",
            Self::Preemption => "preemption by a signal, owner-slot",
            Self::Futex => "switch of OS threads by futex",
        }
    }
}

/// Something to be measured: a block of it takes so many ns for each operation.
pub(super) struct Arm {
    pub(super) what: What,
    /// The in-use class of the registers; empty where it does not matter.
    pub(super) class: &'static str,
    pub(super) block: Block,
}

/// A machine of one CPU for each policy.
pub(super) struct Machines {
    pub(super) owner_slot: Rc<Machine>,
    call_boundary: Rc<Machine>,
    lazy_save: Rc<Machine>,
}

impl Machines {
    pub(super) fn start() -> Result<Self, LiveError> {
        fn start<P: Policy + Send + 'static>(policy: P) -> Result<Rc<Machine>, LiveError> {
            Machine::start(policy, Config { cpus: 1, ..Config::default() }).map(Rc::new)
        }
        Ok(Self {
            owner_slot: start(OwnerSlot)?,
            call_boundary: start(CallBoundary)?,
            lazy_save: start(LazySave)?,
        })
    }
}

/// How many operations a block has, for a block of some ms.
fn times(full: u64, is_quick: bool) -> u64 {
    if is_quick { full / 50 } else { full }
}

/// All arms that this CPU has, in the order in which their blocks take turns.
pub(super) fn all(machines: &Machines, is_quick: bool) -> Result<Vec<Arm>, LiveError> {
    let arm = |what, class, block| Arm { what, class, block };
    let times = |full| times(full, is_quick);
    let mut arms = vec![
        arm(What::Coroutine, "", blocks::coroutine(times(1_000_000))),
        arm(What::NullCall, "", blocks::null(&machines.owner_slot, false, times(300_000))),
        arm(What::NullCallPromised, "", blocks::null(&machines.owner_slot, true, times(300_000))),
        arm(What::Yield, "", blocks::yields(&machines.call_boundary, times(100_000))),
    ];
    let mut fullest = None;
    for class in costs::classes()?.into_iter().filter(|class| class.is_here && !class.components.is_empty()) {
        let registers = Arc::new(Registers::of_class(class.components)?);
        for (what, name) in [(What::SaveRestore, "XSAVEC + XRSTOR"), (What::Save, "XSAVEC")] {
            if let Some(instruction) = Repeated::new(name, class)? {
                arms.push(arm(what, class.name, blocks::instructions(instruction, times(30_000))));
            }
        }
        let swaps = blocks::swaps(&machines.owner_slot, &registers, times(10_000));
        arms.push(arm(What::Swap, class.name, swaps));
        let visits = blocks::kernel_thread(&machines.owner_slot, &registers, times(20_000));
        arms.push(arm(What::KernelThread, class.name, visits));
        fullest =
            fullest.filter(|(fullest, _): &(Class, _)| !fullest.components.is_subset_of(class.components));
        fullest = fullest.or(Some((class, registers)));
    }
    if let Some((class, registers)) = fullest {
        let visits = blocks::kernel_thread(&machines.lazy_save, &registers, times(50_000));
        arms.push(arm(What::KernelThreadLazySave, class.name, visits));
        arms.push(arm(What::EmptyHandler, class.name, blocks::signals(&registers, times(2_000))?));
        arms.push(arm(
            What::Preemption,
            class.name,
            blocks::preemptions(&machines.owner_slot, &registers, times(1_000)),
        ));
    }
    arms.push(arm(What::Futex, "", blocks::futex(times(1_000))));
    Ok(arms)
}
