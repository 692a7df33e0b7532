//! Every state that a machine can reach, with every invariant checked in each.
//!
//! The real machine and protocol run on abstract registers beside the reference model; `stateright` searches, breadth first.
//! A search begins with a user task in user mode on c0 and kernel threads on the other CPUs, and ends when there is no new
//! state. What can happen is in `operations.rs`, which states are told apart in `canonical.rs`.

mod bench;
mod canonical;
mod explored;
mod model;
mod operations;
mod pack;
mod scope;
mod serve;
mod show;
mod situations;

pub use explored::Explored;
pub use scope::{Counts, ExploreError, Judge, Scope, ScopeError};
pub use serve::{ServeError, serve};

use super::Violation;
use crate::{Event, fpu::Policy, registers::AbstractRegs};
use alloc::{boxed::Box, vec::Vec};
use core::time::Duration;
use model::Model;
use stateright::{Checker, Expectation, HasDiscoveries, Model as _};

/// How far an exploration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// States so far.
    pub states: usize,
    /// Operations so far.
    pub transitions: usize,
}

/// Goes through every state that a machine under `policy` can reach, and checks every invariant in each.
///
/// # Errors
/// [`ExploreError`]: a [`Violation`], whose list is one with the fewest operations if the scope has one
/// thread, or a scope that there is no machine for.
///
/// # Panics
/// Under a policy that answers the same question in different ways: `stateright` finds its way back to a violation by
/// letting the operations happen again.
///
/// ```
/// use fpuswitch::{check::{Scope, explore}, fpu::policy::OwnerSlot};
/// let counts = explore(OwnerSlot, &Scope::default())?;
/// assert!(counts.states > 1000);
/// assert!(counts.never.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn explore<P: Policy + Send + Sync + 'static>(
    policy: P,
    scope: &Scope,
) -> Result<Counts, ExploreError<P>> {
    explore_with(policy, scope, |_| ())
}

/// The same, and says now and then how far it is.
///
/// # Errors
/// As [`explore`].
pub fn explore_with<P: Policy + Send + Sync + 'static>(
    policy: P,
    scope: &Scope,
    progress: impl FnMut(Progress),
) -> Result<Counts, ExploreError<P>> {
    match search(policy, scope, progress)? {
        (counts, None) => Ok(counts),
        (_, Some(violation)) => Err(ExploreError::Violation(violation)),
    }
}

/// What was gone through, and the first violation, where the search ends.
pub(in crate::check) type Searched<P> = (Counts, Option<Box<Violation<AbstractRegs, P>>>);

/// Explores, and says what was gone through in any case.
pub(in crate::check) fn search<P: Policy + Send + Sync + 'static>(
    policy: P,
    scope: &Scope,
    mut progress: impl FnMut(Progress),
) -> Result<Searched<P>, ScopeError> {
    let model = Model::new(policy.clone(), scope.clone())?;
    let properties = model.properties();
    let checker =
        model.checker().threads(scope.threads.max(1)).finish_when(HasDiscoveries::AnyFailures).spawn_bfs();
    let mut pause = Duration::from_millis(1);
    while !checker.is_done() {
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
        progress(Progress { states: checker.unique_state_count(), transitions: checker.state_count() });
    }
    let checker = checker.join();
    let mut discoveries = checker.discoveries();
    let situations = properties.iter().filter(|property| property.expectation == Expectation::Sometimes);
    let (reached, never) =
        situations.map(|property| property.name).partition(|name| discoveries.contains_key(name));
    let counts = Counts {
        states: checker.unique_state_count(),
        transitions: checker.state_count(),
        depth: checker.max_depth(),
        reached,
        never,
    };
    let broken = properties.iter().filter(|property| property.expectation == Expectation::Always);
    let found = broken.filter_map(|property| discoveries.remove(property.name));
    let shortest = found.map(|path| (path.last_state().clone(), path.into_actions()));
    let shortest = shortest.min_by_key(|(_, operations)| operations.len());
    let violation = shortest.map(|(last, operations)| {
        let (events, breach) = checker.model().replay(&last, operations);
        let new = || checker.model().machine();
        let first = Violation::behind(new(), &events).filter(|_| scope.judge == Judge::Invariants);
        Box::new(first.unwrap_or_else(|| Violation::at_the_end(new(), &events, breach)))
    });
    Ok((counts, violation))
}

/// The events with which every exploration of machines with so many CPUs begins.
pub fn beginning(cpus: usize) -> Vec<Event> {
    model::prelude(cpus)
}

#[cfg(test)]
mod tests;
