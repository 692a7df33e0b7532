//! What one save, one restore and one check cost.

use crate::{
    CpuId, TaskId,
    costs::{self, BLOCKS, InstructionCost, TIMES},
    fpu::{Fpstate, OwnerSlot, TaskKind},
    registers::{AbstractRegs, RegisterFile},
};
use std::{hint::black_box, time::Instant, vec::Vec};

/// Costs of the operations that policies differ in, in nanoseconds each.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize, serde::Deserialize))]
pub struct Costs {
    /// One save of a task's registers to memory.
    pub save_ns: f64,
    /// One restore.
    pub restore_ns: f64,
    /// One look at the owner slot, whatever it found.
    pub check_ns: f64,
    /// One first use that traps (#NM), without the restore.
    #[cfg_attr(feature = "cli", serde(default = "trap_ns"))]
    pub trap_ns: f64,
    /// One flush by another CPU, without its save: the request, and the wait for the answer.
    #[cfg_attr(feature = "cli", serde(default = "flush_ns"))]
    pub flush_ns: f64,
    /// One save, or one restore, of what a system call keeps under `call-boundary`.
    #[cfg_attr(feature = "cli", serde(default = "control_words_ns"))]
    pub control_words_ns: f64,
}

#[cfg(feature = "cli")]
fn trap_ns() -> f64 {
    Costs::TABLE.trap_ns
}

#[cfg(feature = "cli")]
fn flush_ns() -> f64 {
    Costs::TABLE.flush_ns
}

#[cfg(feature = "cli")]
fn control_words_ns() -> f64 {
    Costs::TABLE.control_words_ns
}

impl Costs {
    /// XSAVEC and XRSTOR in an ordinary process (XINUSE A2H) on an Emerald Rapids guest at 2.3 GHz. The
    /// trap and the flush are assumed: user space can measure neither. What a call keeps is costed as the control words
    /// alone, of which a pair of STMXCSR and LDMXCSR, FNSTCW and FLDCW took 2.4 ns.
    pub const TABLE: Self = Self {
        save_ns: 40.0,
        restore_ns: 43.0,
        check_ns: 1.3,
        trap_ns: 400.0,
        flush_ns: 1000.0,
        control_words_ns: 1.2,
    };

    /// Whether a check can be measured: as code of this crate it takes more than ten times as long in a build with debug
    /// assertions, which is taken for an unoptimised one.
    pub const MEASURES_CHECKS: bool = !cfg!(debug_assertions);

    /// Measures them on this host, in some 20 ms: those rows of [`crate::costs`] that [`of`](Self::of) takes. `None`
    /// where there is no XSAVEC.
    pub fn measure() -> Option<Self> {
        Self::of(&costs::measure_save_and_restore()?)
    }

    /// XSAVEC and XRSTOR in an ordinary process, by a table of [`costs::measure`], and the validity predicate,
    /// which is measured here if the [build is optimised](Self::MEASURES_CHECKS); the others are those of
    /// [`TABLE`](Self::TABLE). `None` if they are not in it.
    pub fn of(table: &[InstructionCost]) -> Option<Self> {
        let [save_ns, restore_ns] = costs::save_and_restore_ns(table)?;
        let costs = Self { save_ns, restore_ns, ..Self::TABLE };
        if !Self::MEASURES_CHECKS {
            return Some(costs);
        }
        let mut checks: Vec<f64> = (0..BLOCKS).map(|_| check_ns()).collect();
        Some(Self { check_ns: costs::median(&mut checks), ..costs })
    }

    /// Whether every cost is a number of nanoseconds: finite and not negative.
    pub fn is_sensible(&self) -> bool {
        let Self { save_ns, restore_ns, check_ns, trap_ns, flush_ns, control_words_ns } = *self;
        let all = [save_ns, restore_ns, check_ns, trap_ns, flush_ns, control_words_ns];
        all.iter().all(|ns| ns.is_finite() && *ns >= 0.0)
    }
}

/// What one look at the predicate costs, in a block of many.
fn check_ns() -> f64 {
    let slot = OwnerSlot::new(CpuId(0));
    let image = AbstractRegs::default().new_image();
    let task = Fpstate::new(TaskId::first(0), TaskKind::User, image);
    let start = Instant::now();
    for _ in 0..TIMES {
        black_box(black_box(&task).is_valid_on(black_box(&slot)));
    }
    start.elapsed().as_nanos() as f64 / f64::from(TIMES)
}
