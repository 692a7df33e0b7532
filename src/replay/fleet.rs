//! The machines that a recording drives, all with the same events.

use super::{PolicyCounts, ReplayError, optimum::Optimum};
use crate::{
    Component, CpuId, Event, TaskId, Value,
    check::{self, Spec},
    fpu::{Policy, policy::Builtin},
    machine::{Cpu, Machine, Outcome, Task},
    registers::{AbstractRegs, RegisterFile},
};
use std::vec::Vec;

/// One policy under comparison.
#[derive(Debug)]
struct Run {
    machine: Machine<AbstractRegs, Builtin>,
    counts: PolicyCounts,
}

/// The machine that is held against the kernel, with the kernel's quirks; one machine a policy, without them;
/// and the optimum.
#[derive(Debug)]
pub(super) struct Fleet {
    shadow: Machine<AbstractRegs, Builtin>,
    runs: Vec<Run>,
    pub(super) optimum: Optimum,
    /// With `--check`: the reference model, and the pattern that user code writes next.
    check: Option<(Spec, u8)>,
    /// Slots of tasks that are gone.
    free: Vec<u32>,
    pub(super) line: u64,
}

impl Fleet {
    pub(super) fn new(reference: Builtin, policies: &[Builtin], check: bool) -> Self {
        let run = |policy: &Builtin| Run {
            machine: Machine::new(*policy, 1),
            counts: PolicyCounts::new(policy.name()),
        };
        let components = AbstractRegs::default().enabled();
        Self {
            shadow: Machine::new(reference, 1),
            runs: policies.iter().map(run).collect(),
            optimum: Optimum::default(),
            check: check.then(|| (Spec::new(components), 0)),
            free: Vec::new(),
            line: 0,
        }
    }

    pub(super) fn grow_cpus(&mut self, cpus: usize) {
        self.shadow.grow_cpus(cpus);
        for run in &mut self.runs {
            run.machine.grow_cpus(cpus);
        }
    }

    /// A CPU of the machine that is held against the kernel.
    pub(super) fn cpu(&self, cpu: CpuId) -> &Cpu<AbstractRegs> {
        &self.shadow.cpus()[cpu.0 as usize]
    }

    pub(super) fn task(&self, task: TaskId) -> Option<&Task<AbstractRegs>> {
        self.shadow.task(task)
    }

    /// Whether the machine expects a load for the task on this CPU: need_fpu_load set, and under a policy
    /// that looks, the registers not valid.
    pub(super) fn expects_load(&self, task: TaskId, cpu: CpuId, policy_decides: bool) -> bool {
        let Some(task) = self.shadow.task(task) else { return false };
        let valid = task.fpstate().is_valid_on(self.cpu(cpu).slot());
        let looks = !policy_decides || *self.shadow.policy() != Builtin::Deferred;
        task.fpstate().need_fpu_load() && !(looks && valid)
    }

    /// Lets an event happen on every machine.
    pub(super) fn all(&mut self, event: Event) -> Result<Outcome, ReplayError> {
        let outcome = self.kernel(event)?;
        self.optimum.apply(event);
        for run in &mut self.runs {
            match run.machine.apply(event) {
                Ok(outcome) => run.counts.add(&outcome),
                Err(source) => return Err(ReplayError::Refused { line: self.line, event, source }),
            }
        }
        if let Some((spec, _)) = &mut self.check {
            spec.apply(event);
            self.verify()?;
        }
        if let Event::Return(cpu, _) = event {
            self.user_code(cpu)?;
        }
        Ok(outcome)
    }

    /// Lets an event happen only on the machine that is held against the kernel: a quirk of the kernel.
    pub(super) fn kernel(&mut self, event: Event) -> Result<Outcome, ReplayError> {
        self.shadow.apply(event).map_err(|source| ReplayError::Refused { line: self.line, event, source })
    }

    /// With `--check`, user code changes its registers, so that an old copy cannot pass for the newest.
    fn user_code(&mut self, cpu: CpuId) -> Result<(), ReplayError> {
        let Some((_, pattern)) = &mut self.check else { return Ok(()) };
        *pattern = *pattern % (Value::KERNEL.number() - 1) + 1;
        let Some(value) = Value::new(*pattern) else { return Ok(()) };
        let component = if *pattern % 2 == 0 { Component::SSE } else { Component::AVX };
        self.all(Event::UserWrite(cpu, component, value)).map(drop)
    }

    fn verify(&self) -> Result<(), ReplayError> {
        let Some((spec, _)) = &self.check else { return Ok(()) };
        let broken = |policy: &'static str| {
            move |violation| ReplayError::Violation { line: self.line, policy, violation }
        };
        check::check(&self.shadow, spec).map_err(broken("the kernel's"))?;
        for run in &self.runs {
            check::check(&run.machine, spec).map_err(broken(run.counts.name))?;
        }
        Ok(())
    }

    /// A name for a new task.
    pub(super) fn new_task(&mut self) -> TaskId {
        let slot = self.free.pop().map_or(self.shadow.tasks().len(), |slot| slot as usize);
        self.shadow.next_task(slot).unwrap_or_else(|| TaskId::first(self.shadow.tasks().len() as u32))
    }

    /// The task is gone; its slot may be used again.
    pub(super) fn forget(&mut self, task: TaskId) {
        self.free.push(task.slot());
    }

    pub(super) fn in_user_mode(&self, task: TaskId) -> bool {
        self.shadow.task(task).is_some_and(|task| task.fpstate().user_on().is_some())
    }

    pub(super) fn counts(self) -> Vec<PolicyCounts> {
        self.runs.into_iter().map(|run| run.counts).collect()
    }
}
