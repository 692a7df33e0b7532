//! The machine as a model for stateright.

use super::{
    Scope,
    bench::Bench,
    canonical,
    operations::{self, Operation},
};
use crate::{
    Component, CpuId, EntryKind, Event, TaskId, Value,
    check::{Invariant, spec_for},
    fpu::Policy,
    machine::Machine,
    registers::AbstractRegs,
};
use alloc::{boxed::Box, vec, vec::Vec};
use core::{
    cell::RefCell,
    fmt,
    hash::{Hash, Hasher},
};
use stateright::Property;
use thread_local::ThreadLocal;

/// A state, packed, with one number for all that differ from it in names alone.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct State {
    /// What is broken, 0 for nothing, and the state.
    packed: Box<[u8]>,
    canonical: u64,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.canonical);
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.packed)
    }
}

/// What a thread works on, and what it knows of the last state that was there.
struct Desk<P> {
    bench: Bench<P>,
    known: Box<[u8]>,
    broken: Option<Invariant>,
}

pub(super) struct Model<P: Send> {
    pub(super) scope: Scope,
    start: Bench<P>,
    desks: ThreadLocal<RefCell<Desk<P>>>,
    most_uses: u8,
}

/// How everything begins: a user task in user mode on the first CPU, kernel threads on the others.
pub(super) fn prelude<P: Policy>(cpus: usize) -> Vec<Event> {
    let (a, c0) = (TaskId::first(0), CpuId(0));
    let cpus = (0..cpus as u32).map(CpuId);
    let value = |n| Value::new(n).unwrap_or(Value::INITIAL);
    let mut events = vec![Event::Spawn(a)];
    events.extend(cpus.clone().map(|cpu| Event::KernelThread(Bench::<P>::kernel_thread(cpu))));
    events.extend([Event::ScheduleIn(c0, a), Event::Return(c0, a), Event::FirstUse(c0)]);
    events.push(Event::UserWrite(c0, Component::SSE, value(1)));
    events.push(Event::UserWrite(c0, Component::AVX, value(2)));
    events.extend(cpus.skip(1).map(|cpu| Event::ScheduleIn(cpu, Bench::<P>::kernel_thread(cpu))));
    events
}

impl<P: Policy + Send> Model<P> {
    pub(super) fn new(machine: Machine<AbstractRegs, P>, scope: Scope) -> Self {
        let spec = spec_for(machine.cpus()[0].regs(), machine.policy());
        let most_uses = u8::MAX;
        let mut start = Bench::new(machine, spec, scope.tasks);
        for event in prelude::<P>(start.cpus()) {
            let _ = start.apply(event);
        }
        start.machine.grow_slots(start.cpus() + scope.tasks);
        Self { scope, start, desks: ThreadLocal::new(), most_uses }
    }

    fn on_desk<T>(&self, work: impl FnOnce(&mut Desk<P>) -> T) -> T {
        let new = || RefCell::new(Desk { bench: self.start.clone(), known: Box::default(), broken: None });
        work(&mut self.desks.get_or(new).borrow_mut())
    }

    fn state(&self, bench: &mut Bench<P>, broken: Option<Invariant>) -> State {
        let mark = broken.map_or(0, |invariant| 1 + invariant as u8);
        let packed = bench.pack(mark, self.most_uses);
        State { packed, canonical: canonical::fingerprint(bench, self.most_uses) ^ u64::from(mark) }
    }

    /// Lets an operation happen. `None` if it is refused.
    fn happen(&self, bench: &mut Bench<P>, operation: Operation) -> Option<Option<Invariant>> {
        let mut happened = false;
        let mut last = None;
        for event in operation.events() {
            if happened && let Event::UserWrite(_, Component::SSE, _) = event && let Err(breach) = bench.check() {
                return Some(Some(breach.invariant));
            }
            match bench.apply(event) {
                Err(_) if !happened => return None,
                Err(_) => {}
                Ok(Err(breach)) => return Some(Some(breach.invariant)),
                Ok(Ok(())) => { last = Some(event); happened = true },
            }
        }
        let _ = last;
        Some(None)
    }

    pub(super) fn broken(&self, state: &State) -> Option<Invariant> {
        self.on_desk(|desk| {
            if desk.known != state.packed {
                desk.broken = match state.packed.first() {
                    Some(0) => {
                        desk.bench.unpack(&state.packed);
                        desk.bench.check().err().map(|breach| breach.invariant)
                    }
                    mark => Invariant::ALL.into_iter().find(|one| mark == Some(&(1 + *one as u8))),
                };
                desk.known.clone_from(&state.packed);
            }
            desk.broken
        })
    }
}

impl<P: Policy + Send + Sync + 'static> stateright::Model for Model<P> {
    type State = State;
    type Action = Operation;

    fn init_states(&self) -> Vec<State> {
        let mut bench = self.start.clone();
        vec![self.state(&mut bench, None)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Operation>) {
        self.on_desk(|desk| {
            if state.packed.first() == Some(&0) {
                desk.bench.unpack(&state.packed);
                operations::operations(&mut desk.bench, &self.scope, actions);
            }
        });
    }

    fn next_state(&self, state: &State, operation: Operation) -> Option<State> {
        self.on_desk(|desk| {
            desk.bench.unpack(&state.packed);
            let broken = self.happen(&mut desk.bench, operation)?;
            Some(self.state(&mut desk.bench, broken))
        })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! always {
            ($($invariant:ident)*) => {
                vec![$(Property::always(stringify!($invariant), |model: &Self, state| {
                    model.broken(state) != Some(Invariant::$invariant)
                })),*]
            };
        }
        always!(I1 I2 I3 I4 I5 I6 I7 I8 I9 I10 I11 I12 I13)
    }
}
