//! Whose restores they were: each restore of the machine that is held against the kernel, by cause and by task.
//!
//! Memory grows with the tasks alive, as the machines' does: of those that are gone, only the ones with most restores
//! are kept.

use super::causes::{Cause, CauseCounts, Cleared, why};
use crate::{
    CpuId, Current, Event, TaskId,
    fpu::Policy,
    machine::{Machine, Outcome},
    registers::AbstractRegs,
};
use std::{
    string::{String, ToString},
    vec::Vec,
};

/// A task's restores.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskRestores {
    /// Its name, as the line says in which it last left a CPU: in the details of a switch, if they are there, since the
    /// name at the front of a line can be missing. Empty where no line has one.
    pub name: String,
    /// Its pid, likewise; 0 where no line says it.
    pub pid: u32,
    /// Its restores, by cause.
    pub restores: CauseCounts,
}

impl TaskRestores {
    /// How many tasks a report has at most.
    pub const MOST_KEPT: usize = 20;

    /// Most restores first; then by pid, so that the order is the same each time.
    fn rank(&self) -> (core::cmp::Reverse<u64>, u32) {
        (core::cmp::Reverse(self.restores.total()), self.pid)
    }
}

/// A name as a line has it, without an allocation. The kernel's have 15 bytes at most (`TASK_COMM_LEN`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Name {
    bytes: [u8; 16],
    len: u8,
}

impl Name {
    #[inline]
    pub(super) fn new(name: &[u8]) -> Self {
        let mut bytes = [0; 16];
        let len = name.len().min(bytes.len());
        bytes[..len].copy_from_slice(&name[..len]);
        Self { bytes, len: len as u8 }
    }
}

impl core::fmt::Display for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.bytes[..usize::from(self.len)]))
    }
}

/// What is known of the task in a slot.
#[derive(Clone, Copy, Debug, Default)]
struct Seat {
    pid: u32,
    name: Name,
    restores: CauseCounts,
}

impl Seat {
    fn restores(&self) -> TaskRestores {
        TaskRestores { name: self.name.to_string(), pid: self.pid, restores: self.restores }
    }
}

/// What a restore would be put down to, asked in front of the event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    task: TaskId,
    cause: Cause,
}

/// Counts while events go by.
#[derive(Debug, Default)]
pub(super) struct Attribution {
    pub(super) counts: CauseCounts,
    /// Those that only loaded registers which went to a signal frame.
    pub(super) for_frames: u64,
    /// By CPU: the last time that its owner slot was cleared.
    cleared: Vec<Option<Cleared>>,
    /// By task slot.
    seats: Vec<Seat>,
    /// Of the tasks that are gone, those with most restores, in order.
    gone: Vec<TaskRestores>,
}

impl Attribution {
    pub(super) fn grow_cpus(&mut self, cpus: usize) {
        self.cleared.resize(cpus.max(self.cleared.len()), None);
    }

    /// What a restore by this event would be put down to. `None` where the event restores nobody.
    #[inline]
    pub(super) fn ask<P: Policy>(
        &mut self,
        machine: &Machine<AbstractRegs, P>,
        event: Event,
    ) -> Option<Asked> {
        let cpu = match event {
            Event::Return(cpu, _)
            | Event::ScheduleIn(cpu, _)
            | Event::FirstUse(cpu)
            | Event::KernelFpuEnd(cpu)
            | Event::Access(cpu, _)
            | Event::Exec(cpu)
            | Event::SignalSave(cpu) => cpu,
            Event::KernelFpuBegin(cpu, _) | Event::PowerLoss(cpu) | Event::Offline(cpu) => {
                return self.clears(machine, cpu, Cause::KernelFpu);
            }
            Event::InvalidateRegisters(cpu) | Event::Exit(cpu) => {
                return self.clears(machine, cpu, Cause::ExitClearedOwner);
            }
            _ => return None,
        };
        let here = machine.cpu(cpu)?;
        let task = match (event, here.current()) {
            (Event::ScheduleIn(_, task), _) | (_, Current::Task(task)) => task,
            _ => return None,
        };
        let fpstate = machine.task(task)?.fpstate();
        fpstate
            .need_fpu_load()
            .then(|| Asked { task, cause: why(fpstate, here.slot(), self.cleared[cpu.0 as usize]) })
    }

    /// The owner slot of a CPU is about to be cleared.
    fn clears<P: Policy>(
        &mut self,
        machine: &Machine<AbstractRegs, P>,
        cpu: CpuId,
        by: Cause,
    ) -> Option<Asked> {
        let owner = machine.cpu(cpu).and_then(|cpu| cpu.slot().owner());
        let cleared = &mut self.cleared[cpu.0 as usize];
        match (owner, cleared.as_mut()) {
            (Some(from), _) => *cleared = Some(Cleared { from, by }),
            // The slot is empty already; kernel code would have emptied it all the same.
            (None, Some(cleared)) if by == Cause::KernelFpu => cleared.by = by,
            (None, _) => {}
        }
        None
    }

    /// The event has happened.
    #[inline]
    pub(super) fn note(&mut self, event: Event, asked: Option<Asked>, outcome: &Outcome) {
        let restores = u64::from(outcome.restores());
        if restores > 0 {
            self.for_frames += if matches!(event, Event::SignalSave(_)) { restores } else { 0 };
            self.restored(asked, restores);
        }
    }

    fn restored(&mut self, asked: Option<Asked>, restores: u64) {
        let Some(Asked { task, cause }) = asked else {
            // Its state is only in the registers, and they are loaded from memory all the same.
            return self.counts.add(Cause::NotLooked, restores);
        };
        let seat = self.seat(task);
        let first = cause == Cause::ImageChanged && seat.restores.total() == 0;
        let cause = if first { Cause::FirstLoad } else { cause };
        seat.restores.add(cause, restores);
        self.counts.add(cause, restores);
    }

    fn seat(&mut self, task: TaskId) -> &mut Seat {
        let slot = task.slot() as usize;
        if self.seats.len() <= slot {
            self.seats.resize(slot + 1, Seat::default());
        }
        &mut self.seats[slot]
    }

    /// A line says who the task is.
    pub(super) fn identify(&mut self, task: TaskId, pid: u32, name: Name) {
        let seat = self.seat(task);
        (seat.pid, seat.name) = (pid, name);
    }

    /// The task is gone, and its slot free.
    pub(super) fn forget(&mut self, task: TaskId) {
        let seat = core::mem::take(self.seat(task));
        let fewest = self.gone.get(TaskRestores::MOST_KEPT - 1).map_or(0, |task| task.restores.total());
        if seat.restores.total() > fewest {
            let task = seat.restores();
            let at = self.gone.partition_point(|other| other.rank() <= task.rank());
            self.gone.insert(at, task);
            self.gone.truncate(TaskRestores::MOST_KEPT);
        }
    }

    /// The tasks with most restores, most first.
    pub(super) fn top(self) -> Vec<TaskRestores> {
        let live = self.seats.iter().filter(|seat| seat.restores.total() > 0).map(Seat::restores);
        let mut top: Vec<_> = self.gone.into_iter().chain(live).collect();
        top.sort_by_key(TaskRestores::rank);
        top.truncate(TaskRestores::MOST_KEPT);
        top
    }
}
