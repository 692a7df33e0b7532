//! Shared by the integration tests: a machine under check, and random events for it.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod emulator;
pub(crate) mod policies;
pub(crate) mod register_files;
pub(crate) mod story;
pub(crate) mod watched;

pub(crate) use fpuswitch::check::{any_event, choices};
use fpuswitch::{
    Component, Current, Event, EventError, FrameChange, TaskId, Value,
    check::{Breach, Invariant, RandomEvents, Spec, check, check_outcome, minimise, spec_for},
    fpu::Policy,
    machine::{Machine, Outcome},
    registers::{AbstractRegs, UserFrames},
};
use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed},
};
use std::fmt;

/// The most events of a random list.
pub(crate) const STEPS: usize = 120;

/// A machine, the reference model beside it, and what has happened to both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Checked<P: Policy, R: UserFrames = AbstractRegs> {
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
    Invariant(Breach),
    /// A program, or a reader of its state, does not see what the reference model says.
    Seen(String),
}

impl Wrong {
    fn invariant(&self) -> Option<Invariant> {
        match self {
            Self::Invariant(breach) => Some(breach.invariant),
            Self::Seen(_) => None,
        }
    }
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

impl<P: Policy, R: UserFrames + Clone> Checked<P, R> {
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

    /// The same with as few events as possible behind which the same invariant is broken, or something else is seen.
    fn minimise(&self, broken: Broken) -> Broken {
        let breaks = |fewer: &[Event]| {
            let shorter = self.replay(fewer).err()?;
            (shorter.wrong.invariant() == broken.wrong.invariant()).then_some(shorter.events)
        };
        let events = minimise(broken.events.clone(), breaks);
        self.replay(&events).err().unwrap_or(broken)
    }

    /// Lets one event happen that `raw` picks among those that the machine accepts. `None` if it accepts
    /// none of many.
    pub(crate) fn step(&mut self, raw: u32) -> Result<Option<(Event, Outcome)>, Broken> {
        for choice in choices(raw) {
            let event = any_event(&self.machine, choice);
            if is_taken::<R>(event) {
                continue;
            }
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

/// As many cases as that and the same every time, so that what passed once passes again; or as many random ones
/// as PROPTEST_CASES says. No file remembers failures: the message has the whole list of events.
pub(crate) fn cases(cases: u32) -> Config {
    let default = Config { failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        return default;
    }
    Config { cases, rng_seed: RngSeed::Fixed(0x2016_1017), ..default }
}

/// Whether the event makes a frame bad that registers like `R` take all the same: QEMU's CPU does, by its MXCSR.
pub(crate) fn is_taken<R>(event: Event) -> bool {
    matches!(event, Event::Frame(_, FrameChange::BadMxcsr))
        && std::any::type_name::<R>().ends_with("::HostRegs")
        && emulator::Deviation::ReservedMxcsr.is_here()
}

/// A machine after the legal events that the choices pick.
pub(crate) fn random<P: Policy>(policy: P, list: &RandomEvents) -> Result<Checked<P>, Broken> {
    random_on(&AbstractRegs::default(), policy, list)
}

/// The same with registers like `regs`, which have a say in what is legal.
pub(crate) fn random_on<P: Policy, R: UserFrames + Clone>(
    regs: &R,
    policy: P,
    list: &RandomEvents,
) -> Result<Checked<P, R>, Broken> {
    let mut checked = Checked::on(regs, policy, list.cpus);
    list.choices.iter().try_for_each(|raw| checked.step(*raw).map(drop))?;
    Ok(checked)
}
