//! What a switch costs under each policy, as formulas: where one overtakes another.

use crate::{
    fpu::policy::Builtin,
    replay::{Costs, Report},
};

/// A schedule in the words of the formulas. Costs are in ns for each switch to a task.
///
/// With S a save, R a restore, T a first use that traps, c a check, k what a call keeps, u returns with a load due for
/// each switch, e kernel entries for each switch, s saves for each switch, a the involuntary share of switches, q the
/// probability that the registers are still valid at a return, and p the probability that a slice (for `use-class`, a
/// program) uses the FPU:
///
/// | | |
/// |---|---|
/// | `eager` | S + R |
/// | `deferred` | s S + u R |
/// | `owner-slot` | u c + s S + (1 − q) u R |
/// | `lazy-save` | u c + (1 − q) u (S + R) |
/// | `trap-restore` | c + S p + p (T + R) |
/// | `full-lazy` | c + p (1 − q) (T + S + R) |
/// | `entry-exit` | e (S + R) |
/// | `call-boundary` | a S + a (1 − q) R + 2 k |
/// | `use-class` | p times `owner-slot` |
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BreakEven {
    /// What one of each costs.
    pub costs: Costs,
    /// u, returns with a load due for each switch to a task.
    pub due: f64,
    /// e, kernel entries for each switch.
    pub entries: f64,
    /// s, saves for each switch.
    pub saves: f64,
    /// a, the share of switches that the task did not ask for.
    pub involuntary: f64,
}

impl BreakEven {
    /// The policies that have a formula, in the order of the table.
    pub const POLICIES: [Builtin; 9] = [
        Builtin::Eager,
        Builtin::Deferred,
        Builtin::OwnerSlot,
        Builtin::LazySave,
        Builtin::TrapRestore,
        Builtin::FullLazy,
        Builtin::EntryExit,
        Builtin::CallBoundary,
        Builtin::UseClass,
    ];

    /// The schedule of a recording; its q is [`ScheduleCounts::valid_share`](crate::replay::ScheduleCounts).
    pub fn new(report: &Report, costs: Costs) -> Self {
        let schedule = &report.schedule;
        let switches = schedule.switch_ins.max(1) as f64;
        Self {
            costs,
            due: schedule.due_per_switch(),
            entries: schedule.entries_per_switch(),
            saves: report.reference.saves as f64 / switches,
            involuntary: schedule.involuntary_share(),
        }
    }

    /// What a switch costs, in ns; `None` for a policy without a formula.
    pub fn ns(&self, policy: Builtin, q: f64, p: f64) -> Option<f64> {
        let Self { costs, due: u, entries: e, saves, involuntary: a } = *self;
        let (s, r, t, c) = (costs.save_ns, costs.restore_ns, costs.trap_ns, costs.check_ns);
        Some(match policy {
            Builtin::Eager => s + r,
            Builtin::Deferred => saves * s + u * r,
            Builtin::OwnerSlot => u * c + saves * s + (1.0 - q) * u * r,
            Builtin::LazySave => u * c + (1.0 - q) * u * (s + r),
            Builtin::TrapRestore => c + s * p + p * (t + r),
            Builtin::FullLazy => c + p * (1.0 - q) * (t + s + r),
            Builtin::EntryExit => e * (s + r),
            Builtin::CallBoundary => a * s + a * (1.0 - q) * r + 2.0 * costs.control_words_ns,
            Builtin::UseClass => p * self.ns(Builtin::OwnerSlot, q, p)?,
            _ => return None,
        })
    }

    /// The q above which `owner-slot` beats a restore at every return; `None` where it never does.
    pub fn owner_slot_wins_above(&self) -> Option<f64> {
        let q = self.costs.check_ns / self.costs.restore_ns;
        (q <= 1.0).then_some(q)
    }

    /// The p below which `trap-restore` beats `eager`; `None` where it never does.
    pub fn trap_restore_wins_below(&self) -> Option<f64> {
        let Costs { save_ns, restore_ns, check_ns, trap_ns, .. } = self.costs;
        let p = (save_ns + restore_ns - check_ns) / (trap_ns + save_ns + restore_ns);
        (p > 0.0).then_some(p.min(1.0))
    }
}
