//! The numbers of a run, as tables and as JSON.

use super::{
    arms::{self, Machines, What},
    goals::GOALS,
};
use crate::{print, table};
use fpuswitch::{
    costs,
    live::{GateReport, LiveError},
    registers::HostRegs,
};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use serde::Serialize;

const BLOCKS: usize = 31;
const QUICK_BLOCKS: usize = 3;

#[derive(Serialize)]
pub(super) struct Report {
    cpu: String,
    save: &'static str,
    gate: String,
    is_gate_bare: bool,
    /// In-use classes that registers cannot be of here.
    missing_classes: Vec<&'static str>,
    blocks: usize,
    arms: Vec<Measured>,
    ratios: Vec<Ratio>,
}

/// An arm: the median of its blocks.
#[derive(Serialize)]
struct Measured {
    what: What,
    class: &'static str,
    ns: f64,
}

#[derive(Serialize)]
struct Ratio {
    of: What,
    to: What,
    class: &'static str,
    ratio: f64,
    /// `None` for a class that no goal is stated for.
    goal: Option<f64>,
    is_goal_the_most: bool,
    is_reached: Option<bool>,
    reason: Option<&'static str>,
}

impl Report {
    pub(super) fn measure(is_quick: bool) -> Result<Self, LiveError> {
        stay_on_this_cpu();
        let machines = Machines::start()?;
        let gate = machines.owner_slot.gate();
        let blocks = if is_quick { QUICK_BLOCKS } else { BLOCKS };
        let mut arms: Vec<_> =
            arms::all(&machines, is_quick)?.into_iter().map(|arm| (arm, Vec::new())).collect();
        for turn in 0..=blocks {
            for (arm, ns) in &mut arms {
                let block = (arm.block)()?;
                // The first finds cold caches.
                if turn != 0 {
                    ns.push(block);
                }
            }
        }
        let arms: Vec<_> = arms
            .into_iter()
            .map(|(arm, ns)| Measured { what: arm.what, class: arm.class, ns: median(ns) })
            .collect();
        Ok(Self {
            cpu: cpu_model(),
            save: HostRegs::new()?.save_instruction().name(),
            gate: gate.to_string(),
            is_gate_bare: matches!(gate, GateReport::Bare(_)),
            missing_classes: costs::classes()?
                .iter()
                .filter(|class| !class.is_here)
                .map(|class| class.name)
                .collect(),
            blocks,
            ratios: ratios(&arms),
            arms,
        })
    }

    pub(super) fn print(&self) {
        print(format_args!("{}, saves by {}\n", self.cpu, self.save));
        print(format_args!("gate {}\n", self.gate));
        let missing = self.missing_classes.join(", ");
        print(format_args!("classes that do not exist here: {}\n\n", or_none(&missing)));
        let mut rows = table();
        rows.set_header(["arm", "registers", "ns"]);
        for arm in &self.arms {
            rows.add_row([arm.what.words(), arm.class, &format!("{:.1}", arm.ns)]);
        }
        print(format_args!("{rows}\n\n"));
        let mut rows = table();
        rows.set_header(["ratio", "registers", "goal", "measured", ""]);
        for ratio in &self.ratios {
            let goal = ratio.goal.map_or(String::new(), |goal| {
                format!("{} {goal}", if ratio.is_goal_the_most { "≤" } else { "≥" })
            });
            let reached = match ratio.is_reached {
                Some(true) => "reached",
                Some(false) => "not reached",
                None => "",
            };
            let words = format!("{} ÷ {}", ratio.of.words(), ratio.to.words());
            let measured = format!("{:.2}", ratio.ratio);
            rows.add_row([words.as_str(), ratio.class, &goal, &measured, reached]);
        }
        print(format_args!("{rows}\n"));
        print(format_args!(
            "medians of {} blocks, on one CPU; docs/bench.md has the formulas\n",
            self.blocks
        ));
        let mut reasons: Vec<_> =
            self.ratios.iter().filter_map(|ratio| Some((ratio.of, ratio.to, ratio.reason?))).collect();
        reasons.dedup();
        for (of, to, reason) in reasons {
            print(format_args!("not reached, {} ÷ {}: {reason}\n", of.words(), to.words()));
        }
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

/// Every quotient of which both sides were measured.
fn ratios(arms: &[Measured]) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for goal in &GOALS {
        for of in arms.iter().filter(|arm| arm.what == goal.of) {
            for to in arms.iter().filter(|arm| arm.what == goal.to) {
                if !of.class.is_empty() && !to.class.is_empty() && of.class != to.class {
                    continue;
                }
                let class = if of.class.is_empty() { to.class } else { of.class };
                let ratio = of.ns / to.ns;
                let is_stated = goal.class.is_none_or(|stated| stated == class);
                let is_reached = is_stated.then(|| goal.is_reached(ratio));
                ratios.push(Ratio {
                    of: goal.of,
                    to: goal.to,
                    class,
                    ratio,
                    goal: is_stated.then_some(goal.goal),
                    is_goal_the_most: goal.is_at_most,
                    is_reached,
                    reason: (is_reached == Some(false)).then_some(goal.reason),
                });
            }
        }
    }
    ratios
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// All OS threads from here on stay where this one is: a switch between two of them is one on the same CPU.
fn stay_on_this_cpu() {
    let mut cpus = CpuSet::new();
    cpus.set(sched_getcpu());
    // Where it is forbidden the numbers are worse, and no others.
    let _ = sched_setaffinity(None, &cpus);
}

/// As the system calls it.
fn cpu_model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or("an unknown CPU".into(), |(_, model)| model.into())
}
