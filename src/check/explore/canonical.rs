//! Which states are told apart.
//!
//! Not those that differ in names alone: CPUs can change their names with each other, and their kernel threads with them; so
//! can the slots of user tasks. Of a generation it counts whether it is the present one of its slot.
//!
//! Nor those that differ in values alone. The mechanism never looks at one: it copies what belongs to a task to where it
//! belongs to the same task, and a check compares it with what that task ought to see. So of each place that counts, it is
//! told whether it holds what it ought to. A place counts if somebody may still read it: an image while it is the truth,
//! registers while a task is valid there, the half of a guest that is not in use, frames. Besides, of what a program ought
//! to see it is told whether it is initial, as tiles differ in that, and of PKRU whether it allows what is tried.
//!
//! IA32_XFD counts where a task is valid, and the first-use trap in user mode, or where a policy leaves it as it is at the
//! return.
use super::{bench::Bench, operations::PAGE, pack::write_set};
use crate::{
    Component, ComponentSet, CpuId, Pkru, TaskId, Value,
    fpu::{PkruMode, Policy},
    machine::Task,
    registers::{AbstractImage, AbstractRegs, Image, RegisterFile},
    walk::Walk,
};
use ahash::RandomState;
use alloc::vec::Vec;
use core::hash::{BuildHasher, Hasher};

/// The most CPUs, and the most user tasks.
pub(super) const MOST: usize = 3;

/// In which order to go over CPUs and slots.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) cpus: [u8; MOST],
    /// Of the user tasks.
    pub(super) tasks: [u8; MOST],
}

impl Order {
    /// As they are named.
    pub(super) const NAMED: Self = Self { cpus: [0, 1, 2], tasks: [0, 1, 2] };
}

const ORDERS: [[u8; MOST]; 6] = [[0, 1, 2], [1, 0, 2], [0, 2, 1], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// The orders of so many things in which none comes before one with a lower sign.
fn orders(count: usize, signs: [u32; MOST]) -> impl Iterator<Item = [u8; MOST]> + Clone {
    let sorted = move |order: &&[u8; MOST]| {
        order[..count].iter().is_sorted_by_key(|at| signs[usize::from(*at)])
            && order[count..].iter().zip(count..).all(|(at, n)| usize::from(*at) == n)
    };
    ORDERS.iter().filter(sorted).copied()
}

/// What else is told apart, where it makes a difference.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tells {
    /// System calls from interrupts.
    pub(super) calls: bool,
    /// In the kernel, whether the first-use trap is armed: a return may leave it so.
    pub(super) trap: bool,
    /// FPU-free programs from others.
    pub(super) fpu_free: bool,
    /// Whether each is initial: of every component, not of tiles alone.
    pub(super) initial: bool,
    /// Whether PKRU allows what is tried: somebody tries.
    pub(super) pkru: bool,
}

/// One number for a state and all that differ from it in names alone.
pub(super) fn fingerprint<P: Policy>(bench: &mut Bench<P>, most_uses: u8, tells: Tells) -> u64 {
    let (cpus, tasks) = (bench.cpus(), bench.user_slots());
    let signs = bench.signs();
    let generations = bench.generations();
    let mut out = core::mem::take(&mut bench.buffer);
    let of = |cpus, tasks| {
        let order = Order { cpus, tasks };
        out.clear();
        let mut walk = Canonical {
            out: &mut out,
            cpus: inverse(order.cpus),
            slots: bench.positions(order),
            generations,
            most_uses,
            tells,
        };
        bench.walk(order, &mut walk);
        places(bench, order, tells, walk.out);
        hash(&out)
    };
    let orders_of_tasks = orders(tasks, signs.tasks);
    let all =
        orders(cpus, signs.cpus).flat_map(|cpus| orders_of_tasks.clone().map(move |tasks| (cpus, tasks)));
    let mut of = of;
    let least = all.map(|(cpus, tasks)| of(cpus, tasks)).min();
    bench.buffer = out;
    least.unwrap_or_default()
}

fn hash(bytes: &[u8]) -> u64 {
    // Any four numbers do, as long as they are always the same.
    let mut hasher = RandomState::with_seeds(0x2016, 0x1017, 0x4d05, 0x46b9).build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

fn inverse(order: [u8; MOST]) -> [u8; MOST] {
    let mut inverse = [0; MOST];
    (0..).zip(order).for_each(|(at, n)| inverse[usize::from(n)] = at);
    inverse
}

/// A set of pattern numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers([u64; 4]);

impl Numbers {
    pub(super) fn insert(&mut self, value: Value) {
        let number = value.number();
        self.0[usize::from(number >> 6)] |= 1 << (number & 63);
    }

    pub(super) fn contains(&self, value: Value) -> bool {
        let number = value.number();
        self.0[usize::from(number >> 6)] >> (number & 63) & 1 == 1
    }
}

/// Collects values.
#[derive(Default)]
pub(super) struct Collect {
    /// What programs ought to see.
    pub(super) oughts: Numbers,
    /// What is in registers, images and frames.
    pub(super) values: Numbers,
}

impl Walk for Collect {
    #[inline]
    fn byte(&mut self, _: &mut u8) {}
    #[inline]
    fn cpu(&mut self, _: &mut Option<CpuId>) {}
    #[inline]
    fn task(&mut self, _: &mut Option<TaskId>) {}
    #[inline]
    fn pkru(&mut self, _: &mut Pkru) {}
    fn ought_pkru(&mut self, _: &mut Pkru) {}
    #[inline]
    fn set(&mut self, _: &mut ComponentSet) {}
    fn xfd(&mut self, _: &mut ComponentSet) {}
    #[inline]
    fn uses(&mut self, _: &mut u8) {}

    #[inline]
    fn value(&mut self, value: &mut Value) {
        self.values.insert(*value);
    }

    #[inline]
    fn ought(&mut self, _: Component, value: &mut Value) {
        self.oughts.insert(*value);
    }
}

/// Writes what it is shown under canonical names, and of values and PKRU only what counts.
struct Canonical<'a> {
    out: &'a mut Vec<u8>,
    /// By number: the position.
    cpus: [u8; MOST],
    /// By slot: the position.
    slots: [u8; 2 * MOST],
    /// By slot: the present one.
    generations: [u32; 2 * MOST],
    most_uses: u8,
    tells: Tells,
}

impl Walk for Canonical<'_> {
    #[inline]
    fn byte(&mut self, byte: &mut u8) {
        self.out.push(*byte);
    }

    #[inline]
    fn cpu(&mut self, cpu: &mut Option<CpuId>) {
        self.out.push(cpu.map_or(0, |cpu| 1 + self.cpus[cpu.0 as usize]));
    }

    #[inline]
    fn task(&mut self, task: &mut Option<TaskId>) {
        self.out.push(task.map_or(0, |task| {
            let slot = task.slot() as usize;
            let is_present = self.generations[slot] == task.generation();
            1 + 2 * self.slots[slot] + u8::from(is_present)
        }));
    }

    #[inline]
    fn value(&mut self, _: &mut Value) {}

    #[inline]
    fn ought(&mut self, component: Component, value: &mut Value) {
        self.out.push(match *value {
            Value::INITIAL if self.tells.initial || component == Component::TILEDATA => 0,
            Value::UNSPECIFIED => 1,
            _ => 2,
        });
    }

    #[inline]
    fn pkru(&mut self, _: &mut Pkru) {}

    #[inline]
    fn ought_pkru(&mut self, pkru: &mut Pkru) {
        if self.tells.pkru {
            self.out.push(u8::from(pkru.allows(PAGE)));
        }
    }

    #[inline]
    fn set(&mut self, set: &mut ComponentSet) {
        write_set(self.out, *set);
    }

    #[inline]
    fn xfd(&mut self, _: &mut ComponentSet) {}

    #[inline]
    fn trap(&mut self, _: &mut bool) {}

    #[inline]
    fn uses(&mut self, uses: &mut u8) {
        self.out.push((*uses).min(self.most_uses));
    }
}

/// Of each place that counts: which components hold what they ought to, and whether PKRU does.
fn places<P: Policy>(bench: &Bench<P>, order: Order, tells: Tells, out: &mut Vec<u8>) {
    let (machine, spec) = (&bench.machine, &bench.spec);
    let keeps_pkru = machine.pkru_mode() == PkruMode::InXsave;
    let state = |task: &Task<AbstractRegs>| spec.state(task.fpstate().id());
    for n in order.tasks.iter().take(bench.user_slots()) {
        let task = machine.tasks().get(bench.user_slot(usize::from(*n)));
        let Some((task, state)) = task.and_then(|task| Some((task, state(task)?))) else { continue };
        let fpstate = task.fpstate();
        if fpstate.need_fpu_load() && !state.is_returning() {
            let pkru = keeps_pkru && fpstate.image().pkru() == state.pkru();
            out.push(image(fpstate.image(), |component| state.value(component)) | u8::from(pkru) << 5);
        }
        out.push(u8::from(task.on().is_some() || fpstate.pkru() == state.pkru()));
        if let (Some(guest), Some((ought, pkru))) = (fpstate.guest(), state.not_in_use()) {
            let (is, is_pkru) = guest.not_in_use();
            out.push(image(is, ought) | u8::from(is_pkru == pkru) << 6);
        }
        for (frame, (ought, pkru)) in task.frames().iter().zip(state.frames()) {
            out.push(image(frame.image(), ought) | u8::from(frame.image().pkru() == pkru) << 5);
        }
    }
    for cpu in order.cpus.iter().take(bench.cpus()) {
        let Some(cpu) = machine.cpu(CpuId(u32::from(*cpu))) else { continue };
        let slot = cpu.slot();
        let live = |component| cpu.regs().get(component);
        let owner = slot.owner().and_then(|owner| machine.task(owner));
        let valid = owner.filter(|task| task.fpstate().is_valid_on(slot));
        if let Some(state) = valid.and_then(state).filter(|state| !state.is_returning()) {
            out.push(holds(live, |component| state.value(component)));
        }
        out.push(u8::from(cpu.regs().xfd() == Ok(slot.xfd())));
        if valid.is_some() {
            write_set(out, slot.xfd());
        }
        out.push(u8::from(slot.trap_armed() && (tells.trap || spec.in_user_mode(slot.cpu()))));
        let current = spec.current(slot.cpu()).and_then(|task| spec.pkru(task));
        out.push(u8::from(current.is_none_or(|pkru| cpu.regs().pkru() == Some(pkru))));
    }
}

fn image(image: &AbstractImage, ought: impl Fn(Component) -> Option<Value>) -> u8 {
    holds(|component| image.get(component), ought)
}

/// Which components are as they ought to.
fn holds(is: impl Fn(Component) -> Value, ought: impl Fn(Component) -> Option<Value>) -> u8 {
    let components = [Component::SSE, Component::AVX, Component::TILEDATA];
    (0..).zip(components).fold(0, |bits, (n, component)| {
        let fits =
            ought(component).is_some_and(|ought| ought == Value::UNSPECIFIED || is(component) == ought);
        bits | u8::from(fits) << n
    })
}
