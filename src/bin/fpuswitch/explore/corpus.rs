//! The bugs of the corpus: one, and all.

use super::{Arguments, json, write_events};
use crate::{Named, Status, complain, print};
use fpuswitch::{
    EventFile,
    check::{
        ExploreError, Explored, Judge, Planted, Scope, ScopeError, Violation,
        corpus::{Bug, Defective, Finding, OUT_OF_SCOPE, Tier, bugs, find, find_under, scope},
        explore,
    },
    fpu::Policy,
    machine::Machine,
    registers::{AbstractRegs, UserFrames},
};
use std::{
    collections::HashMap,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

/// Searches for a bug, and prints how it shows.
pub(super) fn one(bug: &'static Bug, arguments: &Arguments) -> Status {
    let policy = Explored::from(arguments.policy());
    let scope = scope(bug, arguments.judge());
    let finding = match find_under(policy, bug, scope.judge) {
        Ok(finding) => finding,
        Err(error) => return complain("explore", &error),
    };
    let status = if is_as_expected(&finding, arguments) { Status::Fine } else { Status::Finding };
    let status = if arguments.json {
        status.max(json::print_line(&json::Exploration::found(arguments, &scope, &finding)))
    } else {
        print_finding(&finding, policy, &scope);
        status
    };
    if finding.breach.is_none() {
        return status;
    }
    let planted = Planted { policy, defect: bug.defect };
    let shown = if bug.tier == Tier::Explorer {
        violation(planted, &scope, &finding).map(|found| show(found.as_ref(), arguments))
    } else {
        let cpus = bug.events.parse::<EventFile>().map_or(1, |file| file.cpus());
        let machine = Machine::with_registers(planted, cpus, Defective::software(Some(bug.defect)));
        Ok(show(Violation::behind(machine, &finding.events).as_ref(), arguments))
    };
    status.max(shown.unwrap_or_else(|error| complain("explore", &error)))
}

/// The violation at the end of what was found.
fn violation<P: Policy + Send + Sync + 'static>(
    policy: P,
    scope: &Scope,
    finding: &Finding,
) -> Result<Option<Violation<AbstractRegs, P>>, ScopeError> {
    match scope.judge {
        Judge::Invariants => {
            let machine = Machine::new(policy, scope.cpus).with_pkru(scope.pkru_mode)?;
            Ok(Violation::behind(machine, &finding.events))
        }
        // There are other breaches before it.
        Judge::UserCode => match explore(policy, scope) {
            Ok(_) => Ok(None),
            Err(ExploreError::Violation(found)) => Ok(Some(*found)),
            Err(ExploreError::Scope(error)) => Err(error),
        },
    }
}

fn show<R: UserFrames, P: Policy>(found: Option<&Violation<R, P>>, arguments: &Arguments) -> Status {
    let Some(found) = found else { return Status::Fine };
    if !arguments.json {
        print(format_args!("\n{found}"));
    }
    write_events(found, arguments)
}

fn print_finding(finding: &Finding, policy: Explored, scope: &Scope) {
    let Bug { id, number, system, source, what, harmless, .. } = finding.bug;
    let year = if finding.bug.year == 0 { String::new() } else { format!(", {}", finding.bug.year) };
    print(format_args!("{id} ({number}; {system}{year}; {source}): {what}\n"));
    let on = if finding.bug.tier == Tier::Explorer {
        scope.to_string()
    } else {
        String::from("software registers")
    };
    print(format_args!("{}, {on}: ", policy.name()));
    let states = finding.states;
    match (finding.invariant(), harmless) {
        (Some(invariant), false) if finding.bug.tier == Tier::Explorer => {
            print(format_args!("{invariant} is broken, length {}, {states} states\n", finding.length()));
        }
        (Some(invariant), _) => print(format_args!("{invariant} is broken, length {}\n", finding.length())),
        (None, true) => print(format_args!("nothing is broken in {states} states: it is harmless\n")),
        (None, false) => print(format_args!("nothing is broken in {states} states\n")),
    }
}

/// Whether what was found is what the catalogue says; under a policy that was asked for, whether anything was, and of
/// what user code sees alike.
fn is_as_expected(finding: &Finding, arguments: &Arguments) -> bool {
    let bug = finding.bug;
    match finding.invariant() {
        None => bug.harmless,
        Some(_) if bug.harmless => false,
        Some(invariant) => arguments.policy.is_some() || arguments.user_code || invariant == bug.invariant,
    }
}

/// Searches for every bug, and prints a line for each.
pub(super) fn all(arguments: &Arguments) -> Status {
    let mut status = Status::Fine;
    let mut unexpected = Vec::new();
    if !arguments.json {
        let [number, id, invariant, length, states, what] =
            ["number", "id", "broken", "length", "states", "what"];
        print(format_args!("{number:<8}  {id:<26}  {invariant:<6}  {length:>6}  {states:>8}  {what}\n"));
    }
    in_order(
        |bug| search(bug, arguments),
        |bug, found| {
            let finding = match found {
                Ok(finding) => finding,
                Err(error) => {
                    status = complain(bug.id, &error);
                    return;
                }
            };
            let may_be_missed = arguments.policy.is_some() || arguments.user_code;
            let is_fine =
                finding.invariant().is_none() && may_be_missed || is_as_expected(&finding, arguments);
            if !is_fine {
                status = status.max(Status::Finding);
                unexpected.push(bug);
            }
            if arguments.json {
                status = status.max(json::print_line(&json::Bug::new(&finding)));
            } else {
                print_row(&finding);
            }
        },
    );
    if arguments.json {
        return status;
    }
    print(format_args!("\nOut of scope:\n"));
    for (number, what, why) in OUT_OF_SCOPE {
        print(format_args!("{number:<8}  {what}: {why}\n"));
    }
    if !unexpected.is_empty() {
        let expected = |bug: &&Bug| {
            let expected = if bug.harmless { "nothing".into() } else { bug.invariant.to_string() };
            format!("{} ({expected})", bug.id)
        };
        let all = unexpected.iter().map(expected).collect::<Vec<_>>().join(", ");
        print(format_args!("\nNot as the catalogue says: {all}\n"));
    }
    status
}

fn search(bug: &'static Bug, arguments: &Arguments) -> Result<Finding, ScopeError> {
    match arguments.policy {
        Some(Named(policy)) => find_under(Explored::from(policy), bug, arguments.judge()),
        None => Ok(find(bug, arguments.judge())),
    }
}

/// Searches for all bugs, a thread a core, and hands each result on in the order of the catalogue as soon as it is there.
fn in_order<T: Send>(search: impl Fn(&'static Bug) -> T + Sync, mut hand_on: impl FnMut(&'static Bug, T)) {
    let next = AtomicUsize::new(0);
    let (found, all) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..super::cores() {
            let (next, search, found) = (&next, &search, found.clone());
            scope.spawn(move || {
                while let Some(bug) = bugs().get(next.fetch_add(1, Ordering::Relaxed)) {
                    // The receiver is there until all senders are gone.
                    let _ = found.send((bug.id, search(bug)));
                }
            });
        }
        drop(found);
        let mut waiting = HashMap::new();
        let mut bugs = bugs().iter().peekable();
        for (id, result) in all {
            waiting.insert(id, result);
            while let Some((bug, result)) = bugs.peek().and_then(|bug| Some((*bug, waiting.remove(bug.id)?)))
            {
                bugs.next();
                hand_on(bug, result);
            }
        }
    });
}

fn print_row(finding: &Finding) {
    let Bug { id, number, what, .. } = finding.bug;
    let states = finding.states;
    let (broken, length) = match finding.invariant() {
        Some(invariant) => (invariant.to_string(), finding.length().to_string()),
        None => ("–".into(), "–".into()),
    };
    print(format_args!("{number:<8}  {id:<26}  {broken:<6}  {length:>6}  {states:>8}  {what}\n"));
}
