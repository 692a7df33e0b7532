//! One line of JSON a recording.

use crate::costs::Source;
use fpuswitch::replay::{
    self, CauseCounts, Costs, Disagreement, PolicyCounts, Report, ScheduleCounts, TaskRestores,
};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
pub(crate) struct File<'a> {
    file: &'a str,
    lines: u64,
    seconds: f64,
    cpus: usize,
    cpu_seconds: f64,
    has_functions: bool,
    says_little: bool,
    /// Why it says little: any of `inferred`, `lost`.
    says_little_because: Vec<&'static str>,
    kernel: Kernel,
    agreement: Agreement,
    #[serde(rename = "use")]
    fpu_use: f64,
    policies: Vec<Policy>,
    as_the_kernel: Policy,
    optimum: Optimum,
    beyond_optimum: Beyond,
    causes: BTreeMap<&'static str, u64>,
    tasks: Vec<Task<'a>>,
    /// Whether there may be further tasks with restores.
    tasks_cut: bool,
    schedule: Schedule,
    costs: Costs,
    costs_from: From,
    lost: u64,
    ignored: &'a BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Kernel {
    switches: u64,
    returns: u64,
    saves: u64,
    restores: u64,
}

#[derive(Serialize)]
struct Agreement {
    decisions: u64,
    disagreements: u64,
    inferred: u64,
    inferred_return: u64,
    inferred_kernel_fpu: u64,
    undecidable: u64,
    quirks: BTreeMap<&'static str, u64>,
    first: Vec<First>,
}

/// Where a group of costs comes from: `measured`, `assumed`, `file` or `table`.
#[derive(Serialize)]
struct From {
    save_and_restore: &'static str,
    check: &'static str,
    others: &'static str,
}

/// What a quirk of the kernel cost it.
#[derive(Serialize)]
struct Quirk {
    name: &'static str,
    origin: &'static str,
    saves: u64,
    restores: u64,
    cost_ns: f64,
}

/// What is left when quirks and loads for frames are taken from what the kernel did beyond the optimum.
#[derive(Serialize)]
struct Itself {
    saves: i64,
    restores: i64,
    cost_ns: f64,
}

#[derive(Serialize)]
struct First {
    line: u64,
    cpu: u32,
    pid: u32,
    decision: String,
    expected: bool,
    found: bool,
}

#[derive(Serialize)]
struct Policy {
    name: &'static str,
    counts: &'static str,
    saves: u64,
    restores: u64,
    restores_skipped: u64,
    looks: u64,
    traps: u64,
    flushes: u64,
    kept_by_calls: u64,
    cost_ns: f64,
    share_of_cpu: Option<f64>,
    saves_over_optimum: Option<f64>,
    restores_over_optimum: Option<f64>,
}

#[derive(Serialize)]
struct Optimum {
    saves: u64,
    restores: u64,
    cost_ns: f64,
    share_of_cpu: Option<f64>,
}

/// What the kernel did beyond the optimum.
#[derive(Serialize)]
struct Beyond {
    saves: u64,
    restores: u64,
    restores_for_frames: u64,
    quirks: Vec<Quirk>,
    itself: Itself,
}

#[derive(Serialize)]
struct Task<'a> {
    name: &'a str,
    pid: u32,
    restores: u64,
    causes: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct Schedule {
    switch_ins: u64,
    entries: u64,
    due_returns: u64,
    valid_returns: u64,
    used_slices: u64,
    involuntary: u64,
}

fn by_name(causes: &CauseCounts) -> BTreeMap<&'static str, u64> {
    causes.sorted().into_iter().map(|(cause, count)| (cause.name(), count)).collect()
}

impl<'a> Task<'a> {
    fn new(task: &'a TaskRestores) -> Self {
        let TaskRestores { name, pid, restores, .. } = task;
        Self { name, pid: *pid, restores: restores.total(), causes: by_name(restores) }
    }
}

impl Schedule {
    fn new(counts: &ScheduleCounts) -> Self {
        Self {
            switch_ins: counts.switch_ins,
            entries: counts.entries,
            due_returns: counts.due_returns,
            valid_returns: counts.valid_returns,
            used_slices: counts.used_slices,
            involuntary: counts.involuntary,
        }
    }
}

impl<'a> File<'a> {
    pub(crate) fn new(file: &'a str, report: &'a Report, source: &Source) -> Self {
        let (agreement, costs) = (&report.agreement, &source.costs);
        let because = [("inferred", agreement.infers_too_much()), ("lost", report.knows_too_little())];
        let because = because.into_iter().filter(|(_, holds)| *holds).map(|(name, _)| name).collect();
        let [save_and_restore, check, others] = source.names();
        let optimum_ns = report.optimum.cost_ns(costs);
        Self {
            file,
            lines: report.lines,
            seconds: report.seconds,
            cpus: report.cpus,
            cpu_seconds: report.cpu_ns() / 1e9,
            has_functions: report.has_functions,
            says_little: report.says_little(),
            says_little_because: because,
            kernel: Kernel {
                switches: report.kernel.switches,
                returns: report.kernel.returns,
                saves: report.kernel.saves,
                restores: report.kernel.restores,
            },
            agreement: Agreement {
                decisions: agreement.decisions,
                disagreements: agreement.disagreements,
                inferred: agreement.inferred(),
                inferred_return: agreement.inferred_returns,
                inferred_kernel_fpu: agreement.inferred_kernel_fpu,
                undecidable: agreement.undecidable,
                quirks: agreement.quirks.iter().map(|(quirk, count)| (quirk.name(), *count)).collect(),
                first: agreement.first.iter().map(First::new).collect(),
            },
            fpu_use: report.fpu_use,
            policies: report.policies.iter().map(|p| Policy::new(p, report, costs)).collect(),
            as_the_kernel: Policy::new(&report.as_the_kernel(), report, costs),
            optimum: Optimum {
                saves: report.optimum.saves,
                restores: report.optimum.restores,
                cost_ns: optimum_ns,
                share_of_cpu: share_of_cpu(report, optimum_ns),
            },
            beyond_optimum: Beyond::new(report, costs),
            causes: by_name(&report.causes),
            tasks: report.top.iter().map(Task::new).collect(),
            tasks_cut: report.top.len() == TaskRestores::MOST_KEPT,
            schedule: Schedule::new(&report.schedule),
            costs: *costs,
            costs_from: From { save_and_restore, check, others },
            lost: report.lost,
            ignored: &report.ignored,
        }
    }
}

impl Beyond {
    fn new(report: &Report, costs: &Costs) -> Self {
        let [saves, restores] = report.beyond_optimum();
        let quirk = |(quirk, count): (&replay::Quirk, &u64)| {
            let (saves, restores) = if quirk.costs() == "saves" { (*count, 0) } else { (0, *count) };
            let cost_ns = saves as f64 * costs.save_ns + restores as f64 * costs.restore_ns;
            Quirk { name: quirk.name(), origin: quirk.origin(), saves, restores, cost_ns }
        };
        let quirks: Vec<_> = report.agreement.quirks.iter().map(quirk).collect();
        let by_quirks =
            quirks.iter().fold((0, 0), |sum, quirk| (sum.0 + quirk.saves, sum.1 + quirk.restores));
        let itself = Itself::new(
            saves as i64 - by_quirks.0 as i64,
            restores as i64 - by_quirks.1 as i64 - report.for_frames as i64,
            costs,
        );
        Self { saves, restores, restores_for_frames: report.for_frames, quirks, itself }
    }
}

impl Itself {
    fn new(saves: i64, restores: i64, costs: &Costs) -> Self {
        let cost_ns = saves as f64 * costs.save_ns + restores as f64 * costs.restore_ns;
        Self { saves, restores, cost_ns }
    }
}

/// A cost as a share of the CPU time, from 0 to 1; `None` where the recording covers no time.
fn share_of_cpu(report: &Report, ns: f64) -> Option<f64> {
    let all = report.cpu_ns();
    (all > 0.0).then(|| ns / all)
}

impl First {
    fn new(found: &Disagreement) -> Self {
        Self {
            line: found.line,
            cpu: found.cpu,
            pid: found.pid,
            decision: found.decision.to_string(),
            expected: found.expected,
            found: found.found,
        }
    }
}

impl Policy {
    fn new(counts: &PolicyCounts, report: &Report, costs: &Costs) -> Self {
        let [saves_over_optimum, restores_over_optimum] = counts.over_optimum(&report.optimum);
        let cost_ns = counts.cost_ns(costs);
        Self {
            name: counts.name,
            counts: counts.basis.name(),
            saves: counts.saves,
            restores: counts.restores,
            restores_skipped: counts.restores_skipped,
            looks: counts.looks,
            traps: counts.traps,
            flushes: counts.flushes,
            kept_by_calls: counts.kept_by_calls,
            cost_ns,
            share_of_cpu: share_of_cpu(report, cost_ns),
            saves_over_optimum,
            restores_over_optimum,
        }
    }
}
