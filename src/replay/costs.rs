//! What one save, one restore and one check cost.

use crate::{
    CpuId, TaskId,
    arch::SaveRestore,
    fpu::{Fpstate, OwnerSlot, TaskKind},
    registers::{AbstractRegs, RegisterFile},
};
use std::{hint::black_box, time::Instant, vec::Vec};

/// Costs of the operations that policies differ in, in nanoseconds each.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "cli", serde(deny_unknown_fields))]
pub struct Costs {
    /// One save of a task's registers to memory.
    pub save_ns: f64,
    /// One restore.
    pub restore_ns: f64,
    /// One look at the owner slot that found the registers valid.
    pub check_ns: f64,
}

impl Costs {
    /// XSAVEC and XRSTOR in an ordinary process (XINUSE A2H) on an Emerald Rapids guest at 2.3 GHz.
    pub const TABLE: Self = Self { save_ns: 40.0, restore_ns: 43.0, check_ns: 1.3 };

    /// Measures them on this host, in some 20 ms: XSAVEC and XRSTOR of this thread's registers as they are,
    /// and the validity predicate. `None` where there is no XSAVEC.
    ///
    /// The median of 31 blocks of each, taken in turn. A restore is what a save and a restore together take
    /// beyond a save.
    pub fn measure() -> Option<Self> {
        const BLOCKS: usize = 31;
        const TIMES: u32 = 2000;
        let mut registers = SaveRestore::new()?;
        registers.save_and_restore(TIMES);
        let (mut saves, mut pairs, mut checks) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..BLOCKS {
            saves.push(ns_each(TIMES, || registers.save(TIMES)));
            pairs.push(ns_each(TIMES, || registers.save_and_restore(TIMES)));
            checks.push(ns_each(TIMES, || check(TIMES)));
        }
        let save_ns = median(saves);
        let restore_ns = (median(pairs) - save_ns).max(0.0);
        Some(Self { save_ns, restore_ns, check_ns: median(checks) })
    }

    /// Whether every cost is a number of nanoseconds: finite and not negative.
    pub fn is_sensible(&self) -> bool {
        [self.save_ns, self.restore_ns, self.check_ns].iter().all(|ns| ns.is_finite() && *ns >= 0.0)
    }
}

fn ns_each(times: u32, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64 / f64::from(times)
}

fn check(times: u32) {
    let slot = OwnerSlot::new(CpuId(0));
    let image = AbstractRegs::default().new_image();
    let task = Fpstate::new(TaskId::first(0), TaskKind::User, image);
    for _ in 0..times {
        black_box(black_box(&task).is_valid_on(black_box(&slot)));
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
