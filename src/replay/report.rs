//! What a replay found.

use super::{Agreement, CauseCounts, Costs, Quirk, ScheduleCounts, TaskRestores};
use crate::{
    Event,
    fpu::{
        Load, LoadRule, Policy, Save,
        policy::{Calls, Facts, InKernel, InUser},
    },
    machine::Outcome,
};
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
    /// The share of slices that were taken to use the FPU: [`Options::fpu_use`](super::Options::fpu_use).
    pub fpu_use: f64,
    /// What each policy would have done, in the order asked for.
    pub policies: Vec<PolicyCounts>,
    /// The fewest saves and restores possible.
    pub optimum: OptimumCounts,
    /// What the machine did that is held against the kernel, with the kernel's quirks but for the saves of dead tasks:
    /// [`as_the_kernel`](Self::as_the_kernel) has these too.
    pub reference: PolicyCounts,
    /// Why it restored. They add up to its restores.
    pub causes: CauseCounts,
    /// Those of its restores that only loaded registers which went to a signal frame.
    pub for_frames: u64,
    /// Whose restores they were: the tasks with most, [`TaskRestores::MOST_KEPT`] at most.
    pub top: Vec<TaskRestores>,
    /// The schedule, in the words of break-even formulas.
    pub schedule: ScheduleCounts,
    /// Event and function names that mean nothing here, and how often each occurs.
    pub ignored: BTreeMap<String, u64>,
}

impl Report {
    /// Whether the agreement says little: more than 5 % of the decisions were inferred, or lost events leave more
    /// of them unknown than known.
    pub fn says_little(&self) -> bool {
        self.agreement.infers_too_much() || self.knows_too_little()
    }

    /// Whether lost events leave more decisions unknown than known.
    pub fn knows_too_little(&self) -> bool {
        self.lost > 0 && self.agreement.undecidable > self.agreement.decisions
    }

    /// The CPU time that the recording covers, in ns.
    pub fn cpu_ns(&self) -> f64 {
        self.seconds * self.cpus as f64 * 1e9
    }

    /// What the kernel did, with what leaves no line in a recording: the policy that it has, with all quirks.
    pub fn as_the_kernel(&self) -> PolicyCounts {
        let dead = [Quirk::ExitSavesDeadTask, Quirk::KernelFpuSavesDeadTask];
        let dead: u64 = dead.iter().filter_map(|quirk| self.agreement.quirks.get(quirk)).sum();
        PolicyCounts { saves: self.reference.saves + dead, ..self.reference.clone() }
    }

    /// The saves and restores that the kernel did beyond the optimum.
    pub fn beyond_optimum(&self) -> [u64; 2] {
        let kernel = self.as_the_kernel();
        [
            kernel.saves.saturating_sub(self.optimum.saves),
            kernel.restores.saturating_sub(self.optimum.restores),
        ]
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

/// What the counts of a policy rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Basis {
    /// The schedule alone: exact.
    Schedule,
    /// The share of slices that use the FPU, too, which no recording says. The policy lets user code run without its
    /// registers, so that the optimum is no bound for it.
    FpuUse,
    /// The kernel entries that the recording shows: lower bounds.
    SeenEntries,
    /// What programs give up at a system call: the optimum, which keeps everything, is no bound.
    Calls,
}

impl Basis {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Schedule => "exact",
            Self::FpuUse => "fpu-use",
            Self::SeenEntries => "lower-bound",
            Self::Calls => "calls",
        }
    }

    /// By what the policy promises.
    fn of(policy: &impl Policy) -> Self {
        let form = policy.form();
        if form.lets_foreign_registers_into_user_mode() {
            Self::FpuUse
        } else if form.in_kernel == InKernel::InMemory {
            Self::SeenEntries
        } else if form.calls != Calls::KeepAll {
            Self::Calls
        } else {
            Self::Schedule
        }
    }
}

/// What one policy did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyCounts {
    /// The policy.
    pub name: &'static str,
    /// What the counts rest on.
    pub basis: Basis,
    /// Saves: at switches, for kernel FPU sections, evictions and flushes, into fork's copy and into signal
    /// frames.
    pub saves: u64,
    /// Restores from a task's image. Loads from signal frames are not counted: they are the same for all.
    pub restores: u64,
    /// Restores skipped because the registers still held the state, counted where the policy looks: at the
    /// switch-in for `eager-owner`, `trap-restore`, `full-lazy` and `lazy-save`, else at the return.
    pub restores_skipped: u64,
    /// Looks at the owner slot, at the switch-in or the return where the policy asks for one: those that found the
    /// registers valid, and those behind which it restored, or armed the trap.
    pub looks: u64,
    /// First uses that trapped (#NM).
    pub traps: u64,
    /// Saves that another CPU had to do first, for a task that left its only copy there. They are among the saves.
    pub flushes: u64,
    /// Saves and restores of what a system call keeps, which are not among the others.
    pub kept_by_calls: u64,
    asks: Asks,
}

/// Where a policy looks at the owner slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asks {
    switch_in: bool,
    return_to_user: bool,
    /// Whether it is behind a look that it arms the trap.
    trap: bool,
}

impl Asks {
    /// By its answers for a task that has used the FPU in every slice, and whose registers are still valid.
    fn of(policy: &impl Policy) -> Self {
        let task = Facts { valid: true, need_fpu_load: true, uses: u8::MAX, fpu_free: false };
        Self {
            switch_in: policy.switch_in(task) == LoadRule::UnlessValid,
            return_to_user: policy.return_to_user(task) == LoadRule::UnlessValid,
            trap: policy.form().in_user == InUser::TrapUnlessValid,
        }
    }

    fn looked(self, event: Event, outcome: &Outcome) -> bool {
        match (event, outcome.load) {
            (_, Some(Load::Skipped)) => self.switch_in || self.return_to_user,
            (Event::ScheduleIn(..), Some(Load::TrapArmed)) => self.trap,
            (Event::ScheduleIn(..), Some(Load::Restored | Load::RestoredKept | Load::Initialised)) => {
                self.switch_in
            }
            (Event::Return(..), Some(Load::Restored | Load::RestoredKept | Load::Initialised)) => {
                self.return_to_user
            }
            _ => false,
        }
    }
}

impl PolicyCounts {
    pub(super) fn new(policy: &impl Policy) -> Self {
        let (name, basis) = (policy.name(), Basis::of(policy));
        Self {
            name,
            basis,
            saves: 0,
            restores: 0,
            restores_skipped: 0,
            looks: 0,
            traps: 0,
            flushes: 0,
            kept_by_calls: 0,
            asks: Asks::of(policy),
        }
    }

    #[inline]
    pub(super) fn add(&mut self, event: Event, outcome: &Outcome) {
        if !moved_nothing(outcome) {
            self.add_moves(event, outcome);
        }
    }

    fn add_moves(&mut self, event: Event, outcome: &Outcome) {
        self.looks += u64::from(self.asks.looked(event, outcome));
        self.saves += u64::from(outcome.saves());
        self.restores += u64::from(outcome.restores());
        self.restores_skipped += u64::from(outcome.restores_skipped());
        self.flushes += u64::from(outcome.flushes());
        self.kept_by_calls += u64::from(outcome.kept_by_calls());
    }

    /// What that costs, in ns.
    pub fn cost_ns(&self, costs: &Costs) -> f64 {
        self.saves as f64 * costs.save_ns
            + self.restores as f64 * costs.restore_ns
            + self.looks as f64 * costs.check_ns
            + self.traps as f64 * costs.trap_ns
            + self.flushes as f64 * costs.flush_ns
            + self.kept_by_calls as f64 * costs.control_words_ns
    }

    /// Saves and restores as multiples of the optimum. `None` where the optimum is 0, and for a policy that it does
    /// not bind.
    pub fn over_optimum(&self, optimum: &OptimumCounts) -> [Option<f64>; 2] {
        if matches!(self.basis, Basis::FpuUse | Basis::Calls) {
            return [None; 2];
        }
        [optimum.saves_ratio(self.saves), optimum.restores_ratio(self.restores)]
    }
}

/// Whether there is nothing to count in an outcome, as in most: a glance for what would take several looks.
#[inline]
pub(super) fn moved_nothing(outcome: &Outcome) -> bool {
    let save = matches!(outcome.save, Some(Save::Saved | Save::SavedKept));
    let load = matches!(
        outcome.load,
        Some(Load::Restored | Load::RestoredKept | Load::Skipped | Load::Initialised | Load::TrapArmed)
    );
    !save && !load && outcome.frame_save.is_none() && outcome.before[0].is_none()
}

/// `count` as a multiple of the optimum; `None` where the optimum is 0.
pub(crate) fn over_optimum(count: u64, optimum: u64) -> Option<f64> {
    (optimum != 0).then(|| count as f64 / optimum as f64)
}

impl OptimumCounts {
    /// What that costs, in ns.
    pub fn cost_ns(&self, costs: &Costs) -> f64 {
        self.saves as f64 * costs.save_ns + self.restores as f64 * costs.restore_ns
    }

    /// `saves` as a multiple of the fewest; `None` where that is 0.
    pub fn saves_ratio(&self, saves: u64) -> Option<f64> {
        over_optimum(saves, self.saves)
    }

    /// `restores` as a multiple of the fewest; `None` where that is 0.
    pub fn restores_ratio(&self, restores: u64) -> Option<f64> {
        over_optimum(restores, self.restores)
    }
}
