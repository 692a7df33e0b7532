//! Which states differ in names alone.
//!
//! CPUs can change their names with each other, and their kernel threads with them; so can the slots of user tasks. Of
//! generations it counts only whether it is the present one of its slot. Values are renamed in the order in which they are
//! met, and those that no program will ever have to see are all the same: nothing ever looks at a value but to
//! compare it with what a program ought to see, and what programs write is new.

use super::{
    bench::Bench,
    pack::{write_pkru, write_set},
};
use crate::{ComponentSet, CpuId, Pkru, TaskId, Value, fpu::Policy, walk::Walk};
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

/// One number for a state and all that differ from it in names alone.
pub(super) fn fingerprint<P: Policy>(bench: &mut Bench<P>, most_uses: u8) -> u64 {
    let oughts = bench.values_seen();
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
            oughts: &oughts,
            names: [0; 256],
            named: 0,
            most_uses,
        };
        bench.walk(order, &mut walk);
        hash(&out)
    };
    let orders_of_tasks = orders(tasks, signs.tasks);
    let all = orders(cpus, signs.cpus).flat_map(|cpus| orders_of_tasks.clone().map(move |tasks| (cpus, tasks)));
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
    #[inline]
    fn set(&mut self, _: &mut ComponentSet) {}
    #[inline]
    fn uses(&mut self, _: &mut u8) {}

    #[inline]
    fn value(&mut self, value: &mut Value) {
        self.values.insert(*value);
    }

    #[inline]
    fn ought(&mut self, value: &mut Value) {
        self.oughts.insert(*value);
    }
}

/// What no program will have to see.
const LEFTOVER: u8 = u8::MAX;
/// What a program may see anything for.
const ANYTHING: u8 = u8::MAX - 1;

/// Writes what it is shown under canonical names.
struct Canonical<'a> {
    out: &'a mut Vec<u8>,
    /// By number: the position.
    cpus: [u8; MOST],
    /// By slot: the position.
    slots: [u8; 2 * MOST],
    /// By slot: the present one.
    generations: [u32; 2 * MOST],
    oughts: &'a Numbers,
    /// By value: its name, 0 for none yet.
    names: [u8; 256],
    named: u8,
    most_uses: u8,
}

impl Canonical<'_> {
    #[inline]
    fn name(&mut self, value: Value) -> u8 {
        let name = &mut self.names[usize::from(value.number())];
        if *name == 0 {
            self.named += 1;
            *name = self.named;
        }
        *name
    }
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
    fn value(&mut self, value: &mut Value) {
        let name = match *value {
            Value::INITIAL => 0,
            Value::UNSPECIFIED => LEFTOVER,
            value if self.oughts.contains(value) => self.name(value),
            _ => LEFTOVER,
        };
        self.out.push(name);
    }

    #[inline]
    fn ought(&mut self, value: &mut Value) {
        let name = match *value {
            Value::INITIAL => 0,
            Value::UNSPECIFIED => ANYTHING,
            value => self.name(value),
        };
        self.out.push(name);
    }

    #[inline]
    fn pkru(&mut self, pkru: &mut Pkru) {
        write_pkru(self.out, *pkru);
    }

    #[inline]
    fn set(&mut self, set: &mut ComponentSet) {
        write_set(self.out, *set);
    }

    #[inline]
    fn uses(&mut self, uses: &mut u8) {
        self.out.push((*uses).min(self.most_uses));
    }
}
