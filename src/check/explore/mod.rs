//! Every state that a machine can reach.

mod bench;
mod canonical;
mod model;
mod operations;
mod pack;

use super::Group;
use crate::{fpu::{PkruMode, Policy}, machine::Machine, registers::AbstractRegs};
use alloc::{collections::BTreeSet, vec::Vec};
use stateright::{Checker, HasDiscoveries, Model as _};

/// How large a machine is explored, and what happens to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// CPUs, 1 to 3.
    pub cpus: usize,
    /// Slots for user tasks, 1 to 3.
    pub tasks: usize,
    /// Groups of operations beside the core.
    pub groups: BTreeSet<Group>,
    /// Threads that search.
    pub threads: usize,
    /// How PKRU is switched.
    pub pkru_mode: PkruMode,
}

impl Default for Scope {
    fn default() -> Self {
        Self { cpus: 2, tasks: 2, groups: BTreeSet::new(), threads: 1, pkru_mode: PkruMode::Eager }
    }
}

/// What an exploration went through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// States.
    pub states: usize,
    /// Transitions.
    pub transitions: usize,
    /// depth.
    pub depth: usize,
}

/// explore
pub fn explore<P: Policy + Send + Sync + 'static>(policy: P, scope: Scope) -> Result<Counts, Vec<alloc::string::String>> {
    let machine = Machine::<AbstractRegs, _>::new(policy, scope.cpus);
    let threads = scope.threads;
    let model = model::Model::new(machine, scope);
    let checker = model.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discoveries();
    if let Some((name, path)) = found.into_iter().min_by_key(|(_, path)| path.clone().into_actions().len()) {
        let mut out: Vec<_> = path.into_actions().into_iter().map(|op| alloc::format!("{op:?}")).collect();
        out.push(name.into());
        return Err(out);
    }
    Ok(Counts { states: checker.unique_state_count(), transitions: checker.state_count(), depth: checker.max_depth() })
}
