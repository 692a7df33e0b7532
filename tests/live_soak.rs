//! Threads on more CPUs than there are cores, whose registers are full of what nobody else has, and compared behind every
//! switch: no error, by the million.
//!
//! `cargo test` has a short form. The whole: `cargo test --release --features live --test live_soak -- --ignored --nocapture`.

#[path = "support/emulator.rs"]
mod emulator;
#[path = "support/live_policies.rs"]
mod live_policies;
#[path = "support/live_steps.rs"]
mod steps;

use emulator::{Deviation, cases_here, report_rare_components};
use fpuswitch::{
    Component, ComponentSet, CpuId, Value,
    fpu::Policy,
    live::{Call, Config, Counts, Gate, GateReport, JoinHandle, Machine, Step, current, preemptible},
    registers::{HostRegs, Program, RegisterFile},
    xstate::SaveInstruction,
};
use live_policies::for_live_policies;
use std::{
    env, fmt,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use steps::{Pattern, SelfSignal};

const CPUS: u32 = 4;

/// What a CPU runs besides threads that go from CPU to CPU.
struct Company {
    threads: u32,
    /// Kernel threads that use no registers: a thread that is alone with one finds its own still there.
    fpu_free: u32,
    /// Kernel threads behind a door, that leave something else in all registers.
    doors: u32,
}

const COMPANIES: [Company; CPUS as usize] = [
    Company { threads: 3, fpu_free: 0, doors: 0 },
    Company { threads: 2, fpu_free: 0, doors: 1 },
    Company { threads: 1, fpu_free: 1, doors: 0 },
    Company { threads: 1, fpu_free: 0, doors: 1 },
];
const MIGRATING: u32 = 2;

/// What happens between two changes of a thread's pattern.
const CALLS: u64 = 200;
const SIGNALS: u64 = 2;
const COUNT: u64 = 2000;

/// When a soak has seen enough, and when it has taken too long.
#[derive(Clone, Copy)]
struct Goal {
    switches: u64,
    preemptions: u64,
    deadline: Duration,
}

/// What the threads of a machine share.
#[derive(Default)]
struct Soak {
    is_over: AtomicBool,
    /// How often registers were compared behind a call: with the default control words, with another MXCSR, with another
    /// x87 control word.
    calls: [AtomicU64; 3],
    /// How often behind a signal that the thread sent itself. Those of threads that migrate stop whoever runs where they
    /// began, at any instruction.
    signals: AtomicU64,
}

/// How a soak ended.
struct Report {
    policy: &'static str,
    gate: GateReport,
    counts: Counts,
    calls: [u64; 3],
    signals: u64,
    errors: Vec<String>,
    took: Duration,
}

impl Goal {
    /// Whether it was worth the while.
    fn is_reached(&self, policy: &str, counts: &Counts, calls: [u64; 3], signals: u64) -> bool {
        voluntary(counts) >= self.switches
            && counts.preemptions >= self.preemptions.max(signals + 1)
            && signals > 0
            && counts.doors > 0
            && calls.iter().all(|calls| *calls > 0)
            && (counts.skips > 0 || !skips(policy))
    }
}

/// Whether a policy leaves out restores.
fn skips(policy: &str) -> bool {
    ["eager-owner", "owner-slot", "lazy-save", "call-boundary"].contains(&policy)
}

impl Report {
    /// No thread found an error, and all was there that could have shown one.
    fn assert_good(&self, goal: Goal) {
        let Self { policy, counts, calls, signals, errors, took, .. } = self;
        assert!(errors.is_empty(), "{policy}: {errors:#?}");
        assert!(*took < goal.deadline && goal.is_reached(policy, counts, *calls, *signals), "{self}");
        assert_eq!(skips(policy), counts.skips > 0, "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, gate, counts, calls, signals, errors, took } = self;
        let gate = if matches!(gate, GateReport::Bare(_)) { "bare" } else { "parked" };
        write!(
            f,
            "{policy}, {gate}: {:.1} s, {} switches without a signal, {} preemptions ({signals} by the thread itself, the others at any instruction), \
             compared {} times behind a call ({calls:?} by control words), {} saves, {} restores, {} skips, {} doors, \
             {} errors",
            took.as_secs_f64(),
            voluntary(counts),
            counts.preemptions,
            calls.iter().sum::<u64>(),
            counts.saves,
            counts.restores,
            counts.skips,
            counts.doors,
            errors.len()
        )
    }
}

/// The patterns of one thread, of which no other thread has any: twenty numbers in turn, and all combinations of control
/// words with them.
struct Patterns {
    regs: HostRegs,
    components: Vec<Component>,
    first: u8,
    round: u32,
    /// Of the components, those that are left in their initial configuration in turn.
    random: u32,
}

const NUMBERS: u8 = 20;

impl Patterns {
    fn new(thread: u32) -> Self {
        let regs = steps::host();
        let components = regs.enabled().without(Component::PKRU).iter().collect();
        let first = 4 + NUMBERS * u8::try_from(thread).expect("few threads");
        assert!(first < Value::KERNEL.number() - NUMBERS);
        Self { regs, components, first, round: 0, random: 0x9e37_79b9 ^ thread }
    }

    /// The next, and which control words it has: the default, another MXCSR, another x87 control word.
    fn next(&mut self) -> (Pattern, usize) {
        self.round += 1;
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // The two low bits of a number are the rounding control: MXCSR's in SSE, the control word's in x87.
        let number = |low: u32| self.first + 4 * (self.round % 5) as u8 + low as u8;
        let (in_sse, in_x87) = (self.round % 4, (self.round / 4 + u32::from(self.first / NUMBERS)) % 4);
        let mut set = ComponentSet::EMPTY;
        for (n, component) in self.components.iter().enumerate() {
            let number = match *component {
                Component::X87 => number(in_x87),
                Component::SSE => number(in_sse),
                _ => number(self.round % 4),
            };
            let is_initial = self.random >> (16 + 2 * n) & 3 == 0;
            let value = if is_initial { Value::INITIAL } else { Value::new(number).expect("a small number") };
            self.regs.run(Program::Fill(*component, value));
            if !is_initial {
                set = set.with(*component);
            }
        }
        let class = match (
            set.contains(Component::X87) && in_x87 != 0,
            set.contains(Component::SSE) && in_sse != 0,
        ) {
            (true, _) => 2,
            (false, true) => 1,
            (false, false) => 0,
        };
        (Pattern::of(&self.regs), class)
    }
}

/// A thread: what it found that it had not left there.
fn thread(soak: &Soak, number: u32, signal: SelfSignal, may_migrate: bool) -> Result<(), String> {
    let mut patterns = Patterns::new(number);
    let signal = signal.to_here();
    while !soak.is_over.load(Relaxed) {
        let (mut pattern, class) = patterns.next();
        #[expect(unsafe_code, reason = "a region that may be preempted")]
        // SAFETY: the regions are asm that touches registers and memory of its own.
        let survived = unsafe {
            preemptible(|| pattern.survives_calls(Call::Yield, CALLS))
                && preemptible(|| pattern.survives_signals(signal, SIGNALS))
                && preemptible(|| pattern.survives_turns(COUNT))
        };
        if !survived {
            soak.is_over.store(true, Relaxed);
            return Err(format!("thread {number}: {}", pattern.difference()));
        }
        soak.calls[class].fetch_add(CALLS, Relaxed);
        if !may_migrate {
            soak.signals.fetch_add(SIGNALS, Relaxed);
        }
        if may_migrate && let Some(thread) = current() {
            thread.migrate_to(CpuId(patterns.random >> 8 & 3)).expect("a CPU, and a thread that may");
        }
    }
    Ok(())
}

/// Runs a machine until it has done enough, or a thread has found an error.
fn soak<P: Policy + Send + 'static>(policy: P, config: Config, goal: Goal) -> Report {
    let machine = Machine::start(policy, Config { cpus: CPUS, ..config }).expect("a machine");
    soak_on(machine, goal)
}

/// The same on a machine that was just made.
fn soak_on(machine: Machine, goal: Goal) -> Report {
    let start = Instant::now();
    let soak = Arc::new(Soak::default());
    let signal = SelfSignal::capture();
    let mut threads = Vec::new();
    let mut kernel_threads: Vec<JoinHandle<()>> = Vec::new();
    for (cpu, company) in COMPANIES.iter().enumerate() {
        let place = || machine.build().cpu(CpuId(cpu as u32));
        for _ in 0..company.threads {
            let (soak, number) = (Arc::clone(&soak), threads.len() as u32);
            let run = move || thread(&soak, number, signal, false);
            threads.push(place().and_then(|place| place.spawn(run)).expect("a thread"));
        }
        for _ in 0..company.fpu_free {
            let soak = Arc::clone(&soak);
            let step = move || if soak.is_over.load(Relaxed) { Step::Done } else { Step::Again };
            kernel_threads
                .push(place().and_then(|place| place.spawn_kernel_fpu_free(step)).expect("a thread"));
        }
        for _ in 0..company.doors {
            let (soak, mut left) = (Arc::clone(&soak), Pattern::new(Value::KERNEL));
            let step = move || {
                left.clobber();
                if soak.is_over.load(Relaxed) { Step::Done } else { Step::Again }
            };
            kernel_threads.push(place().and_then(|place| place.spawn_kernel(step)).expect("a thread"));
        }
    }
    for _ in 0..MIGRATING {
        let (soak, number) = (Arc::clone(&soak), threads.len() as u32);
        let run = move || thread(&soak, number, signal, true);
        #[expect(unsafe_code, reason = "threads that change CPUs")]
        // SAFETY: across the calls of the kernel, which are in asm, the thread has values of its own alone.
        threads.push(unsafe { machine.build().spawn_migratable(run) }.expect("a thread"));
    }
    // Signals from outside stop a thread at any instruction.
    while !soak.is_over.load(Relaxed) {
        for cpu in (0..CPUS).map(CpuId) {
            machine.preempt(cpu).expect("a signal");
        }
        std::thread::sleep(Duration::from_micros(500));
        let calls = soak.calls.each_ref().map(|count| count.load(Relaxed));
        // Those that were heard, and are not counted yet, too.
        let signals = soak.signals.load(Relaxed) + SIGNALS * threads.len() as u64;
        let is_enough = goal.is_reached(machine.policy(), &machine.counts(), calls, signals);
        let is_late = start.elapsed() > goal.deadline;
        if is_enough || is_late {
            soak.is_over.store(true, Relaxed);
        }
    }
    let ended = threads.into_iter().map(|thread| thread.join().expect("no panic"));
    let errors: Vec<_> = ended.filter_map(Result::err).collect();
    kernel_threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    let (policy, gate) = (machine.policy(), machine.gate().clone());
    Report {
        policy,
        gate,
        counts: machine.shutdown(),
        calls: soak.calls.each_ref().map(|count| count.load(Relaxed)),
        signals: soak.signals.load(Relaxed),
        errors,
        took: start.elapsed(),
    }
}

/// Switches that no signal made.
fn voluntary(counts: &Counts) -> u64 {
    counts.switches.min(counts.entries).saturating_sub(counts.preemptions)
}

/// Each policy and gate for a moment.
#[test]
fn hardware_threads_find_their_registers_behind_every_switch() {
    if let Ok(name) = env::var(FORM) {
        let instruction = SaveInstruction::ALL.into_iter().find(|instruction| instruction.name() == name);
        steps::save_with(instruction.expect("an instruction"));
    }
    let preemptions = if cfg!(debug_assertions) { 100 } else { cases_here(500, 10).into() };
    let goal = Goal { switches: 100 * preemptions, preemptions, deadline: Duration::from_secs(60) };
    for gate in [Gate::Auto, Gate::Parked] {
        for_live_policies!(policy => {
            let report = soak(policy, Config { gate, ..Config::default() }, goal);
            println!("{report}");
            report.assert_good(goal);
        });
    }
    println!("HARDWARE live-soak: ran");
    report_rare_components("live-soak", steps::host().enabled().bits());
}

/// What says with which instruction the test above saves.
const FORM: &str = "FPUSWITCH_TEST_FORM";

/// The same saved as on a CPU that lacks XSAVEC, or XSAVE, each in a process of its own.
#[test]
fn hardware_threads_find_their_registers_in_every_form() {
    let host = HostRegs::new().expect("the host's registers");
    for instruction in [SaveInstruction::Fxsave, SaveInstruction::Xsave, SaveInstruction::Xsavec] {
        if host.clone().with_save_instruction(instruction).is_err() {
            println!("HARDWARE live-soak-{instruction}: SKIPPED: the CPU lacks it");
            continue;
        }
        let mut again = Command::new(env::current_exe().expect("this binary"));
        again.args(["--exact", "--nocapture", "hardware_threads_find_their_registers_behind_every_switch"]);
        let output = again.env(FORM, instruction.name()).output().expect("a process");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{instruction}: {said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("HARDWARE live-soak: ran"), "{said}");
        println!("HARDWARE live-soak-{instruction}: ran");
    }
}

/// A hundred million switches, a million preemptions, and no error, in less than five minutes.
#[test]
#[ignore = "takes minutes, with optimisation"]
fn every_register_of_every_thread_survives_a_hundred_million_switches() {
    let start = Instant::now();
    let deadline = Duration::from_secs(300);
    let goal = Goal { switches: 100_000_000 / 7 + 1, preemptions: 1_000_000 / 7 + 1, deadline };
    let mut total = Counts::default();
    for_live_policies!(policy => {
        let report = soak(policy, Config::default(), goal);
        println!("{report}");
        report.assert_good(goal);
        total = total + report.counts;
    });
    let took = start.elapsed();
    println!(
        "all: {:.1} s, {} switches without a signal, {} preemptions, 0 errors",
        took.as_secs_f64(),
        voluntary(&total),
        total.preemptions
    );
    assert!(voluntary(&total) >= 100_000_000 && total.preemptions >= 1_000_000 && took < deadline);
}

/// The soak finds an error that is there: the one that leaves out of a restore what the thread had not used.
#[cfg(feature = "explore")]
#[test]
fn hardware_finds_restores_of_what_was_in_use_alone() {
    if !HostRegs::new().expect("the host's registers").layout().has_xsave() {
        println!("HARDWARE live-soak-in-use: SKIPPED: without XSAVE all of an image is in use");
        return;
    }
    if Deviation::InUseAlways.is_here() {
        return Deviation::InUseAlways.report("live-soak-in-use");
    }
    let report = soak_with(fpuswitch::fpu::Defect::RestoreWhatWasInUse, Gate::Parked);
    assert!(!report.errors.is_empty(), "not found: {report}");
    let report = soak_with(fpuswitch::fpu::Defect::RestoreWhatWasInUse, Gate::Auto);
    assert!(!report.errors.is_empty(), "not found: {report}");
    println!("HARDWARE live-soak-in-use: ran");
}

/// The same of kernel code that uses the registers, and leaves them named as a thread's. With the parked gate it does not
/// use those that are the thread's.
#[cfg(feature = "explore")]
#[test]
fn hardware_finds_kernel_code_that_keeps_the_owner() {
    let report = soak_with(fpuswitch::fpu::Defect::KernelFpuKeepsOwner, Gate::Auto);
    if !matches!(report.gate, GateReport::Bare(_)) {
        println!("HARDWARE live-soak-kernel-fpu: SKIPPED: {}", report.gate);
        return;
    }
    assert!(!report.errors.is_empty(), "not found: {report}");
    println!("HARDWARE live-soak-kernel-fpu: ran");
}

#[cfg(feature = "explore")]
fn soak_with(defect: fpuswitch::fpu::Defect, gate: Gate) -> Report {
    let goal = Goal { switches: 1_000_000, preemptions: 0, deadline: Duration::from_secs(10) };
    let config = Config { cpus: CPUS, gate, ..Config::default() };
    #[expect(unsafe_code, reason = "an error that changes registers is to be found")]
    // SAFETY: (a) the threads fill and compare registers in asm, and stop at the first difference.
    let machine = unsafe { Machine::start_with_defect(fpuswitch::fpu::policy::OwnerSlot, config, defect) };
    let report = soak_on(machine.expect("a machine"), goal);
    println!("{defect:?}: {report}: {:?}", report.errors);
    report
}
