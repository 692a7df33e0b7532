//! The machines that a recording drives, all with the same events.

use super::{PolicyCounts, ReplayError, optimum::Optimum};
use crate::{
    Component, CpuId, Event, TaskId, Value,
    check::{self, Spec},
    fpu::{Facts, LoadRule, Policy, SaveRule, policy::Builtin},
    machine::{Cpu, Machine, Outcome, Task},
    registers::{AbstractRegs, RegisterFile},
};
use std::vec::Vec;

/// Whose machine it is that is held against the kernel.
const KERNEL: &str = "the kernel's policy";

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

    /// Whether the task has not exited.
    pub(super) fn is_alive(&self, task: TaskId) -> bool {
        self.shadow.task(task).is_some_and(|task| !task.has_exited())
    }

    /// Whether the machine expects a save of the task when it leaves this CPU.
    pub(super) fn expects_save(&self, task: TaskId, cpu: CpuId) -> bool {
        let task = self.shadow.task(task).filter(|task| !task.has_exited());
        task.map(Task::fpstate).is_some_and(|fpstate| {
            let (valid, need_fpu_load) = (fpstate.is_valid_on(self.cpu(cpu).slot()), fpstate.need_fpu_load());
            !need_fpu_load
                && self.shadow.policy().switch_out(Facts { valid, need_fpu_load }) == SaveRule::Save
        })
    }

    /// Whether the machine expects a load for the task on this CPU: need_fpu_load set, and under a policy
    /// that looks, the registers not valid.
    pub(super) fn expects_load(&self, task: TaskId, cpu: CpuId, policy_decides: bool) -> bool {
        let Some(task) = self.shadow.task(task) else { return false };
        let need_fpu_load = task.fpstate().need_fpu_load();
        let valid = task.fpstate().is_valid_on(self.cpu(cpu).slot());
        let rule = self.shadow.policy().return_to_user(Facts { valid, need_fpu_load });
        let looks = !policy_decides || rule != LoadRule::Always;
        need_fpu_load && !(looks && valid)
    }

    /// Lets an event happen on every machine.
    pub(super) fn all(&mut self, event: Event) -> Result<(), ReplayError> {
        if let Some((spec, _)) = &mut self.check {
            spec.apply(event);
        }
        self.kernel(event)?;
        self.optimum.apply(event);
        let (line, check) = (self.line, self.check.as_ref().map(|(spec, _)| spec));
        for Run { machine, counts } in &mut self.runs {
            // The outcome is borrowed where it is: copying it is what most of the time would go to.
            match machine.apply(event) {
                Ok(ref outcome) => {
                    counts.add(outcome);
                    verify(line, counts.name, machine, check, event, outcome)?;
                }
                Err(source) => return Err(ReplayError::Refused { line, event, source }),
            }
        }
        if let Event::Return(cpu, _) = event {
            self.user_code(cpu)?;
        }
        Ok(())
    }

    /// Lets an event happen only on the machine that is held against the kernel: a quirk of the kernel. Returns
    /// how often it restored.
    pub(super) fn kernel(&mut self, event: Event) -> Result<u32, ReplayError> {
        let (line, check) = (self.line, self.check.as_ref().map(|(spec, _)| spec));
        match self.shadow.apply(event) {
            Ok(ref outcome) => {
                verify(line, KERNEL, &self.shadow, check, event, outcome)?;
                Ok(outcome.restores())
            }
            Err(source) => Err(ReplayError::Refused { line, event, source }),
        }
    }

    /// With `--check`, user code changes its registers, so that an old copy cannot pass for the newest.
    fn user_code(&mut self, cpu: CpuId) -> Result<(), ReplayError> {
        let Some((_, pattern)) = &mut self.check else { return Ok(()) };
        *pattern = *pattern % (Value::KERNEL.number() - 1) + 1;
        let Some(value) = Value::new(*pattern) else { return Ok(()) };
        let component = if *pattern % 2 == 0 { Component::SSE } else { Component::AVX };
        self.all(Event::UserWrite(cpu, component, value))
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

/// With `--check`: everything that has to hold behind an event.
fn verify(
    line: u64,
    policy: &'static str,
    machine: &Machine<AbstractRegs, Builtin>,
    spec: Option<&Spec>,
    event: Event,
    outcome: &Outcome,
) -> Result<(), ReplayError> {
    let Some(spec) = spec else { return Ok(()) };
    check::check_outcome(machine, spec, event, outcome)
        .and_then(|()| check::check(machine, spec))
        .map_err(|violation| ReplayError::Violation { line, policy, violation })
}
