//! A machine and its model on which states are unpacked, and events happen.

use super::{
    canonical::{Collect, MOST, Order},
    model::kernel_thread,
    pack::{Reader, Writer},
};
use crate::{
    CpuId, Event, EventError,
    check::{Breach, Spec, check_outcome},
    fpu::{Fpstate, Policy, TaskKind},
    machine::{Current, Machine},
    registers::AbstractRegs,
    walk::Walk,
};
use alloc::vec::Vec;

/// Slots: that of the first user task, those of the kernel threads, one a CPU, and those of the other user tasks.
#[derive(Clone, Debug)]
pub(super) struct Bench<P> {
    pub(super) machine: Machine<AbstractRegs, P>,
    pub(super) spec: Spec,
    pub(super) buffer: Vec<u8>,
    user_slots: usize,
}

/// What can be said of CPUs and user tasks without their names, and is told of every state.
pub(super) struct Signs {
    pub(super) cpus: [u32; MOST],
    pub(super) tasks: [u32; MOST],
}

impl<P: Policy> Bench<P> {
    /// Where in a packed state it stands what is broken.
    pub(super) const MARK_AT: usize = 2;

    pub(super) fn new(machine: Machine<AbstractRegs, P>, spec: Spec, user_slots: usize) -> Self {
        Self { machine, spec, buffer: Vec::new(), user_slots }
    }

    pub(super) fn cpus(&self) -> usize {
        self.machine.cpus().len()
    }

    pub(super) fn user_slots(&self) -> usize {
        self.user_slots
    }

    /// The slot of the `n`th user task.
    pub(super) fn user_slot(&self, n: usize) -> usize {
        if n == 0 { 0 } else { self.cpus() + n }
    }

    /// Lets an event happen.
    pub(super) fn apply(&mut self, event: Event) -> Result<Result<(), Breach>, EventError> {
        let outcome = self.machine.apply(event)?;
        self.spec.apply(event);
        Ok(check_outcome(&self.machine, &self.spec, event, &outcome))
    }

    /// Whether a slot says that it holds an only copy which it does not. Who wants those registers asks for an eviction, and
    /// asks again for ever. It is a breach of I2 or I13, and does not come up while these hold.
    pub(super) fn is_stuck(&self) -> bool {
        let mut slots = self.machine.cpus().iter().map(|cpu| cpu.slot());
        slots.any(|slot| {
            let owner = slot.owner().filter(|_| slot.holds_only_copy());
            owner.is_some_and(|owner| {
                let fpstate = self.machine.task(owner).map(|task| task.fpstate());
                let holds = |fpstate: &Fpstate<_>| {
                    fpstate.is_user() && !fpstate.need_fpu_load() && fpstate.last_cpu() == Some(slot.cpu())
                };
                !fpstate.is_some_and(holds)
            })
        })
    }

    /// Shows the whole state, with its parts in that order.
    pub(super) fn walk(&mut self, order: Order, walk: &mut impl Walk) {
        for n in order.tasks.iter().take(self.user_slots) {
            self.walk_slot(self.user_slot(usize::from(*n)), walk);
        }
        for cpu in order.cpus.iter().take(self.cpus()) {
            let cpu = CpuId(u32::from(*cpu));
            self.machine.walk_kernel_thread(kernel_thread(cpu).slot(), walk);
            self.machine.walk_cpu(cpu, walk);
            self.spec.walk_cpu(cpu, walk);
        }
    }

    fn walk_slot(&mut self, slot: usize, walk: &mut impl Walk) {
        let mut is_gone = self.machine.tasks().get(slot).is_none_or(|task| task.is_gone());
        walk.flags([&mut is_gone]);
        if is_gone {
            self.machine.walk_gone(slot as u32, walk);
        } else {
            self.machine.walk_task(slot as u32, walk);
            let id = self.machine.tasks()[slot].fpstate().id();
            self.spec.walk_task(id, walk);
        }
    }

    pub(super) fn pack(&mut self, mark: u8, most_uses: u8) -> alloc::boxed::Box<[u8]> {
        let mut out = core::mem::take(&mut self.buffer);
        out.clear();
        out.extend([self.cpus() as u8, self.user_slots as u8, mark]);
        self.walk(Order::NAMED, &mut Writer { out: &mut out, most_uses });
        let packed = out.as_slice().into();
        self.buffer = out;
        packed
    }

    pub(super) fn unpack(&mut self, packed: &[u8]) {
        self.spec.clear();
        self.machine.prepare_for_walk();
        self.walk(Order::NAMED, &mut Reader(packed.get(1 + Self::MARK_AT..).unwrap_or_default()));
    }

    pub(super) fn collect(&mut self) -> Collect {
        let mut collect = Collect::default();
        self.walk(Order::NAMED, &mut collect);
        collect
    }

    /// By slot: where it comes in that order.
    pub(super) fn positions(&self, order: Order) -> [u8; 2 * MOST] {
        let mut positions = [0; 2 * MOST];
        for (at, n) in (0..).zip(order.tasks.iter().take(self.user_slots)) {
            positions[self.user_slot(usize::from(*n))] = at;
        }
        for (at, cpu) in (MOST as u8..).zip(order.cpus.iter().take(self.cpus())) {
            positions[1 + usize::from(*cpu)] = at;
        }
        positions
    }

    /// By slot: that of the last task there.
    pub(super) fn generations(&self) -> [u32; 2 * MOST] {
        let mut generations = [0; 2 * MOST];
        for (generation, task) in generations.iter_mut().zip(self.machine.tasks()) {
            *generation = task.fpstate().id().generation();
        }
        generations
    }

    pub(super) fn signs(&self) -> Signs {
        let mut signs = Signs { cpus: [0; MOST], tasks: [0; MOST] };
        for (sign, cpu) in signs.cpus.iter_mut().zip(self.machine.cpus()) {
            let slot = cpu.slot();
            let current = match cpu.current() {
                Current::Idle => 0,
                Current::Switching => 1,
                Current::Task(task) => {
                    let task = self.machine.task(task).map(|task| task.fpstate());
                    task.map_or(2, |task| {
                        3 + 16 * u32::from(task.user_on().is_some())
                            + 8 * u32::from(task.need_fpu_load())
                            + 4 * u32::from(slot.owner() == Some(task.id()))
                            + kind(task.kind())
                    })
                }
            };
            let owner = slot.owner().map_or(0, |owner| 1 + u32::from(self.machine.task(owner).is_some()));
            *sign = current << 8
                | owner << 6
                | u32::from(slot.holds_only_copy()) << 5
                | u32::from(slot.kernel_fpu().is_some()) << 4
                | u32::from(cpu.is_online()) << 2;
        }
        for n in 0..self.user_slots {
            // Of one that is gone nothing is unpacked but its name and last_cpu.
            let task = self.machine.tasks().get(self.user_slot(n)).filter(|task| !task.is_gone());
            let Some(task) = task else { continue };
            let fpstate = task.fpstate();
            signs.tasks[n] = 1 << 18
                | kind(fpstate.kind())
                | u32::from(fpstate.need_fpu_load()) << 2
                | u32::from(fpstate.last_cpu().is_some()) << 3
                | u32::from(task.on().is_some()) << 4
                | u32::from(fpstate.user_on().is_some()) << 5
                | (fpstate.signal() as u32) << 6
                | (task.frames().len() as u32) << 9
                | u32::from(fpstate.guest().is_some()) << 12
                | u32::from(fpstate.has_guest_loaded()) << 13
                | u32::from(fpstate.wants().is_some()) << 14
                | u32::from(!fpstate.permitted().is_empty()) << 15
                | u32::from(fpstate.is_fpu_free()) << 16
                | u32::from(fpstate.has_given_up()) << 17;
        }
        signs
    }
}

fn kind(kind: TaskKind) -> u32 {
    match kind {
        TaskKind::User => 3,
        TaskKind::KernelThread => 1,
        TaskKind::UserWorker => 2,
        TaskKind::Exited => 0,
    }
}
