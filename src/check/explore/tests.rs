//! Whether states that are not told apart behave alike.

use super::{
    Explored, Scope,
    model::{Model, State},
};
use crate::{check::Group, fpu::policy::Builtin};
use alloc::{collections::VecDeque, vec::Vec};
use stateright::Model as _;
use std::collections::{HashMap, hash_map::Entry};

/// What can happen in a state, as what it leads to.
fn leads_to(model: &Model<Explored>, state: &State) -> Vec<u64> {
    let mut all: Vec<_> = model.next_states(state).iter().map(State::canonical).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Goes through the first states of a scope, some deep and some wide, and holds each against the first that it is not told
/// apart from: the same can happen in both, and leads to the same. Returns how often two were different otherwise.
fn assert_alike(policy: Builtin, scope: Scope, most: usize) -> usize {
    let model = Model::new(Explored::from(policy), scope.clone()).expect("a scope");
    let mut known: HashMap<u64, (State, Vec<u64>)> = HashMap::new();
    let mut queue: VecDeque<_> = model.init_states().into();
    let (mut number, mut pairs) = (1_u32, 0);
    loop {
        // Which of several states comes first must not matter: any order will do, and a mixed one finds more.
        number = number.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        let next = if number >> 31 == 0 { queue.pop_back() } else { queue.pop_front() };
        let Some(state) = next.filter(|_| known.len() < most) else { return pairs };
        let next = leads_to(&model, &state);
        match known.entry(state.canonical()) {
            Entry::Vacant(new) => {
                queue.extend(model.next_states(&state));
                new.insert((state, next));
            }
            Entry::Occupied(known) => {
                let (first, same) = known.get();
                let only = |these: &[u64], those: &[u64], of: &State| -> Vec<_> {
                    let is_only = |next: &State| {
                        these.contains(&next.canonical()) && !those.contains(&next.canonical())
                    };
                    model.next_steps(of).into_iter().filter(|(_, next)| is_only(next)).collect()
                };
                assert!(
                    *same == next,
                    "{scope}: not alike:\n{first:?}\n{state:?}\nthe first alone: {:#?}\nthe second alone: {:#?}",
                    only(same, &next, first),
                    only(&next, same, &state)
                );
                pairs += usize::from(*first != state);
            }
        }
    }
}

#[test]
fn states_that_are_not_told_apart_lead_to_the_same() {
    let most = if cfg!(debug_assertions) { 60 } else { 5_000 };
    let mut pairs = 0;
    for group in Group::ALL {
        for policy in [Builtin::OwnerSlot, Builtin::FullLazy, Builtin::CallBoundary] {
            pairs += assert_alike(policy, Scope::with([group]), most);
        }
    }
    for policy in Builtin::ALL {
        pairs += assert_alike(policy, Scope::default(), most);
        pairs += assert_alike(policy, Scope { cpus: 3, ..Scope::default() }, most / 10);
        pairs += assert_alike(policy, Scope { tasks: 3, ..Scope::default() }, most / 10);
    }
    assert!(pairs > 1_000, "{pairs} pairs are too few to say anything");
}
