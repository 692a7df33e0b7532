//! Groups of operations.

use core::{fmt, str::FromStr};

/// What an exploration has beside the core: entry, switch, return, kernel FPU, fork, exec, exit, remote read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// PKRU written by user code, kernel and debugger, kernel access to user memory, user workers.
    Pkru,
    /// Signal delivery and return, step by step, with frames that change.
    Signals,
    /// A vCPU that is loaded, entered, left and put.
    Guest,
    /// Dynamic components: permission, first use, growth.
    Dynamic,
    /// CPUs that go, come or lose power.
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
