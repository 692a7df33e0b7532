//! Random events: legal ones, picked by numbers, so that a list of numbers is a list of events on any machine.

use super::{Violation, check, check_outcome, spec_for};
use crate::{
    Component, CpuId, EntryKind, Event, FrameChange, KernelContext, PageAccess, Pkru, TaskId, Value, Verb,
    fpu::Policy,
    machine::{Current, Machine, Outcome},
    registers::UserFrames,
};
use alloc::{boxed::Box, vec::Vec};

/// Choices of events, for a machine with so many CPUs. Each picks one of the events that can happen.
///
/// With the feature `proptest` there is a strategy for these, `check::random_events`, which shrinks; without,
/// [`seeded`](Self::seeded) makes one from a number. What is found is a short list of events either way.
///
/// ```
/// use fpuswitch::{check::RandomEvents, fpu::policy::OwnerSlot, registers::AbstractRegs};
/// for seed in 0..10 {
///     let happened = RandomEvents::seeded(seed, 100).check(&AbstractRegs::default(), OwnerSlot).unwrap();
///     assert!(happened.len() > 50);
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RandomEvents {
    /// How many CPUs the machine has.
    pub cpus: usize,
    /// A number an event.
    pub choices: Vec<u32>,
}

impl RandomEvents {
    /// `length` choices made from a number, the same every time, for a machine with two or three CPUs.
    pub fn seeded(seed: u32, length: u32) -> Self {
        Self { cpus: 2 + seed as usize % 2, choices: (0..length).map(|n| hash(seed, n)).collect() }
    }

    /// Lets the events happen to a new machine with registers like `regs`, checks every invariant behind each, and returns
    /// them. Fewer happen than there are choices if at some point the machine refuses all that a choice stands for.
    ///
    /// # Errors
    /// The first [`Violation`], [minimised](Violation::minimised).
    pub fn check<R: UserFrames + Clone, P: Policy>(
        &self,
        regs: &R,
        policy: P,
    ) -> Result<Vec<Event>, Box<Violation<R, P>>> {
        self.check_on(&Machine::with_registers(policy, self.cpus, regs.clone()), |_| true)
    }

    /// The same on a machine that is new and otherwise like `like`, which may have as many CPUs as it wants, and PKRU
    /// [in images](Machine::with_pkru). Events that are not `wanted` are passed over as if they could not happen.
    ///
    /// ```
    /// use fpuswitch::{Event, check::{Invariant, RandomEvents}, fpu::{PkruMode, policy::OwnerSlot}};
    /// use fpuswitch::{machine::Machine, registers::AbstractRegs};
    ///
    /// // A policy that lets user code run before its registers are loaded is refused here.
    /// let machine = Machine::<AbstractRegs, _>::new(OwnerSlot, 1).with_pkru(PkruMode::InXsave)?;
    /// let lists = || (0..100).map(|seed| RandomEvents::seeded(seed, 120));
    ///
    /// // Before the return, the kernel accesses user memory with the keys of the task before.
    /// let found = lists().find_map(|list| list.check_on(&machine, |_| true).err()).expect("a wrong access");
    /// assert_eq!(found.breach().invariant, Invariant::I7);
    /// assert!(found.event_file().contains("user-memory"), "{found}");
    ///
    /// // That is all that is wrong.
    /// let is_other = |event| !matches!(event, Event::UserMemory(..));
    /// assert!(lists().all(|list| list.check_on(&machine, is_other).is_ok()));
    /// # Ok::<(), fpuswitch::fpu::PkruNeedsEager>(())
    /// ```
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_on<R: UserFrames + Clone, P: Policy>(
        &self,
        like: &Machine<R, P>,
        wanted: impl Fn(Event) -> bool,
    ) -> Result<Vec<Event>, Box<Violation<R, P>>> {
        let mut machine = like.anew();
        let mut spec = spec_for(machine.cpus()[0].regs(), machine.policy());
        let mut broken = false;
        let events = self.happen(&mut machine, wanted, |machine, event, outcome| {
            spec.apply(event);
            broken =
                check_outcome(machine, &spec, event, outcome).and_then(|()| check(machine, &spec)).is_err();
            !broken
        });
        match broken.then(|| Violation::behind(like.anew(), &events)).flatten() {
            Some(found) => Err(Box::new(found.minimised())),
            None => Ok(events),
        }
    }

    /// Lets the events happen that are `wanted`, until it is not to `go_on`, and returns them.
    pub(super) fn happen<R: UserFrames, P: Policy>(
        &self,
        machine: &mut Machine<R, P>,
        wanted: impl Fn(Event) -> bool,
        mut go_on: impl FnMut(&Machine<R, P>, Event, &Outcome) -> bool,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        for raw in &self.choices {
            let happened = choices(*raw).find_map(|choice| {
                let event = any_event(machine, choice);
                let outcome = if wanted(event) { machine.apply(event).ok()? } else { return None };
                Some((event, outcome))
            });
            let Some((event, outcome)) = happened else { continue };
            events.push(event);
            if !go_on(machine, event, &outcome) {
                break;
            }
        }
        events
    }
}

/// What random events write and read. Not every register file has the last one, which is dynamic; a machine refuses what
/// it has not.
const COMPONENTS: [Component; 5] =
    [Component::SSE, Component::AVX, Component::SSE, Component::AVX, Component::TILEDATA];

/// Nothing denied, all but one key, the default, everything denied.
const PKRUS: [Pkru; 4] = [Pkru(0), Pkru(0x5555_5550), Pkru::DEFAULT, Pkru(u32::MAX)];

/// Pages of three keys, to be read and to be written.
const PAGES: [[PageAccess; 2]; 3] = {
    const fn page(key: u8, write: bool) -> PageAccess {
        PageAccess::new(key, write).expect("a key below 16")
    }
    [[page(0, false), page(0, true)], [page(1, false), page(1, true)], [page(2, false), page(2, true)]]
};

/// What stands for an event with [`any_event`]: the choice itself, and others for the case that the machine refuses its event: the same kind of event with
/// other names first, so that kinds that are possible more often do not crowd out the rest.
pub fn choices(raw: u32) -> impl Iterator<Item = u32> {
    const KINDS_TRIED: u32 = 60;
    const NAMES_TRIED: u32 = 12;
    let kind = move |n| if n == 0 { raw % KINDS } else { hash(raw, n) % KINDS };
    let names = move |n, m| {
        if (n, m) == (0, 0) { raw / KINDS } else { hash(raw, KINDS_TRIED + n * NAMES_TRIED + m) / KINDS }
    };
    let other = move |n| (0..NAMES_TRIED).map(move |m| (names(n, m) * KINDS).wrapping_add(kind(n)));
    (0..KINDS_TRIED).flat_map(other)
}

/// The `n`th of many numbers made from one.
fn hash(raw: u32, n: u32) -> u32 {
    let x = raw.wrapping_add(n.wrapping_mul(0x9E37_79B9));
    let x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846C_A68B);
    x ^ (x >> 16)
}

/// One number as several small ones.
struct Digits(u32);

impl Digits {
    fn below(&mut self, count: usize) -> usize {
        let digit = self.0 % count as u32;
        self.0 /= count as u32;
        digit as usize
    }

    fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

/// How many kinds of events [`any_event`] tells apart, the likely ones several times.
const KINDS: u32 = 86;

/// How many slots for tasks the random events use, kernel threads included.
const SLOTS: usize = 5;

/// The event that `raw` stands for. It names CPUs and tasks that are there, most of the time; the machine may
/// refuse it all the same.
pub fn any_event<R: UserFrames, P: Policy>(machine: &Machine<R, P>, raw: u32) -> Event {
    let mut digits = Digits(raw);
    let kind = digits.below(KINDS as usize);
    let cpu = CpuId(digits.below(machine.cpus().len()) as u32);
    let slot = digits.below(SLOTS);
    let odd = digits.below(16) == 15;
    let task = match machine.tasks().get(slot).map(|task| task.fpstate().id()) {
        Some(task) if odd => task.next_generation(),
        Some(task) => task,
        None => TaskId::first(slot as u32),
    };
    let new = machine.next_task(slot).unwrap_or(task);
    let component = if odd { Component::X87 } else { digits.one_of(&COMPONENTS) };
    // 1 to 252 are patterns, none of them initial.
    let value = Value::new(1 + Digits(digits.0).below(252) as u8).unwrap_or(Value::INITIAL);
    match kind {
        0..4 => Event::ScheduleIn(cpu, task),
        4..10 => match machine.cpu(cpu).map(|cpu| cpu.current()) {
            Some(Current::Task(current)) if !odd => Event::Return(cpu, current),
            _ => Event::Return(cpu, task),
        },
        10..14 => Event::UserWrite(cpu, component, value),
        14..18 => {
            let kinds = [EntryKind::SystemCall, EntryKind::Exception, EntryKind::Interrupt];
            Event::Entry(cpu, digits.one_of(&kinds))
        }
        18..20 => Event::ScheduleOut(cpu),
        20 => Event::Idle(cpu),
        21 => Event::Spawn(new),
        22 => Event::KernelThread(new),
        23 => Event::Fork(cpu, new),
        24 => Event::Exec(cpu),
        25 => Event::Exit(cpu),
        26 => Event::Migrate(task, cpu),
        27 => Event::Read(task, component),
        28..30 => Event::Write(task, component, value),
        30 => Event::UserPkru(cpu, digits.one_of(&PKRUS)),
        31..33 => {
            let contexts = [KernelContext::Task, KernelContext::SoftIrq, KernelContext::HardIrq];
            Event::KernelFpuBegin(cpu, digits.one_of(&contexts))
        }
        33..36 => Event::KernelFpuEnd(cpu),
        36..38 => {
            let verbs = [Verb::CopyToCpu, Verb::MoveToCpu, Verb::CopyToMemory, Verb::MoveToMemory];
            Event::Access(cpu, digits.one_of(&verbs))
        }
        38 => Event::InvalidateRegisters(cpu),
        39..41 => Event::SignalDeliver(cpu),
        41..43 => Event::SignalSave(cpu),
        43..45 => Event::SignalFaultIn(cpu),
        45 => Event::SignalEnter(cpu),
        46..48 => Event::SigReturn(cpu),
        48..50 => Event::SigReturnLoad(cpu),
        50..52 => {
            let changes = [
                FrameChange::Absent,
                FrameChange::Absent,
                FrameChange::RestAbsent,
                FrameChange::Unmapped,
                FrameChange::BadHeader,
                FrameChange::BadMxcsr,
                FrameChange::BadMagic,
                FrameChange::BadSize,
                FrameChange::Short,
                FrameChange::Pkru(None),
                FrameChange::Pkru(Some(digits.one_of(&PKRUS))),
            ];
            Event::Frame(task, digits.one_of(&changes))
        }
        52 => Event::Offline(cpu),
        53 => Event::Online(cpu),
        54 => Event::PowerLoss(cpu),
        // Few: an FPU-free task says little about registers.
        55 if digits.below(3) == 0 => Event::FpuFree(task),
        56 => Event::FpuFault(cpu),
        58 => Event::SoftIrqBegin(cpu),
        59..61 => Event::SoftIrqEnd(cpu),
        61 => Event::UserWorker(cpu, new),
        62 => Event::KernelPkru(cpu, digits.one_of(&PKRUS)),
        63 => Event::ReadPkru(task),
        64 => {
            let pkru = digits.one_of(&PKRUS);
            Event::WritePkru(task, if digits.below(3) == 0 { None } else { Some(pkru) })
        }
        65..67 => {
            let [key, write] = [digits.below(PAGES.len()), digits.below(2)];
            let local = machine.cpu(cpu).map(|cpu| cpu.current());
            let whose = match local {
                Some(Current::Task(current)) if digits.below(3) != 0 => current,
                _ => task,
            };
            Event::UserMemory(cpu, whose, PAGES[key][write])
        }
        67..69 => Event::SigReturnCopy(cpu),
        69..71 => Event::GuestLoad(cpu),
        71..73 => Event::GuestPut(cpu),
        73..76 => Event::GuestEnter(cpu),
        76 => Event::GuestExit(cpu),
        77..79 => Event::Permit(cpu, Component::TILEDATA),
        79..83 => Event::DynamicUse(cpu, Component::TILEDATA),
        83..86 => Event::DynamicGrow(cpu),
        _ => Event::FirstUse(cpu),
    }
}
