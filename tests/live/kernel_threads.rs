//! Threads of the kernel: steps, panics, and what they leave in the registers.

use crate::{
    steps::Pattern,
    support::{Drops, machine, start},
};
use fpuswitch::{
    Value,
    live::{Call, Config, Counts, GateReport, LiveError, Step, current, park, yield_now},
};
use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
};

#[test]
fn steps_are_called_as_they_say() {
    let machine = machine(1);
    let calls = Arc::new(AtomicU32::new(0));
    let counting = Arc::clone(&calls);
    let drops = Drops::default();
    let value = drops.value();
    let thread = machine.spawn_kernel_counting(move || {
        let _ = &value;
        match counting.fetch_add(1, SeqCst) + 1 {
            3 => Step::Park,
            6 => Step::Done,
            _ => Step::Again,
        }
    });
    while calls.load(SeqCst) != 3 {
        std::thread::yield_now();
    }
    thread.thread().unpark();
    assert!(thread.join().is_ok());
    assert_eq!((calls.load(SeqCst), drops.count()), (6, 1));
}

/// Short for what most tests here make.
trait SpawnKernel {
    fn spawn_kernel_counting(
        &self,
        step: impl FnMut() -> Step + Send + 'static,
    ) -> fpuswitch::live::JoinHandle<()>;
}

impl SpawnKernel for fpuswitch::live::Machine {
    fn spawn_kernel_counting(
        &self,
        step: impl FnMut() -> Step + Send + 'static,
    ) -> fpuswitch::live::JoinHandle<()> {
        self.build().name("kernel").spawn_kernel(step).expect("a kernel thread")
    }
}

#[test]
fn a_panic_in_a_step_is_carried_to_the_join() {
    let machine = machine(1);
    let thread = machine.spawn_kernel_counting(|| std::panic::panic_any(5_u8));
    assert_eq!(thread.join().expect_err("the panic").downcast_ref(), Some(&5_u8));
    // What only threads may do panics there, and the kernel goes on.
    let waits: [fn(); 2] = [yield_now, park];
    for wait in waits {
        let thread = machine.spawn_kernel_counting(move || {
            wait();
            Step::Done
        });
        let panic = thread.join().expect_err("the panic");
        let said = panic.downcast_ref::<&str>().copied().unwrap_or_default();
        assert!(said.contains("only a green thread"), "{said}");
    }
    let other = machine.spawn(|| 1).expect("a thread");
    let thread = machine.spawn_kernel_counting({
        let mut other = Some(other);
        move || {
            let _ = other.take().map(fpuswitch::live::JoinHandle::join);
            Step::Done
        }
    });
    let panic = thread.join().expect_err("the panic");
    let said = panic.downcast_ref::<&str>().copied().unwrap_or_default();
    assert!(said.contains("cannot wait"), "{said}");
    // Another's kernel thread would wait for ever, if the two did so for each other.
    let mut other = Some(crate::support::machine(1));
    let thread = machine.spawn_kernel_counting(move || {
        let _ = other.take().map(fpuswitch::live::Machine::shutdown);
        Step::Done
    });
    let panic = thread.join().expect_err("the panic");
    let said = panic.downcast_ref::<&str>().copied().unwrap_or_default();
    assert!(said.contains("cannot wait"), "{said}");
    assert!(current().is_none());
    assert_eq!(machine.spawn(|| 1).expect("a thread").join().expect("no panic"), 1);
}

/// A and a kernel thread in turns: `saves`, `restores` and the rest of 500 turns.
fn turns(policy: &str, is_fpu_free: bool) -> (Counts, u32) {
    let machine = start(policy, Config { cpus: 1, ..Config::default() }).expect("a machine");
    let (stop, steps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (stopped, counting) = (Arc::clone(&stop), Arc::clone(&steps));
    let step = move || {
        counting.fetch_add(1, SeqCst);
        if stopped.load(SeqCst) { Step::Done } else { Step::Again }
    };
    let kernel = match is_fpu_free {
        true => machine.build().spawn_kernel_fpu_free(step),
        false => machine.build().spawn_kernel(step),
    };
    let counting = Arc::clone(&steps);
    let run = move || {
        let mut pattern = Pattern::new(Value::new(9).expect("a small number"));
        while counting.load(SeqCst) == 0 {
            yield_now();
        }
        let before = counting.load(SeqCst);
        for _ in 0..500 {
            assert!(pattern.survives(Call::Yield), "{}", pattern.difference());
        }
        stop.store(true, SeqCst);
        counting.load(SeqCst) - before
    };
    let steps = machine.spawn(run).expect("a thread").join().expect("the same registers");
    kernel.expect("a kernel thread").join().expect("no panic");
    (machine.shutdown(), steps)
}

#[test]
fn hardware_kernel_threads_leave_the_registers_to_their_owner() {
    let (counts, steps) = turns("owner-slot", true);
    assert!(steps >= 450, "{steps} steps");
    assert!(counts.skips >= 450 && counts.restores < 50 && counts.saves >= 450, "{counts:?}");
    let (counts, steps) = turns("lazy-save", true);
    assert!(steps >= 450, "{steps} steps");
    assert!(counts.saves < 50 && counts.restores < 50, "{counts:?}");
    // Behind a door both have to be done.
    for policy in ["owner-slot", "lazy-save"] {
        let (counts, steps) = turns(policy, false);
        assert!(steps >= 450, "{steps} steps");
        assert!(counts.saves >= 450 && counts.restores >= 450 && counts.doors >= 450, "{counts:?}");
    }
    println!("HARDWARE live-kernel-threads: ran");
}

#[test]
fn a_step_that_uses_floating_point_needs_the_door() {
    let machine = machine(1);
    let step = || {
        let mut sum = black_box(0.5_f64);
        move || {
            sum = black_box(sum * 1.5 + 0.25);
            if sum > 1e6 { Step::Done } else { Step::Again }
        }
    };
    assert!(machine.build().spawn_kernel(step()).expect("a kernel thread").join().is_ok());
    let found = machine.build().spawn_kernel_fpu_free(step());
    match machine.gate() {
        GateReport::Bare(_) => assert!(matches!(found, Err(LiveError::NotFpuFree(_))), "{found:?}"),
        // All registers are parked: nothing that it does harms anybody.
        _ => assert!(found.expect("a kernel thread").join().is_ok()),
    }
}

#[test]
fn the_gate_is_bare_in_release_builds() {
    let machine = machine(1);
    let gate = machine.gate();
    assert!(cfg!(debug_assertions) || matches!(gate, GateReport::Bare(_)), "{gate}");
}
