//! Whether states that are not told apart behave alike.

use super::{Explored, Scope, model::Model, model::State};
use crate::{check::Group, fpu::policy::Builtin};
use alloc::{collections::VecDeque, vec::Vec};
use stateright::Model as _;
use std::collections::HashMap;

/// What can happen in a state, each as what it leads to.
fn successors(model: &Model<Explored>, state: &State) -> Vec<u64> {
    let mut all: Vec<_> = model.next_states(state).iter().map(State::canonical).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Goes through a scope, and holds every state against the first that it is not told apart from: both lead to the same.
fn assert_alike(policy: Builtin, scope: Scope, most: usize) {
    let model = Model::new(Explored::from(policy), scope.clone()).expect("a scope");
    let mut known: HashMap<u64, (State, Vec<u64>)> = HashMap::new();
    let mut queue: VecDeque<_> = model.init_states().into();
    let mut n = 0_u32;
    while let Some(state) = {
        n = n.wrapping_mul(747796405).wrapping_add(12345);
        if n >> 31 == 0 { queue.pop_back() } else { queue.pop_front() }
    } {
        if known.len() > most {
            return;
        }
        let next = successors(&model, &state);
        match known.get(&state.canonical()) {
            None => {
                queue.extend(model.next_states(&state));
                known.insert(state.canonical(), (state, next));
            }
            Some((first, _)) if *first == state => {}
            Some((first, same)) if *same == next => {
                let _ = first;
            }
            Some((first, same)) => {
                let only = |a: &[u64], b: &[u64], of: &State| {
                    let steps = model.next_steps(of);
                    let missing = steps
                        .into_iter()
                        .filter(|(_, s)| !b.contains(&s.canonical()) && a.contains(&s.canonical()));
                    missing.map(|(o, s)| (o, s)).collect::<Vec<_>>()
                };
                let again = [successors(&model, first), successors(&model, &state)];
                std::eprintln!(
                    "{} {} {} {}",
                    *same == again[0],
                    next == again[1],
                    again[0] == again[1],
                    same.len()
                );
                std::eprintln!(
                    "{:?}\n{:?}",
                    same.iter().filter(|x| !again[0].contains(x)).count(),
                    next.iter().filter(|x| !again[1].contains(x)).count()
                );
                for (o, s) in model.next_steps(first) {
                    if !same.contains(&s.canonical()) {
                        std::eprintln!("new {o:?} {s:?}");
                    }
                }
                panic!(
                    "{} {scope}: not alike:\n{first:?}\n{state:?}\n only the first:\n{:#?}\n only the second:\n{:#?}",
                    policy_name(policy),
                    only(same, &next, first),
                    only(&next, same, &state)
                );
            }
        }
    }
}

fn policy_name(policy: Builtin) -> &'static str {
    crate::fpu::Policy::name(&policy)
}

#[test]
fn states_that_are_not_told_apart_lead_to_the_same() {
    for group in [Group::Dynamic, Group::Signals] {
        assert_alike(Builtin::OwnerSlot, Scope::with([group]), 2_000_000);
    }
}
