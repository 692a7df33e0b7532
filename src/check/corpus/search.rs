//! Searching for the bugs of the corpus.

use super::{Bug, Defective, Tier, bugs};
use crate::{
    Event, EventFile,
    check::{Breach, Explored, Invariant, Judge, Planted, Scope, ScopeError, Steps, explore::search},
    fpu::{PkruMode, Policy},
    machine::Machine,
};
use alloc::vec::Vec;

/// What became of the search for a bug.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The bug.
    pub bug: &'static Bug,
    /// What is broken behind the last of the events; `None` if nothing was found.
    pub breach: Option<Breach>,
    /// A shortest list, or none.
    pub events: Vec<Event>,
    /// The states gone through: with one thread, the same every time.
    pub states: usize,
}

impl Finding {
    /// Which invariant is broken.
    pub fn invariant(&self) -> Option<Invariant> {
        self.breach.as_ref().map(|breach| breach.invariant)
    }

    /// How long the list is ([`length`]).
    pub fn length(&self) -> usize {
        length(&self.events)
    }
}

/// How long a list is behind its [beginning](crate::check::beginning). A switch and a kernel FPU section count one each; an
/// attempt to write or to read a signal frame counts with what leads to it; what user code writes, and what becomes of
/// frames, counts nothing.
///
/// ```
/// use fpuswitch::{EventFile, check::corpus::length};
/// let file: EventFile = "spawn T0\nkernel-thread T1\nin c0 T0\nreturn c0 T0\nuser-write c0 AVX 1\n\
///     entry c0 interrupt\nout c0\nin c0 T1\nkernel-fpu-begin c0 softirq\nkernel-fpu-end c0".parse()?;
/// let events: Vec<_> = file.events.into_iter().map(|(_, event)| event).collect();
/// assert_eq!(length(&events), 3); // an entry, a switch, a section
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn length(events: &[Event]) -> usize {
    let runs = events.iter().position(|event| matches!(event, Event::UserWrite(..) | Event::Return(..)));
    let begins =
        |event: &Event| matches!(event, Event::UserWrite(..) | Event::FirstUse(_) | Event::ScheduleIn(..));
    let behind = events.iter().skip(runs.map_or(0, |at| at + 1)).skip_while(|event| begins(event));
    let mut before = None;
    let counts = behind.filter(|event| {
        let is_second =
            matches!((before, event), (Some(Event::ScheduleOut(_)), Event::ScheduleIn(..) | Event::Idle(_)));
        before = Some(**event);
        let is_free = matches!(
            event,
            Event::UserWrite(..)
                | Event::UserPkru(..)
                | Event::Frame(..)
                | Event::KernelFpuEnd(_)
                | Event::SignalDeliver(_)
                | Event::SignalFaultIn(_)
                | Event::SigReturn(_)
        );
        !is_second && !is_free
    });
    counts.count()
}

/// The scope in which a bug is searched for: the core and the groups that it needs, with one thread.
pub fn scope(bug: &Bug, judge: Judge) -> Scope {
    let pkru_mode = if bug.pkru_in_xsave { PkruMode::InXsave } else { PkruMode::Eager };
    Scope { judge, pkru_mode, ..Scope::with(bug.groups.iter().copied()) }
}

/// Searches for a bug under the policy that it names: explores, or, where it takes bytes, lets its list happen on
/// [`Defective`] software registers.
///
/// ```
/// use fpuswitch::check::{Judge, corpus::{bugs, find}};
/// let bug = bugs().iter().find(|bug| bug.id == "write-without-save").unwrap();
/// let finding = find(bug, Judge::Invariants);
/// assert_eq!((finding.invariant(), finding.length()), (Some(bug.invariant), 1));
/// // User code finds what is wrong when it runs again.
/// assert_eq!(find(bug, Judge::UserCode).length(), 2);
/// ```
pub fn find(bug: &'static Bug, judge: Judge) -> Finding {
    let policy = Explored::from(bug.policy);
    match find_under(policy, bug, judge) {
        Ok(finding) => finding,
        // No bug names a policy that its scope is not for.
        Err(_) => Finding { bug, breach: None, events: Vec::new(), states: 0 },
    }
}

/// The same under another policy, which may be right even so: not every policy relies on what is wrong.
///
/// # Errors
/// [`ScopeError`] for a policy that cannot do with what the bug needs.
pub fn find_under<P: Policy + Send + Sync + 'static>(
    policy: P,
    bug: &'static Bug,
    judge: Judge,
) -> Result<Finding, ScopeError> {
    let planted = Planted { policy, defect: bug.defect };
    if bug.tier != Tier::Explorer {
        return Ok(replay(bug, planted));
    }
    let (counts, violation) = search(planted, &scope(bug, judge), |_| ())?;
    let states = counts.states;
    Ok(match violation {
        Some(found) => Finding { bug, breach: Some(found.breach().clone()), events: found.events(), states },
        None => Finding { bug, breach: None, events: Vec::new(), states },
    })
}

/// Searches for every bug of the corpus under a policy.
///
/// # Errors
/// As [`find_under`].
///
/// ```no_run
/// use fpuswitch::{check::corpus, fpu::policy::OwnerSlot};
/// for finding in corpus::corpus(OwnerSlot)? {
///     println!("{}: {:?} in {} states", finding.bug.id, finding.invariant(), finding.states);
/// }
/// # Ok::<(), fpuswitch::check::ScopeError>(())
/// ```
pub fn corpus<P: Policy + Send + Sync + 'static>(policy: P) -> Result<Vec<Finding>, ScopeError> {
    bugs().iter().map(|bug| find_under(policy.clone(), bug, Judge::Invariants)).collect()
}

/// Lets the list of a bug happen on registers with bytes.
fn replay<P: Policy>(bug: &'static Bug, policy: P) -> Finding {
    let regs = Defective::software(Some(bug.defect));
    let file: EventFile = bug.events.parse().unwrap_or_default();
    let mut steps = Steps::new(Machine::with_registers(policy, file.cpus(), regs));
    let breach = file.events.iter().find_map(|(_, event)| steps.apply(*event).ok()?.err());
    let events: Vec<_> = steps.events().collect();
    Finding { bug, breach, states: events.len(), events }
}
