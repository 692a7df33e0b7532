//! Switches, returns and kernel FPU sections.

use super::{Current, Machine, Outcome};
use crate::{
    CpuId, EventError, KernelContext, TaskId, Value,
    fpu::{self, Defect, Policy, SignalStep},
    registers::{Program, UserFrames},
};

impl<R: UserFrames, P: Policy> Machine<R, P> {
    pub(super) fn schedule_out(&mut self, cpu: CpuId, out: &mut Outcome) -> Result<(), EventError> {
        let current = self.free_cpu(cpu)?.current;
        match current {
            Current::Switching => {
                return Err(EventError::Busy { cpu, current, expected: "somebody to switch out" });
            }
            Current::Idle => {}
            Current::Task(task) => {
                self.not_in_user_mode(cpu)?;
                out.save = Some(self.run(cpu, task, out, |p, c, t| fpu::switch_out(c, p, t)));
                self.task_mut(task).on = None;
            }
        }
        self.cpus[cpu.0 as usize].current = Current::Switching;
        Ok(())
    }

    pub(super) fn schedule_in(
        &mut self,
        cpu: CpuId,
        task: TaskId,
        out: &mut Outcome,
    ) -> Result<(), EventError> {
        let current = self.free_cpu(cpu)?.current;
        if let Current::Task(_) = current {
            return Err(EventError::Busy { cpu, current, expected: "its schedule-out first" });
        }
        let known = self.known_task(task)?;
        if known.is_gone() {
            return Err(EventError::Exited(task));
        }
        self.not_running(task)?;
        out.load = Some(self.run(cpu, task, out, |p, c, t| fpu::switch_in(c, p, t)));
        self.task_mut(task).on = Some(cpu);
        self.cpus[cpu.0 as usize].current = Current::Task(task);
        Ok(())
    }

    pub(super) fn return_to_user(
        &mut self,
        cpu: CpuId,
        named: TaskId,
        out: &mut Outcome,
    ) -> Result<(), EventError> {
        let current = self.free_cpu(cpu)?.current;
        self.known_task(named)?;
        if current != Current::Task(named) {
            return Err(EventError::NotCurrent { cpu, named, current });
        }
        let task = self.at_step(cpu, &[SignalStep::Idle], "the end of the signal delivery or return")?;
        out.load = Some(self.run(cpu, task, out, |p, c, t| fpu::return_to_user(c, p, t)));
        Ok(())
    }

    pub(super) fn kernel_fpu_begin(
        &mut self,
        cpu: CpuId,
        context: KernelContext,
        out: &mut Outcome,
    ) -> Result<(), EventError> {
        let found = self.existing_cpu(cpu)?;
        if !found.slot.has(Defect::UsableOffline) {
            self.online_cpu(cpu)?;
        }
        let current = found.current;
        match fpu::kernel_fpu_usable(&found.slot, context) {
            Ok(()) => {}
            Err(fpu::NotUsable::Section(open)) => {
                return Err(EventError::NestedKernelFpu { cpu, open, new: context });
            }
            Err(fpu::NotUsable::SoftIrq) => return Err(EventError::FpuNotUsable { cpu, context }),
        }
        self.not_in_user_mode(cpu)?;
        self.not_switching(cpu)?;
        if current == Current::Idle && context == KernelContext::Task {
            return Err(EventError::NoTask { cpu, current });
        }
        out.save = Some(self.settle(cpu, out, |m| {
            let (policy, mut section, task) = m.with_current(cpu);
            fpu::kernel_fpu_begin(&mut section, policy, task, context)
        }));
        self.cpus[cpu.0 as usize].regs.run(Program::FillAll(Value::KERNEL));
        Ok(())
    }

    pub(super) fn kernel_fpu_end(&mut self, cpu: CpuId, out: &mut Outcome) -> Result<(), EventError> {
        if self.online_cpu(cpu)?.slot.kernel_fpu().is_none() {
            return Err(EventError::NoKernelFpu(cpu));
        }
        out.load = Some(self.settle(cpu, out, |m| {
            let (policy, mut section, task) = m.with_current(cpu);
            fpu::kernel_fpu_end(&mut section, policy, task)
        }));
        Ok(())
    }

    /// The parties of a section on `cpu`, with the current task if there is one.
    fn with_current(
        &mut self,
        cpu: CpuId,
    ) -> (&P, fpu::PreemptOff<'_, R>, Option<&mut fpu::Fpstate<R::Image>>) {
        let cpu = &mut self.cpus[cpu.0 as usize];
        let task = match cpu.current {
            Current::Task(task) => Some(&mut self.tasks[task.slot() as usize]),
            Current::Idle | Current::Switching => None,
        };
        (&self.policy, cpu.section(), task.map(|task| &mut task.fpstate))
    }
}
