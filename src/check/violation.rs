//! What a check found: the invariant, how to get there, and what is there.

use super::{Breach, Spec, Steps, check, check_outcome, minimise, spec_for};
use crate::{
    Event,
    fpu::{PkruMode, Policy},
    machine::Machine,
    registers::UserFrames,
};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;

/// An invariant that does not hold behind the last of a list of events.
///
/// Printed, it is the table of the steps, and below it the [event file](Self::event_file) that `fpuswitch run` replays,
/// with what is wrong in its first line.
#[derive(Clone, Debug)]
pub struct Violation<R: UserFrames, P> {
    breach: Breach,
    steps: Steps<R, P>,
}

impl<R: UserFrames, P: Policy> Violation<R, P> {
    /// What is broken behind one of `events`, which happen to `machine`, on which nothing has happened yet. Those that it
    /// refuses are left out. `None` if nothing is.
    pub fn behind(machine: Machine<R, P>, events: &[Event]) -> Option<Self> {
        let mut steps = Steps::new(machine);
        let breach = events.iter().find_map(|event| steps.apply(*event).ok()?.err())?;
        Some(Self { breach, steps })
    }

    /// What a search found behind the last of `events`, which happen to `machine`. It may be what user code sees, behind
    /// other breaches.
    #[cfg(feature = "explore")]
    pub(super) fn at_the_end(machine: Machine<R, P>, events: &[Event], breach: Breach) -> Self {
        let mut steps = Steps::new(machine);
        for event in events {
            let _ = steps.apply(*event);
        }
        Self { breach, steps }
    }

    /// The same with as few events as possible: no single one can be left out, or another invariant breaks, or none.
    #[must_use]
    pub fn minimised(self) -> Self
    where
        R: Clone,
    {
        let (new, invariant) = (self.machine().anew(), self.breach.invariant);
        let breaks = |fewer: &[Event]| {
            let (happened, breach) = first_breach(new.clone(), fewer)?;
            (breach.invariant == invariant).then_some(happened)
        };
        let events = minimise(self.events(), breaks);
        Self::behind(new, &events).unwrap_or(self)
    }

    /// Which invariant is broken, and what is there instead.
    pub fn breach(&self) -> &Breach {
        &self.breach
    }

    /// The events, with what each did.
    pub fn steps(&self) -> &Steps<R, P> {
        &self.steps
    }

    /// The events. The invariant is broken behind the last.
    pub fn events(&self) -> Vec<Event> {
        self.steps.events().collect()
    }

    /// The machine behind the last event.
    pub fn machine(&self) -> &Machine<R, P> {
        self.steps.machine()
    }

    /// What the programs must see there.
    pub fn spec(&self) -> &Spec {
        self.steps.spec()
    }

    /// The events as a file: see [`EventFile`](crate::EventFile). A comment says what is broken, and on which machine.
    pub fn event_file(&self) -> String {
        let machine = self.machine();
        let pkru = if machine.pkru_mode() == PkruMode::InXsave { ", PKRU in images" } else { "" };
        let planted = planted(machine.policy());
        let comment = format!(
            "# {}, behind the last event, under {}{pkru}{planted}\n",
            self.breach,
            machine.policy().name()
        );
        self.steps.events().fold(comment, |file, event| file + &event.to_string() + "\n")
    }
}

/// The defect, for people.
#[cfg(feature = "explore")]
fn planted(policy: &impl Policy) -> String {
    policy.defect().map_or_else(String::new, |defect| format!(", with {defect:?} planted"))
}

/// None can be planted.
#[cfg(not(feature = "explore"))]
fn planted(_: &impl Policy) -> &'static str {
    ""
}

/// The events that happen up to the first breach, and the breach: as [`Violation::behind`], without a table of it.
fn first_breach<R: UserFrames, P: Policy>(
    mut machine: Machine<R, P>,
    events: &[Event],
) -> Option<(Vec<Event>, Breach)> {
    let mut spec = spec_for(machine.cpus()[0].regs(), machine.policy());
    let mut happened = Vec::new();
    for event in events {
        let Ok(outcome) = machine.apply(*event) else { continue };
        spec.apply(*event);
        happened.push(*event);
        let held = check_outcome(&machine, &spec, *event, &outcome).and_then(|()| check(&machine, &spec));
        if let Err(breach) = held {
            return Some((happened, breach));
        }
    }
    None
}

impl<R: UserFrames, P: Policy> fmt::Display for Violation<R, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.steps, self.event_file())
    }
}

impl<R: UserFrames + fmt::Debug, P: Policy> core::error::Error for Violation<R, P> {}
