//! Shared by the integration tests: a machine under check, and random events for it.

#![allow(dead_code, reason = "each test binary uses a part of it")]

#[cfg(feature = "host")]
pub(crate) mod emulator;
pub(crate) mod policies;
pub(crate) mod register_files;
pub(crate) mod story;
pub(crate) mod watched;

use fpuswitch::{
    Component, CpuId, Current, EntryKind, Event, EventError, FrameChange, KernelContext, Pkru, TaskId, Value,
    Verb,
    check::{Spec, Violation, check, check_outcome, spec_for},
    fpu::Policy,
    machine::{Machine, Outcome},
    registers::{AbstractRegs, RegisterFile},
};
use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed},
};
use std::fmt;

/// What random events write and read: components that every register file has on which they happen.
const COMPONENTS: [Component; 2] = [Component::SSE, Component::AVX];

/// The most events of a random list.
pub(crate) const STEPS: usize = 120;

/// A machine, the reference model beside it, and what has happened to both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Checked<P: Policy, R: RegisterFile = AbstractRegs> {
    pub(crate) machine: Machine<R, P>,
    pub(crate) spec: Spec,
    pub(crate) events: Vec<Event>,
}

/// Why an event did not happen, or should not have.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// The machine refused it.
    Refused(EventError),
    /// The machine is wrong after it.
    Broken(Broken),
}

/// What is wrong, on which register file, and the events up to there.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) wrong: Wrong,
    on: &'static str,
    pub(crate) events: Vec<Event>,
}

#[derive(Debug)]
pub(crate) enum Wrong {
    /// An invariant is broken.
    Invariant(Violation),
    /// A program, or a reader of its state, does not see what the reference model says.
    Seen(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.wrong {
            Wrong::Invariant(violation) => write!(f, "{violation}")?,
            Wrong::Seen(what) => f.write_str(what)?,
        }
        writeln!(f, ", on {}, after event {}:", self.on, self.events.len())?;
        self.events.iter().try_for_each(|event| writeln!(f, "{event}"))
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "refused: {error}"),
            Self::Broken(broken) => write!(f, "{broken}"),
        }
    }
}

impl From<Broken> for TestCaseError {
    fn from(broken: Broken) -> Self {
        Self::fail(broken.to_string())
    }
}

impl<P: Policy> Checked<P> {
    /// With abstract registers.
    pub(crate) fn new(policy: P, cpus: usize) -> Self {
        Self::on(&AbstractRegs::default(), policy, cpus)
    }
}

impl<P: Policy, R: RegisterFile + Clone> Checked<P, R> {
    /// With registers like `regs`.
    pub(crate) fn on(regs: &R, policy: P, cpus: usize) -> Self {
        let machine = Machine::with_registers(policy, cpus, regs.clone());
        let spec = spec_for(regs, machine.policy());
        Self { machine, spec, events: Vec::new() }
    }

    /// Lets an event happen, and checks everything.
    pub(crate) fn apply(&mut self, event: Event) -> Result<Outcome, Stopped> {
        let outcome = self.follow(event).map_err(Stopped::Refused)?;
        let done = check_outcome(&self.machine, &self.spec, event, &outcome);
        let wrong = done.and_then(|()| check(&self.machine, &self.spec)).map_err(Wrong::Invariant);
        match wrong.and_then(|()| self.seen(event, outcome).map_err(Wrong::Seen)) {
            Ok(()) => Ok(outcome),
            Err(wrong) => Err(Stopped::Broken(self.broken(wrong))),
        }
    }

    /// Lets an event happen, and checks only what programs and readers of their states see: errors that are
    /// latent go on.
    pub(crate) fn watch(&mut self, event: Event) -> Result<(), Stopped> {
        let outcome = self.follow(event).map_err(Stopped::Refused)?;
        let wrong = self.seen(event, outcome).map_err(Wrong::Seen);
        wrong.map_err(|wrong| Stopped::Broken(self.broken(wrong)))
    }

    /// Lets an event happen, and checks nothing.
    pub(crate) fn follow(&mut self, event: Event) -> Result<Outcome, EventError> {
        let outcome = self.machine.apply(event)?;
        self.spec.apply(event);
        self.events.push(event);
        Ok(outcome)
    }

    pub(crate) fn broken(&self, wrong: Wrong) -> Broken {
        Broken { wrong, on: std::any::type_name::<R>(), events: self.events.clone() }
    }

    /// The same, and behind a first use if the trap is armed where user code writes its registers.
    pub(crate) fn apply_through_trap(&mut self, event: Event) -> Result<Outcome, Stopped> {
        match self.apply(event) {
            Err(Stopped::Refused(EventError::TrapArmed(cpu))) => {
                self.apply(Event::FirstUse(cpu)).map(drop)?;
                self.apply(event)
            }
            done => done,
        }
    }

    /// Lets the events of a text happen, one a line or separated by semicolons.
    #[track_caller]
    pub(crate) fn run(&mut self, text: &str) -> &mut Self {
        for event in events(text) {
            if let Err(stopped) = self.apply_through_trap(event) {
                panic!("{}: {event}: {stopped}", self.machine.policy().name());
            }
        }
        self
    }

    /// What programs see, and what is read of them, is what the reference model says. Independent of the
    /// protocol's own bookkeeping, but for where the trap is armed and who is inside a signal return.
    pub(crate) fn seen(&self, event: Event, outcome: Outcome) -> Result<(), String> {
        if let Event::Read(task, component) = event
            && !self.is_returning(task)
        {
            let ought = self.spec.state(task).and_then(|state| state.value(component));
            if ought.is_none() || (outcome.value != ought && ought != Some(Value::UNSPECIFIED)) {
                return Err(format!("{event} gave {:?}, expected {ought:?}", outcome.value));
            }
        }
        for cpu in self.machine.cpus() {
            let name = cpu.slot().cpu();
            let current = match cpu.current() {
                Current::Task(task) => Some(task),
                Current::Idle | Current::Switching => None,
            };
            if self.spec.current(name) != current {
                return Err(format!("{name} runs {current:?}, expected {:?}", self.spec.current(name)));
            }
            let Some(task) = current.filter(|task| self.in_user_mode(*task)) else { continue };
            let Some(state) = self.spec.state(task).filter(|_| self.spec.in_user_mode(name)) else {
                return Err(format!("{task} is in user mode on {name}, which is not expected"));
            };
            let components = cpu.regs().enabled().without(Component::PKRU);
            let seen = |component: &Component| !cpu.slot().trap_armed() && state.is_specified(*component);
            for component in components.iter().filter(seen) {
                let (is, ought) = (cpu.regs().get(component), state.value(component));
                if Some(is) != ought {
                    return Err(format!("{task} sees {component} = {is} on {name}, expected {ought:?}"));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn in_user_mode(&self, task: TaskId) -> bool {
        self.machine.task(task).is_some_and(|task| task.fpstate().user_on().is_some())
    }

    pub(crate) fn is_returning(&self, task: TaskId) -> bool {
        self.machine.task(task).is_some_and(|task| task.fpstate().signal().is_returning())
    }

    /// Checks a list of events on a machine that is new and otherwise like this, those left out that it refuses.
    fn replay(&self, events: &[Event]) -> Result<(), Broken> {
        let (policy, cpus) = (self.machine.policy().clone(), self.machine.cpus());
        let mut afresh = Self::on(cpus[0].regs(), policy, cpus.len());
        for event in events {
            if let Err(Stopped::Broken(broken)) = afresh.apply(*event) {
                return Err(broken);
            }
        }
        Ok(())
    }

    /// The same with as few events as leaving out one at a time leads to.
    fn minimise(&self, mut broken: Broken) -> Broken {
        let mut at = broken.events.len();
        while at > 0 {
            at -= 1;
            let mut fewer = broken.events.clone();
            fewer.remove(at);
            if let Err(shorter) = self.replay(&fewer) {
                broken = shorter;
                at = at.min(broken.events.len());
            }
        }
        broken
    }

    /// Lets one event happen that `raw` picks among those that the machine accepts. `None` if it accepts
    /// none of many.
    pub(crate) fn step(&mut self, raw: u32) -> Result<Option<(Event, Outcome)>, Broken> {
        for choice in choices(raw) {
            let event = any_event(&self.machine, choice);
            match self.apply(event) {
                Ok(outcome) => return Ok(Some((event, outcome))),
                Err(Stopped::Refused(_)) => {}
                Err(Stopped::Broken(broken)) => return Err(self.minimise(broken)),
            }
        }
        Ok(None)
    }
}

/// The events of a text: one a line or separated by semicolons, comments behind `#`.
#[track_caller]
pub(crate) fn events(text: &str) -> Vec<Event> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or(""));
    let events = lines.flat_map(|line| line.split(';')).map(str::trim).filter(|event| !event.is_empty());
    events.map(|event| event.parse().unwrap_or_else(|error| panic!("{event}: {error}"))).collect()
}

/// CPUs of a machine, and raw choices for [`Checked::step`] and [`any_event`]. Shrinks to fewer choices, and
/// to those that stand first there.
pub(crate) fn choice_lists(most: usize) -> impl Strategy<Value = (usize, Vec<u32>)> {
    (2..=3_usize, prop::collection::vec(any::<u32>(), 0..=most))
}

/// As many cases as that and the same every time, so that what passed once passes again; or as many random ones
/// as PROPTEST_CASES says. No file remembers failures: the message has the whole list of events.
pub(crate) fn cases(cases: u32) -> Config {
    let default = Config { failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        return default;
    }
    Config { cases, rng_seed: RngSeed::Fixed(0x2016_1017), ..default }
}

/// A machine after the legal events that the choices pick.
pub(crate) fn random<P: Policy>(policy: P, choices: &(usize, Vec<u32>)) -> Result<Checked<P>, Broken> {
    random_on(&AbstractRegs::default(), policy, choices)
}

/// The same with registers like `regs`, which have a say in what is legal.
pub(crate) fn random_on<P: Policy, R: RegisterFile + Clone>(
    regs: &R,
    policy: P,
    (cpus, raws): &(usize, Vec<u32>),
) -> Result<Checked<P, R>, Broken> {
    let mut checked = Checked::on(regs, policy, *cpus);
    raws.iter().try_for_each(|raw| checked.step(*raw).map(drop))?;
    Ok(checked)
}

/// A list of choices, the same every time, for a machine with two or three CPUs.
pub(crate) fn fixed_choices(seed: u32, length: u32) -> (usize, Vec<u32>) {
    (2 + seed as usize % 2, (0..length).map(|n| hash(seed, n)).collect())
}

/// The choice itself, and others for the case that the machine refuses its event: the same kind of event with
/// other names first, so that kinds that are possible more often do not crowd out the rest.
pub(crate) fn choices(raw: u32) -> impl Iterator<Item = u32> {
    const KINDS_TRIED: u32 = 60;
    const NAMES_TRIED: u32 = 12;
    let kind = move |n| if n == 0 { raw % KINDS } else { hash(raw, n) % KINDS };
    let names = move |n, m| {
        if (n, m) == (0, 0) { raw / KINDS } else { hash(raw, KINDS_TRIED + n * NAMES_TRIED + m) / KINDS }
    };
    let other = move |n| (0..NAMES_TRIED).map(move |m| (names(n, m) * KINDS).wrapping_add(kind(n)));
    (0..KINDS_TRIED).flat_map(other)
}

/// The `n`th of many numbers made from one.
fn hash(raw: u32, n: u32) -> u32 {
    let x = raw.wrapping_add(n.wrapping_mul(0x9E37_79B9));
    let x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846C_A68B);
    x ^ (x >> 16)
}

/// One number as several small ones.
struct Digits(u32);

impl Digits {
    fn below(&mut self, count: usize) -> usize {
        let digit = self.0 % count as u32;
        self.0 /= count as u32;
        digit as usize
    }

    fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

/// How many kinds of events [`any_event`] tells apart, the likely ones several times.
const KINDS: u32 = 58;

/// How many slots for tasks the random events use, kernel threads included.
const SLOTS: usize = 5;

/// The event that `raw` stands for. It names CPUs and tasks that are there, most of the time; the machine may
/// refuse it all the same.
pub(crate) fn any_event<R: RegisterFile, P: Policy>(machine: &Machine<R, P>, raw: u32) -> Event {
    let mut digits = Digits(raw);
    let kind = digits.below(KINDS as usize);
    let cpu = CpuId(digits.below(machine.cpus().len()) as u32);
    let slot = digits.below(SLOTS);
    let odd = digits.below(16) == 15;
    let task = match machine.tasks().get(slot).map(|task| task.fpstate().id()) {
        Some(task) if odd => task.next_generation(),
        Some(task) => task,
        None => TaskId::first(slot as u32),
    };
    let new = machine.next_task(slot).unwrap_or(task);
    let component = if odd { Component::X87 } else { digits.one_of(&COMPONENTS) };
    let value = Value::new(1 + Digits(digits.0).below(252) as u8).expect("1 to 252 are patterns");
    match kind {
        0..4 => Event::ScheduleIn(cpu, task),
        4..10 => match machine.cpu(cpu).map(|cpu| cpu.current()) {
            Some(Current::Task(current)) if !odd => Event::Return(cpu, current),
            _ => Event::Return(cpu, task),
        },
        10..14 => Event::UserWrite(cpu, component, value),
        14..18 => {
            let kinds = [EntryKind::SystemCall, EntryKind::Exception, EntryKind::Interrupt];
            Event::Entry(cpu, digits.one_of(&kinds))
        }
        18..20 => Event::ScheduleOut(cpu),
        20 => Event::Idle(cpu),
        21 => Event::Spawn(new),
        22 => Event::KernelThread(new),
        23 => Event::Fork(cpu, new),
        24 => Event::Exec(cpu),
        25 => Event::Exit(cpu),
        26 => Event::Migrate(task, cpu),
        27 => Event::Read(task, component),
        28..30 => Event::Write(task, component, value),
        30 => Event::UserPkru(cpu, digits.one_of(&[Pkru(0), Pkru(0x5555_5550), Pkru(0xFFFF_FFFC)])),
        31..33 => {
            let contexts = [KernelContext::Task, KernelContext::SoftIrq, KernelContext::HardIrq];
            Event::KernelFpuBegin(cpu, digits.one_of(&contexts))
        }
        33..36 => Event::KernelFpuEnd(cpu),
        36..38 => {
            let verbs = [Verb::CopyToCpu, Verb::MoveToCpu, Verb::CopyToMemory, Verb::MoveToMemory];
            Event::Access(cpu, digits.one_of(&verbs))
        }
        38 => Event::InvalidateRegisters(cpu),
        39..41 => Event::SignalDeliver(cpu),
        41..43 => Event::SignalSave(cpu),
        43..45 => Event::SignalFaultIn(cpu),
        45 => Event::SignalEnter(cpu),
        46..48 => Event::SigReturn(cpu),
        48..50 => Event::SigReturnLoad(cpu),
        50..52 => {
            let changes =
                [FrameChange::Absent, FrameChange::Absent, FrameChange::BadHeader, FrameChange::Short];
            Event::Frame(task, digits.one_of(&changes))
        }
        52 => Event::Offline(cpu),
        53 => Event::Online(cpu),
        54 => Event::PowerLoss(cpu),
        // Few: an FPU-free task says little about registers.
        55 if digits.below(3) == 0 => Event::FpuFree(task),
        56 => Event::FpuFault(cpu),
        _ => Event::FirstUse(cpu),
    }
}
