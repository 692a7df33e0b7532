//! States as bytes, and back.

use crate::{Component, ComponentSet, CpuId, Pkru, TaskId, Value, walk::Walk};
use alloc::vec::Vec;

const NOBODY: u8 = u8::MAX;

/// So many generations of a slot are told apart. u32::MAX, which stands before the first, becomes 0.
const GENERATIONS: u32 = u16::MAX as u32;

/// Writes what it is shown.
pub(super) struct Writer<'a> {
    pub(super) out: &'a mut Vec<u8>,
    /// The count of uses from which on all are the same to the policy.
    pub(super) most_uses: u8,
}

impl Walk for Writer<'_> {
    #[inline]
    fn byte(&mut self, byte: &mut u8) {
        self.out.push(*byte);
    }

    #[inline]
    fn cpu(&mut self, cpu: &mut Option<CpuId>) {
        self.out.push(cpu.map_or(NOBODY, |cpu| cpu.0 as u8));
    }

    #[inline]
    fn task(&mut self, task: &mut Option<TaskId>) {
        match task {
            None => self.out.push(NOBODY),
            Some(task) => {
                self.out.push(task.slot() as u8);
                self.out.extend(((task.generation() % GENERATIONS) as u16).to_le_bytes());
            }
        }
    }

    #[inline]
    fn value(&mut self, value: &mut Value) {
        self.out.push(value.number());
    }

    #[inline]
    fn ought(&mut self, _: Component, value: &mut Value) {
        self.out.push(value.number());
    }

    #[inline]
    fn pkru(&mut self, pkru: &mut Pkru) {
        write_pkru(self.out, *pkru);
    }

    #[inline]
    fn ought_pkru(&mut self, pkru: &mut Pkru) {
        self.pkru(pkru);
    }

    #[inline]
    fn set(&mut self, set: &mut ComponentSet) {
        write_set(self.out, *set);
    }

    #[inline]
    fn xfd(&mut self, xfd: &mut ComponentSet) {
        self.set(xfd);
    }

    #[inline]
    fn uses(&mut self, uses: &mut u8) {
        self.out.push((*uses).min(self.most_uses));
    }
}

/// PKRU in one byte where it is a usual one.
pub(super) fn write_pkru(out: &mut Vec<u8>, pkru: Pkru) {
    match pkru {
        Pkru(0) => out.push(0),
        Pkru::DEFAULT => out.push(1),
        Pkru(other) => {
            out.push(2);
            out.extend(other.to_le_bytes());
        }
    }
}

/// A set in one byte where it is empty.
pub(super) fn write_set(out: &mut Vec<u8>, set: ComponentSet) {
    out.push(u8::from(!set.is_empty()));
    if !set.is_empty() {
        out.extend(set.bits().to_le_bytes());
    }
}

/// Puts what a [`Writer`] wrote into what it is shown.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    /// The next bytes. They are there: a writer wrote them for the same walk.
    #[inline]
    fn next<const N: usize>(&mut self) -> [u8; N] {
        let (next, rest) = self.0.split_first_chunk().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *next
    }
}

impl Walk for Reader<'_> {
    #[inline]
    fn byte(&mut self, byte: &mut u8) {
        [*byte] = self.next();
    }

    #[inline]
    fn cpu(&mut self, cpu: &mut Option<CpuId>) {
        let [number] = self.next();
        *cpu = (number != NOBODY).then_some(CpuId(number.into()));
    }

    #[inline]
    fn task(&mut self, task: &mut Option<TaskId>) {
        let [slot] = self.next();
        *task = (slot != NOBODY).then(|| match u16::from_le_bytes(self.next()) {
            0 => TaskId::before_first(slot.into()),
            generation => TaskId::in_generation(slot.into(), u32::from(generation) - 1),
        });
    }

    #[inline]
    fn value(&mut self, value: &mut Value) {
        let [number] = self.next();
        *value = Value::from_number(number);
    }

    #[inline]
    fn ought(&mut self, _: Component, value: &mut Value) {
        self.value(value);
    }

    #[inline]
    fn pkru(&mut self, pkru: &mut Pkru) {
        let [form] = self.next();
        *pkru = match form {
            0 => Pkru(0),
            1 => Pkru::DEFAULT,
            _ => Pkru(u32::from_le_bytes(self.next())),
        };
    }

    #[inline]
    fn ought_pkru(&mut self, pkru: &mut Pkru) {
        self.pkru(pkru);
    }

    #[inline]
    fn set(&mut self, set: &mut ComponentSet) {
        let [form] = self.next();
        *set = match form {
            0 => ComponentSet::EMPTY,
            _ => ComponentSet::from_bits(u64::from_le_bytes(self.next())),
        };
    }

    #[inline]
    fn xfd(&mut self, xfd: &mut ComponentSet) {
        self.set(xfd);
    }

    #[inline]
    fn uses(&mut self, uses: &mut u8) {
        self.byte(uses);
    }
}
