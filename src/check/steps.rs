//! A list of events, step by step.

use super::{Breach, Spec, check, check_outcome, spec_for};
use crate::{
    Event, EventError,
    fpu::Policy,
    machine::{Machine, Outcome},
    registers::UserFrames,
};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;

/// One step: an event, what it did, and what holds behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The event.
    pub event: Event,
    /// What it did.
    pub outcome: Outcome,
    /// Each CPU's owner; a `*` marks an only copy, brackets an open kernel FPU section.
    pub owners: String,
    /// Each user task's last_cpu.
    pub last_cpus: String,
    /// The user tasks with need_fpu_load set.
    pub need_fpu_load: String,
    /// Where each user task's newest state is.
    pub newest: String,
}

/// Runs events on a machine under the reference model, and keeps a row for each step.
#[derive(Clone, Debug)]
pub struct Steps<R: UserFrames, P> {
    machine: Machine<R, P>,
    spec: Spec,
    steps: Vec<Step>,
}

impl<R: UserFrames, P: Policy> Steps<R, P> {
    /// Begins with a machine that no event has happened to.
    pub fn new(machine: Machine<R, P>) -> Self {
        let spec = spec_for(machine.cpus()[0].regs(), machine.policy());
        Self { machine, spec, steps: Vec::new() }
    }

    /// The steps so far.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The events so far.
    pub fn events(&self) -> impl Iterator<Item = Event> {
        self.steps.iter().map(|step| step.event)
    }

    /// The reference model.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The machine.
    pub fn machine(&self) -> &Machine<R, P> {
        &self.machine
    }

    /// Lets an event happen, and checks all invariants behind it.
    ///
    /// # Errors
    /// [`EventError`] when the event cannot happen; nothing has changed, and there is no step. The inner
    /// result is the invariant that does not hold behind the event.
    pub fn apply(&mut self, event: Event) -> Result<Result<(), Breach>, EventError> {
        let outcome = self.machine.apply(event)?;
        self.spec.apply(event);
        let step = self.step(event, outcome);
        self.steps.push(step);
        Ok(check_outcome(&self.machine, &self.spec, event, &outcome)
            .and_then(|()| check(&self.machine, &self.spec)))
    }

    fn step(&self, event: Event, outcome: Outcome) -> Step {
        let cpus = self.machine.cpus().iter().map(|cpu| {
            let slot = cpu.slot();
            let owner = slot.owner().map_or("–".into(), |owner| format!("{owner}"));
            let only = if slot.holds_only_copy() { "*" } else { "" };
            match slot.kernel_fpu() {
                Some(_) => format!("{}:[{owner}{only}]", slot.cpu()),
                None => format!("{}:{owner}{only}", slot.cpu()),
            }
        });
        let users = || {
            let tasks = self.machine.tasks().iter().filter(|task| !task.has_exited());
            tasks.map(|task| task.fpstate()).filter(|fpstate| fpstate.is_user())
        };
        let last_cpus = users().map(|fpstate| match fpstate.last_cpu() {
            Some(cpu) => format!("{}:{cpu}", fpstate.id()),
            None => format!("{}:–", fpstate.id()),
        });
        let loads = users().filter(|fpstate| fpstate.need_fpu_load());
        let newest = users().map(|fpstate| {
            let valid = self.machine.cpus().iter().find(|cpu| fpstate.is_valid_on(cpu.slot()));
            let id = fpstate.id();
            match (fpstate.need_fpu_load(), valid.map(|cpu| cpu.slot().cpu())) {
                (false, Some(cpu)) => format!("{id}:{cpu}"),
                (false, None) => format!("{id}:nowhere"),
                (true, Some(cpu)) => format!("{id}:memory+{cpu}"),
                (true, None) => format!("{id}:memory"),
            }
        });
        Step {
            event,
            outcome,
            owners: join(cpus),
            last_cpus: join(last_cpus),
            need_fpu_load: join(loads.map(|fpstate| format!("{}", fpstate.id()))),
            newest: join(newest),
        }
    }
}

impl Step {
    /// What stands above the cells of a step.
    pub const HEADINGS: [&str; 6] =
        ["event", "outcome", "owner slots", "last_cpu", "need_fpu_load", "newest copy"];

    /// The step as a row.
    pub fn cells(&self) -> [String; 6] {
        let Self { event, outcome, owners, last_cpus, need_fpu_load, newest } = self;
        [
            event.to_string(),
            outcome.to_string(),
            owners.clone(),
            last_cpus.clone(),
            need_fpu_load.clone(),
            newest.clone(),
        ]
    }
}

impl<R: UserFrames, P> fmt::Display for Steps<R, P> {
    /// A table with a row a step.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = Step::HEADINGS.map(String::from);
        let rows: Vec<_> = core::iter::once(headings).chain(self.steps.iter().map(Step::cells)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 6] = core::array::from_fn(width);
        for row in &rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

fn join(parts: impl Iterator<Item = String>) -> String {
    let joined = parts.collect::<Vec<_>>().join(" ");
    if joined.is_empty() { "–".into() } else { joined }
}
