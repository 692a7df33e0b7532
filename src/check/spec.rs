//! The reference model: what each program must see, whatever the kernel under it does.
//!
//! Written from the vocabulary alone. It knows no owner slot, image, need_fpu_load or policy, so it cannot
//! inherit a bug of the protocol that it judges. S is the state of a user task: one value a component, and
//! PKRU. *Current* is the task that schedule-in named last on the event's CPU.
//!
//! | event | effect on S |
//! |---|---|
//! | [`Spawn`](Event::Spawn) | the task gets an S: every component initial, PKRU at its default, no frame |
//! | [`KernelThread`](Event::KernelThread) | none; a kernel thread has no S |
//! | [`Fork`](Event::Fork) | a copy of current's components and PKRU for the child, dynamic ones initial, no frame, no guest; under a kernel thread: as spawn |
//! | [`UserWorker`](Event::UserWorker) | none; a user worker has no S but current's PKRU |
//! | [`Exec`](Event::Exec) | current: as spawn |
//! | [`Exit`](Event::Exit) | current has no S any more, and stays current until it is switched out |
//! | [`Entry`](Event::Entry) by a system call | none; where a call [gives components up](Spec::with_calls_that_keep), those of current are unspecified |
//! | [`Write`](Event::Write), [`UserWrite`](Event::UserWrite) | that component of the named task, or of current |
//! | [`UserPkru`](Event::UserPkru), [`KernelPkru`](Event::KernelPkru), [`WritePkru`](Event::WritePkru) | PKRU of current, or of the named task; none is 0 |
//! | [`SignalDeliver`](Event::SignalDeliver) | current gets a frame: present, undamaged, all initial; of five the oldest is dropped |
//! | [`SignalSave`](Event::SignalSave) | newest frame present: it takes S's components and PKRU and is undamaged; else none |
//! | [`SignalFaultIn`](Event::SignalFaultIn) | newest frame is present; unmapped: it is popped, and in a return S is as behind a refused frame |
//! | [`SignalEnter`](Event::SignalEnter) | current's components initial, PKRU at its default |
//! | [`SigReturn`](Event::SigReturn) | no frame: a frame as signal-deliver makes it, forged by user code |
//! | [`SigReturnLoad`](Event::SigReturnLoad), [`SigReturnCopy`](Event::SigReturnCopy) | newest frame absent: none, but if only its rest is and that does not count; else it is popped and current's S is: |
//! | | good frame: that of the frame |
//! | | short, bad magic or bad size: x87 and SSE of the frame, the others initial, PKRU 0 |
//! | | bad MXCSR, unmapped, or bad header unless magic or size is bad: all initial, PKRU at its default |
//! | [`Frame`](Event::Frame) | newest frame has that damage too, or is absent or unmapped, or has another PKRU |
//! | [`GuestLoad`](Event::GuestLoad), [`GuestPut`](Event::GuestPut) | current's components and its guest's change places; a guest begins with all initial and PKRU 0 |
//! | [`GuestEnter`](Event::GuestEnter), [`GuestExit`](Event::GuestExit) | current's PKRU and its guest's change places; the guest's code counts as user code |
//! | [`Read`](Event::Read), [`Write`](Event::Write), their like of PKRU, [`FpuFault`](Event::FpuFault), [`DynamicUse`](Event::DynamicUse) | a task that runs user code is in the kernel behind it |
//! | schedule-in, schedule-out, idle, other entries, return | none; who is current, and who is in user mode |
//! | all others | none |
//!
//! A new task takes its slot from any task that held it before. A name that
//! means nothing here (no current task, a dead task, a component that the register file lacks) makes an event
//! ignored: what is legal is for the machine to say.

mod map;
mod state;
mod values;

pub use state::State;

use crate::{Component, ComponentSet, CpuId, EntryKind, Event, Pkru, TaskId};
use alloc::vec::Vec;
use map::Map;
use state::Frame;
use values::Values;

/// The state that every user task must see, kept by following its program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// What the register file has.
    components: ComponentSet,
    /// What a program finds again behind a system call.
    kept_by_calls: ComponentSet,
    /// What a child does not inherit.
    dynamic: ComponentSet,
    /// Living user tasks.
    states: Map<TaskId, State>,
    /// Living user workers, which have nothing but a PKRU.
    workers: Map<TaskId, Worker>,
    /// CPUs that have a current task.
    running: Map<CpuId, Running>,
}

/// A user worker: its PKRU, and whose memory it runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Worker {
    pkru: Pkru,
    of: TaskId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Running {
    task: TaskId,
    user_mode: bool,
}

impl Spec {
    /// No task, for a register file with `components`. PKRU is kept apart, whether named there or not.
    pub fn new(components: ComponentSet) -> Self {
        let components = components.without(Component::PKRU);
        Self {
            components,
            kept_by_calls: components,
            dynamic: ComponentSet::EMPTY,
            states: Map::new(),
            workers: Map::new(),
            running: Map::new(),
        }
    }

    /// The same for programs whose system calls give up all components but `kept`.
    pub fn with_calls_that_keep(components: ComponentSet, kept: ComponentSet) -> Self {
        Self { kept_by_calls: kept, ..Self::new(components) }
    }

    /// The same where a child does not inherit the components `dynamic`.
    #[must_use]
    pub fn with_dynamic(self, dynamic: ComponentSet) -> Self {
        Self { dynamic, ..self }
    }

    /// Follows one event that the machine accepted.
    pub fn apply(&mut self, event: Event) {
        let components = self.components;
        let initial = || Values::initial(components);
        match event {
            Event::Spawn(task) => self.place(task, Some(State::new(initial()))),
            Event::KernelThread(task) => self.place(task, None),
            Event::ScheduleIn(cpu, task) => {
                self.running.insert(cpu, Running { task, user_mode: false });
            }
            Event::ScheduleOut(cpu) | Event::Idle(cpu) => {
                self.running.remove(&cpu);
            }
            Event::Entry(cpu, kind) => {
                self.set_user_mode(cpu, false);
                let kept = self.kept_by_calls;
                if kind == EntryKind::SystemCall && kept != components {
                    self.on_current(cpu, |state| state.give_up_all_but(kept));
                }
            }
            Event::FpuFault(cpu) => self.set_user_mode(cpu, false),
            Event::DynamicUse(cpu, _) | Event::GuestExit(cpu) => {
                self.set_user_mode(cpu, false);
                self.on_current(cpu, |state| state.cross_guest(false));
            }
            Event::GuestEnter(cpu) => {
                self.set_user_mode(cpu, true);
                self.on_current(cpu, |state| state.cross_guest(true));
            }
            Event::GuestLoad(cpu) => self.on_current(cpu, |state| state.swap_guest(true, initial)),
            Event::GuestPut(cpu) => self.on_current(cpu, |state| state.swap_guest(false, initial)),
            Event::Return(cpu, task) => self.set_user_mode(cpu, self.current(cpu) == Some(task)),

            Event::Fork(cpu, child) => {
                let Some(parent) = self.current(cpu) else { return };
                let state = match self.states.get(&parent) {
                    Some(state) => {
                        State { frames: Vec::new(), guest: None, ..state.clone() }.without(self.dynamic)
                    }
                    None => State::new(initial()), // a kernel thread
                };
                self.place(child, Some(state));
            }
            Event::UserWorker(cpu, child) => {
                let of = self.current(cpu);
                let worker = of.and_then(|of| Some((child, Worker { pkru: self.pkru(of)?, of })));
                self.place(child, None);
                if let Some((child, worker)) = worker {
                    self.workers.insert(child, worker);
                }
            }
            Event::Exec(cpu) => self.on_current(cpu, |state| *state = State::new(initial())),
            Event::Exit(cpu) => {
                if let Some(task) = self.current(cpu) {
                    self.states.remove(&task);
                    self.workers.remove(&task);
                }
            }

            Event::Read(task, _) | Event::ReadPkru(task) => self.interrupt(task),
            Event::WritePkru(task, pkru) => {
                self.interrupt(task);
                self.on(task, |state| state.pkru = pkru.unwrap_or(Pkru(0)));
            }
            Event::Write(task, component, value) => {
                self.interrupt(task);
                self.on(task, |state| state.set(component, value));
            }
            Event::UserWrite(cpu, component, value) => {
                self.on_current(cpu, |state| state.set(component, value));
            }
            Event::UserPkru(cpu, pkru) | Event::KernelPkru(cpu, pkru) => {
                self.on_current(cpu, |state| state.pkru = pkru)
            }

            Event::SignalDeliver(cpu) => {
                self.on_current(cpu, |state| state.push_frame(Frame::new(initial())))
            }
            Event::SignalSave(cpu) => self.on_current(cpu, State::save_to_frame),
            Event::SignalFaultIn(cpu) => self.on_current(cpu, |state| state.fault_in(initial)),
            Event::SignalEnter(cpu) => self.on_current(cpu, |state| state.start_afresh(initial())),
            Event::SigReturn(cpu) => self.on_current(cpu, |state| {
                if state.frames.is_empty() {
                    state.push_frame(Frame::new(initial()));
                }
                state.returning = true;
            }),
            Event::SigReturnLoad(cpu) | Event::SigReturnCopy(cpu) => {
                self.on_current(cpu, |state| state.load_from_frame(initial))
            }
            Event::Frame(task, change) => self.on(task, |state| {
                if let Some(frame) = state.frames.last_mut() {
                    frame.change(change);
                }
            }),

            // No wildcard: a new event must be given its effect here.
            Event::FpuFree(_)
            | Event::FirstUse(_)
            | Event::KernelFpuBegin(..)
            | Event::KernelFpuEnd(_)
            | Event::SoftIrqBegin(_)
            | Event::SoftIrqEnd(_)
            | Event::UserMemory(..)
            | Event::Permit(..)
            | Event::DynamicGrow(_)
            | Event::Migrate(..)
            | Event::Access(..)
            | Event::InvalidateRegisters(_)
            | Event::Offline(_)
            | Event::Online(_)
            | Event::PowerLoss(_) => {}
        }
    }

    /// What `task` must see; `None` for dead tasks, kernel threads and names of no task.
    pub fn state(&self, task: TaskId) -> Option<&State> {
        self.states.get(&task)
    }

    /// The PKRU of a living user task or user worker.
    pub fn pkru(&self, task: TaskId) -> Option<Pkru> {
        self.states.get(&task).map(State::pkru).or_else(|| Some(self.workers.get(&task)?.pkru))
    }

    /// Whether a task, which has user memory, runs on the same as another.
    pub fn shares_memory(&self, task: TaskId, other: TaskId) -> bool {
        let of = |task| self.workers.get(&task).map_or(task, |worker| worker.of);
        of(task) == of(other)
    }

    /// The living user tasks, by ascending name.
    pub fn tasks(&self) -> impl Iterator<Item = (TaskId, &State)> {
        self.states.iter()
    }

    /// The task that schedule-in put on `cpu`: a user task, a kernel thread, or one that has exited.
    pub fn current(&self, cpu: CpuId) -> Option<TaskId> {
        self.running.get(&cpu).map(|running| running.task)
    }

    /// Whether `cpu` runs user code.
    pub fn in_user_mode(&self, cpu: CpuId) -> bool {
        self.running.get(&cpu).is_some_and(|running| running.user_mode)
    }

    /// Forgets everybody, and nothing of what the registers have.
    #[cfg(feature = "explore")]
    pub(crate) fn clear(&mut self) {
        self.states.clear();
        self.workers.clear();
        self.running.clear();
    }

    /// Shows what a task must see; one that is not there appears if the walk says so.
    #[cfg(feature = "explore")]
    pub(crate) fn walk_task(&mut self, task: TaskId, walk: &mut impl crate::walk::Walk) {
        if walk.is_there(self.state(task).is_some()) {
            let new = || State::new(Values::initial(self.components));
            self.states.get_or_insert_with(task, new).walk(walk);
        }
        if walk.is_there(self.workers.get(&task).is_some()) {
            let new = Worker { pkru: Pkru::DEFAULT, of: task };
            let Worker { pkru, of } = self.workers.get_or_insert_with(task, || new);
            walk.ought_pkru(pkru);
            let mut owner = Some(*of);
            walk.task(&mut owner);
            *of = owner.unwrap_or(task);
        }
    }

    /// Shows who runs on a CPU.
    #[cfg(feature = "explore")]
    pub(crate) fn walk_cpu(&mut self, cpu: CpuId, walk: &mut impl crate::walk::Walk) {
        let mut current = self.current(cpu);
        walk.task(&mut current);
        if let Some(task) = current {
            let new = || Running { task, user_mode: false };
            let Running { task, user_mode } = self.running.get_or_insert_with(cpu, new);
            walk.flags([user_mode]);
            *task = current.unwrap_or(*task);
        }
    }

    /// Gives `task` its slot, and `state` unless it is a kernel thread.
    fn place(&mut self, task: TaskId, state: Option<State>) {
        self.states.retain(|old| old.slot() != task.slot());
        self.workers.retain(|old| old.slot() != task.slot());
        if let Some(state) = state {
            self.states.insert(task, state);
        }
    }

    fn set_user_mode(&mut self, cpu: CpuId, user_mode: bool) {
        if let Some(running) = self.running.get_mut(&cpu) {
            running.user_mode = user_mode;
        }
    }

    /// Whoever accesses a task from outside brings it into the kernel first.
    fn interrupt(&mut self, task: TaskId) {
        for running in self.running.values_mut().filter(|running| running.task == task) {
            running.user_mode = false;
        }
        self.on(task, |state| state.cross_guest(false));
    }

    fn on(&mut self, task: TaskId, change: impl FnOnce(&mut State)) {
        if let Some(state) = self.states.get_mut(&task) {
            change(state);
        }
    }

    fn on_current(&mut self, cpu: CpuId, change: impl FnOnce(&mut State)) {
        if let Some(task) = self.current(cpu) {
            self.on(task, change);
        }
    }
}

#[cfg(test)]
mod tests;
