//! The machines that a recording drives, all with the same events.

use super::{
    Options, PolicyCounts, ReplayError,
    attribution::{Attribution, Name},
    optimum::Optimum,
    report::moved_nothing,
    schedule::Schedule,
    slices::Slices,
    timeline::Recorder,
};
use crate::{
    Component, CpuId, Current, Event, TaskId, Value,
    check::{self, Breach, Spec},
    fpu::{
        LoadRule, Policy, SaveRule,
        policy::{Builtin, Calls, InUser},
    },
    machine::{Cpu, Machine, Outcome, Task},
    registers::AbstractRegs,
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

/// What programs must see, and what they do.
#[derive(Debug)]
struct Check {
    /// What they see where a system call keeps everything, and where it gives components up.
    specs: [(Calls, Spec); 2],
    /// The pattern that user code writes next.
    pattern: u8,
}

impl Check {
    fn new() -> Self {
        let regs = AbstractRegs::default();
        let spec = |policy: Builtin| (policy.form().calls, check::spec_for(&regs, &policy));
        Self { specs: [Builtin::OwnerSlot, Builtin::CallBoundary].map(spec), pattern: 0 }
    }

    /// With this: everything that has to hold behind an event.
    fn verify<P: Policy>(
        &self,
        machine: &Machine<AbstractRegs, P>,
        event: Event,
        outcome: &Outcome,
    ) -> Result<(), Breach> {
        let calls = machine.policy().form().calls;
        let [all, control] = &self.specs;
        let (_, spec) = if calls == control.0 { control } else { all };
        check::check_outcome(machine, spec, event, outcome).and_then(|()| check::check(machine, spec))
    }
}

/// The machine that is held against the kernel, with the kernel's quirks; one machine a policy, without them;
/// and the optimum.
#[derive(Debug)]
pub(super) struct Fleet<P: Policy> {
    shadow: Machine<AbstractRegs, Builtin>,
    /// What it did.
    pub(super) reference: PolicyCounts,
    pub(super) attribution: Attribution,
    pub(super) schedule: Schedule,
    pub(super) recorder: Option<Recorder>,
    runs: Vec<Run<P>>,
    pub(super) optimum: Optimum,
    /// With `--check`: what the machines are held against.
    check: Option<Check>,
    slices: Slices,
    /// By task slot: whether its program is FPU-free.
    fpu_free: Vec<bool>,
    /// Slots of tasks that are gone.
    free: Vec<u32>,
    pub(super) line: u64,
    /// When the event happens.
    pub(super) now_us: u64,
}

impl<P: Policy> Fleet<P> {
    pub(super) fn new(options: &Options<P>) -> Self {
        let run =
            |policy: &P| Run { machine: Machine::new(policy.clone(), 1), counts: PolicyCounts::new(policy) };
        Self {
            shadow: Machine::new(options.reference, 1),
            reference: PolicyCounts::new(&options.reference),
            attribution: Attribution::default(),
            schedule: Schedule::default(),
            recorder: None,
            runs: options.policies.iter().map(run).collect(),
            optimum: Optimum::default(),
            check: options.check.then(Check::new),
            slices: Slices::new(options.fpu_use),
            fpu_free: Vec::new(),
            free: Vec::new(),
            line: 0,
            now_us: 0,
        }
    }

    pub(super) fn fpu_use(&self) -> f64 {
        self.slices.share()
    }

    pub(super) fn grow_cpus(&mut self, cpus: usize) {
        self.slices.grow_cpus(cpus);
        self.attribution.grow_cpus(cpus);
        self.schedule.grow_cpus(cpus);
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
        if let Some(check) = &mut self.check {
            check.specs.iter_mut().for_each(|(_, spec)| spec.apply(event));
        }
        self.slices.apply(event);
        self.kernel(event)?;
        self.optimum.apply(event);
        let (line, check) = (self.line, self.check.as_ref());
        for (index, Run { machine, counts }) in self.runs.iter_mut().enumerate() {
            // The outcome is borrowed where it is: copying it is what most of the time would go to.
            match machine.apply(event) {
                Ok(ref outcome) => {
                    counts.add(event, outcome);
                    if let Some(recorder) = self.recorder.as_mut().filter(|recorder| recorder.policy == index)
                    {
                        recorder.note(self.now_us, machine, event, outcome);
                    }
                    verify(line, counts.name, machine, check, event, outcome)?;
                }
                Err(source) => return Err(ReplayError::Refused { line, event, source }),
            }
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.count(self.now_us, self.runs.iter().map(|run| &run.counts));
        }
        match event {
            Event::Return(cpu, task) => {
                if self.slices.uses_fpu(cpu) {
                    self.first_use(cpu)?;
                    if !self.is_fpu_free(task) {
                        self.user_code(cpu)?;
                    }
                }
                Ok(())
            }
            Event::Spawn(task) => self.new_program(task),
            Event::Fork(cpu, child) => {
                let free = self.current(cpu).is_some_and(|parent| self.is_fpu_free(parent));
                self.set_fpu_free(child, free);
                Ok(())
            }
            Event::Exec(cpu) => self.current(cpu).map_or(Ok(()), |task| self.new_program(task)),
            _ => Ok(()),
        }
    }

    fn current(&self, cpu: CpuId) -> Option<TaskId> {
        match self.cpu(cpu).current() {
            Current::Task(task) => Some(task),
            Current::Idle | Current::Switching => None,
        }
    }

    fn is_fpu_free(&self, task: TaskId) -> bool {
        self.fpu_free.get(task.slot() as usize).is_some_and(|free| *free)
    }

    fn set_fpu_free(&mut self, task: TaskId, free: bool) {
        let slot = task.slot() as usize;
        self.fpu_free.resize(self.fpu_free.len().max(slot + 1), false);
        self.fpu_free[slot] = free;
    }

    /// A task has a new program, which is FPU-free with the probability that a slice does not use the FPU. Only policies
    /// that tell the two kinds apart are told: for the others each slice decides.
    fn new_program(&mut self, task: TaskId) -> Result<(), ReplayError> {
        let free = !self.slices.draw();
        self.set_fpu_free(task, free);
        let (line, event) = (self.line, Event::FpuFree(task));
        for Run { machine, counts } in self.runs.iter_mut().filter(|_| free) {
            if machine.policy().form().in_user != InUser::TrapIfFpuFree {
                continue;
            }
            match machine.apply(event) {
                Ok(ref outcome) => verify(line, counts.name, machine, self.check.as_ref(), event, outcome)?,
                Err(source) => return Err(ReplayError::Refused { line, event, source }),
            }
        }
        Ok(())
    }

    /// User code uses the FPU, which traps on the machines where the trap is armed.
    fn first_use(&mut self, cpu: CpuId) -> Result<(), ReplayError> {
        let (line, check) = (self.line, self.check.as_ref());
        let event = Event::FirstUse(cpu);
        for (index, Run { machine, counts }) in self.runs.iter_mut().enumerate() {
            let here = &machine.cpus()[cpu.0 as usize];
            let fpu_free = match here.current() {
                Current::Task(task) => machine.task(task).is_some_and(|task| task.fpstate().is_fpu_free()),
                Current::Idle | Current::Switching => false,
            };
            if fpu_free || !here.slot().trap_armed() {
                continue;
            }
            match machine.apply(event) {
                Ok(ref outcome) => {
                    counts.add(event, outcome);
                    counts.traps += 1;
                    if let Some(recorder) = self.recorder.as_mut().filter(|recorder| recorder.policy == index)
                    {
                        recorder.note(self.now_us, machine, event, outcome);
                    }
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
        let (line, check) = (self.line, self.check.as_ref());
        let asked = self.attribution.ask(&self.shadow, event);
        match self.shadow.apply(event) {
            Ok(ref outcome) => {
                if !moved_nothing(outcome) {
                    self.attribution.note(event, asked, outcome);
                    self.reference.add(event, outcome);
                }
                self.schedule.note(event, outcome);
                verify(line, KERNEL, &self.shadow, check, event, outcome)?;
                Ok(outcome.restores())
            }
            Err(source) => Err(ReplayError::Refused { line, event, source }),
        }
    }

    /// With `--check`, user code changes its registers, so that an old copy cannot pass for the newest.
    fn user_code(&mut self, cpu: CpuId) -> Result<(), ReplayError> {
        let Some(Check { pattern, .. }) = &mut self.check else { return Ok(()) };
        *pattern = *pattern % (Value::KERNEL.number() - 1) + 1;
        let Some(value) = Value::new(*pattern) else { return Ok(()) };
        let component = if *pattern % 2 == 0 { Component::SSE } else { Component::AVX };
        self.all(Event::UserWrite(cpu, component, value))
    }

    /// A line says who the task is.
    pub(super) fn identify(&mut self, task: TaskId, pid: u32, name: Name) {
        self.attribution.identify(task, pid, name);
        if let Some(recorder) = &mut self.recorder {
            recorder.identify(task, pid, name);
        }
    }

    /// A name for a new task.
    pub(super) fn new_task(&mut self) -> TaskId {
        let slot = self.free.pop().map_or(self.shadow.tasks().len(), |slot| slot as usize);
        self.shadow.next_task(slot).unwrap_or_else(|| TaskId::first(self.shadow.tasks().len() as u32))
    }

    /// The task is gone; its slot may be used again.
    pub(super) fn forget(&mut self, task: TaskId) {
        self.attribution.forget(task);
        self.free.push(task.slot());
    }

    pub(super) fn in_user_mode(&self, task: TaskId) -> bool {
        self.shadow.task(task).is_some_and(|task| task.fpstate().user_on().is_some())
    }

    pub(super) fn counts(&self) -> Vec<PolicyCounts> {
        self.runs.iter().map(|run| run.counts.clone()).collect()
    }
}

/// With `--check`: everything that has to hold behind an event.
fn verify<P: Policy>(
    line: u64,
    policy: &'static str,
    machine: &Machine<AbstractRegs, P>,
    check: Option<&Check>,
    event: Event,
    outcome: &Outcome,
) -> Result<(), ReplayError> {
    let Some(check) = check else { return Ok(()) };
    check.verify(machine, event, outcome).map_err(|violation| ReplayError::Breach { line, policy, violation })
}
