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
//! | schedule-in, schedule-out, idle, entry, return | none; who is current, and who is in user mode |
//! | all others | none |
//!
//! Signal events leave PKRU alone. A new task takes its slot from any task that held it before. A name that
//! means nothing here (no current task, a dead task, a component that the register file lacks) makes an event
//! ignored: what is legal is for the machine to say.

use crate::{Component, ComponentSet, CpuId, Event, FrameChange, Pkru, TaskId, Value};
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
    /// The value of `component`; `None` if the register file lacks it, and for PKRU.
    pub fn value(&self, component: Component) -> Option<Value> {
        self.values.get(&component).copied()
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
        Self { components, states: BTreeMap::new(), running: BTreeMap::new() }
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
            Event::Entry(cpu, _) => self.set_user_mode(cpu, false),
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

            Event::Write(task, component, value) => self.on(task, |state| state.set(component, value)),
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
            Event::FirstUse(_)
            | Event::KernelFpuBegin(..)
            | Event::KernelFpuEnd(_)
            | Event::Migrate(..)
            | Event::Read(..)
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
mod tests {
    use super::*;

    const C0: CpuId = CpuId(0);
    const T0: TaskId = TaskId::first(0);
    const T1: TaskId = TaskId::first(1);

    /// x87, SSE and AVX; T0 in user mode on c0 with x87 = 1, SSE = 2, AVX = 3 and PKRU = 0.
    const WRITTEN: &str = "spawn T0; in c0 T0; return c0 T0; user-pkru c0 0x0;
        user-write c0 x87 1; user-write c0 SSE 2; user-write c0 AVX 3";

    fn follow(spec: &mut Spec, events: &str) {
        for event in events.split(';') {
            spec.apply(event.parse().unwrap());
        }
    }

    fn after(events: &str) -> Spec {
        let mut spec = Spec::new(ComponentSet::from_bits(0b111));
        follow(&mut spec, events);
        spec
    }

    fn seen(spec: &Spec, task: TaskId) -> Option<([u8; 3], Pkru)> {
        let state = spec.state(task)?;
        let number = |component| state.value(component).unwrap().number();
        Some(([Component::X87, Component::SSE, Component::AVX].map(number), state.pkru()))
    }

    /// What T0 sees after `WRITTEN` and these events. All numbers are chosen so that no two sources agree.
    #[track_caller]
    fn check(events: &str, numbers: [u8; 3]) {
        let mut spec = after(WRITTEN);
        follow(&mut spec, events);
        assert_eq!(seen(&spec, T0), Some((numbers, Pkru(0))), "{events}");
    }

    #[test]
    fn new_programs_start_in_the_initial_configuration() {
        let initial = Some(([0, 0, 0], Pkru::DEFAULT));
        let mut spec = after(WRITTEN);
        follow(&mut spec, "spawn T1; entry c0 system-call; signal-deliver c0; exec c0");
        assert_eq!((seen(&spec, T0), seen(&spec, T1)), (initial, initial));
        let frames = &spec.states[&T0].frames;
        assert!(frames.is_empty(), "the new program has the old one's frames: {frames:?}");
    }

    #[test]
    fn only_its_own_program_and_named_writers_change_a_state() {
        check("write T0 AVX 9", [1, 2, 9]);
        check("spawn T1; write T1 AVX 9; user-write c1 AVX 9; write T0.2 AVX 9", [1, 2, 3]);
        check(
            "entry c0 interrupt; offline c0; online c0; power-loss c0; kernel-fpu-begin c0 softirq;
             kernel-fpu-end c0; move-to-memory c0; invalidate-registers c0; out c0; idle c0; migrate T0 c1;
             read T0 SSE; in c1 T0; first-use c1; return c1 T0",
            [1, 2, 3],
        );
    }

    #[test]
    fn a_component_that_the_register_file_lacks_has_no_value() {
        let mut spec = Spec::new(ComponentSet::from_bits(0b1).with(Component::PKRU));
        follow(&mut spec, WRITTEN);
        let state = spec.state(T0).unwrap();
        let values = [Component::X87, Component::SSE, Component::PKRU].map(|c| state.value(c));
        assert_eq!(values, [Value::new(1), None, None]);
    }

    #[test]
    fn a_child_starts_with_a_copy_and_goes_its_own_way() {
        let mut spec = after(WRITTEN);
        follow(
            &mut spec,
            "entry c0 system-call; signal-deliver c0; fork c0 T1; write T0 x87 8; write T1 AVX 9",
        );
        assert_eq!(seen(&spec, T0), Some(([8, 2, 3], Pkru(0))));
        assert_eq!(seen(&spec, T1), Some(([1, 2, 9], Pkru(0))));
        assert_eq!(spec.states[&T1].frames, []);
        follow(&mut spec, "kernel-thread T2; in c1 T2; fork c1 T3");
        assert_eq!(seen(&spec, TaskId::first(3)), Some(([0, 0, 0], Pkru::DEFAULT)));
        assert_eq!(seen(&spec, TaskId::first(2)), None);
    }

    #[test]
    fn a_dead_task_has_no_state_and_its_slot_is_another_task() {
        let mut spec = after(WRITTEN);
        follow(&mut spec, "entry c0 system-call; exit c0");
        assert_eq!((seen(&spec, T0), spec.current(C0)), (None, Some(T0)));
        follow(&mut spec, "out c0; spawn T0.2; write T0 x87 9");
        let second = T0.next_generation();
        assert!(spec.tasks().map(|(task, _)| task).eq([second]));
        assert_eq!(seen(&spec, second), Some(([0, 0, 0], Pkru::DEFAULT)));
        follow(&mut spec, "kernel-thread T0.3");
        assert_eq!(spec.tasks().count(), 0);
    }

    #[test]
    fn a_cpu_has_at_most_one_current_task_which_starts_in_the_kernel() {
        let mut spec = after("spawn T0; in c0 T0");
        let seen = |spec: &Spec| (spec.current(C0), spec.in_user_mode(C0));
        assert_eq!(seen(&spec), (Some(T0), false));
        follow(&mut spec, "return c0 T0");
        assert_eq!(seen(&spec), (Some(T0), true));
        follow(&mut spec, "entry c0 exception");
        assert_eq!(seen(&spec), (Some(T0), false));
        follow(&mut spec, "return c0 T1");
        assert_eq!(seen(&spec), (Some(T0), false));
        follow(&mut spec, "out c0");
        assert_eq!(seen(&spec), (None, false));
        follow(&mut spec, "in c0 T1; idle c0");
        assert_eq!(seen(&spec), (None, false));
    }

    #[test]
    fn a_signal_handler_starts_afresh_and_its_return_brings_the_state_back() {
        let deliver = "entry c0 interrupt; signal-deliver c0; signal-save c0; signal-enter c0";
        check(deliver, [0, 0, 0]);
        let nested = alloc::format!(
            "{deliver}; return c0 T0; user-write c0 AVX 7; {deliver}; user-write c0 AVX 8; sigreturn c0;
             sigreturn-load c0"
        );
        check(&nested, [0, 0, 7]);
        check(&alloc::format!("{nested}; user-pkru c0 0x0; sigreturn c0; sigreturn-load c0"), [1, 2, 3]);
    }

    #[test]
    fn a_frame_on_an_absent_page_is_neither_saved_to_nor_loaded_from() {
        let absent = "signal-deliver c0; frame T0 absent; signal-save c0";
        check(&alloc::format!("{absent}; signal-fault-in c0; sigreturn-load c0"), [0, 0, 0]);
        check(&alloc::format!("{absent}; sigreturn-load c0"), [1, 2, 3]);
        check(
            &alloc::format!(
                "{absent}; signal-fault-in c0; signal-save c0; write T0 AVX 9; sigreturn-load c0"
            ),
            [1, 2, 3],
        );
    }

    #[test]
    fn a_damaged_frame_restores_what_it_still_holds() {
        let saved = "signal-deliver c0; signal-save c0; write T0 SSE 9";
        for (damage, numbers) in [
            ("frame T0 short", [1, 2, 0]),
            ("frame T0 bad-header", [0, 0, 0]),
            ("frame T0 bad-header; frame T0 short", [0, 0, 0]),
            ("frame T0 short; frame T0 bad-header", [0, 0, 0]),
            ("frame T0 short; frame T0 absent; signal-fault-in c0", [1, 2, 0]),
            ("frame T0 bad-header; signal-save c0", [1, 9, 3]),
        ] {
            let load = alloc::format!("{saved}; {damage}; sigreturn c0; sigreturn-load c0");
            check(&load, numbers);
            // Damaged or not, the frame is gone.
            check(&alloc::format!("{load}; write T0 SSE 9; sigreturn-load c0"), [numbers[0], 9, numbers[2]]);
        }
    }

    #[test]
    fn a_forged_frame_restores_the_initial_configuration() {
        check("sigreturn c0; sigreturn-load c0", [0, 0, 0]);
        check("sigreturn c0; frame T0 absent; sigreturn-load c0", [1, 2, 3]);
    }

    #[test]
    fn the_oldest_of_five_frames_is_dropped() {
        let deliver = |value| alloc::format!("write T0 AVX {value}; signal-deliver c0; signal-save c0");
        let load = |count| "; sigreturn c0; sigreturn-load c0".repeat(count);
        let five = [11, 12, 13, 14, 15].map(deliver).join(";");
        check(&alloc::format!("{five}{}", load(1)), [1, 2, 15]);
        check(&alloc::format!("{five}{}", load(4)), [1, 2, 12]);
        check(&alloc::format!("{five}{}", load(5)), [0, 0, 0]);
    }

    #[test]
    fn names_that_mean_nothing_change_nothing() {
        let events =
            "entry c0 interrupt; out c0; idle c0; return c0 T0; first-use c0; kernel-fpu-begin c0 task;
            kernel-fpu-end c0; migrate T0 c0; fork c0 T0; exec c0; exit c0; read T0 x87; write T0 x87 1;
            user-write c0 x87 1; user-pkru c0 0x0; copy-to-cpu c0; invalidate-registers c0; signal-deliver c0;
            signal-save c0; signal-fault-in c0; signal-enter c0; sigreturn c0; sigreturn-load c0;
            frame T0 absent; offline c0; online c0; power-loss c0";
        let mut spec = after(events);
        assert_eq!(spec, Spec::new(ComponentSet::from_bits(0b111)));
        // A kernel thread has no frames and no registers of its own either.
        follow(&mut spec, "kernel-thread T1; in c0 T1");
        let before = spec.clone();
        follow(
            &mut spec,
            "user-write c0 x87 1; user-pkru c0 0x0; signal-deliver c0; signal-save c0; signal-fault-in c0;
             signal-enter c0; sigreturn c0; sigreturn-load c0; frame T1 short; exec c0; exit c0",
        );
        assert_eq!(spec, before);
        assert_eq!(seen(&spec, T1), None);
    }
}
