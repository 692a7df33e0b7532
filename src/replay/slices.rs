//! Which slices use the FPU: drawn, since no recording says.

use crate::{CpuId, Event};
use std::vec::Vec;

/// Whether each CPU's current slice, from switch-in to switch-out, uses the FPU. The same events draw the same slices.
#[derive(Debug)]
pub(super) struct Slices {
    share: f64,
    drawn: u64,
    uses: Vec<bool>,
}

impl Slices {
    pub(super) fn new(share: f64) -> Self {
        Self { share: share.clamp(0.0, 1.0), drawn: 0, uses: Vec::new() }
    }

    pub(super) fn share(&self) -> f64 {
        self.share
    }

    pub(super) fn grow_cpus(&mut self, cpus: usize) {
        self.uses.resize(cpus.max(self.uses.len()), true);
    }

    pub(super) fn apply(&mut self, event: Event) {
        if let Event::ScheduleIn(cpu, _) = event {
            self.uses[cpu.0 as usize] = self.draw();
        }
    }

    pub(super) fn uses_fpu(&self, cpu: CpuId) -> bool {
        self.uses[cpu.0 as usize]
    }

    /// Whether the next one is among the share.
    pub(super) fn draw(&mut self) -> bool {
        self.drawn += 1;
        // Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014), mix64.
        let x = self.drawn.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let x = x ^ (x >> 31);
        // 53 bits: below 1 in any case.
        ((x >> 11) as f64 / (1u64 << 53) as f64) < self.share
    }
}
