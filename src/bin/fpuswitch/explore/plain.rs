//! An exploration of the mechanism as it is.

use super::{Arguments, json, write_events};
use crate::{Status, complain, print};
use fpuswitch::{
    check::{Counts, ExploreError, Explored, Progress, Scope, explore_with},
    fpu::Policy,
};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    fmt,
    io::{self, IsTerminal},
    time::Instant,
};

pub(super) fn explore(policy: Explored, arguments: &Arguments) -> Status {
    let scope = arguments.scope();
    let bar = bar();
    let mut last = Progress { states: 0, transitions: 0 };
    let begun = Instant::now();
    let explored = explore_with(policy, &scope, |progress| {
        last = progress;
        if let Some(bar) = &bar {
            bar.set_message(format!("{} states, {} transitions", progress.states, progress.transitions));
            bar.tick();
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    match explored {
        Ok(counts) => {
            let status = if counts.never.is_empty() { Status::Fine } else { Status::Finding };
            if arguments.json {
                status.max(json::print_line(&json::Exploration::new(arguments, &scope, counts)))
            } else {
                print(format_args!("{}, {}\n", policy.name(), Shown { scope: &scope, counts, seconds }));
                status
            }
        }
        Err(ExploreError::Violation(found)) => {
            let printed = if arguments.json {
                let (breach, events) = (found.breach(), found.events());
                json::print_line(&json::Exploration::broken(arguments, &scope, last, breach, &events))
            } else {
                print(format_args!("{found}"));
                Status::Fine
            };
            Status::Finding.max(printed).max(write_events(&found, arguments))
        }
        Err(ExploreError::Scope(error)) => complain("explore", &error),
    }
}

/// How far it is, on a terminal.
fn bar() -> Option<ProgressBar> {
    let bar = io::stderr().is_terminal().then(ProgressBar::new_spinner)?;
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    Some(bar)
}

/// What an exploration went through.
struct Shown<'a> {
    scope: &'a Scope,
    counts: Counts,
    seconds: f64,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { states, transitions, depth, reached, never } = &self.counts;
        let per_second = *states as f64 / self.seconds.max(f64::MIN_POSITIVE);
        let threads = self.scope.threads;
        let plural = if threads == 1 { "" } else { "s" };
        writeln!(f, "{}: no violation", self.scope)?;
        writeln!(f, "{states} states, {transitions} transitions, depth {depth}")?;
        writeln!(f, "{:.1} s, {per_second:.0} states/s, {threads} thread{plural}", self.seconds)?;
        write!(f, "reached:")?;
        reached.iter().try_for_each(|situation| write!(f, "\n  {situation}"))?;
        if never.is_empty() {
            return write!(f, "\nnever reached: nothing that ought to be");
        }
        write!(f, "\nnever reached, though they ought to be:")?;
        never.iter().try_for_each(|situation| write!(f, "\n  {situation}"))
    }
}
