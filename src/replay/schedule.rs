//! What break-even formulas need to know of a schedule.

use crate::{EntryKind, Event, fpu::Load, machine::Outcome};
use std::vec::Vec;

/// The schedule of the user tasks whose state is followed, as the machine sees it that is held against the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScheduleCounts {
    /// Switches to such a task.
    pub switch_ins: u64,
    /// Kernel entries of such a task.
    pub entries: u64,
    /// Returns to user with need_fpu_load set: those that `deferred` restores at.
    pub due_returns: u64,
    /// Those of them at which the registers still held the task's state.
    pub valid_returns: u64,
    /// Switches away from such a task behind a return to user in the same slice.
    pub used_slices: u64,
    /// Those of them where the task came into the kernel by an interrupt or an exception.
    pub involuntary: u64,
}

impl ScheduleCounts {
    /// q, the probability that the registers are still valid at a return; 0 without any.
    pub fn valid_share(&self) -> f64 {
        share(self.valid_returns, self.due_returns)
    }

    /// u, the returns with a load due for each switch to a task; above 1 where kernel FPU sections make further ones.
    pub fn due_per_switch(&self) -> f64 {
        share(self.due_returns, self.switch_ins)
    }

    /// Kernel entries for each switch to a task.
    pub fn entries_per_switch(&self) -> f64 {
        share(self.entries, self.switch_ins)
    }

    /// a, the share of slices with user code that end without the task having asked for it.
    pub fn involuntary_share(&self) -> f64 {
        share(self.involuntary, self.used_slices)
    }
}

/// `part` for each of `whole`; 0 of none.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Counts while events go by.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    pub(super) counts: ScheduleCounts,
    /// By CPU: how the current task last came into the kernel in this slice.
    entered: Vec<Option<EntryKind>>,
}

impl Schedule {
    pub(super) fn grow_cpus(&mut self, cpus: usize) {
        self.entered.resize(cpus.max(self.entered.len()), None);
    }

    #[inline]
    pub(super) fn note(&mut self, event: Event, outcome: &Outcome) {
        let counts = &mut self.counts;
        match event {
            Event::ScheduleIn(..) => counts.switch_ins += 1,
            Event::Entry(cpu, kind) => {
                counts.entries += 1;
                self.entered[cpu.0 as usize] = Some(kind);
            }
            Event::Return(..) if outcome.load != Some(Load::AlreadyLive) => {
                let skipped = outcome.load == Some(Load::Skipped);
                counts.due_returns += u64::from(outcome.restores()) + u64::from(skipped);
                counts.valid_returns += u64::from(skipped);
            }
            Event::ScheduleOut(cpu) => {
                if let Some(kind) = self.entered[cpu.0 as usize].take() {
                    counts.used_slices += 1;
                    counts.involuntary += u64::from(kind != EntryKind::SystemCall);
                }
            }
            _ => {}
        }
    }
}
