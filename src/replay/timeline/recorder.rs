//! Takes a timeline down while events go by.

use super::{Holder, Lane, Mark, Place, Sample, TaskLane, Timeline, Window, WindowError};
use crate::{
    CpuId, Current, Event, TaskId,
    fpu::{Before, Policy, Save},
    machine::{Machine, Outcome},
    registers::AbstractRegs,
    replay::{PolicyCounts, attribution::Name},
};
use std::{string::ToString, vec::Vec};

/// How many samples of a policy are kept.
const MOST_SAMPLES: usize = 4096;

/// Takes down what one machine does.
#[derive(Debug)]
pub(in crate::replay) struct Recorder {
    /// Which of the policies.
    pub(in crate::replay) policy: usize,
    window: Window,
    /// Under way; its bounds are known once the first event was seen.
    timeline: Timeline,
    /// By task slot: who is there, and the task's number in the timeline.
    numbers: Vec<Option<(TaskId, u32)>>,
    /// By task number: the CPU whose registers last held the task's newest state.
    homes: Vec<Option<CpuId>>,
    /// By CPU, as of the last event.
    now: Vec<Here>,
    /// How many events with something to count go by between two samples, and how many have since the last one.
    stride: u64,
    passed: u64,
    counted: u64,
}

/// A CPU, as of the last event.
#[derive(Clone, Copy, Debug, Default)]
struct Here {
    current: Option<TaskId>,
    owner: Option<TaskId>,
}

impl Recorder {
    pub(in crate::replay) fn new(policy: usize, window: Window, policies: Vec<&'static str>) -> Self {
        let timeline = Timeline { policy: policies[policy], policies, ..Timeline::default() };
        Self {
            policy,
            window,
            timeline,
            numbers: Vec::new(),
            homes: Vec::new(),
            now: Vec::new(),
            stride: 1,
            passed: 0,
            counted: 0,
        }
    }

    /// The recording's first event comes.
    pub(in crate::replay) fn begins(&mut self, at_us: u64) {
        self.timeline.start_us = at_us;
        self.timeline.from_us = at_us.saturating_add(self.window.from_us);
        self.timeline.to_us = at_us.saturating_add(self.window.to_us);
    }

    /// An event has happened.
    pub(in crate::replay) fn note<P: Policy>(
        &mut self,
        at_us: u64,
        machine: &Machine<AbstractRegs, P>,
        event: Event,
        outcome: &Outcome,
    ) {
        let known = self.now.len();
        if known < machine.cpus().len() {
            self.timeline.lanes.resize_with(machine.cpus().len(), Lane::default);
            self.now.resize(machine.cpus().len(), Here::default());
            for index in known..machine.cpus().len() {
                self.look_at(at_us, machine, index);
            }
        }
        let named = match event {
            Event::Spawn(task)
            | Event::Migrate(task, _)
            | Event::Read(task, _)
            | Event::Write(task, ..)
            | Event::Fork(_, task)
            | Event::ScheduleIn(_, task)
            | Event::Return(_, task) => Some(task),
            _ => None,
        };
        // Nothing changes elsewhere than on the event's CPU, on one that had to do something first, and where the
        // registers held the state of one of the tasks.
        let current = event.cpu().and_then(|cpu| self.now[cpu.0 as usize].current);
        for task in named.into_iter().chain(current) {
            self.look_at_home(at_us, machine, task);
        }
        for done in outcome.before.iter().flatten() {
            match done.asked {
                Before::Evict(task) => self.look_at_home(at_us, machine, task),
                Before::Flush { cpu, task } => {
                    self.look_at(at_us, machine, cpu.0 as usize);
                    self.look_at_home(at_us, machine, task);
                }
                Before::Interrupt { cpu } => self.look_at(at_us, machine, cpu.0 as usize),
            }
        }
        if let Some(cpu) = event.cpu() {
            self.look_at(at_us, machine, cpu.0 as usize);
        }
        if let Some(task) = named {
            self.place(at_us, machine, task);
        }
        if let Some(cpu) = event.cpu() {
            self.mark(at_us, cpu, event, outcome);
            if let Some(task) = self.now[cpu.0 as usize].current {
                self.place(at_us, machine, task);
            }
        }
    }

    /// What has changed on the CPU whose registers held a task's newest state.
    fn look_at_home<P: Policy>(&mut self, at_us: u64, machine: &Machine<AbstractRegs, P>, task: TaskId) {
        let number = self.number(task) as usize;
        if let Some(home) = self.homes[number] {
            self.look_at(at_us, machine, home.0 as usize);
        }
    }

    /// What has changed on a CPU.
    fn look_at<P: Policy>(&mut self, at_us: u64, machine: &Machine<AbstractRegs, P>, index: usize) {
        let cpu = &machine.cpus()[index];
        let current = match cpu.current() {
            Current::Task(task) => Some(task),
            Current::Idle | Current::Switching => None,
        };
        let slot = cpu.slot();
        let owner = slot.owner();
        let holder = match (slot.kernel_fpu(), owner) {
            (Some(_), _) => Holder::KernelFpu,
            (None, None) => Holder::Nobody,
            (None, Some(owner)) => {
                let number = self.number(owner);
                let valid = machine.task(owner).is_some_and(|task| task.fpstate().is_valid_on(slot));
                if valid { Holder::Task(number) } else { Holder::Outdated(number) }
            }
        };
        if let Holder::Task(number) = holder {
            self.homes[number as usize] = Some(slot.cpu());
        }
        let before = core::mem::replace(&mut self.now[index], Here { current, owner });
        let changed = self.timeline.lanes[index].holders.last().is_none_or(|(_, last)| *last != holder);
        if changed {
            let Timeline { from_us, to_us, .. } = self.timeline;
            push(&mut self.timeline.lanes[index].holders, at_us, holder, from_us..to_us);
        }
        if changed || before.current != current {
            for task in [before.current, before.owner, current, owner].into_iter().flatten() {
                self.place(at_us, machine, task);
            }
        }
    }

    /// Where a task is by now.
    fn place<P: Policy>(&mut self, at_us: u64, machine: &Machine<AbstractRegs, P>, task: TaskId) {
        let place = match machine.task(task).filter(|task| !task.has_exited()) {
            None => Place::Gone,
            Some(task) => {
                let fpstate = task.fpstate();
                let last = fpstate.last_cpu().and_then(|cpu| machine.cpu(cpu));
                let valid = last.map(|cpu| cpu.slot()).filter(|slot| fpstate.is_valid_on(slot));
                match (task.on(), valid.map(|slot| slot.cpu())) {
                    (Some(cpu), _) => Place::Running(cpu),
                    (None, Some(cpu)) if fpstate.need_fpu_load() => Place::Both(cpu),
                    (None, Some(cpu)) => Place::Registers(cpu),
                    (None, None) => Place::Memory,
                }
            }
        };
        let number = self.number(task);
        let Timeline { from_us, to_us, tasks, .. } = &mut self.timeline;
        let places = &mut tasks[number as usize].places;
        if places.last().is_none_or(|(_, last)| *last != place) {
            push(places, at_us, place, *from_us..*to_us);
        }
    }

    fn mark(&mut self, at_us: u64, cpu: CpuId, event: Event, outcome: &Outcome) {
        let elsewhere = outcome.before.iter().flatten().filter_map(|done| match done.asked {
            Before::Flush { cpu, .. } if done.save == Save::Saved => Some(cpu),
            _ => None,
        });
        let flushed = elsewhere.clone().count() as u32;
        let here = [
            (Mark::Saved, outcome.saves() - flushed),
            (Mark::Restored, outcome.restores()),
            (Mark::Skipped, outcome.restores_skipped()),
            (Mark::KernelFpu, u32::from(matches!(event, Event::KernelFpuBegin(..)))),
        ];
        let here = here.into_iter().flat_map(|(mark, times)| (0..times).map(move |_| (cpu, mark)));
        let Timeline { from_us, to_us, lanes, .. } = &mut self.timeline;
        for (cpu, mark) in here.chain(elsewhere.map(|cpu| (cpu, Mark::Saved))) {
            if (*from_us..=*to_us).contains(&at_us) {
                let marks = &mut lanes[cpu.0 as usize].marks;
                // A flush is done when another CPU asks for it, whose lines may be behind.
                let at_us = marks.last().map_or(at_us, |(last, _)| at_us.max(*last));
                marks.push((at_us, mark));
            }
        }
    }

    /// What all policies have done by now.
    pub(in crate::replay) fn count<'a>(
        &mut self,
        at_us: u64,
        counts: impl Iterator<Item = &'a PolicyCounts> + Clone,
    ) {
        let total = counts.clone().map(|counts| counts.saves + counts.restores).sum();
        let Timeline { from_us, to_us, ref mut samples, ref policies, .. } = self.timeline;
        if total == self.counted || !(from_us..=to_us).contains(&at_us) {
            return;
        }
        self.counted = total;
        self.passed += 1;
        if self.passed < self.stride {
            return;
        }
        self.passed = 0;
        if samples.len() >= MOST_SAMPLES * policies.len() {
            // Every second time of them goes, and from here on every second that comes.
            let rows = policies.len();
            let mut index = 0;
            samples.retain(|_| {
                index += 1;
                (index - 1) / rows % 2 == 0
            });
            self.stride *= 2;
        }
        let at_us = samples.last().map_or(at_us, |last| last.at_us.max(at_us));
        samples.extend(counts.enumerate().map(|(policy, counts)| Sample {
            policy,
            at_us,
            saves: counts.saves,
            restores: counts.restores,
        }));
    }

    /// A line says who the task is.
    pub(in crate::replay) fn identify(&mut self, task: TaskId, pid: u32, name: Name) {
        let number = self.number(task) as usize;
        let lane = &mut self.timeline.tasks[number];
        lane.pid = pid;
        lane.name = name.to_string();
    }

    fn number(&mut self, task: TaskId) -> u32 {
        let slot = task.slot() as usize;
        if self.numbers.len() <= slot {
            self.numbers.resize(slot + 1, None);
        }
        match self.numbers[slot] {
            Some((who, number)) if who == task => number,
            _ => {
                let number = self.timeline.tasks.len() as u32;
                self.timeline.tasks.push(TaskLane::default());
                self.homes.push(None);
                self.numbers[slot] = Some((task, number));
                number
            }
        }
    }

    /// The recording ends.
    pub(in crate::replay) fn finish(mut self, end_us: u64) -> Result<Timeline, WindowError> {
        let Timeline { start_us, from_us, to_us, .. } = self.timeline;
        if from_us > end_us || (from_us == end_us && from_us > start_us) {
            let seconds = end_us.saturating_sub(start_us) as f64 / 1e6;
            return Err(WindowError::Outside { from: self.window.from_us as f64 / 1e6, seconds });
        }
        self.timeline.to_us = to_us.min(end_us);
        if to_us < end_us {
            // What happens as the window ends is the next one's.
            for lane in &mut self.timeline.lanes {
                before(&mut lane.holders, to_us);
                before(&mut lane.marks, to_us);
            }
            for task in &mut self.timeline.tasks {
                before(&mut task.places, to_us);
            }
            let samples = &mut self.timeline.samples;
            samples.truncate(samples.partition_point(|sample| sample.at_us < to_us));
        }
        Ok(self.timeline)
    }
}

/// Keeps of a list in the order of time what comes before `end_us`.
fn before<T>(list: &mut Vec<(u64, T)>, end_us: u64) {
    list.truncate(list.partition_point(|(at_us, _)| *at_us < end_us));
}

/// Something holds from here on. What held last when the window begins, holds from its beginning on.
fn push<T>(list: &mut Vec<(u64, T)>, at_us: u64, what: T, window: core::ops::Range<u64>) {
    let at_us = list.last().map_or(window.start, |(last, _)| *last).max(at_us);
    if at_us > window.end {
        return;
    }
    match list.last_mut() {
        Some(last) if last.0 == at_us => last.1 = what,
        _ => list.push((at_us, what)),
    }
}
