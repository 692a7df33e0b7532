//! Negative controls: errors that the checker must find, by hand-written lists, by a search of all lists, and
//! by the random lists that the other tests rely on.
//!
//! An error in the claims is *latent* at first: I5 names it when registers and image of a claimed task differ.
//! A program sees it only when something trusts the claim, which not every policy does.

mod support;

use fpuswitch::{
    Event,
    check::{Invariant, Planted},
    fpu::{Defect, Policy, policy::Builtin},
};
use std::collections::HashSet;
use support::{
    Broken, Checked, Losing, Stopped, Trap, Wrong, any_event, choices, events, fixed_choices, random,
};

/// What the search of all lists picks from: one CPU, two tasks, one value.
const ALPHABET: &str = "
    spawn T0; in c0 T0; return c0 T0; entry c0 interrupt; out c0; idle c0
    spawn T1; in c0 T1; return c0 T1; user-write c0 AVX 1; write T0 AVX 1; read T0 AVX; first-use c0
    copy-to-cpu c0; move-to-cpu c0; copy-to-memory c0; move-to-memory c0; invalidate-registers c0
    kernel-fpu-begin c0 softirq; kernel-fpu-end c0; fork c0 T1; exec c0; exit c0; power-loss c0
    signal-deliver c0; signal-save c0; signal-enter c0; sigreturn c0; sigreturn-load c0";

/// Checks an event in full, or with [`Checked::watch`].
type Check<P> = fn(&mut Checked<P>, Event) -> Result<(), Stopped>;

fn in_full<P: Policy>(checked: &mut Checked<P>, event: Event) -> Result<(), Stopped> {
    checked.apply(event).map(drop)
}

/// The first list of events that breaks something, of all with at most `most` events from the alphabet, the
/// shortest first. Lists that lead to the same state count once.
fn shortest<P: Policy>(policy: P, most: usize, check: Check<P>) -> Option<Broken> {
    let alphabet = events(ALPHABET);
    let mut known = HashSet::new();
    let mut level = vec![Checked::new(policy, 1)];
    for _ in 0..most {
        let mut next = Vec::new();
        for (state, event) in level.iter().flat_map(|state| alphabet.iter().map(move |event| (state, *event)))
        {
            let mut state = state.clone();
            match check(&mut state, event) {
                Ok(()) if known.insert((state.machine.clone(), state.spec.clone())) => next.push(state),
                Ok(()) | Err(Stopped::Refused(_)) => {}
                Err(Stopped::Broken(broken)) => return Some(broken),
            }
        }
        level = next;
    }
    None
}

/// Asserts that `list` breaks something with its last event, and that no shorter one does. Returns what.
#[track_caller]
fn assert_shortest<P: Policy>(policy: P, list: &str, check: Check<P>) -> Wrong {
    let list = events(list);
    if let Some(shorter) = shortest(policy.clone(), list.len() - 1, check) {
        panic!("{}: {shorter}", policy.name());
    }
    let mut checked = Checked::new(policy.clone(), 1);
    let mut results = list.iter().map(|event| check(&mut checked, *event));
    let last = results.next_back();
    assert!(results.all(|result| result.is_ok()), "{}: {list:?}", policy.name());
    match last {
        Some(Err(Stopped::Broken(broken))) => broken.wrong,
        other => panic!("{}: expected {list:?} to be caught, got {other:?}", policy.name()),
    }
}

fn assert_breaks(invariant: Invariant, wrong: &Wrong) {
    match wrong {
        Wrong::Invariant(violation) if violation.invariant == invariant => {}
        other => panic!("expected {invariant} to be broken, got {other:?}"),
    }
}
#[test]
fn explore() {
    for policy in Builtin::ALL {
        for defect in [Defect::KernelFpuKeepsOwner, Defect::WriteKeepsLastCpu] {
            for check in [in_full as Check<Planted<Builtin>>, Checked::watch] {
                println!(
                    "{} {defect:?} {}",
                    policy.name(),
                    shortest(Planted { policy, defect }, 100, check).map_or("none".into(), |b| b.to_string())
                );
            }
        }
        println!(
            "{} losing {}",
            policy.name(),
            shortest(support::Losing(policy), 6, in_full).map_or("none".into(), |b| b.to_string())
        );
    }
    for defect in [Defect::KernelFpuKeepsOwner, Defect::WriteKeepsLastCpu] {
        for check in [in_full as Check<Planted<Trap>>, Checked::watch] {
            println!(
                "TRAP {defect:?} {}",
                shortest(Planted { policy: Trap, defect }, 100, check)
                    .map_or("none".into(), |b| b.to_string())
            );
        }
    }
}
