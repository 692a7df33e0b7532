//! What can happen in a state: each operation is one event, or a few between which nothing else needs to happen.
//!
//! A switch is a schedule-out and a schedule-in: what happens on other CPUs between the two can happen before or after
//! them as well. A return and what user code writes behind it are one: a program that writes new values shows
//! whatever a program shows that writes none, and a check stands between. A kernel FPU section is two, between which other
//! CPUs go on, and where a defect is planted also one, so that it counts as one in a shortest list. What changes a frame happens where the frame is about to be read or written,
//! because nothing looks at it before.

use super::{Scope, bench::Bench, canonical::Tells, model::kernel_thread};
use crate::{
    Component, CpuId, EntryKind, Event, FrameChange, KernelContext, PageAccess, Pkru, TaskId, Value,
    check::Group,
    fpu::{Policy, SignalStep},
    machine::{Current, Task},
    registers::{AbstractRegs, Image},
};
use alloc::vec::Vec;
use core::fmt;

/// The most events of an operation.
const MOST: usize = 5;

/// Events that happen together. One that is refused is left out, but for the first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Operation([Option<Event>; MOST]);

impl Operation {
    fn new<const N: usize>(events: [Event; N]) -> Self {
        const { assert!(N <= MOST) };
        let mut all = [None; MOST];
        all.iter_mut().zip(events).for_each(|(place, event)| *place = Some(event));
        Self(all)
    }

    pub(super) fn events(self) -> impl Iterator<Item = Event> {
        self.0.into_iter().flatten()
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().flatten().enumerate().try_for_each(|(n, event)| {
            let separator = if n == 0 { "" } else { "; " };
            write!(f, "{separator}{event}")
        })
    }
}

/// A PKRU that is neither the default nor none at all.
const PKRU: Pkru = Pkru(0x5555_5550);

/// A page of key 1, which the default denies.
pub(super) const PAGE: PageAccess = PageAccess::new(1, false).expect("a key below 16");

/// How events are made in one state.
struct Maker<'a, P> {
    bench: &'a Bench<P>,
    scope: &'a Scope,
    tells: Tells,
    /// Values that are nowhere.
    new: [Value; 3],
    all: &'a mut Vec<Operation>,
}

/// All that can happen.
pub(super) fn operations<P: Policy>(
    bench: &mut Bench<P>,
    scope: &Scope,
    tells: Tells,
    all: &mut Vec<Operation>,
) {
    let known = bench.collect();
    let mut numbers = (1..=u8::MAX).filter_map(Value::new);
    let mut new = || {
        let is_new = |value: &Value| !known.values.contains(*value) && !known.oughts.contains(*value);
        numbers.find(is_new).unwrap_or(Value::KERNEL)
    };
    let new = [new(), new(), new()];
    let mut maker = Maker { bench, scope, tells, new, all };
    for cpu in 0..bench.cpus() {
        maker.on_cpu(CpuId(cpu as u32));
    }
    for n in 0..bench.user_slots() {
        if let Some(task) = bench.machine.tasks().get(bench.user_slot(n)) {
            maker.about_task(task);
        }
    }
}

impl<P: Policy> Maker<'_, P> {
    fn can<const N: usize>(&mut self, events: [Event; N]) {
        self.all.push(Operation::new(events));
    }

    fn has(&self, group: Group) -> bool {
        self.scope.groups.contains(&group)
    }

    /// User code runs behind `event`, and writes what it can: new values everywhere, or initial ones but for SSE.
    fn can_run(&mut self, cpu: CpuId, event: Event) {
        let [sse, avx, tiles] = self.new;
        let write = |component, value| Event::UserWrite(cpu, component, value);
        let sse = write(Component::SSE, sse);
        let initial = |component| write(component, Value::INITIAL);
        if self.has(Group::Dynamic) {
            self.can([event, sse, write(Component::AVX, avx), write(Component::TILEDATA, tiles)]);
            self.can([event, sse, initial(Component::AVX), initial(Component::TILEDATA)]);
        } else {
            self.can([event, sse, write(Component::AVX, avx)]);
            if self.tells.initial {
                self.can([event, sse, initial(Component::AVX)]);
            }
        }
    }

    fn on_cpu(&mut self, cpu: CpuId) {
        let Some(found) = self.bench.machine.cpu(cpu) else { return };
        let idler = kernel_thread(cpu);
        // What a right machine refuses is tried where something is wrong.
        let is_wrong = self.bench.machine.policy().defect().is_some();
        if is_wrong && (!found.is_online() || found.slot().kernel_fpu().is_some()) {
            self.can([Event::KernelFpuBegin(cpu, KernelContext::HardIrq)]);
        }
        if !found.is_online() {
            return self.can([Event::Online(cpu), Event::ScheduleIn(cpu, idler)]);
        }
        if found.slot().kernel_fpu().is_some() {
            return self.can([Event::KernelFpuEnd(cpu)]);
        }
        let Current::Task(current) = found.current() else { return };
        let Some(task) = self.bench.machine.task(current) else { return };
        if task.fpstate().user_on().is_some() {
            return self.in_user_mode(cpu, task);
        }
        self.can([Event::KernelFpuBegin(cpu, KernelContext::SoftIrq)]);
        if is_wrong {
            // The same in one operation, so that it counts as one in a shortest list.
            self.can([Event::KernelFpuBegin(cpu, KernelContext::SoftIrq), Event::KernelFpuEnd(cpu)]);
        }
        if current != idler {
            self.can([Event::ScheduleOut(cpu), Event::ScheduleIn(cpu, idler)]);
        }
        let others = (0..self.bench.user_slots()).map(|n| self.bench.user_slot(n));
        for slot in others {
            let Some(other) = self.bench.machine.tasks().get(slot) else { continue };
            if !other.is_gone() && other.on().is_none() {
                self.can([Event::ScheduleOut(cpu), Event::ScheduleIn(cpu, other.fpstate().id())]);
            }
        }
        for child in self.new_names() {
            self.can([Event::Fork(cpu, child)]);
            if self.tells.fpu_free {
                self.can([Event::Fork(cpu, child), Event::FpuFree(child)]);
            }
            if self.has(Group::Pkru) {
                self.can([Event::UserWorker(cpu, child)]);
            }
        }
        if self.has(Group::Power) && (current == idler || task.has_exited()) {
            self.can([Event::PowerLoss(cpu)]);
            self.can([Event::ScheduleOut(cpu), Event::Idle(cpu), Event::Offline(cpu)]);
        }
        if current != idler && !task.has_exited() {
            self.can([Event::Exit(cpu)]);
            if self.has(Group::Pkru) {
                for slot in (0..self.bench.user_slots()).map(|n| self.bench.user_slot(n)) {
                    let whose = self.bench.machine.tasks().get(slot).filter(|task| !task.has_exited());
                    if let Some(whose) = whose {
                        self.can([Event::UserMemory(cpu, whose.fpstate().id(), PAGE)]);
                    }
                }
            }
            if task.fpstate().is_user() {
                self.in_kernel(cpu, task);
            }
        }
    }

    /// The names that a new user task can have: in each slot that is free, but of those that nobody had the first alone.
    fn new_names(&self) -> Vec<TaskId> {
        let slots = (0..self.bench.user_slots()).map(|n| self.bench.user_slot(n));
        let names = slots.filter_map(|slot| self.bench.machine.next_task(slot));
        let (unused, used): (Vec<_>, Vec<_>) = names.partition(|name| name.generation() == 1);
        used.into_iter().chain(unused.into_iter().take(1)).collect()
    }

    fn in_user_mode(&mut self, cpu: CpuId, task: &Task<AbstractRegs>) {
        let Some(slot) = self.bench.machine.cpu(cpu).map(|cpu| cpu.slot()) else { return };
        if task.fpstate().is_in_guest() {
            self.can([Event::GuestExit(cpu)]);
        } else {
            self.can([Event::Entry(cpu, EntryKind::Interrupt)]);
            if self.tells.calls {
                self.can([Event::Entry(cpu, EntryKind::SystemCall)]);
            }
            if self.tells.exceptions {
                self.can([Event::Entry(cpu, EntryKind::Exception)]);
            }
            if task.fpstate().is_fpu_free() {
                self.can([Event::FpuFault(cpu)]);
            }
        }
        if slot.trap_armed() && !task.fpstate().is_fpu_free() {
            self.can_run(cpu, Event::FirstUse(cpu));
        }
        if self.has(Group::Dynamic) && slot.xfd().contains(Component::TILEDATA) && !slot.trap_armed() {
            self.can([Event::DynamicUse(cpu, Component::TILEDATA)]);
        }
        if self.has(Group::Pkru) {
            self.can([Event::UserPkru(cpu, PKRU)]);
        }
    }

    /// A live user task in the kernel.
    fn in_kernel(&mut self, cpu: CpuId, task: &Task<AbstractRegs>) {
        let fpstate = task.fpstate();
        let id = fpstate.id();
        if fpstate.has_guest_loaded() {
            self.can_run(cpu, Event::GuestEnter(cpu));
            self.can([Event::GuestPut(cpu)]);
        } else {
            match fpstate.signal() {
                SignalStep::Idle => {
                    self.can_run(cpu, Event::Return(cpu, id));
                    self.can([Event::Exec(cpu)]);
                    if self.tells.fpu_free {
                        self.can([Event::Exec(cpu), Event::FpuFree(id)]);
                    }
                    if self.has(Group::Signals) {
                        if task.frames().is_empty() {
                            self.can([Event::SignalDeliver(cpu)]);
                        }
                        self.can([Event::SigReturn(cpu)]);
                    }
                    if self.has(Group::Guest) {
                        self.can([Event::GuestLoad(cpu)]);
                        if self.bench.machine.policy().defect().is_some() {
                            self.can([Event::GuestPut(cpu)]);
                        }
                    }
                }
                SignalStep::Save => {
                    self.can([Event::SignalSave(cpu)]);
                    self.can([Event::Frame(id, FrameChange::Absent), Event::SignalSave(cpu)]);
                    self.can([Event::Frame(id, FrameChange::Unmapped), Event::SignalSave(cpu)]);
                }
                SignalStep::Load => {
                    for load in [Event::SigReturnLoad(cpu), Event::SigReturnCopy(cpu)] {
                        self.can([load]);
                        for change in CHANGES {
                            self.can([Event::Frame(id, change), load]);
                        }
                        let legacy = Event::Frame(id, FrameChange::BadMagic);
                        self.can([legacy, Event::Frame(id, FrameChange::RestAbsent), load]);
                        if self.has(Group::Pkru) {
                            self.can([Event::Frame(id, FrameChange::Pkru(Some(PKRU))), load]);
                            self.can([Event::Frame(id, FrameChange::Pkru(None)), load]);
                        }
                    }
                }
                SignalStep::SaveFaulted | SignalStep::LoadFaulted => self.can([Event::SignalFaultIn(cpu)]),
                SignalStep::Saved => self.can([Event::SignalEnter(cpu)]),
            }
        }
        if self.has(Group::Dynamic) {
            if fpstate.permitted().is_empty() {
                self.can([Event::Permit(cpu, Component::TILEDATA)]);
            }
            if fpstate.wants().is_some() {
                self.can([Event::DynamicGrow(cpu)]);
            }
        }
        if self.has(Group::Pkru) {
            self.can([Event::KernelPkru(cpu, PKRU)]);
        }
    }

    /// What others do to a task, wherever it is.
    fn about_task(&mut self, task: &Task<AbstractRegs>) {
        let fpstate = task.fpstate();
        let id = fpstate.id();
        if task.has_exited() || !fpstate.is_user() {
            return;
        }
        let [new, ..] = self.new;
        if !fpstate.has_guest_loaded() {
            self.can([Event::Read(id, Component::AVX)]);
            self.can([Event::Write(id, Component::AVX, new)]);
            if self.has(Group::Dynamic) && fpstate.image().has_room_for(Component::TILEDATA) {
                self.can([Event::Write(id, Component::TILEDATA, new)]);
            }
            if self.has(Group::Pkru) {
                self.can([Event::ReadPkru(id)]);
                self.can([Event::WritePkru(id, Some(PKRU))]);
                self.can([Event::WritePkru(id, None)]);
            }
        }
        if task.on().is_none() && !fpstate.need_fpu_load() {
            for cpu in 0..self.bench.cpus() as u32 {
                self.can([Event::Migrate(id, CpuId(cpu))]);
            }
        }
    }
}

/// How a frame is no longer what the kernel wrote, one at a time.
const CHANGES: [FrameChange; 6] = [
    FrameChange::RestAbsent,
    FrameChange::Absent,
    FrameChange::Unmapped,
    FrameChange::BadHeader,
    FrameChange::BadMagic,
    FrameChange::Short,
];
