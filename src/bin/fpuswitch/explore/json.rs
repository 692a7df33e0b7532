//! An exploration as JSON.

use super::Arguments;
use crate::{Status, bug::NamedBug, complain, print};
use fpuswitch::{
    Event,
    check::{Breach, Counts, Group, Progress, Scope, corpus::Finding},
    fpu::Policy,
};
use serde::Serialize;

/// An exploration. What a violation leaves unknown is null.
#[derive(Serialize)]
pub(super) struct Exploration {
    policy: &'static str,
    defect: Option<&'static str>,
    scope: InScope,
    states: usize,
    transitions: Option<usize>,
    depth: Option<usize>,
    reached: Option<Vec<&'static str>>,
    never: Option<Vec<&'static str>>,
    violation: Option<Broken>,
}

#[derive(Serialize)]
struct InScope {
    cpus: usize,
    tasks: usize,
    groups: Vec<&'static str>,
}

#[derive(Serialize)]
struct Broken {
    invariant: String,
    what: String,
    events: Vec<String>,
}

impl Exploration {
    pub(super) fn new(arguments: &Arguments, scope: &Scope, counts: Counts) -> Self {
        let Counts { states, transitions, depth, reached, never } = counts;
        let (transitions, depth) = (Some(transitions), Some(depth));
        Self {
            transitions,
            depth,
            reached: Some(reached),
            never: Some(never),
            ..Self::of(arguments, scope, states)
        }
    }

    /// One that ended with a violation. The counts are those of the last report.
    pub(super) fn broken(
        arguments: &Arguments,
        scope: &Scope,
        progress: Progress,
        breach: &Breach,
        events: &[Event],
    ) -> Self {
        let transitions = Some(progress.transitions);
        let violation = Some(Broken::new(breach, events));
        Self { transitions, violation, ..Self::of(arguments, scope, progress.states) }
    }

    /// What became of the search for a bug.
    pub(super) fn found(arguments: &Arguments, scope: &Scope, finding: &Finding) -> Self {
        let violation = finding.breach.as_ref().map(|breach| Broken::new(breach, &finding.events));
        Self { violation, ..Self::of(arguments, scope, finding.states) }
    }

    fn of(arguments: &Arguments, scope: &Scope, states: usize) -> Self {
        let groups = scope.groups.iter().copied().map(Group::name).collect();
        Self {
            policy: arguments.policy().name(),
            defect: arguments.defect.map(|NamedBug(bug)| bug.id),
            scope: InScope { cpus: scope.cpus, tasks: scope.tasks, groups },
            states,
            transitions: None,
            depth: None,
            reached: None,
            never: None,
            violation: None,
        }
    }
}

impl Broken {
    fn new(breach: &Breach, events: &[Event]) -> Self {
        let events = events.iter().map(Event::to_string).collect();
        Self { invariant: breach.invariant.to_string(), what: breach.what.clone(), events }
    }
}

/// A bug of the corpus, and what became of the search for it.
#[derive(Serialize)]
pub(super) struct Bug {
    id: &'static str,
    found: bool,
    invariant: Option<String>,
    events: usize,
    states: usize,
}

impl Bug {
    pub(super) fn new(finding: &Finding) -> Self {
        let invariant = finding.invariant().map(|invariant| invariant.to_string());
        let found = invariant.is_some();
        Self { id: finding.bug.id, found, invariant, events: finding.length(), states: finding.states }
    }
}

/// Prints a line.
pub(super) fn print_line(line: &impl Serialize) -> Status {
    match serde_json::to_string(line) {
        Ok(line) => {
            print(format_args!("{line}\n"));
            Status::Fine
        }
        Err(error) => complain("explore", &error),
    }
}
