//! What events require. Each check names both sides: what the event asks for and what the machine has.

use super::{Current, Machine, Task};
use crate::{
    Component, CpuId, EventError, TaskId,
    fpu::{Policy, SignalStep, TaskKind},
    registers::UserFrames,
};

impl<R: UserFrames, P: Policy> Machine<R, P> {
    pub(super) fn existing_cpu(&self, cpu: CpuId) -> Result<&super::Cpu<R>, EventError> {
        self.cpu(cpu).ok_or(EventError::UnknownCpu { cpu, cpus: self.cpus.len() })
    }

    pub(super) fn online_cpu(&self, cpu: CpuId) -> Result<&super::Cpu<R>, EventError> {
        let found = self.existing_cpu(cpu)?;
        if found.online { Ok(found) } else { Err(EventError::Offline(cpu)) }
    }

    /// An online CPU with no kernel FPU section open, and no softirq being served.
    pub(super) fn free_cpu(&self, cpu: CpuId) -> Result<&super::Cpu<R>, EventError> {
        let found = self.online_cpu(cpu)?;
        match found.slot.kernel_fpu() {
            Some(open) => Err(EventError::InKernelFpu { cpu, open }),
            None if found.slot.in_softirq() => Err(EventError::InSoftIrq(cpu)),
            None => Ok(found),
        }
    }

    pub(super) fn known_task(&self, named: TaskId) -> Result<&Task<R>, EventError> {
        match self.tasks.get(named.slot() as usize) {
            None => Err(EventError::UnknownTask(named)),
            Some(task) if task.fpstate.id() == named => Ok(task),
            Some(task) if task.fpstate.id() < named => Err(EventError::UnknownTask(named)),
            Some(task) => Err(EventError::ReusedSlot { named, holds: task.fpstate.id() }),
        }
    }

    /// A user task that has not exited.
    pub(super) fn user_task(&self, task: TaskId) -> Result<&Task<R>, EventError> {
        let found = self.known_task(task)?;
        if found.has_exited() {
            Err(EventError::Exited(task))
        } else if !found.fpstate.is_user() {
            Err(EventError::NotUser(task))
        } else {
            Ok(found)
        }
    }

    /// The task that runs on a CPU.
    pub(super) fn running(&self, cpu: CpuId) -> Result<TaskId, EventError> {
        match self.existing_cpu(cpu)?.current {
            Current::Task(task) => Ok(task),
            current => Err(EventError::NoTask { cpu, current }),
        }
    }

    /// The task that runs in the kernel on a CPU, in no kernel FPU section.
    pub(super) fn kernel_side(&self, cpu: CpuId) -> Result<TaskId, EventError> {
        self.free_cpu(cpu)?;
        let task = self.running(cpu)?;
        self.not_in_user_mode(cpu)?;
        Ok(task)
    }

    /// The live user task that runs in the kernel on a CPU, in no kernel FPU section.
    pub(super) fn user_kernel_side(&self, cpu: CpuId) -> Result<TaskId, EventError> {
        let task = self.kernel_side(cpu)?;
        self.user_task(task)?;
        Ok(task)
    }

    pub(super) fn guest_not_loaded(&self, task: TaskId) -> Result<(), EventError> {
        if self.known_task(task)?.fpstate.has_guest_loaded() {
            Err(EventError::GuestLoaded(task))
        } else {
            Ok(())
        }
    }

    /// The live user task that runs in the kernel on a CPU, with its guest's state loaded.
    pub(super) fn with_guest(&self, cpu: CpuId) -> Result<TaskId, EventError> {
        let task = self.user_kernel_side(cpu)?;
        if self.known_task(task)?.fpstate.has_guest_loaded() {
            Ok(task)
        } else {
            Err(EventError::GuestNotLoaded(task))
        }
    }

    /// The same with its own state loaded, at one of these steps of a signal.
    pub(super) fn at_step(
        &self,
        cpu: CpuId,
        steps: &[SignalStep],
        expected: &'static str,
    ) -> Result<TaskId, EventError> {
        let task = self.user_kernel_side(cpu)?;
        self.guest_not_loaded(task)?;
        let step = self.known_task(task)?.fpstate.signal();
        if steps.contains(&step) { Ok(task) } else { Err(EventError::WrongStep { task, step, expected }) }
    }

    /// The task whose program runs on a CPU, not its guest.
    pub(super) fn program_side(&self, cpu: CpuId) -> Result<TaskId, EventError> {
        let task = self.user_side(cpu)?;
        if self.known_task(task)?.fpstate.is_in_guest() {
            Err(EventError::InGuest { cpu, task })
        } else {
            Ok(task)
        }
    }

    /// The task that runs user code, or its guest, on a CPU.
    pub(super) fn user_side(&self, cpu: CpuId) -> Result<TaskId, EventError> {
        self.online_cpu(cpu)?;
        let task = self.running(cpu)?;
        match self.known_task(task)?.fpstate.user_on() {
            Some(_) => Ok(task),
            None => Err(EventError::InKernel { cpu, task }),
        }
    }

    /// A task that executes FPU instructions.
    pub(super) fn may_use_fpu(&self, task: TaskId) -> Result<(), EventError> {
        if self.known_task(task)?.fpstate.is_fpu_free() { Err(EventError::FpuFree(task)) } else { Ok(()) }
    }

    pub(super) fn not_in_user_mode(&self, cpu: CpuId) -> Result<(), EventError> {
        match self.existing_cpu(cpu)?.current {
            Current::Task(task) if self.known_task(task)?.fpstate.user_on().is_some() => {
                Err(EventError::InUserMode { cpu, task })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn not_switching(&self, cpu: CpuId) -> Result<(), EventError> {
        match self.existing_cpu(cpu)?.current {
            current @ Current::Switching => {
                Err(EventError::Busy { cpu, current, expected: "the end of the switch first" })
            }
            Current::Idle | Current::Task(_) => Ok(()),
        }
    }

    pub(super) fn not_running(&self, task: TaskId) -> Result<(), EventError> {
        match self.known_task(task)?.on {
            Some(cpu) => Err(EventError::Running { task, cpu }),
            None => Ok(()),
        }
    }

    /// A CPU on which nobody runs who would miss registers or PKRU, in no kernel FPU section.
    pub(super) fn without_user_task(&self, cpu: CpuId) -> Result<(), EventError> {
        let current = self.free_cpu(cpu)?.current;
        match current {
            Current::Idle => Ok(()),
            Current::Task(task)
                if matches!(
                    self.known_task(task)?.fpstate.kind(),
                    TaskKind::KernelThread | TaskKind::Exited
                ) =>
            {
                Ok(())
            }
            _ => Err(EventError::Busy { cpu, current, expected: "idle, or no user task running" }),
        }
    }

    /// The slot for a new task.
    pub(super) fn new_slot(&self, new: TaskId) -> Result<usize, EventError> {
        let slot = new.slot() as usize;
        match self.tasks.get(slot) {
            Some(task) if !task.is_gone() => Err(EventError::SlotInUse { new, holds: task.fpstate.id() }),
            _ => {
                let expected = self.next_task(slot).unwrap_or_else(|| TaskId::first(self.tasks.len() as u32));
                if expected == new { Ok(slot) } else { Err(EventError::NotNext { new, expected }) }
            }
        }
    }

    pub(super) fn has_pkru(&self) -> Result<(), EventError> {
        if self.blank.pkru().is_some() { Ok(()) } else { Err(EventError::NoComponent(Component::PKRU)) }
    }

    pub(super) fn dynamic_component(&self, component: Component) -> Result<(), EventError> {
        if self.blank.dynamic().contains(component) { Ok(()) } else { Err(EventError::NotDynamic(component)) }
    }

    pub(super) fn image_component(&self, component: Component) -> Result<(), EventError> {
        let kept = self.blank.enabled().without(Component::PKRU);
        if kept.contains(component) { Ok(()) } else { Err(EventError::NoComponent(component)) }
    }
}
