//! The offline optimum: the fewest saves and restores that any policy can do which never enters user mode with
//! foreign registers.
//!
//! A *version* of a task's state begins at every return to user, exec, signal return and foreign write, and
//! when a signal handler gets fresh registers. Fewest restores: the returns where the CPU's registers do not
//! hold the current version. Fewest saves: the versions born in registers that are needed from memory at least
//! once: by such a restore, by a reader, by fork's copy or by a signal frame. Dead, exec'ed and overwritten
//! versions need none. Both are reached together, because the schedule fixes the loads.

use crate::{CpuId, Event, TaskId, Verb};
use std::vec::Vec;

/// The current version of a task's state.
#[derive(Clone, Copy, Debug, Default)]
struct Version {
    number: u64,
    /// Only registers have it so far.
    unsaved: bool,
}

/// Counts the optimum while events go by.
#[derive(Clone, Debug, Default)]
pub(super) struct Optimum {
    pub(super) saves: u64,
    pub(super) restores: u64,
    /// By task slot.
    versions: Vec<Version>,
    /// By CPU: the version that the registers hold.
    holds: Vec<Option<(TaskId, u64)>>,
    /// By CPU: the current task.
    current: Vec<Option<TaskId>>,
}

impl Optimum {
    pub(super) fn apply(&mut self, event: Event) {
        match event {
            Event::Spawn(task) => *self.version(task) = Version::default(),
            Event::ScheduleIn(cpu, task) => *self.current(cpu) = Some(task),
            Event::ScheduleOut(cpu) => *self.current(cpu) = None,
            Event::Return(cpu, task) => {
                let number = self.version(task).number;
                if *self.holds(cpu) != Some((task, number)) {
                    self.restores += 1;
                    self.need_in_memory(task);
                }
                self.born_in_registers(cpu, task);
            }
            Event::Fork(cpu, child) => {
                if let Some(parent) = *self.current(cpu) {
                    self.need_in_memory(parent);
                }
                *self.version(child) = Version::default();
            }
            Event::Exec(cpu) | Event::Exit(cpu) => {
                if let Some(task) = *self.current(cpu) {
                    self.born_in_memory(task);
                }
            }
            Event::Write(task, ..) => self.born_in_memory(task),
            Event::Read(task, _) => self.need_in_memory(task),
            // A core dump reads the dying task's state from memory.
            Event::Access(cpu, Verb::CopyToMemory) => {
                if let Some(task) = *self.current(cpu) {
                    self.need_in_memory(task);
                }
            }
            Event::SignalEnter(cpu) => {
                if let Some(task) = *self.current(cpu) {
                    // The frame is written by now; an attempt that faulted has saved nothing.
                    self.need_in_memory(task);
                    self.born_in_registers(cpu, task);
                    // The initial configuration can be had again without a save.
                    self.version(task).unsaved = false;
                }
            }
            Event::SigReturnLoad(cpu) => {
                if let Some(task) = *self.current(cpu) {
                    self.born_in_registers(cpu, task);
                }
            }
            Event::KernelFpuBegin(cpu, _) | Event::PowerLoss(cpu) | Event::Offline(cpu) => {
                *self.holds(cpu) = None
            }
            _ => {}
        }
    }

    fn need_in_memory(&mut self, task: TaskId) {
        let version = self.version(task);
        if version.unsaved {
            version.unsaved = false;
            self.saves += 1;
        }
    }

    fn born_in_memory(&mut self, task: TaskId) {
        let version = self.version(task);
        version.number += 1;
        version.unsaved = false;
    }

    fn born_in_registers(&mut self, cpu: CpuId, task: TaskId) {
        let version = self.version(task);
        version.number += 1;
        version.unsaved = true;
        let number = version.number;
        *self.holds(cpu) = Some((task, number));
    }

    fn version(&mut self, task: TaskId) -> &mut Version {
        entry(&mut self.versions, task.slot() as usize)
    }

    fn holds(&mut self, cpu: CpuId) -> &mut Option<(TaskId, u64)> {
        entry(&mut self.holds, cpu.0 as usize)
    }

    fn current(&mut self, cpu: CpuId) -> &mut Option<TaskId> {
        entry(&mut self.current, cpu.0 as usize)
    }
}

fn entry<T: Default + Clone>(list: &mut Vec<T>, index: usize) -> &mut T {
    if list.len() <= index {
        list.resize(index + 1, T::default());
    }
    &mut list[index]
}
