//! What may be preempted: code of others, with registers of every kind, at any instruction.
#![allow(unsafe_code, reason = "regions that may be preempted, and x87 code in asm")]

use crate::{
    emulator::cases_here,
    steps::{Pattern, red_zone_after},
    support::{POLICIES, start},
};
use fpuswitch::{
    Value,
    live::{Config, preemptible, yield_now},
};
use std::{arch::asm, time::Duration};

#[test]
fn hardware_code_of_others_is_preempted() {
    let tick = Some(Duration::from_micros(100));
    let machine = start("owner-slot", Config { cpus: 1, tick, ..Config::default() }).expect("a machine");
    let search = |letter: u8, at: usize| {
        let mut text = vec![letter; 1 << 18];
        let needle = [letter, letter, b'!', letter];
        text[at..at + 4].copy_from_slice(&needle);
        let finder = memchr::memmem::Finder::new(&needle).into_owned();
        for _ in 0..100 {
            // SAFETY: the search reads its own bytes, and allocates nothing.
            let found = unsafe { preemptible(|| finder.find(&text)) };
            assert_eq!(found, Some(at));
        }
    };
    let mut pattern = Pattern::new(Value::new(7).expect("a small number"));
    let registers = move || {
        for _ in 0..100 {
            // SAFETY: the region is asm that touches registers and memory of its own.
            let survived = unsafe { preemptible(|| pattern.survives_turns(100_000)) };
            assert!(survived, "{}", pattern.difference());
        }
    };
    let threads = [
        machine.spawn(move || search(b'a', (1 << 18) - 4)).expect("a thread"),
        machine.spawn(move || search(b'b', 200_000)).expect("a thread"),
        machine.spawn(registers).expect("a thread"),
    ];
    for thread in threads {
        thread.join().expect("what it looked for");
    }
    assert!(machine.shutdown().preemptions > 0);
    println!("HARDWARE live-others-code: ran");
}

#[test]
fn hardware_the_red_zone_is_left_alone() {
    let tick = Some(Duration::from_micros(100));
    let machine = start("owner-slot", Config { cpus: 1, tick, ..Config::default() }).expect("a machine");
    let run = |word: u64| {
        for _ in 0..40 {
            // SAFETY: the region is asm that touches its own red zone.
            let differ = unsafe { preemptible(|| red_zone_after(word, 200_000)) };
            assert_eq!(differ, 0);
        }
    };
    let threads: Vec<_> = (1..=2).map(|word| machine.spawn(move || run(word)).expect("a thread")).collect();
    for thread in threads {
        thread.join().expect("the same words");
    }
    assert!(machine.shutdown().preemptions > 0);
    println!("HARDWARE live-red-zone: ran");
}

/// Adds up on the x87 stack, with all of it in use: 6 constants, a step of `step`, and the sum.
fn x87_sum(step: f64, turns: u32) -> f64 {
    let mut sum = step;
    // SAFETY: the stack is empty before and behind, and the memory is this function's.
    unsafe {
        asm!(
            "fldpi", "fldpi", "fldpi", "fldpi", "fldpi", "fldpi",
            "fld qword ptr [{sum}]",
            "fldz",
            "2:",
            "fadd st(0), st(1)",
            "dec {turns:e}",
            "jnz 2b",
            "fstp qword ptr [{sum}]",
            "fstp st(0)", "fstp st(0)", "fstp st(0)", "fstp st(0)", "fstp st(0)", "fstp st(0)", "fstp st(0)",
            sum = in(reg) &raw mut sum,
            turns = inout(reg) turns => _,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
        );
    }
    sum
}

/// Code behind a call has the x87 stack empty, whatever the thread had there that lost the CPU.
#[test]
fn hardware_x87_code_is_preempted() {
    let count = cases_here(400_000, 4);
    for policy in POLICIES {
        let tick = Some(Duration::from_micros(200));
        let machine = start(policy, Config { cpus: 1, tick, ..Config::default() }).expect("a machine");
        let calls = || {
            for _ in 0..40 {
                yield_now();
                assert_eq!(x87_sum(0.5, 10), 5.0);
            }
        };
        let region = move |step: f64| {
            for _ in 0..5 {
                // SAFETY: the region is asm that touches registers and memory of its own.
                let sum = unsafe { preemptible(|| x87_sum(step, count)) };
                assert_eq!(sum, step * f64::from(count));
            }
        };
        let threads = [
            machine.spawn(move || region(1.0)).expect("a thread"),
            machine.spawn(calls).expect("a thread"),
            machine.spawn(move || region(3.0)).expect("a thread"),
        ];
        for thread in threads {
            if let Err(panic) = thread.join() {
                panic!("{policy}: {:?}", panic.downcast_ref::<String>());
            }
        }
        assert!(machine.shutdown().preemptions > 0);
    }
    println!("HARDWARE live-x87: ran");
}
