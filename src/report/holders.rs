//! Who holds the registers of a timeline, for how long, and in which colour.

use super::canvas::FAINT;
use crate::replay::{Holder, TaskLane, Timeline};
use plotters::style::RGBColor;
use std::{format, string::String, vec, vec::Vec};

/// Time in which registers hold what, in µs, over all CPUs that the recording has a line of.
#[derive(Debug)]
pub(super) struct Holders {
    pub(super) nobody_us: u64,
    pub(super) kernel_us: u64,
    pub(super) outdated_us: u64,
    pub(super) all_us: u64,
    /// The tasks that hold registers longest, and for how long.
    pub(super) longest: Vec<(u32, u64)>,
    /// By task: its place in that order.
    rank: Vec<usize>,
}

impl Holders {
    pub(super) fn new(timeline: &Timeline) -> Self {
        let mut holders =
            Self { nobody_us: 0, kernel_us: 0, outdated_us: 0, all_us: 0, longest: Vec::new(), rank: vec![] };
        let mut by_task = vec![0; timeline.tasks.len()];
        for lane in timeline.lanes.iter().filter(|lane| lane.seen) {
            for (from, to, holder) in timeline.spans(&lane.holders) {
                let us = to - from;
                holders.all_us += us;
                match holder {
                    Holder::Nobody => holders.nobody_us += us,
                    Holder::KernelFpu => holders.kernel_us += us,
                    Holder::Task(task) => by_task[task as usize] += us,
                    Holder::Outdated(task) => {
                        holders.outdated_us += us;
                        by_task[task as usize] += us;
                    }
                }
            }
        }
        let times = by_task.iter().enumerate().map(|(task, us)| (task as u32, *us));
        holders.longest = times.filter(|(_, us)| *us > 0).collect();
        holders.longest.sort_by_key(|(task, us)| (core::cmp::Reverse(*us), *task));
        holders.rank = vec![usize::MAX; by_task.len()];
        for (rank, (task, _)) in holders.longest.iter().enumerate() {
            holders.rank[*task as usize] = rank;
        }
        holders
    }

    /// Where a holder is in a stack, from the top.
    pub(super) fn order(&self, holder: Holder) -> usize {
        match holder {
            Holder::KernelFpu => 0,
            Holder::Task(task) => 1 + 2 * self.rank[task as usize],
            Holder::Outdated(task) => 2 + 2 * self.rank[task as usize],
            Holder::Nobody => usize::MAX,
        }
    }
}

/// The colour of a kernel FPU section.
pub(super) const KERNEL: RGBColor = RGBColor(20, 20, 20);
/// The colour of registers that hold nothing of anybody's.
pub(super) const NOBODY: RGBColor = RGBColor(232, 232, 232);

/// A holder's colour. A task's follows from its pid: the same in every picture, and far from those of the pids beside it.
pub(super) fn colour(tasks: &[TaskLane], holder: Holder) -> RGBColor {
    match holder {
        Holder::Nobody => NOBODY,
        Holder::KernelFpu => KERNEL,
        Holder::Task(task) => of_pid(tasks[task as usize].pid),
        Holder::Outdated(task) => {
            let RGBColor(r, g, b) = of_pid(tasks[task as usize].pid);
            let pale = |part: u8| (f64::from(part) * 0.35 + 255.0 * 0.65) as u8;
            RGBColor(pale(r), pale(g), pale(b))
        }
    }
}

fn of_pid(pid: u32) -> RGBColor {
    if pid == 0 {
        return FAINT;
    }
    // Steps by the golden angle keep neighbours apart. Pids that are a Fibonacci number apart come round to nearly the same
    // hue, but (up to 89, and from 233 to 377) not to the same of four shades.
    let hue = f64::from(pid) * 137.507_764 % 360.0;
    let (lightness, saturation) =
        [(0.46, 0.70), (0.68, 0.75), (0.30, 0.80), (0.56, 0.32)][(pid % 4) as usize];
    let chroma = (1.0 - f64::abs(2.0 * lightness - 1.0)) * saturation;
    let part = |shift: f64| {
        let at = (hue / 60.0 + shift).rem_euclid(6.0);
        let ramp = (f64::abs(at - 3.0) - 1.0).clamp(0.0, 1.0);
        ((lightness + chroma * (ramp - 0.5)) * 255.0).round() as u8
    };
    RGBColor(part(0.0), part(4.0), part(2.0))
}

/// A task's name and pid.
pub(super) fn label(task: &TaskLane) -> String {
    let name = if task.name.is_empty() { "?" } else { task.name.as_str() };
    if task.pid == 0 { format!("{name} (no line names it)") } else { format!("{name} {}", task.pid) }
}
