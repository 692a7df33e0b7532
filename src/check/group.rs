//! Kinds of events.

use crate::{Event, FrameChange};

/// Events that belong together and that an exploration, or a story, can do without. What is in no group always happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
