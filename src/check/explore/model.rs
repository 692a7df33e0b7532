//! The machine as a model for stateright.

use super::{
    Judge, Scope, ScopeError,
    bench::Bench,
    canonical::{self, Tells},
    operations::{self, Operation},
    situations::{Situation, situations},
};
use crate::{
    Component, CpuId, EntryKind, Event, TaskId, Value,
    check::{Breach, Group, Invariant, check, check_seen, spec_for},
    fpu::{Policy, policy},
    machine::Machine,
    registers::AbstractRegs,
};
use alloc::{boxed::Box, format, string::String, vec, vec::Vec};
use core::{
    cell::RefCell,
    hash::{Hash, Hasher},
};
use stateright::Property;
use thread_local::ThreadLocal;

/// A state, packed, with one number for all that are not told apart from it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct State {
    /// CPUs, slots for user tasks, what is broken (0 for nothing), and the state.
    pub(super) packed: Box<[u8]>,
    canonical: u64,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.canonical);
    }
}

impl State {
    #[cfg(test)]
    pub(super) fn canonical(&self) -> u64 {
        self.canonical
    }

    fn broken(&self) -> Option<Invariant> {
        let mark = self.packed.get(Bench::<policy::OwnerSlot>::MARK_AT)?;
        Invariant::ALL.into_iter().find(|invariant| *mark == 1 + *invariant as u8)
    }
}

/// What a thread of the search works with.
struct Desk<P> {
    bench: Bench<P>,
    /// Which state lies there, if any, and what is broken in it.
    state: Box<[u8]>,
    broken: Option<Invariant>,
}

pub(super) struct Model<P: Policy + Send> {
    scope: Scope,
    /// A machine on which nothing has happened yet.
    new: Machine<AbstractRegs, P>,
    start: Bench<P>,
    desks: ThreadLocal<RefCell<Desk<P>>>,
    /// From this count of uses on, all are the same to the policy.
    most_uses: u8,
    tells: Tells,
    names_invariants: bool,
}

/// How everything begins. What user code writes is left out where the first-use trap is not armed, or is.
pub(super) fn prelude(cpus: usize) -> Vec<Event> {
    let (a, c0) = (TaskId::first(0), CpuId(0));
    let cpus = (0..cpus as u32).map(CpuId);
    let value = |n| Value::new(n).unwrap_or(Value::INITIAL);
    let mut events = vec![Event::Spawn(a)];
    events.extend(cpus.clone().map(|cpu| Event::KernelThread(kernel_thread(cpu))));
    events.extend([Event::ScheduleIn(c0, a), Event::Return(c0, a), Event::FirstUse(c0)]);
    events.push(Event::UserWrite(c0, Component::SSE, value(1)));
    events.push(Event::UserWrite(c0, Component::AVX, value(2)));
    events.extend(cpus.skip(1).map(|cpu| Event::ScheduleIn(cpu, kernel_thread(cpu))));
    events
}

/// The kernel thread of a CPU. The first slot is that of the first user task.
pub(super) fn kernel_thread(cpu: CpuId) -> TaskId {
    TaskId::first(1 + cpu.0)
}

impl<P: Policy + Send> Model<P> {
    pub(super) fn new(policy: P, scope: Scope) -> Result<Self, ScopeError> {
        scope.check(&policy)?;
        let most_uses = policy::most_uses_told_apart(&policy);
        let tells = Tells {
            calls: policy::tells_calls(&policy),
            exceptions: policy::tells_entry(&policy, EntryKind::Exception),
            trap: policy::may_keep_trap(&policy),
            fpu_free: policy::tells_fpu_free(&policy),
            initial: scope.groups.is_empty() || policy.defect().is_some(),
            pkru: scope.groups.contains(&Group::Pkru),
        };
        let new = Machine::new(policy, scope.cpus);
        let new = new.with_pkru(scope.pkru_mode).map_err(ScopeError::Pkru)?;
        let spec = spec_for(new.cpus()[0].regs(), new.policy());
        let mut start = Bench::new(new.clone(), spec, scope.tasks);
        for event in prelude(scope.cpus) {
            // A refusal is that of a first use without a trap.
            let _ = start.apply(event);
        }
        start.machine.grow_slots(scope.cpus + scope.tasks);
        let desks = ThreadLocal::new();
        Ok(Self { scope, new, start, desks, most_uses, tells, names_invariants: false })
    }

    /// The same with a property for each invariant.
    pub(super) fn with_named_invariants(self) -> Self {
        Self { names_invariants: true, ..self }
    }

    /// A machine on which nothing has happened yet.
    pub(super) fn machine(&self) -> Machine<AbstractRegs, P> {
        self.new.clone()
    }

    fn judge(&self, bench: &Bench<P>) -> Result<(), Breach> {
        match self.scope.judge {
            Judge::Invariants => check(&bench.machine, &bench.spec),
            Judge::UserCode => check_seen(&bench.machine, &bench.spec),
        }
    }

    fn state(&self, bench: &mut Bench<P>, broken: Option<Invariant>) -> State {
        let mark = broken.map_or(0, |invariant| 1 + invariant as u8);
        let packed = bench.pack(mark, self.most_uses);
        let canonical = canonical::fingerprint(bench, self.most_uses, self.tells) ^ u64::from(mark);
        State { packed, canonical }
    }

    /// Lets an operation happen, and notes its events. `None` if it is refused.
    fn happen(
        &self,
        bench: &mut Bench<P>,
        operation: Operation,
        mut note: impl FnMut(Event),
    ) -> Option<Result<(), Breach>> {
        let mut happened = false;
        for event in operation.events() {
            // User code is about to write over what it found. Where something is wrong, no event may hide it.
            let may_hide = matches!(event, Event::UserWrite(_, Component::SSE, _)) || self.is_wrong();
            if happened
                && may_hide
                && let Err(breach) = self.judge(bench)
            {
                return Some(Err(breach));
            }
            match bench.apply(event) {
                Err(_) if !happened => return None,
                Err(_) => {}
                Ok(checked) => {
                    note(event);
                    if checked.is_err() && self.counts(event) {
                        return Some(checked);
                    }
                    happened = true;
                }
            }
        }
        Some(Ok(()))
    }

    /// Whether the judge looks at what the event says that it did: user code and readers of its state see only some.
    fn counts(&self, event: Event) -> bool {
        let is_seen = matches!(event, Event::Read(..) | Event::ReadPkru(_) | Event::UserMemory(..));
        self.scope.judge == Judge::Invariants || is_seen
    }

    /// Whether there is a defect.
    fn is_wrong(&self) -> bool {
        self.new.policy().defect().is_some()
    }

    fn at_desk<T>(&self, work: impl FnOnce(&mut Desk<P>) -> T) -> T {
        let new = || Desk { bench: self.start.clone(), state: Box::default(), broken: None };
        work(&mut self.desks.get_or(|| RefCell::new(new())).borrow_mut())
    }

    /// Works on a state, which stays as it is.
    fn look<T>(&self, state: &State, look: impl FnOnce(&mut Desk<P>) -> T) -> T {
        self.at_desk(|desk| {
            if desk.state != state.packed {
                desk.bench.unpack(&state.packed);
                let judged = || self.judge(&desk.bench).err().map(|breach| breach.invariant);
                desk.broken = state.broken().or_else(judged);
                desk.state.clone_from(&state.packed);
            }
            look(desk)
        })
    }

    fn broken(&self, state: &State) -> Option<Invariant> {
        self.look(state, |desk| desk.broken)
    }

    fn is_there(&self, state: &State, situation: usize) -> bool {
        let situations = situations::<P>();
        let situation = situations.get(situation);
        situation.is_some_and(|situation| self.look(state, |desk| (situation.is_there)(&desk.bench)))
    }

    /// The events of operations that lead to a breach, and the breach.
    pub(super) fn replay(&self, last: &State, operations: Vec<Operation>) -> (Vec<Event>, Breach) {
        let mut bench = self.start.clone();
        let mut events = Vec::new();
        let mut afresh = Bench::new(
            self.machine(),
            spec_for(self.new.cpus()[0].regs(), self.new.policy()),
            self.scope.tasks,
        );
        events.extend(prelude(self.scope.cpus).into_iter().filter(|event| afresh.apply(*event).is_ok()));
        for operation in operations {
            if let Some(Err(breach)) = self.happen(&mut bench, operation, |event| events.push(event)) {
                return (events, breach);
            }
        }
        // Events that happen again do the same again, but under a policy that keeps something to itself.
        let searched = || Breach {
            invariant: self.broken(last).unwrap_or(Invariant::I1),
            what: String::from("found by the search, and not when the events happened again"),
        };
        let breach = self.judge(&bench).err().unwrap_or_else(searched);
        (events, breach)
    }
}

/// The conditions of situations. A condition is a function that knows nothing but its number.
macro_rules! conditions {
    ($($number:literal)*) => { [$(|model, state| model.is_there(state, $number)),*] };
}

impl<P: Policy + Send + Sync + 'static> stateright::Model for Model<P> {
    type State = State;
    type Action = Operation;

    fn init_states(&self) -> Vec<State> {
        vec![self.state(&mut self.start.clone(), None)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Operation>) {
        self.look(state, |desk| {
            if desk.broken.is_none() && !desk.bench.is_stuck() {
                operations::operations(&mut desk.bench, &self.scope, self.tells, actions);
            }
        });
    }

    fn next_state(&self, state: &State, operation: Operation) -> Option<State> {
        self.at_desk(|desk| {
            desk.state = Box::default();
            desk.bench.unpack(&state.packed);
            let held = self.happen(&mut desk.bench, operation, |_| ())?;
            Some(self.state(&mut desk.bench, held.err().map(|breach| breach.invariant)))
        })
    }

    fn format_action(&self, operation: &Operation) -> String {
        format!("{operation:?}")
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! always {
            ($($invariant:ident)*) => {
                [$(Property::<Self>::always(stringify!($invariant), |model, state| {
                    model.broken(state) != Some(Invariant::$invariant)
                })),*]
            };
        }
        // On the page each has a name; a search asks once.
        let always = if self.names_invariants {
            Vec::from(always!(I1 I2 I3 I4 I5 I6 I7 I8 I9 I10 I11 I12 I13 I14))
        } else {
            vec![Property::<Self>::always("every invariant", |model, state| model.broken(state).is_none())]
        };
        let conditions: [fn(&Self, &State) -> bool; 19] =
            conditions!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18);
        let expected = |situation: &Situation<P>| (situation.expected)(&self.scope, self.new.policy());
        let all = situations::<P>().into_iter().zip(conditions);
        let sometimes = all
            .filter(|(situation, _)| expected(situation))
            .map(|(situation, condition)| Property::sometimes(situation.name, condition));
        always.into_iter().chain(sometimes).collect()
    }
}
