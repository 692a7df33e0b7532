//! Signal delivery and return: each attempt is an event.

use super::{Machine, Outcome};
use crate::{
    CpuId, EventError, FrameChange, TaskId,
    fpu::{self, Before, FaultIn, FrameLoad, FrameSave, Policy, SignalStep},
    registers::{Frame, UserFrames},
};

impl<R: UserFrames, P: Policy> Machine<R, P> {
    pub(super) fn signal_save(&mut self, cpu: CpuId, out: &mut Outcome) -> Result<(), EventError> {
        let task = self.at_step(cpu, &[SignalStep::Save], "a signal delivery")?;
        let (load, save) = self.settle(cpu, out, |m| {
            let (fpstate, frame) = m.tasks[task.slot() as usize].newest_frame(&m.blank);
            fpu::signal_save(&mut m.cpus[cpu.0 as usize].section(), fpstate, frame)
        });
        (out.load, out.frame_save) = (Some(load), Some(save));
        Ok(())
    }

    /// One attempt of a signal return.
    pub(super) fn sigreturn_by(
        &mut self,
        cpu: CpuId,
        out: &mut Outcome,
        mut attempt: impl FnMut(
            &mut fpu::PreemptOff<'_, R>,
            &mut fpu::Fpstate<R::Image>,
            &R::Frame,
        ) -> Result<FrameLoad, Before>,
    ) -> Result<(), EventError> {
        let task = self.at_step(cpu, &[SignalStep::Load], "a signal return")?;
        let load = self.settle(cpu, out, |m| {
            let (fpstate, frame) = m.tasks[task.slot() as usize].newest_frame(&m.blank);
            attempt(&mut m.cpus[cpu.0 as usize].section(), fpstate, frame)
        });
        out.frame_load = Some(load);
        if load != FrameLoad::Faulted {
            self.task_mut(task).pop_frame();
        }
        if load == FrameLoad::Copied {
            self.resume(task, out);
        }
        Ok(())
    }

    pub(super) fn signal_fault_in(&mut self, cpu: CpuId, out: &mut Outcome) -> Result<(), EventError> {
        let faulted = [SignalStep::SaveFaulted, SignalStep::LoadFaulted];
        let task = self.at_step(cpu, &faulted, "a frame access that faulted")?;
        let ended = self.settle(cpu, out, |m| {
            let (fpstate, frame) = m.tasks[task.slot() as usize].newest_frame(&m.blank);
            fpu::signal_fault_in(&mut m.cpus[cpu.0 as usize].section(), fpstate, frame)
        });
        match ended {
            FaultIn::Present | FaultIn::NotFaulted => return Ok(()),
            FaultIn::DeliveryFailed => out.frame_save = Some(FrameSave::Failed),
            FaultIn::ReturnRefused => out.frame_load = Some(FrameLoad::Refused),
        }
        self.task_mut(task).pop_frame();
        Ok(())
    }

    pub(super) fn change_frame(&mut self, task: TaskId, change: FrameChange) -> Result<(), EventError> {
        if self.user_task(task)?.frames().is_empty() {
            return Err(EventError::NoFrame(task));
        }
        if matches!(change, FrameChange::Pkru(_)) {
            self.has_pkru()?;
        }
        let (_, frame) = self.tasks[task.slot() as usize].newest_frame(&self.blank);
        frame.change(change).map_err(|_| EventError::NotInFrame(change))
    }
}
