//! A machine on abstract registers, piece by piece, for the exploration.

use super::{Cpu, Current, Machine, Task};
use crate::{
    CpuId, TaskId,
    fpu::TaskKind,
    registers::{AbstractFrame, AbstractImage, AbstractRegs},
    walk::Walk,
};

impl<P> Machine<AbstractRegs, P> {
    /// Shows a CPU. `Current::Task` on it says where that task is.
    pub(crate) fn walk_cpu(&mut self, cpu: CpuId, walk: &mut impl Walk) {
        let Cpu { slot, regs, current, online } = &mut self.cpus[cpu.0 as usize];
        slot.walk(walk);
        regs.walk(walk);
        walk.flags([online]);
        let mut task = match *current {
            Current::Task(task) => Some(task),
            Current::Idle | Current::Switching => None,
        };
        walk.task(&mut task);
        match task {
            Some(task) => {
                *current = Current::Task(task);
                self.tasks[task.slot() as usize].on = Some(cpu);
            }
            None => {
                if let Current::Task(_) = current {
                    *current = Current::Idle;
                }
                walk.choice(current, &[Current::Idle, Current::Switching]);
            }
        }
    }

    /// Shows a kernel thread: that it is as it was made, or all of it.
    pub(crate) fn walk_kernel_thread(&mut self, slot: u32, walk: &mut impl Walk) {
        let task = &mut self.tasks[slot as usize];
        let was = task.fpstate.is_as_made();
        if !walk.is_there(!was) {
            if !was {
                let id = task.fpstate.id();
                *task = Task::new(id, TaskKind::KernelThread, &self.blank, self.pkru_mode);
            }
            return;
        }
        self.walk_task(slot, walk);
    }

    /// Shows the task of a slot.
    pub(crate) fn walk_task(&mut self, slot: u32, walk: &mut impl Walk) {
        let task = &mut self.tasks[slot as usize];
        task.walk(walk, &self.blank, AbstractImage::walk, AbstractFrame::walk);
    }

    /// Shows what is left of the task of a slot that is no more.
    pub(crate) fn walk_gone(&mut self, slot: u32, walk: &mut impl Walk) {
        let task = &mut self.tasks[slot as usize];
        let mut gone = Some(task.fpstate.id());
        walk.task(&mut gone);
        let mut last_cpu = task.fpstate.last_cpu();
        walk.cpu(&mut last_cpu);
        if let Some(id) = gone.filter(|id| *id != task.fpstate.id() || !task.has_exited()) {
            *task = Task::new(id, TaskKind::Exited, &self.blank, self.pkru_mode);
        }
        task.fpstate.set_last_cpu(last_cpu);
    }

    /// Says that no task runs. What runs where is for a walk to say.
    pub(crate) fn prepare_for_walk(&mut self) {
        self.tasks.iter_mut().for_each(|task| task.on = None);
    }

    /// Makes slots until there are `slots`, which nobody had.
    pub(crate) fn grow_slots(&mut self, slots: usize) {
        while self.tasks.len() < slots {
            let nobody = TaskId::before_first(self.tasks.len() as u32);
            self.tasks.push(Task::new(nobody, TaskKind::Exited, &self.blank, self.pkru_mode));
        }
    }
}
