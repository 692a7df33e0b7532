//! Threads with control words of their own: rounding, unmasked exceptions, pending ones.
#![allow(unsafe_code, reason = "regions that may be preempted, and control words read in asm")]

use crate::{
    steps::{ControlWords, Pattern},
    support::{POLICIES, start},
};
use fpuswitch::{
    CpuId, Value,
    fpu::policy::OwnerSlot,
    live::{
        Call, Config, Cpu, Entered, Fiber, Gate, GateMode, Step,
        audit::{KernelPath, assert_fpu_free},
        enter_from_asm, preemptible,
    },
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

/// What the fiber below loads, and what it finds again.
#[repr(C)]
struct Loaded {
    fcw: u16,
    found_fcw: u16,
    mxcsr: u32,
    found_mxcsr: u32,
}

/// Loads other control words, calls the kernel (0), says what is there afterwards, and ends (1).
unsafe extern "C" fn load_and_call(words: *mut ()) -> ! {
    // SAFETY: the words are the test's; the control words are the default again behind the block.
    unsafe {
        asm!(
            "ldmxcsr [r12 + 4]",
            "fldcw [r12]",
            "xor edi, edi",
            "xor esi, esi",
            "call {enter}",
            "stmxcsr [r12 + 8]",
            "fnstcw [r12 + 2]",
            "fninit",
            "mov dword ptr [r12 + 4], 0x1f80",
            "ldmxcsr [r12 + 4]",
            in("r12") words,
            enter = sym enter_from_asm,
            clobber_abi("sysv64"),
        );
        fpuswitch::live::enter(1, 0);
    }
    std::process::abort()
}

extern "C" fn nothing() {}

/// On the kernel path itself, where no door has reset them: Rust code runs there.
#[test]
fn hardware_the_kernel_path_has_the_default_control_words() {
    let kernel = || {
        // Only this test's reading of control words is on the path: it changes nothing.
        let proof = assert_fpu_free(&KernelPath::new(nothing as *const ())).expect("no FPU instruction");
        // SAFETY: (a) a new OS thread. (b) What runs between two calls of `run` may use vector registers, of which the
        // fiber has none live. (c) The only CPU.
        let mut cpu = unsafe { Cpu::new(CpuId(0), OwnerSlot, GateMode::Bare(proof)) }.expect("a CPU");
        for words in WORDS {
            let mut loaded = Loaded { fcw: words.fcw, found_fcw: 0, mxcsr: words.mxcsr, found_mxcsr: 0 };
            let mut stack = vec![0_u128; 4096];
            let stack = stack.as_mut_ptr_range();
            // SAFETY: (a) the stack is there as long as the fiber. (b) It ends by call 1.
            let fiber = unsafe {
                Fiber::new(stack.end.addr(), stack.start.addr(), load_and_call, (&raw mut loaded).cast())
            };
            let mut fiber = Box::new(fiber.expect("a fiber"));
            let fiber = &raw mut *fiber;
            // SAFETY: the order of the calls is that of docs/runtime.md, and the fiber is this function's.
            unsafe {
                cpu.switch_in(fiber).expect("a new fiber is in memory");
                let Entered { call, .. } = cpu.run(fiber, 0);
                let found = control();
                assert_eq!((call, found), (0, (0x037f, 0x1f80)), "the kernel's, {words:x?}");
                assert_eq!(cpu.run(fiber, 0).call, 1);
                cpu.exit(fiber);
                cpu.switch_out(fiber);
            }
            let found = (loaded.found_fcw, loaded.found_mxcsr);
            assert_eq!(found, (words.fcw, words.mxcsr), "the fiber's");
        }
    };
    std::thread::spawn(kernel).join().expect("the control words of each");
    println!("HARDWARE live-kernel-control-words: ran");
}
