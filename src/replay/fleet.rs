//! The machines that a recording drives, all with the same events.

use super::{Options, PolicyCounts, ReplayError, optimum::Optimum, slices::Slices};
use crate::{
    Component, CpuId, Event, TaskId, Value,
    check::{self, Spec},
    fpu::{LoadRule, Policy, SaveRule, policy::Builtin},
    machine::{Cpu, Machine, Outcome, Task},
    registers::{AbstractRegs, RegisterFile},
};
use std::vec::Vec;

/// Whose machine it is that is held against the kernel.
const KERNEL: &str = "the kernel's policy";

/// One policy under comparison.
#[derive(Debug)]
struct Run<P: Policy> {
    machine: Machine<AbstractRegs, P>,
    counts: PolicyCounts,
}

/// The machine that is held against the kernel, with the kernel's quirks; one machine a policy, without them;
/// and the optimum.
#[derive(Debug)]
pub(super) struct Fleet<P: Policy> {
    shadow: Machine<AbstractRegs, Builtin>,
    runs: Vec<Run<P>>,
    pub(super) optimum: Optimum,
    /// With `--check`: the reference model, and the pattern that user code writes next.
    check: Option<(Spec, u8)>,
    slices: Slices,
    /// Slots of tasks that are gone.
    free: Vec<u32>,
    pub(super) line: u64,
}

impl<P: Policy> Fleet<P> {
    pub(super) fn new(options: &Options<P>) -> Self {
        let run =
            |policy: &P| Run { machine: Machine::new(policy.clone(), 1), counts: PolicyCounts::new(policy) };
        let components = AbstractRegs::default().enabled();
        Self {
            shadow: Machine::new(options.reference, 1),
            runs: options.policies.iter().map(run).collect(),
            optimum: Optimum::default(),
            check: options.check.then(|| (Spec::new(components), 0)),
            slices: Slices::new(options.fpu_use),
            free: Vec::new(),
            line: 0,
        }
    }

    pub(super) fn fpu_use(&self) -> f64 {
        self.slices.share()
    }

    pub(super) fn grow_cpus(&mut self, cpus: usize) {
        self.slices.grow_cpus(cpus);
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
            let facts = fpstate.facts(fpstate.is_valid_on(self.cpu(cpu).slot()));
            !facts.need_fpu_load && self.shadow.policy().switch_out(facts) == SaveRule::Save
        })
    }

    /// Whether the machine expects a load for the task on this CPU: need_fpu_load set, and under a policy
    /// that looks, the registers not valid.
    pub(super) fn expects_load(&self, task: TaskId, cpu: CpuId, policy_decides: bool) -> bool {
        let Some(task) = self.shadow.task(task) else { return false };
        let facts = task.fpstate().facts(task.fpstate().is_valid_on(self.cpu(cpu).slot()));
        let rule = self.shadow.policy().return_to_user(facts);
        let looks = !policy_decides || rule != LoadRule::Always;
        facts.need_fpu_load && !(looks && facts.valid)
    }

    /// Lets an event happen on every machine.
    pub(super) fn all(&mut self, event: Event) -> Result<(), ReplayError> {
        if let Some((spec, _)) = &mut self.check {
            spec.apply(event);
        }
        self.slices.apply(event);
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
        match event {
            Event::Return(cpu, _) if self.slices.uses_fpu(cpu) => {
                self.first_use(cpu)?;
                self.user_code(cpu)
            }
            _ => Ok(()),
        }
    }

    /// User code uses the FPU, which traps on the machines where the trap is armed.
    fn first_use(&mut self, cpu: CpuId) -> Result<(), ReplayError> {
        let (line, check) = (self.line, self.check.as_ref().map(|(spec, _)| spec));
        let event = Event::FirstUse(cpu);
        for Run { machine, counts } in &mut self.runs {
            if !machine.cpus()[cpu.0 as usize].slot().trap_armed() {
                continue;
            }
            match machine.apply(event) {
                Ok(ref outcome) => {
                    counts.add(outcome);
                    counts.traps += 1;
                    verify(line, counts.name, machine, check, event, outcome)?;
                }
                Err(source) => return Err(ReplayError::Refused { line, event, source }),
            }
        }
        if self.cpu(cpu).slot().trap_armed() {
            self.kernel(event)?;
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
fn verify<P: Policy>(
    line: u64,
    policy: &'static str,
    machine: &Machine<AbstractRegs, P>,
    spec: Option<&Spec>,
    event: Event,
    outcome: &Outcome,
) -> Result<(), ReplayError> {
    let Some(spec) = spec else { return Ok(()) };
    check::check_outcome(machine, spec, event, outcome)
        .and_then(|()| check::check(machine, spec))
        .map_err(|violation| ReplayError::Violation { line, policy, violation })
}
