//! What a replay found.

use super::{Agreement, Costs};
use crate::machine::Outcome;
use std::{collections::BTreeMap, string::String, vec::Vec};

/// What a replay of one recording found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Lines, comments too.
    pub lines: u64,
    /// Bytes of text.
    pub bytes: u64,
    /// Seconds from the first to the last event.
    pub seconds: f64,
    /// CPUs with a line.
    pub cpus: usize,
    /// Whether the recording has function lines, which say when tasks return to user.
    pub has_functions: bool,
    /// Places where events were lost.
    pub lost: u64,
    /// What the kernel did, as its lines say.
    pub kernel: KernelCounts,
    /// How far `owner-slot` (or [`Options::reference`](super::Options::reference)) agrees.
    pub agreement: Agreement,
    /// What each policy would have done, in the order asked for.
    pub policies: Vec<PolicyCounts>,
    /// The fewest saves and restores possible.
    pub optimum: OptimumCounts,
    /// Event and function names that mean nothing here, and how often each occurs.
    pub ignored: BTreeMap<String, u64>,
}

impl Report {
    /// Whether the agreement says little: more than 5 % of the decisions were inferred, or lost events leave more
    /// of them unknown than known.
    pub fn says_little(&self) -> bool {
        let agreement = &self.agreement;
        agreement.infers_too_much() || (self.lost > 0 && agreement.undecidable > agreement.decisions)
    }
}

/// What the kernel did, as its lines say. Saves by kernel FPU sections, by fork and into signal frames have no
/// line, so they are not here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelCounts {
    /// Switches.
    pub switches: u64,
    /// Returns to user with need_fpu_load set.
    pub returns: u64,
    /// Saves at a switch.
    pub saves: u64,
    /// Restores.
    pub restores: u64,
}

/// The fewest saves and restores possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OptimumCounts {
    /// Fewest saves.
    pub saves: u64,
    /// Fewest restores.
    pub restores: u64,
}

/// What one policy did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyCounts {
    /// The policy.
    pub name: &'static str,
    /// Saves: at switches, for kernel FPU sections, evictions and flushes, into fork's copy and into signal
    /// frames.
    pub saves: u64,
    /// Restores from a task's image. Loads from signal frames are not counted: they are the same for all.
    pub restores: u64,
    /// Restores skipped because the registers still held the state, counted where the policy looks: at the
    /// switch-in for `eager-owner` and `lazy-save`, else at the return.
    pub restores_skipped: u64,
}

impl PolicyCounts {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, saves: 0, restores: 0, restores_skipped: 0 }
    }

    pub(super) fn add(&mut self, outcome: &Outcome) {
        self.saves += u64::from(outcome.saves());
        self.restores += u64::from(outcome.restores());
        self.restores_skipped += u64::from(outcome.restores_skipped());
    }

    /// What that costs, in ns.
    pub fn cost_ns(&self, costs: &Costs) -> f64 {
        self.saves as f64 * costs.save_ns
            + self.restores as f64 * costs.restore_ns
            + self.restores_skipped as f64 * costs.check_ns
    }
}

/// `count` as a multiple of the optimum; `None` where the optimum is 0.
pub(crate) fn over_optimum(count: u64, optimum: u64) -> Option<f64> {
    (optimum != 0).then(|| count as f64 / optimum as f64)
}

impl OptimumCounts {
    /// `saves` as a multiple of the fewest; `None` where that is 0.
    pub fn saves_ratio(&self, saves: u64) -> Option<f64> {
        over_optimum(saves, self.saves)
    }

    /// `restores` as a multiple of the fewest; `None` where that is 0.
    pub fn restores_ratio(&self, restores: u64) -> Option<f64> {
        over_optimum(restores, self.restores)
    }
}
