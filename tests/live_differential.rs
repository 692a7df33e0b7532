//! The same threads on software registers, on parked ones and on bare ones: the same values, and as many saves, restores
//! and skips.

#[path = "support/emulator.rs"]
mod emulator;
#[path = "support/live_policies.rs"]
mod live_policies;
#[path = "support/live_steps.rs"]
mod steps;

use emulator::{LAST_X87_INSTRUCTION, cases_here, keeps_x87_pointers};
use fpuswitch::{
    Component, ComponentSet, CpuId, EntryKind, Event, KernelContext, Pkru, Rfbm, TaskId, Value,
    check::{programs, values},
    fpu::{Load, Policy, Save, policy},
    live::{self, Call, Config, Counts, Gate, LiveError, Spawn},
    machine::{Machine, Outcome},
    registers::{Fault, HostRegs, Program, RegisterFile, SoftRegs, Unsupported, UserFrames, XsaveImage},
    xstate::Area,
};
use live_policies::for_live_policies;
use proptest::{
    prelude::*,
    test_runner::{Config as Cases, RngSeed, TestRunner},
};
use std::{cell::Cell, collections::VecDeque};
use steps::Pattern;

/// Schedules for each policy and gate.
const SCHEDULES: u32 = if cfg!(debug_assertions) { 40 } else { 200 };
const CPU: CpuId = CpuId(0);

/// What user code does: programs, and a call of the kernel.
#[derive(Clone, Debug)]
enum Step {
    Call(Vec<Program>, Call),
    /// A yield that keeps the control words alone, which are the default, and what is in the registers before and behind.
    YieldNow(Value, Value),
}

#[derive(Clone, Debug)]
enum Thread {
    User(Vec<Step>),
    /// A kernel thread that uses no registers, and how often it is called.
    FpuFree(u8),
    /// One that does, behind a door.
    Door(u8),
}

/// Threads that are ready to run, all on one CPU, in that order.
type Schedule = Vec<Thread>;

fn schedules(enabled: ComponentSet) -> impl Strategy<Value = Schedule> {
    let list = proptest::collection::vec(programs(enabled), 0..4);
    let call = || prop_oneof![1 => Just(Call::Null), 2 => Just(Call::Yield)];
    // Their two low bits are the rounding control.
    let unrounded = (1..60_u8).prop_map(|number| Value::new(4 * number).expect("a small number"));
    let step = prop_oneof![
        4 => (list, call()).prop_map(|(programs, call)| Step::Call(programs, call)),
        1 => (unrounded, values()).prop_map(|(before, behind)| Step::YieldNow(before, behind)),
    ];
    let thread = prop_oneof![
        3 => proptest::collection::vec(step, 0..8).prop_map(Thread::User),
        1 => (1..6_u8).prop_map(Thread::FpuFree),
        1 => (1..6_u8).prop_map(Thread::Door),
    ];
    proptest::collection::vec(thread, 1..5)
}

/// What was in the registers behind a step: the bytes of each component, or of those that hold control words the control
/// words alone.
type Found = Vec<Vec<u8>>;

/// What each user thread found behind each of its steps, and what was done.
#[derive(Debug, Default, PartialEq)]
struct Story {
    found: Vec<Vec<Found>>,
    counts: Counts,
}

fn found<B: AsRef<[u8]>>(area: &Area<B>, step: &Step) -> Found {
    let bytes = |component| area.component(component).expect("an enabled one").into_owned();
    match step {
        Step::Call(..) => {
            let components = area.layout().enabled().without(Component::PKRU);
            let mut found: Found = components.iter().map(bytes).collect();
            if !keeps_x87_pointers() {
                found[0][LAST_X87_INSTRUCTION].fill(0);
            }
            found
        }
        // FCW; of MXCSR, which SSE begins with, what is no sticky flag.
        Step::YieldNow(..) => {
            let (fcw, mut mxcsr) = (bytes(Component::X87), bytes(Component::SSE));
            mxcsr[0] &= !0x3f;
            vec![fcw[..2].to_vec(), mxcsr[..4].to_vec()]
        }
    }
}

/// On real registers, by green threads.
fn on_registers<P: Policy + Send + 'static>(
    policy: P,
    gate: Gate,
    schedule: &Schedule,
) -> Result<Story, LiveError> {
    let machine = live::Machine::start(policy, Config { cpus: 1, gate, ..Config::default() })?;
    let schedule = schedule.clone();
    // All threads are there before the first runs: a thread makes them, which nobody preempts.
    let start = move || {
        let place = || Spawn::here().and_then(|spawn| spawn.cpu(CPU).ok()).expect("a green thread of CPU 0");
        let mut threads = Vec::new();
        for thread in schedule {
            match thread {
                Thread::User(steps) => threads.push(place().spawn(move || user(&steps)).expect("a thread")),
                Thread::FpuFree(mut left) => {
                    let step = move || {
                        left -= 1;
                        if left == 0 { live::Step::Done } else { live::Step::Again }
                    };
                    place().spawn_kernel_fpu_free(step).expect("a kernel thread");
                }
                Thread::Door(mut left) => {
                    let mut pattern = Pattern::new(Value::KERNEL);
                    let step = move || {
                        pattern.clobber();
                        left -= 1;
                        if left == 0 { live::Step::Done } else { live::Step::Again }
                    };
                    place().spawn_kernel(step).expect("a kernel thread");
                }
            }
        }
        threads
    };
    let start = machine.build().cpu(CPU)?.spawn(start)?;
    let threads = start.join().expect("no panic");
    let found = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
    Ok(Story { found, counts: machine.shutdown() })
}

/// The code of a user thread. Between its calls, its registers are in an image.
fn user(steps: &[Step]) -> Vec<Found> {
    let mut regs = steps::host();
    let mut image = regs.new_image();
    let step = |step: &Step| {
        let mut pattern;
        match step {
            Step::Call(programs, call) => {
                programs.iter().for_each(|program| regs.run(*program));
                pattern = Pattern::of(&regs);
                pattern.survives(*call);
                image.area_mut().bytes_mut().copy_from_slice(pattern.found().bytes());
                regs.restore(Rfbm::ALL, &image).expect("what XSAVE wrote");
            }
            Step::YieldNow(before, behind) => {
                regs.run(Program::FillAll(*before));
                pattern = Pattern::of(&regs);
                pattern.yields();
                regs.run(Program::FillAll(*behind));
            }
        }
        found(&pattern.found(), step)
    };
    steps.iter().map(step).collect()
}

/// On a simulated machine, with what the kernel of a real CPU does.
struct Model<R: UserFrames, P> {
    machine: Machine<Driven<R>, P>,
    story: Story,
}

impl<R: UserFrames<Image = XsaveImage> + Clone, P: Policy> Model<R, P> {
    fn run(policy: P, regs: R, schedule: &Schedule) -> Story {
        let machine = Machine::with_registers(policy, 1, Driven(regs));
        let mut model = Self { machine, story: Story::default() };
        // The first is the thread that makes the others.
        let threads: Vec<_> =
            [Thread::User(Vec::new())].into_iter().chain(schedule.iter().cloned()).collect();
        let task = |number: usize| TaskId::first(number as u32);
        for (number, thread) in threads.iter().enumerate() {
            model.apply(match thread {
                Thread::User(_) => Event::Spawn(task(number)),
                Thread::FpuFree(_) | Thread::Door(_) => Event::KernelThread(task(number)),
            });
        }
        // Who is ready to run, and how far it is.
        let mut ready: VecDeque<_> = (0..threads.len()).map(|number| (number, 0)).collect();
        let mut found = vec![Vec::new(); threads.len()];
        while let Some((number, mut done)) = ready.pop_front() {
            model.apply(Event::ScheduleIn(CPU, task(number)));
            model.story.counts.switches += 1;
            let has_ended = match &threads[number] {
                Thread::User(steps) => {
                    let has_others = !ready.is_empty();
                    model.user(task(number), steps, &mut done, has_others, &mut found[number])
                }
                Thread::FpuFree(calls) | Thread::Door(calls) => {
                    if matches!(threads[number], Thread::Door(_)) {
                        model.kernel_fpu(KernelContext::Task);
                    }
                    done += 1;
                    done == usize::from(*calls)
                }
            };
            if has_ended {
                model.apply(Event::Exit(CPU));
            }
            model.apply(Event::ScheduleOut(CPU));
            if has_ended {
                // Its stack is freed by code that nobody has audited, for no thread.
                model.apply(Event::Idle(CPU));
                model.kernel_fpu(KernelContext::SoftIrq);
            } else {
                ready.push_back((number, done));
            }
        }
        let is_user = |(number, _): &(usize, _)| *number > 0 && matches!(threads[*number], Thread::User(_));
        model.story.found = found.into_iter().enumerate().filter(is_user).map(|(_, found)| found).collect();
        model.story
    }

    /// A thread that is current, until it gives up the CPU; whether it has ended.
    fn user(
        &mut self,
        task: TaskId,
        steps: &[Step],
        done: &mut usize,
        has_others: bool,
        found: &mut Vec<Found>,
    ) -> bool {
        loop {
            self.apply(Event::Return(CPU, task));
            // It comes from its last call, if it is not new.
            if let Some(step) = done.checked_sub(1).map(|last| &steps[last]) {
                found.push(self.look(step));
                if let Step::YieldNow(_, behind) = step {
                    self.run_program(Program::FillAll(*behind));
                }
            }
            let Some(step) = steps.get(*done) else {
                self.enter(EntryKind::SystemCall);
                return true;
            };
            *done += 1;
            let yields = match step {
                Step::Call(programs, call) => {
                    programs.iter().for_each(|program| self.run_program(*program));
                    // As an interrupt or an exception would: it keeps everything.
                    self.enter(EntryKind::Exception);
                    *call == Call::Yield
                }
                Step::YieldNow(before, _) => {
                    self.run_program(Program::FillAll(*before));
                    self.enter(EntryKind::SystemCall);
                    true
                }
            };
            if yields && has_others {
                return false;
            }
        }
    }

    fn enter(&mut self, kind: EntryKind) {
        self.apply(Event::Entry(CPU, kind));
        self.story.counts.entries += 1;
    }

    fn kernel_fpu(&mut self, context: KernelContext) {
        self.apply(Event::KernelFpuBegin(CPU, context));
        self.apply(Event::KernelFpuEnd(CPU));
        self.story.counts.doors += 1;
    }

    /// User code runs it: any write will do, whose place it takes.
    fn run_program(&mut self, program: Program) {
        NEXT.set(Some(program));
        self.apply(Event::UserWrite(CPU, Component::X87, Value::INITIAL));
        assert_eq!(NEXT.get(), None);
    }

    fn look(&self, step: &Step) -> Found {
        let regs = &self.machine.cpus()[0].regs().0;
        let mut image = regs.new_image();
        regs.save(Rfbm::ALL, &mut image);
        found(image.area(), step)
    }

    fn apply(&mut self, event: Event) {
        let outcome: Outcome = self.machine.apply(event).unwrap_or_else(|error| panic!("{event}: {error}"));
        let counts = &mut self.story.counts;
        for save in outcome.before.iter().flatten().map(|done| done.save).chain(outcome.save) {
            match save {
                Save::Saved => counts.saves += 1,
                Save::SavedKept => counts.control_saves += 1,
                _ => {}
            }
        }
        match outcome.load {
            Some(Load::Restored | Load::Initialised) => counts.restores += 1,
            Some(Load::RestoredKept) => counts.control_restores += 1,
            Some(Load::Skipped) => counts.skips += 1,
            _ => {}
        }
    }
}

thread_local! {
    /// What user code runs next.
    static NEXT: Cell<Option<Program>> = const { Cell::new(None) };
}

/// Registers that user code can run any program on, where a machine knows writes of one component alone.
#[derive(Clone, Debug)]
struct Driven<R>(R);

impl<R: RegisterFile> RegisterFile for Driven<R> {
    type Image = R::Image;

    fn enabled(&self) -> ComponentSet {
        self.0.enabled()
    }

    fn dynamic(&self) -> ComponentSet {
        self.0.dynamic()
    }

    fn new_image(&self) -> R::Image {
        self.0.new_image()
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    fn save(&self, rfbm: Rfbm, image: &mut R::Image) {
        self.0.save(rfbm, image);
    }

    fn restore(&mut self, rfbm: Rfbm, image: &R::Image) -> Result<(), Fault> {
        self.0.restore(rfbm, image)
    }

    fn restore_initial(&mut self, rfbm: Rfbm) {
        self.0.restore_initial(rfbm);
    }

    fn in_use(&self) -> Result<ComponentSet, Unsupported> {
        self.0.in_use()
    }

    fn get(&self, component: Component) -> Value {
        self.0.get(component)
    }

    fn pkru(&self) -> Option<Pkru> {
        self.0.pkru()
    }

    fn set_pkru(&mut self, pkru: Pkru) {
        self.0.set_pkru(pkru);
    }

    fn xfd(&self) -> Result<ComponentSet, Unsupported> {
        self.0.xfd()
    }

    fn run(&mut self, program: Program) {
        self.0.run(NEXT.take().unwrap_or(program));
    }
}

impl<R: UserFrames> UserFrames for Driven<R> {
    type Frame = R::Frame;

    fn frame_with_room(&self, components: ComponentSet) -> R::Frame {
        self.0.frame_with_room(components)
    }

    fn save_user(&self, rfbm: Rfbm, frame: &mut R::Frame) -> Result<(), Fault> {
        self.0.save_user(rfbm, frame)
    }

    fn restore_user(&mut self, rfbm: Rfbm, frame: &R::Frame) -> Result<(), Fault> {
        self.0.restore_user(rfbm, frame)
    }

    fn restore_user_legacy(&mut self, frame: &R::Frame) -> Result<(), Fault> {
        self.0.restore_user_legacy(frame)
    }
}

fn cases(cases: u32) -> TestRunner {
    let seeded = Cases { cases, rng_seed: RngSeed::Fixed(0x11fe), ..Cases::default() };
    TestRunner::new(Cases { failure_persistence: None, max_shrink_iters: 500, ..seeded })
}

fn soft(host: &HostRegs) -> SoftRegs {
    let soft = SoftRegs::new(host.layout()).with_save_instruction(host.save_instruction());
    soft.expect("an instruction of the host")
}

/// What is done on registers of one kind, by every policy, is done on those of the others.
fn gate_does_what_software_does(gate: Gate) -> Result<(), LiveError> {
    let host = HostRegs::new()?;
    let soft = soft(&host);
    let mut totals = Counts::default();
    for_live_policies!(policy => {
        drop(live::Machine::start(policy, Config { cpus: 1, gate, ..Config::default() })?);
        let all = Cell::new(Counts::default());
        let same = cases(cases_here(SCHEDULES, 40)).run(&schedules(host.enabled()), |schedule| {
            let told = Model::run(policy, soft.clone(), &schedule);
            prop_assert_eq!(&told, &Model::run(policy, host.clone(), &schedule));
            let seen = on_registers(policy, gate, &schedule).expect("threads");
            prop_assert_eq!(&told, &seen);
            all.set(all.get() + seen.counts);
            Ok(())
        });
        same.unwrap_or_else(|failed| panic!("{gate:?}, {}: {failed}", policy.name()));
        println!("{gate:?}, {}: {:?}", policy.name(), all.get());
        totals = totals + all.get();
    });
    let Counts { saves, control_saves, restores, control_restores, skips, .. } = totals;
    assert!(
        [saves, control_saves, restores, control_restores, skips].iter().all(|count| *count > 0),
        "{totals:?}"
    );
    Ok(())
}

#[test]
fn hardware_parked_gate_does_what_software_does() {
    gate_does_what_software_does(Gate::Parked).expect("threads");
    println!("HARDWARE live-differential-parked: ran");
}

#[test]
fn hardware_bare_gate_does_what_software_does() {
    match gate_does_what_software_does(Gate::Bare) {
        Ok(()) => println!("HARDWARE live-differential-bare: ran"),
        Err(why @ LiveError::NotFpuFree(_)) => println!("HARDWARE live-differential-bare: SKIPPED: {why}"),
        Err(error) => panic!("{error}"),
    }
}

/// Counts are told apart: another policy has others.
#[test]
fn hardware_counts_of_another_policy_differ() {
    let host = HostRegs::new().expect("the host's registers");
    let schedule = vec![
        Thread::User(vec![Step::Call(vec![Program::FillAll(Value::KERNEL)], Call::Yield)]),
        Thread::FpuFree(2),
    ];
    let eager = Model::run(policy::Eager, soft(&host), &schedule);
    let seen = on_registers(policy::OwnerSlot, Gate::Auto, &schedule).expect("threads");
    assert_eq!(eager.found, seen.found);
    assert!(eager.counts.restores > seen.counts.restores && eager.counts.skips < seen.counts.skips);
    println!("HARDWARE live-differential-policies: ran");
}
