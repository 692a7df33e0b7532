//! What is explored, and what comes of it.

use super::canonical::MOST;
use crate::{
    check::{Group, Violation},
    fpu::{PkruMode, PkruNeedsEager, Policy},
    registers::AbstractRegs,
};
use alloc::{boxed::Box, collections::BTreeSet, vec::Vec};
use core::fmt;

/// What counts as a violation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Judge {
    /// Every invariant behind every event.
    #[default]
    Invariants,
    /// What user code and readers of its state see, and nothing else: an error in a claim goes on until somebody trusts
    /// the claim.
    UserCode,
}

/// How large a machine is explored, and what can happen to it.
///
/// ```
/// use fpuswitch::check::{Group, Scope};
/// let scope = Scope { groups: [Group::Power].into(), ..Scope::default() };
/// assert_eq!((scope.cpus, scope.tasks), (2, 2));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// CPUs, 1 to 3, with a kernel thread each.
    pub cpus: usize,
    /// Slots for user tasks, 1 to 3, which can be used again.
    pub tasks: usize,
    /// Groups of operations beside the core.
    pub groups: BTreeSet<Group>,
    /// How PKRU is switched.
    pub pkru_mode: PkruMode,
    /// What counts as a violation.
    pub judge: Judge,
    /// Threads that search; 0 counts as 1. With one, the list of a violation is one with the fewest operations.
    pub threads: usize,
}

impl Default for Scope {
    /// The core on two CPUs with two slots, every invariant, one thread.
    fn default() -> Self {
        let (pkru_mode, judge) = (PkruMode::Eager, Judge::Invariants);
        Self { cpus: 2, tasks: 2, groups: BTreeSet::new(), pkru_mode, judge, threads: 1 }
    }
}

impl Scope {
    /// The core and these groups.
    pub fn with(groups: impl IntoIterator<Item = Group>) -> Self {
        Self { groups: groups.into_iter().collect(), ..Self::default() }
    }

    /// The core, the core with each group, and with each pair of groups: what is explored of every policy.
    pub fn all() -> Vec<Self> {
        let singles = Group::ALL.into_iter().map(|group| Self::with([group]));
        let pairs = Group::ALL.into_iter().flat_map(|one| {
            let later = Group::ALL.into_iter().filter(move |other| one < *other);
            later.map(move |other| Self::with([one, other]))
        });
        [Self::default()].into_iter().chain(singles).chain(pairs).collect()
    }

    /// Whether such a machine can be explored.
    ///
    /// # Errors
    /// [`ScopeError`] says what is too much or too little.
    pub fn check(&self, policy: &impl Policy) -> Result<(), ScopeError> {
        if !(1..=MOST).contains(&self.cpus) {
            return Err(ScopeError::Cpus(self.cpus));
        }
        if !(1..=MOST).contains(&self.tasks) {
            return Err(ScopeError::Tasks(self.tasks));
        }
        Ok(self.pkru_mode.check(policy)?)
    }
}

impl fmt::Display for Scope {
    /// `2 CPUs, 2 tasks, core + signals + guest`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count| if count == 1 { "" } else { "s" };
        let Self { cpus, tasks, groups, .. } = self;
        write!(f, "{cpus} CPU{}, {tasks} task{}, core", plural(*cpus), plural(*tasks))?;
        groups.iter().try_for_each(|group| write!(f, " + {group}"))
    }
}

/// A machine that cannot be explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// Too few or too many CPUs.
    #[error("expected 1 to {MOST} CPUs, not {0}")]
    Cpus(usize),
    /// Too few or too many slots for tasks.
    #[error("expected 1 to {MOST} slots for tasks, not {0}")]
    Tasks(usize),
    /// The policy cannot do with PKRU inside images.
    #[error(transparent)]
    Pkru(#[from] PkruNeedsEager),
}

/// What an exploration went through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// States, those counted once that differ in names and values alone.
    pub states: usize,
    /// Operations that happened, whether they led to a new state or not.
    pub transitions: usize,
    /// Operations on the longest of the shortest ways to a state.
    pub depth: usize,
    /// Situations that ought to come up, and did.
    pub reached: Vec<&'static str>,
    /// Situations that ought to come up, and did not: what the invariants say of them says nothing.
    pub never: Vec<&'static str>,
}

/// Why an exploration did not go through every state.
#[derive(Clone, Debug)]
pub enum ExploreError<P> {
    /// Something does not hold.
    Violation(Box<Violation<AbstractRegs, P>>),
    /// There is no such machine.
    Scope(ScopeError),
}

impl<P: Policy> fmt::Display for ExploreError<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation(violation) => write!(f, "{violation}"),
            Self::Scope(error) => write!(f, "{error}"),
        }
    }
}

impl<P: Policy> core::error::Error for ExploreError<P> {}

impl<P> From<ScopeError> for ExploreError<P> {
    fn from(error: ScopeError) -> Self {
        Self::Scope(error)
    }
}
