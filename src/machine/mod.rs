//! A simulated machine: tasks and CPUs, driven by events, deterministic.
//!
//! [`Machine::apply`] takes an [`Event`](crate::Event), refuses it if it cannot happen, runs the protocol of
//! [`fpu`](crate::fpu) on the parties, and says what was done and what was not. A protocol function that asks
//! for something else first ([`Before`]) gets it within the same event.
//!
//! The whole machine is a value: `Clone + Eq + Hash`, ids and stores, no pointers. An event names a CPU and
//! acts on its current task, or names a task. CPUs start online and idle, with registers as after reset.
//!
//! ```
//! use fpuswitch::{CpuId, EntryKind, Event, TaskId};
//! use fpuswitch::{fpu::{Load, policy::OwnerSlot}, machine::Machine, registers::AbstractRegs};
//!
//! let (cpu, task) = (CpuId(0), TaskId::first(0));
//! let mut machine = Machine::<AbstractRegs, _>::new(OwnerSlot, 1);
//! for event in [
//!     Event::Spawn(task),
//!     Event::ScheduleIn(cpu, task),
//!     Event::Return(cpu, task),
//!     Event::Entry(cpu, EntryKind::SystemCall), // and blocks
//!     Event::ScheduleOut(cpu),
//!     Event::Idle(cpu),
//!     Event::ScheduleIn(cpu, task),
//! ] {
//!     let _ = machine.apply(event)?;
//! }
//! // Nobody used the registers in between: nothing is restored.
//! assert_eq!(machine.apply(Event::Return(cpu, task))?.load, Some(Load::Skipped));
//! # Ok::<(), fpuswitch::EventError>(())
//! ```

mod apply;
mod outcome;
mod outside;
mod require;
mod signals;
mod switching;
mod task;
#[cfg(feature = "explore")]
mod walk;

pub use crate::error::{Current, RegsetError};
pub use outcome::{Done, Outcome};
pub use task::Task;

use crate::{
    CpuId, TaskId,
    fpu::{
        Before, Fpstate, OwnerSlot, PkruMode, PkruNeedsEager, Policy, PreemptOff, Save, copy_to_memory,
        entry, online,
    },
    registers::UserFrames,
};
use alloc::vec::Vec;

/// One CPU of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cpu<R> {
    slot: OwnerSlot,
    regs: R,
    current: Current,
    online: bool,
}

impl<R: UserFrames> Cpu<R> {
    /// The owner slot.
    pub fn slot(&self) -> &OwnerSlot {
        &self.slot
    }

    /// The registers.
    pub fn regs(&self) -> &R {
        &self.regs
    }

    /// Who runs here.
    pub fn current(&self) -> Current {
        self.current
    }

    /// Whether the CPU is online.
    pub fn is_online(&self) -> bool {
        self.online
    }

    fn section(&mut self) -> PreemptOff<'_, R> {
        PreemptOff::begin(&mut self.slot, &mut self.regs)
    }
}

/// Tasks and CPUs under one policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Machine<R: UserFrames, P> {
    policy: P,
    pkru_mode: PkruMode,
    blank: R,
    cpus: Vec<Cpu<R>>,
    tasks: Vec<Task<R>>,
}

impl<R: UserFrames + Clone, P: Policy> Machine<R, P> {
    /// A machine with `cpus` CPUs, at least one, and no tasks.
    pub fn new(policy: P, cpus: usize) -> Self
    where
        R: Default,
    {
        Self::with_registers(policy, cpus, R::default())
    }

    /// A machine whose CPUs, at least one, all have the registers `regs` after reset.
    pub fn with_registers(policy: P, cpus: usize, mut regs: R) -> Self {
        regs.reset();
        let pkru_mode = PkruMode::Eager;
        let mut machine = Self { policy, pkru_mode, blank: regs, cpus: Vec::new(), tasks: Vec::new() };
        machine.grow_cpus(cpus.max(1));
        machine
    }

    /// The same machine, new and otherwise like this, that switches PKRU in another way.
    ///
    /// # Errors
    /// [`PkruNeedsEager`] under a policy that lets user code run before its registers are loaded.
    pub fn with_pkru(self, pkru_mode: PkruMode) -> Result<Self, PkruNeedsEager> {
        pkru_mode.check(&self.policy)?;
        Ok(Self { pkru_mode, ..self }.anew())
    }

    /// A machine like this to which nothing has happened: the same policy, PKRU mode, registers and number of CPUs.
    #[must_use]
    pub fn anew(&self) -> Self {
        let (policy, blank) = (self.policy.clone(), self.blank.clone());
        let mut machine =
            Self { policy, pkru_mode: self.pkru_mode, blank, cpus: Vec::new(), tasks: Vec::new() };
        machine.grow_cpus(self.cpus.len());
        machine
    }

    /// Adds CPUs until there are `cpus`.
    pub fn grow_cpus(&mut self, cpus: usize) {
        while self.cpus.len() < cpus {
            let slot = OwnerSlot::with_pkru(CpuId(self.cpus.len() as u32), self.pkru_mode);
            #[cfg(feature = "explore")]
            let slot = slot.with_defect(self.policy.defect());
            let mut cpu = Cpu { slot, regs: self.blank.clone(), current: Current::Idle, online: true };
            online(&mut cpu.section());
            self.cpus.push(cpu);
        }
    }
}

impl<R: UserFrames, P: Policy> Machine<R, P> {
    /// The policy.
    pub fn policy(&self) -> &P {
        &self.policy
    }

    /// How PKRU is switched.
    pub fn pkru_mode(&self) -> PkruMode {
        self.pkru_mode
    }

    /// The CPUs, in the order of their numbers.
    pub fn cpus(&self) -> &[Cpu<R>] {
        &self.cpus
    }

    /// A CPU.
    pub fn cpu(&self, cpu: CpuId) -> Option<&Cpu<R>> {
        self.cpus.get(cpu.0 as usize)
    }

    /// The last task of each slot, in the order of the slots: alive, exited, or gone.
    pub fn tasks(&self) -> &[Task<R>] {
        &self.tasks
    }

    /// A task; `None` if its slot holds another or none.
    pub fn task(&self, task: TaskId) -> Option<&Task<R>> {
        self.tasks.get(task.slot() as usize).filter(|t| t.fpstate.id() == task)
    }

    /// The name that the next new task in `slot` has to have, if one may come there now.
    pub fn next_task(&self, slot: usize) -> Option<TaskId> {
        match self.tasks.get(slot) {
            Some(task) if task.is_gone() => Some(task.fpstate.id().next_generation()),
            None if slot == self.tasks.len() => Some(TaskId::first(slot as u32)),
            _ => None,
        }
    }

    /// Runs a protocol function until it no longer asks for something else first.
    fn settle<T>(
        &mut self,
        at: CpuId,
        outcome: &mut Outcome,
        mut section: impl FnMut(&mut Self) -> Result<T, Before>,
    ) -> T {
        loop {
            match section(self) {
                Ok(done) => return done,
                Err(asked) => self.first(at, asked, outcome),
            }
        }
    }

    /// Does what a protocol function that runs on `at` asked for.
    #[cold]
    fn first(&mut self, at: CpuId, asked: Before, outcome: &mut Outcome) {
        let save = match asked {
            Before::Evict(owner) => {
                self.settle(at, outcome, |m| m.section(at, owner, |_, cpu, t| copy_to_memory(cpu, t)))
            }
            Before::Flush { cpu, task } => {
                self.settle(cpu, outcome, |m| m.section(cpu, task, |_, cpu, t| copy_to_memory(cpu, t)))
            }
            Before::Interrupt { cpu } => match self.cpus[cpu.0 as usize].current {
                Current::Task(task) => self.settle(cpu, outcome, |m| {
                    m.section(cpu, task, |policy, cpu, t| entry(cpu, policy, t, crate::EntryKind::Interrupt))
                }),
                Current::Idle | Current::Switching => Save::NotUser,
            },
        };
        outcome.note(asked, save);
    }

    /// One preemption-off section on `cpu` about `task`. Both exist: the caller has checked, or the protocol
    /// named them.
    fn section<T>(
        &mut self,
        cpu: CpuId,
        task: TaskId,
        section: impl FnOnce(&P, &mut PreemptOff<'_, R>, &mut Fpstate<R::Image>) -> T,
    ) -> T {
        let task = &mut self.tasks[task.slot() as usize];
        let mut cpu = self.cpus[cpu.0 as usize].section();
        section(&self.policy, &mut cpu, &mut task.fpstate)
    }
}
