//! One line of JSON a recording.

use fpuswitch::replay::{
    CauseCounts, Costs, Disagreement, OptimumCounts, PolicyCounts, Report, ScheduleCounts, TaskRestores,
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
    schedule: Schedule,
    costs: Costs,
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
    saves_over_optimum: Option<f64>,
    restores_over_optimum: Option<f64>,
}

#[derive(Serialize)]
struct Optimum {
    saves: u64,
    restores: u64,
    cost_ns: f64,
}

/// What the kernel did beyond the optimum; the quirks are in the agreement.
#[derive(Serialize)]
struct Beyond {
    saves: u64,
    restores: u64,
    restores_for_frames: u64,
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
    pub(crate) fn new(file: &'a str, report: &'a Report, costs: &Costs) -> Self {
        let agreement = &report.agreement;
        let [saves, restores] = report.beyond_optimum();
        Self {
            file,
            lines: report.lines,
            seconds: report.seconds,
            cpus: report.cpus,
            cpu_seconds: report.cpu_ns() / 1e9,
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
            policies: report.policies.iter().map(|p| Policy::new(p, &report.optimum, costs)).collect(),
            as_the_kernel: Policy::new(&report.as_the_kernel(), &report.optimum, costs),
            optimum: Optimum {
                saves: report.optimum.saves,
                restores: report.optimum.restores,
                cost_ns: report.optimum.cost_ns(costs),
            },
            beyond_optimum: Beyond { saves, restores, restores_for_frames: report.for_frames },
            causes: by_name(&report.causes),
            tasks: report.top.iter().map(Task::new).collect(),
            schedule: Schedule::new(&report.schedule),
            costs: *costs,
            lost: report.lost,
            ignored: &report.ignored,
        }
    }
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
    fn new(counts: &PolicyCounts, optimum: &OptimumCounts, costs: &Costs) -> Self {
        let [saves_over_optimum, restores_over_optimum] = counts.over_optimum(optimum);
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
            cost_ns: counts.cost_ns(costs),
            saves_over_optimum,
            restores_over_optimum,
        }
    }
}
