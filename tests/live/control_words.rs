//! Threads with control words of their own: rounding, unmasked exceptions, pending ones.
#![allow(unsafe_code, reason = "regions that may be preempted, and control words read in asm")]

use crate::{
    steps::{ControlWords, Pattern},
    support::{POLICIES, start},
};
use fpuswitch::{
    Value,
    live::{Call, Config, Gate, Step, preemptible},
};
use std::{
    arch::asm,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

const WORDS: [ControlWords; 7] = [
    ControlWords { fcw: 0x037f, fsw: 0, mxcsr: 0x1f80 },
    // Only MXCSR: rounding to zero, flush to zero, and flags.
    ControlWords { fcw: 0x037f, fsw: 0, mxcsr: 0xffbf },
    // Only x87: rounding up, single precision.
    ControlWords { fcw: 0x087f, fsw: 0, mxcsr: 0x1f80 },
    ControlWords { fcw: 0x0f7f, fsw: 0, mxcsr: 0x3f80 },
    // Unmasked.
    ControlWords { fcw: 0x037a, fsw: 0, mxcsr: 0x1f80 },
    // Unmasked and pending: invalid operation, error summary, busy.
    ControlWords { fcw: 0x037e, fsw: 0x8081, mxcsr: 0x1f80 },
    // All of them, and SSE's unmasked with the flags set.
    ControlWords { fcw: 0x0340, fsw: 0x80bf, mxcsr: 0x003f },
];

/// The calling code's: FCW and MXCSR without flags.
fn control() -> (u16, u32) {
    let (mut fcw, mut mxcsr) = (0_u16, 0_u32);
    // SAFETY: they write two words of this function's.
    unsafe {
        asm!("fnstcw [{}]", in(reg) &raw mut fcw, options(nostack, preserves_flags));
        asm!("stmxcsr [{}]", in(reg) &raw mut mxcsr, options(nostack, preserves_flags));
    }
    (fcw, mxcsr & !0x3f)
}

#[test]
fn hardware_control_words_are_the_threads_own() {
    for (policy, gate) in POLICIES.iter().flat_map(|policy| [(policy, Gate::Auto), (policy, Gate::Parked)]) {
        let tick = Some(Duration::from_micros(300));
        let config = Config { cpus: 1, gate, tick, ..Config::default() };
        let machine = start(policy, config).expect("a machine");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let step = move || {
            assert_eq!(control(), (0x037f, 0x1f80), "the kernel's");
            assert_eq!(std::hint::black_box(1.0_f64) / 3.0, 1.0 / 3.0);
            if stopped.load(SeqCst) { Step::Done } else { Step::Again }
        };
        let kernel = machine.build().spawn_kernel(step).expect("a kernel thread");
        let run = |number: usize| {
            let value = Value::new(number as u8 + 1).expect("a small number");
            let mut pattern = Pattern::new(value).with_control(WORDS[number]);
            for _ in 0..40 {
                assert!(pattern.survives(Call::Yield), "yield: {}", pattern.difference());
                assert!(pattern.survives(Call::Null), "null: {}", pattern.difference());
            }
            for _ in 0..2 {
                // SAFETY: the region is asm that touches registers and memory of its own.
                let survived = unsafe { preemptible(|| pattern.survives_turns(300_000)) };
                assert!(survived, "preempted: {}", pattern.difference());
            }
            assert_eq!(control(), (0x037f, 0x1f80), "Rust code's");
        };
        let threads: Vec<_> = (0..WORDS.len())
            .map(|number| (number, machine.spawn(move || run(number)).expect("a thread")))
            .collect();
        for (number, thread) in threads {
            if let Err(panic) = thread.join() {
                let words = WORDS[number];
                panic!("{policy}, {gate:?}, {words:x?}: {:?}", panic.downcast_ref::<String>());
            }
        }
        stop.store(true, SeqCst);
        kernel.join().expect("the default control words");
    }
    println!("HARDWARE live-control-words: ran");
}
