//! What a check found: the invariant, how to get there, and what is there.

use super::{Breach, Spec, Steps};
use crate::{Event, fpu::Policy, machine::Machine, registers::RegisterFile};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;

/// An invariant that does not hold behind the last of a list of events.
///
/// Printed, it is the table of the steps and what is wrong behind the last; [`event_file`](Self::event_file) is what
/// `fpuswitch run` replays.
#[derive(Clone, Debug)]
pub struct Violation<R: RegisterFile, P> {
    breach: Breach,
    steps: Steps<R, P>,
}

impl<R: RegisterFile, P: Policy> Violation<R, P> {
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

    /// The events as a file: see [`EventFile`](crate::EventFile).
    pub fn event_file(&self) -> String {
        let policy = self.machine().policy().name();
        let comment = format!("# {}, behind the last event, under {policy}\n", self.breach);
        self.steps.events().fold(comment, |file, event| file + &event.to_string() + "\n")
    }
}

impl<R: RegisterFile, P> fmt::Display for Violation<R, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.steps, self.breach)
    }
}

impl<R: RegisterFile + fmt::Debug, P: fmt::Debug> core::error::Error for Violation<R, P> {}
