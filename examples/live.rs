//! Threads full of vector registers, preempted every 100 µs under seven policies: same results, different work.
//!
//! `cargo run --release --features live --example live`. Two threads on CPU 0 sum the two halves of Leibniz's series for π, in
//! the widest vectors that the CPU has, in a loop that a signal may stop at any instruction. One on CPU 1 does the first
//! half again, and two kernel threads come in between. Each thread also yields now and then. A register that somebody
//! forgot would show in the last bits.
#![expect(unsafe_code, reason = "vector instructions that the CPU has, and a region that may be preempted")]

use fpuswitch::{
    CpuId,
    fpu::policy::{CallBoundary, Deferred, Eager, EagerOwner, EntryExit, LazySave, OwnerSlot, Policy},
    live::{Config, GateReport, LiveError, Machine, Step, is_fiber, preemptible, yield_now},
};
use std::{
    arch::x86_64::*,
    error::Error,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

const TICK: Duration = Duration::from_micros(100);
const SLICES: u32 = 300;
/// Turns of the loop in a slice, behind which a thread yields.
const TURNS: u32 = if cfg!(debug_assertions) { 300 } else { 10_000 };

/// A loop with eight vectors live: sums in four, denominators in four.
macro_rules! sum_in_vectors {
    ($name:ident, $feature:literal, $lanes:literal, $load:ident, $store:ident, $set1:ident, $add:ident, $div:ident) => {
        /// # Safety
        /// (a) The CPU has the feature.
        #[target_feature(enable = $feature)]
        unsafe fn $name(first: f64, turns: u32) -> f64 {
            const STEP: f64 = 4.0 * 4.0 * $lanes as f64;
            let mut lanes = [0.0; $lanes];
            let denominators = [0, 1, 2, 3].map(|vector| {
                for (lane, value) in lanes.iter_mut().enumerate() {
                    *value = first + 4.0 * (vector * $lanes + lane) as f64;
                }
                // SAFETY: so many values are there.
                unsafe { $load(lanes.as_ptr()) }
            });
            let [mut a, mut b, mut c, mut d] = denominators;
            let [mut w, mut x, mut y, mut z] = [$set1(0.0); 4];
            for _ in 0..turns {
                w = $add(w, $div($set1(1.0), a));
                x = $add(x, $div($set1(1.0), b));
                y = $add(y, $div($set1(1.0), c));
                z = $add(z, $div($set1(1.0), d));
                [a, b, c, d] = [a, b, c, d].map(|vector| $add(vector, $set1(STEP)));
            }
            // SAFETY: likewise.
            unsafe { $store(lanes.as_mut_ptr(), $add($add(w, x), $add(y, z))) };
            lanes.iter().sum()
        }
    };
}

sum_in_vectors!(
    avx512,
    "avx512f",
    8,
    _mm512_loadu_pd,
    _mm512_storeu_pd,
    _mm512_set1_pd,
    _mm512_add_pd,
    _mm512_div_pd
);
sum_in_vectors!(
    avx,
    "avx",
    4,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    _mm256_set1_pd,
    _mm256_add_pd,
    _mm256_div_pd
);
sum_in_vectors!(sse2, "sse2", 2, _mm_loadu_pd, _mm_storeu_pd, _mm_set1_pd, _mm_add_pd, _mm_div_pd);

type Sum = unsafe fn(f64, u32) -> f64;

/// The widest that this CPU has: its name, how many numbers are added at a turn, and the loop.
fn widest() -> (&'static str, u32, Sum) {
    if is_x86_feature_detected!("avx512f") {
        ("AVX-512", 4 * 8, avx512)
    } else if is_x86_feature_detected!("avx") {
        ("AVX", 4 * 4, avx)
    } else {
        ("SSE2", 4 * 2, sse2)
    }
}

/// 1/first + 1/(first + 4) + 1/(first + 8) + …, in slices; behind each comes `pause`.
fn series(first: f64, pause: fn()) -> f64 {
    let (_, at_once, sum) = widest();
    let slice = |number: u32| {
        let first = first + 4.0 * f64::from(at_once) * f64::from(TURNS) * f64::from(number);
        // SAFETY: (a) that is how `widest` chose it.
        unsafe { sum(first, TURNS) }
    };
    let mut total = 0.0;
    for number in 0..SLICES {
        total += match is_fiber() {
            // SAFETY: (a) arithmetic in registers and on the own stack. (b) The thread was not made to migrate. (c) This
            // process has no other signal handlers.
            true => unsafe { preemptible(|| slice(number)) },
            false => slice(number),
        };
        pause();
    }
    total
}

/// A line of the table, and the threads' sums.
fn run<P: Policy + Send + 'static>(policy: P) -> Result<([f64; 3], GateReport), LiveError> {
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    IS_OVER.store(false, Relaxed);
    let start = Instant::now();
    let machine = Machine::start(policy, Config { cpus: 2, tick: Some(TICK), ..Config::default() })?;
    let spawn = |(cpu, first)| {
        machine.build().cpu(CpuId(cpu))?.spawn(move || {
            let sum = series(first, yield_now);
            // So that the kernel threads do not go on alone.
            IS_OVER.fetch_or(cpu == 1, Relaxed);
            sum
        })
    };
    let [a, b, c] = [(0, 1.0), (0, 3.0), (1, 1.0)].map(spawn);
    for _ in 0..2 {
        let step = || if IS_OVER.load(Relaxed) { Step::Done } else { Step::Again };
        machine.build().cpu(CpuId(1))?.spawn_kernel_fpu_free(step)?;
    }
    let sums = [a?, b?, c?].map(|thread| thread.join().expect("no panic"));
    let (name, gate) = (machine.policy(), machine.gate().clone());
    let counts = machine.shutdown();
    println!(
        "{name:<14}{:<7}{:>8}{:>10}{:>9}{:>7}{:>9}{:>8}{:>9}{:>9}{:>6} ms",
        if matches!(gate, GateReport::Bare(_)) { "bare" } else { "parked" },
        counts.entries,
        counts.preemptions,
        counts.switches,
        counts.saves,
        counts.restores,
        counts.skips,
        counts.control_saves,
        counts.control_restores,
        start.elapsed().as_millis()
    );
    Ok((sums, gate))
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let (name, at_once, _) = widest();
    let plain = [1.0, 3.0, 1.0].map(|first| series(first, || {}));
    println!(
        "Three threads on two CPUs, {name}, {at_once} numbers a turn, a signal every {} µs. π is {:.6}.\n",
        TICK.as_micros(),
        4.0 * (plain[0] - plain[1])
    );
    println!("                                                                            control words");
    println!(
        "policy        gate    entries preempted switches  saves restores skipped    saves restores   time"
    );
    let runs = [
        run(Eager)?,
        run(EagerOwner)?,
        run(Deferred)?,
        run(OwnerSlot)?,
        run(LazySave)?,
        run(EntryExit)?,
        run(CallBoundary)?,
    ];
    if let Some(reason) = runs.iter().find(|(_, gate)| matches!(gate, GateReport::Parked(_))) {
        println!("\nThe gate is {}.", reason.1);
    }
    let wrong = runs.iter().filter(|(sums, _)| sums.map(f64::to_bits) != plain.map(f64::to_bits)).count();
    if wrong != 0 {
        println!("\nWRONG: with {wrong} policies, a sum is not what this thread gets without any switch.");
        return Ok(ExitCode::FAILURE);
    }
    println!(
        "\nAll sums are what this thread gets without any switch, to the last bit.\n\
         skipped: behind a kernel thread the registers were still the thread's, and needed no restore.\n\
         control words: a thread that yields gives up the rest; the compiler holds nothing there across a call."
    );
    Ok(ExitCode::SUCCESS)
}
