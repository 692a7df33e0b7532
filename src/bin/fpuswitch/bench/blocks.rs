//! One block of each arm: its operations, and the clock around them.

use corosensei::Coroutine;
use fpuswitch::{
    CpuId,
    costs::Repeated,
    live::{
        Call, JoinHandle, LiveError, Machine, Spawn, Step,
        measure::{Registers, null_calls},
        preempt::{Signal, SignalStack, Target},
        yield_now,
    },
};
use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

fn each(elapsed: Duration, operations: u64) -> f64 {
    elapsed.as_nanos() as f64 / operations as f64
}

/// A block: ns for each operation.
pub(super) type Block = Box<dyn FnMut() -> Result<f64, LiveError>>;

pub(super) fn coroutine(times: u64) -> Block {
    Box::new(move || {
        let mut coroutine = Coroutine::<bool, (), ()>::new(|yielder, mut go_on| {
            while go_on {
                go_on = yielder.suspend(());
            }
        });
        let start = Instant::now();
        for _ in 0..times {
            coroutine.resume(true);
        }
        let elapsed = start.elapsed();
        // Not unwound, but ended.
        coroutine.resume(false);
        Ok(each(elapsed, times))
    })
}

/// The thread says how long it took, once it has ended.
fn joined(thread: JoinHandle<Duration>) -> Duration {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// On the machine's one CPU, where threads begin in the order in which they are made.
fn build(machine: &Machine) -> Result<Spawn, LiveError> {
    machine.build().cpu(CpuId(0))
}

pub(super) fn null(machine: &Rc<Machine>, is_promised: bool, times: u64) -> Block {
    let machine = Rc::clone(machine);
    Box::new(move || Ok(each(joined(null_calls(build(&machine)?, is_promised, times)?), times)))
}

/// Two threads in turns: one switch to another thread is one operation.
///
/// The first waits in yields until the second has begun, which then knows that there are two.
fn in_turns(
    machine: &Machine,
    times: u64,
    turns: impl Fn(u64) + Clone + Send + 'static,
) -> Result<f64, LiveError> {
    let has_begun = Arc::new(AtomicBool::new(false));
    let (waits, other) = (Arc::clone(&has_begun), turns.clone());
    let first = build(machine)?.spawn(move || {
        while !waits.load(Relaxed) {
            yield_now();
        }
        other(times);
    })?;
    let second = build(machine)?.spawn(move || {
        has_begun.store(true, Relaxed);
        let start = Instant::now();
        turns(times);
        start.elapsed()
    })?;
    let elapsed = joined(second);
    first.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    Ok(each(elapsed, 2 * times))
}

pub(super) fn yields(machine: &Rc<Machine>, times: u64) -> Block {
    let machine = Rc::clone(machine);
    Box::new(move || in_turns(&machine, times, |times| (0..times).for_each(|_| yield_now())))
}

pub(super) fn swaps(machine: &Rc<Machine>, registers: &Arc<Registers>, times: u64) -> Block {
    let (machine, registers) = (Rc::clone(machine), Arc::clone(registers));
    Box::new(move || {
        let registers = Arc::clone(&registers);
        in_turns(&machine, times, move |times| registers.call(Call::Yield, times))
    })
}

pub(super) fn preemptions(machine: &Rc<Machine>, registers: &Arc<Registers>, times: u64) -> Block {
    let (machine, registers) = (Rc::clone(machine), Arc::clone(registers));
    Box::new(move || {
        let registers = Arc::clone(&registers);
        in_turns(&machine, times, move |times| registers.preempt(times))
    })
}

pub(super) fn instructions(mut instruction: Repeated, times: u64) -> Block {
    Box::new(move || {
        let start = Instant::now();
        instruction.run(times as u32);
        Ok(each(start.elapsed(), times))
    })
}

/// A thread yields to a kernel thread, which gives the CPU back at once.
pub(super) fn kernel_thread(machine: &Rc<Machine>, registers: &Arc<Registers>, times: u64) -> Block {
    let (machine, registers) = (Rc::clone(machine), Arc::clone(registers));
    Box::new(move || {
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        let kernel_thread = build(&machine)?
            .spawn_kernel_fpu_free(move || if ends.load(Relaxed) { Step::Done } else { Step::Again })?;
        let registers = Arc::clone(&registers);
        let thread = build(&machine)?.spawn(move || {
            yield_now();
            let start = Instant::now();
            registers.call(Call::Yield, times);
            let elapsed = start.elapsed();
            is_over.store(true, Relaxed);
            elapsed
        })?;
        let elapsed = joined(thread);
        kernel_thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(each(elapsed, times))
    })
}

/// The same signal, sent in the same way: its handler returns at once on an OS thread that is no CPU.
pub(super) fn signals(registers: &Arc<Registers>, times: u64) -> Result<Block, LiveError> {
    let target = Target::this(Signal::install(Signal::DEFAULT)?)?;
    let stack = SignalStack::new()?;
    let registers = Arc::clone(registers);
    Ok(Box::new(move || {
        let _in_use = &stack;
        let start = Instant::now();
        registers.fill();
        for _ in 0..times {
            target.preempt()?;
        }
        Ok(each(start.elapsed(), times))
    }))
}

/// Two OS threads wake each other, and sleep.
pub(super) fn futex(times: u64) -> Block {
    Box::new(move || {
        let turn = Arc::new(AtomicU64::new(0));
        let (theirs, here) = (Arc::clone(&turn), thread::current());
        let other = thread::spawn(move || {
            for n in 0..times {
                until(&theirs, 2 * n + 1);
                theirs.store(2 * n + 2, Relaxed);
                here.unpark();
            }
        });
        let start = Instant::now();
        for n in 0..times {
            turn.store(2 * n + 1, Relaxed);
            other.thread().unpark();
            until(&turn, 2 * n + 2);
        }
        let elapsed = start.elapsed();
        other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(each(elapsed, 2 * times))
    })
}

fn until(turn: &AtomicU64, wanted: u64) {
    while turn.load(Relaxed) != wanted {
        thread::park();
    }
}
