//! Negative controls: planted errors that the checker must find.

mod support;

use fpuswitch::{
    check::{Invariant, Planted, Spec},
    fpu::{Defect, Policy, policy::Builtin},
    machine::Machine,
    registers::AbstractRegs,
};
use std::collections::HashSet;
use support::{Broken, Checked, Stopped, Wrong, events};

const ALPHABET: &str = "
    spawn T0; spawn T1; in c0 T0; in c0 T1; out c0; return c0 T0; return c0 T1; entry c0 system-call
    user-write c0 AVX 1; write T0 AVX 1; read T0 AVX; copy-to-cpu c0; move-to-cpu c0; copy-to-memory c0
    kernel-fpu-begin c0 softirq; kernel-fpu-end c0; fork c0 T1; exec c0; exit c0; idle c0
    signal-deliver c0; signal-save c0; signal-enter c0; sigreturn c0; sigreturn-load c0";

fn shortest<P: Policy>(policy: P, most: usize, invariants: bool) -> Option<Broken> {
    let alphabet = events(ALPHABET);
    let mut seen: HashSet<(Machine<AbstractRegs, P>, Spec)> = HashSet::new();
    let mut level = vec![Checked::new(policy, 1)];
    for _ in 0..most {
        let mut next = Vec::new();
        for state in level {
            for event in &alphabet {
                let mut state = state.clone();
                if invariants {
                match state.apply(*event) {
                    Ok(_) => {}
                    Err(Stopped::Refused(_)) => continue,
                    Err(Stopped::Broken(broken)) => return Some(broken),
                } } else {
                    let Ok(outcome) = state.follow(*event) else { continue };
                    if let Err(what) = state.seen(*event, outcome) {
                        return Some(Broken { wrong: Wrong::Seen(what), events: state.events });
                    }
                }
                if seen.insert((state.machine.clone(), state.spec.clone())) {
                    next.push(state);
                }
            }
        }
        println!("{}", next.len());
        level = next;
    }
    None
}

#[test]
fn explore() {
    for policy in Builtin::ALL {
        for defect in [Defect::KernelFpuKeepsOwner, Defect::WriteKeepsLastCpu] {
            for inv in [true, false] {
            println!("{} {defect:?} {inv} {}", policy.name(), shortest(Planted { policy, defect }, 10, inv).map_or("none".into(), |b|b.to_string()));
        }
        }
        println!("{} losing {}", policy.name(), shortest(support::Losing(policy), 6, true).map_or("none".into(), |b|b.to_string()));
    }
}
