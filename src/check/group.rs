//! Kinds of events.

use crate::{Event, FrameChange};
use core::{fmt, str::FromStr};

/// Events that belong together and that an exploration, or a story, can do without. What is in no group always happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// What writes and reads PKRU, and what it guards.
    Pkru,
    /// Signal delivery and return, and frames.
    Signals,
    /// A task's vCPU.
    Guest,
    /// Dynamic components.
    Dynamic,
    /// CPUs that come, go or lose power.
    Power,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Pkru, Self::Signals, Self::Guest, Self::Dynamic, Self::Power];

    /// The name, as [`FromStr`] reads it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pkru => "pkru",
            Self::Signals => "signals",
            Self::Guest => "guest",
            Self::Dynamic => "dynamic",
            Self::Power => "power",
        }
    }

    /// The groups that an event belongs to: it can happen where all of them are wanted.
    pub fn of(event: Event) -> &'static [Self] {
        match event {
            Event::UserPkru(..)
            | Event::KernelPkru(..)
            | Event::ReadPkru(_)
            | Event::WritePkru(..)
            | Event::UserMemory(..) => &[Self::Pkru],
            Event::Frame(_, FrameChange::Pkru(_)) => &[Self::Pkru, Self::Signals],
            Event::SignalDeliver(_)
            | Event::SignalSave(_)
            | Event::SignalFaultIn(_)
            | Event::SignalEnter(_)
            | Event::SigReturn(_)
            | Event::SigReturnLoad(_)
            | Event::SigReturnCopy(_)
            | Event::Frame(..) => &[Self::Signals],
            Event::GuestLoad(_) | Event::GuestPut(_) | Event::GuestEnter(_) | Event::GuestExit(_) => {
                &[Self::Guest]
            }
            Event::Permit(..) | Event::DynamicUse(..) | Event::DynamicGrow(_) => &[Self::Dynamic],
            Event::Offline(_) | Event::Online(_) | Event::PowerLoss(_) => &[Self::Power],
            _ => &[],
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no group has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such group of operations; there are pkru, signals, guest, dynamic and power")]
pub struct UnknownGroup;

impl FromStr for Group {
    type Err = UnknownGroup;

    fn from_str(name: &str) -> Result<Self, UnknownGroup> {
        Self::ALL.into_iter().find(|group| group.name() == name).ok_or(UnknownGroup)
    }
}
