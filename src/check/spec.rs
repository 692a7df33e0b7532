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
//! | [`Fork`](Event::Fork) | a copy of current's components and PKRU for the child, no frame; under a kernel thread: as spawn |
//! | [`Exec`](Event::Exec) | current: as spawn |
//! | [`Exit`](Event::Exit) | current has no S any more, and stays current until it is switched out |
//! | [`Entry`](Event::Entry) by a system call | none; where a call [gives components up](Spec::with_calls_that_keep), those of current are unspecified |
//! | [`Write`](Event::Write), [`UserWrite`](Event::UserWrite) | that component of the named task, or of current |
//! | [`UserPkru`](Event::UserPkru) | current's PKRU |
//! | [`SignalDeliver`](Event::SignalDeliver) | current gets a frame: present, undamaged, all initial; of five the oldest is dropped |
//! | [`SignalSave`](Event::SignalSave) | newest frame present: it takes S's components and is undamaged; absent: none |
//! | [`SignalFaultIn`](Event::SignalFaultIn) | newest frame is present |
//! | [`SignalEnter`](Event::SignalEnter) | current's components initial |
//! | [`SigReturn`](Event::SigReturn) | no frame: a frame as signal-deliver makes it, forged by user code |
//! | [`SigReturnLoad`](Event::SigReturnLoad) | newest frame absent: none; else it is popped and current's components are: |
//! | | good frame: those of the frame |
//! | | short frame: x87 and SSE of the frame, the others initial |
//! | | bad header: all initial |
//! | [`Frame`](Event::Frame) | newest frame is absent, has a bad header, or is short; bad header wins over short |
//! | [`Read`](Event::Read), [`Write`](Event::Write), [`FpuFault`](Event::FpuFault) | a task that runs user code is in the kernel behind it |
//! | schedule-in, schedule-out, idle, other entries, return | none; who is current, and who is in user mode |
//! | all others | none |
//!
//! Signal events leave PKRU alone. A new task takes its slot from any task that held it before. A name that
//! means nothing here (no current task, a dead task, a component that the register file lacks) makes an event
//! ignored: what is legal is for the machine to say.

use crate::{Component, ComponentSet, CpuId, EntryKind, Event, FrameChange, Pkru, TaskId, Value};
use alloc::{collections::BTreeMap, vec::Vec};

/// Frames kept for a task; the oldest goes first.
const MAX_FRAMES: usize = 4;

/// One value for each component of the register file. Which components there are never changes.
type Values = BTreeMap<Component, Value>;

/// The state that every user task must see, kept by following its program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// What the register file has.
    components: ComponentSet,
    /// What a program finds again behind a system call.
    kept_by_calls: ComponentSet,
    /// Living user tasks.
    states: BTreeMap<TaskId, State>,
    /// CPUs that have a current task.
    running: BTreeMap<CpuId, Running>,
}

/// What the program of one user task must see in its registers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    values: Values,
    pkru: Pkru,
    /// Signal frames in the task's memory, the newest last.
    frames: Vec<Frame>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Running {
    task: TaskId,
    user_mode: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Frame {
    values: Values,
    present: bool,
    damage: Damage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Damage {
    None,
    Short,
    BadHeader,
}

impl State {
    /// The value of `component`, [`Value::UNSPECIFIED`] for one that may be anything; `None` if the register file
    /// lacks it, and for PKRU.
    pub fn value(&self, component: Component) -> Option<Value> {
        self.values.get(&component).copied()
    }

    /// Whether the program can rely on what `component` holds.
    pub fn is_specified(&self, component: Component) -> bool {
        self.value(component) != Some(Value::UNSPECIFIED)
    }

    /// The value of PKRU.
    pub fn pkru(&self) -> Pkru {
        self.pkru
    }

    fn new(values: Values) -> Self {
        Self { values, pkru: Pkru::DEFAULT, frames: Vec::new() }
    }

    fn set(&mut self, component: Component, value: Value) {
        if let Some(old) = self.values.get_mut(&component) {
            *old = value;
        }
    }

    fn give_up_all_but(&mut self, kept: ComponentSet) {
        for (component, value) in &mut self.values {
            if !kept.contains(*component) {
                *value = Value::UNSPECIFIED;
            }
        }
    }

    fn push_frame(&mut self, frame: Frame) {
        self.frames.push(frame);
        if self.frames.len() > MAX_FRAMES {
            self.frames.remove(0);
        }
    }

    fn save_to_frame(&mut self) {
        if let Some(frame) = self.frames.last_mut()
            && frame.present
        {
            frame.values = self.values.clone();
            frame.damage = Damage::None;
        }
    }

    fn load_from_frame(&mut self, initial: impl FnOnce() -> Values) {
        let Some(frame) = self.frames.pop_if(|frame| frame.present) else { return };
        self.values = match frame.damage {
            Damage::None => frame.values,
            Damage::BadHeader => initial(),
            Damage::Short => {
                let mut values = frame.values;
                for (component, value) in &mut values {
                    if *component != Component::X87 && *component != Component::SSE {
                        *value = Value::INITIAL;
                    }
                }
                values
            }
        };
    }
}

impl Frame {
    fn new(values: Values) -> Self {
        Self { values, present: true, damage: Damage::None }
    }

    fn change(&mut self, change: FrameChange) {
        match (change, self.damage) {
            (FrameChange::Absent, _) => self.present = false,
            (FrameChange::BadHeader, _) => self.damage = Damage::BadHeader,
            (FrameChange::Short, Damage::BadHeader) => {}
            (FrameChange::Short, _) => self.damage = Damage::Short,
        }
    }
}

impl Spec {
    /// No task, for a register file with `components`. PKRU is kept apart, whether named there or not.
    pub fn new(components: ComponentSet) -> Self {
        let components = components.without(Component::PKRU);
        let kept_by_calls = components;
        Self { components, kept_by_calls, states: BTreeMap::new(), running: BTreeMap::new() }
    }

    /// The same for programs whose system calls give up all components but `kept`.
    pub fn with_calls_that_keep(components: ComponentSet, kept: ComponentSet) -> Self {
        Self { kept_by_calls: kept, ..Self::new(components) }
    }

    /// Follows one event that the machine accepted.
    pub fn apply(&mut self, event: Event) {
        let components = self.components;
        let initial = || -> Values { components.iter().map(|c| (c, Value::INITIAL)).collect() };
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
            Event::Return(cpu, task) => self.set_user_mode(cpu, self.current(cpu) == Some(task)),

            Event::Fork(cpu, child) => {
                let Some(parent) = self.current(cpu) else { return };
                let state = match self.states.get(&parent) {
                    Some(state) => State { frames: Vec::new(), ..state.clone() },
                    None => State::new(initial()), // a kernel thread
                };
                self.place(child, Some(state));
            }
            Event::Exec(cpu) => self.on_current(cpu, |state| *state = State::new(initial())),
            Event::Exit(cpu) => {
                if let Some(task) = self.current(cpu) {
                    self.states.remove(&task);
                }
            }

            Event::Read(task, _) => self.interrupt(task),
            Event::Write(task, component, value) => {
                self.interrupt(task);
                self.on(task, |state| state.set(component, value));
            }
            Event::UserWrite(cpu, component, value) => {
                self.on_current(cpu, |state| state.set(component, value));
            }
            Event::UserPkru(cpu, pkru) => self.on_current(cpu, |state| state.pkru = pkru),

            Event::SignalDeliver(cpu) => {
                self.on_current(cpu, |state| state.push_frame(Frame::new(initial())))
            }
            Event::SignalSave(cpu) => self.on_current(cpu, State::save_to_frame),
            Event::SignalFaultIn(cpu) => self.on_current(cpu, |state| {
                if let Some(frame) = state.frames.last_mut() {
                    frame.present = true;
                }
            }),
            Event::SignalEnter(cpu) => self.on_current(cpu, |state| state.values = initial()),
            Event::SigReturn(cpu) => self.on_current(cpu, |state| {
                if state.frames.is_empty() {
                    state.push_frame(Frame::new(initial()));
                }
            }),
            Event::SigReturnLoad(cpu) => self.on_current(cpu, |state| state.load_from_frame(initial)),
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

    /// The living user tasks, by ascending name.
    pub fn tasks(&self) -> impl Iterator<Item = (TaskId, &State)> {
        self.states.iter().map(|(task, state)| (*task, state))
    }

    /// The task that schedule-in put on `cpu`: a user task, a kernel thread, or one that has exited.
    pub fn current(&self, cpu: CpuId) -> Option<TaskId> {
        self.running.get(&cpu).map(|running| running.task)
    }

    /// Whether `cpu` runs user code.
    pub fn in_user_mode(&self, cpu: CpuId) -> bool {
        self.running.get(&cpu).is_some_and(|running| running.user_mode)
    }

    /// Gives `task` its slot, and `state` unless it is a kernel thread.
    fn place(&mut self, task: TaskId, state: Option<State>) {
        self.states.retain(|old, _| old.slot() != task.slot());
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
