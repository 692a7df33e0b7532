//! A work-stealing runtime in one page, on the lower layer of `live`: own stacks, own scheduler, the crate's gate.
//!
//! `cargo run --release --features live --example runtime`. A yield moves words, and the task stays on its CPU. A preempted
//! task is offered to all CPUs: that takes a deque, and so a door. docs/runtime.md goes through this file.
#![expect(unsafe_code, reason = "it is the kernel of its fibers, which go from hand to hand by pointer")]

use corosensei::stack::{DefaultStack, Stack};
use crossbeam_deque::{Stealer, Worker};
use fpuswitch::live::{Counts, Cpu, Entered, Fiber, GateMode, LiveError, audit::assert_fpu_free};
use fpuswitch::live::{enter, enter_keeping, kernel_path, preempt, preemptible};
use fpuswitch::{CpuId, fpu::policy::LazySave};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::SeqCst};
use std::{error::Error, hint::black_box, ops::Range, process::abort, ptr::null_mut};
use std::{sync::Mutex, sync::OnceLock, thread, time::Duration};

const TASKS: u64 = 48;
const TERMS: u64 = 400_000;
const YIELD: u64 = 0;
const END: u64 = 1;

static STEALERS: OnceLock<Vec<Stealer<AtomicPtr<Task>>>> = OnceLock::new();
static ALIVE: AtomicU64 = AtomicU64::new(TASKS);
static SUMS: Mutex<Vec<(u64, f64)>> = Mutex::new(Vec::new());

/// A task: its fiber, which CPUs know by address, its number, and the stack that it keeps.
struct Task(Fiber, u64, #[expect(dead_code)] DefaultStack);
type Tasks = Worker<AtomicPtr<Task>>;
/// A CPU, and the tasks that are ready there, in a ring with room for all. A task is in one ring or deque, or in no other.
struct Core {
    cpu: Cpu<LazySave>,
    ring: [*mut Task; 64],
    head: usize,
    tail: usize,
    offered: Tasks,
}

impl Core {
    fn push(&mut self, task: *mut Task) {
        self.ring[self.tail % 64] = task;
        self.tail = self.tail.wrapping_add(1);
    }
}

/// The kernel path: all that runs between user code and user code, but for the door.
#[inline(never)]
unsafe extern "C" fn kernel(core: &mut Core) {
    let (mut task, mut entered) = (null_mut(), Entered { call: YIELD, argument: 0 });
    while ALIVE.load(SeqCst) != 0 {
        // SAFETY: (a) the CPU's kernel. `switch_in`: (b) the ring gave us the task, (c) which stays until the door ends it.
        // `run`: (b) just switched in, (c) see `body`. `flush`: (b) ours still, (c) it ran here. Door: (b) nobody, (c) one.
        unsafe {
            core.cpu.kernel_fpu_begin(null_mut());
            door(core, task, entered.call, entered.argument);
            core.cpu.kernel_fpu_end(null_mut());
            entered.call = YIELD;
            while entered.call == YIELD && core.head != core.tail {
                task = core.ring[core.head % 64];
                core.head = core.head.wrapping_add(1);
                let fiber = &raw mut (*task).0;
                let Ok(()) = core.cpu.switch_in(fiber) else { abort() }; // It was flushed, or is new.
                entered = core.cpu.run(fiber, 0);
                core.cpu.clear_need_resched();
                if entered.call == END {
                    core.cpu.exit(fiber);
                }
                core.cpu.switch_out(fiber);
                if entered.call == YIELD { core.push(task) } else { core.cpu.flush(fiber) }
            }
        }
    }
}

/// The door: a task that was preempted is offered, one that has ended freed; a ring of few gets what was offered.
#[inline(never)]
extern "C" fn door(core: &mut Core, task: *mut Task, call: u64, argument: u64) {
    if call == Entered::PREEMPTED {
        core.offered.push(AtomicPtr::new(task));
    } else if call == END {
        // SAFETY: `main` made the box. The task has exited and was switched out; nobody has it.
        let Task(_, number, _) = *unsafe { Box::from_raw(task) };
        SUMS.lock().expect("no panic").push((number, f64::from_bits(argument)));
        ALIVE.fetch_sub(1, SeqCst);
    }
    for _ in 0..4_usize.saturating_sub(core.tail - core.head) {
        let stolen = || STEALERS.get()?.iter().find_map(|other| other.steal().success());
        let Some(task) = core.offered.pop().or_else(stolen) else { return thread::yield_now() };
        core.push(task.into_inner());
    }
}

fn add(sum: f64, number: u64, terms: Range<u64>) -> f64 {
    terms.fold(sum, |sum, term| sum + 1.0 / (number + 1 + term) as f64)
}

/// A task adds up a series. Even ones yield behind each thousand terms, odd ones are preempted.
unsafe extern "C" fn body(number: *mut ()) -> ! {
    let number = number.addr() as u64;
    // SAFETY: `enter`: (a) YIELD comes back, END does not, and nothing is left to drop; (b) nothing depends on the OS
    // thread. `preemptible`: (a) `add` uses registers alone, (b) and goes on anywhere; (c) there are no other signals.
    unsafe {
        let slice = |sum, from| {
            enter_keeping(YIELD as u32, 0); // `sum` may stay in its register.
            add(sum, number, from..from + 1000)
        };
        let yielding = || (0..TERMS).step_by(1000).fold(0.0, slice);
        let sum = if number & 1 == 0 { yielding() } else { preemptible(|| add(0.0, number, 0..TERMS)) };
        enter(END as u32, sum.to_bits());
    }
    abort()
}

fn cpu(id: u32, mode: GateMode, signal: preempt::Signal, offered: Tasks) -> Result<Counts, LiveError> {
    let _stack = preempt::SignalStack::new()?;
    // SAFETY: (a) nobody uses GS. (b) `kernel` was audited, and is called by its address. (c) Each has its own number.
    let cpu = unsafe { Cpu::new(CpuId(id), LazySave, mode) }?;
    let _tick = preempt::Tick::new(preempt::Target::this(signal)?, Duration::from_micros(500))?;
    let mut core = Core { cpu, ring: [null_mut(); 64], head: 0, tail: 0, offered };
    // SAFETY: it is this OS thread's.
    unsafe { black_box(kernel as unsafe extern "C" fn(&mut Core))(&mut core) };
    Ok(core.cpu.counters().read())
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = kernel_path(kernel as *const ()).door(door as *const ()).diverging(abort as *const ());
    let mode = match assert_fpu_free(&path) {
        Ok(proof) => (println!("The gate is bare: {proof}."), GateMode::Bare(proof)).1,
        Err(reason) => (println!("The gate is parked, because of {reason}."), GateMode::Parked).1,
    };
    let signal = preempt::Signal::install(preempt::Signal::DEFAULT)?;
    let workers = [Worker::new_fifo(), Worker::new_fifo(), Worker::new_fifo()];
    let _ = STEALERS.set(workers.iter().map(Worker::stealer).collect());
    for number in 0..TASKS {
        let stack = DefaultStack::new(64 * 1024)?;
        let (base, limit) = (stack.base().get(), stack.limit().get() + 4096); // Above the guard page.
        // SAFETY: (a) the task keeps its stack as long as its fiber. (b) `body` takes any number, and calls END.
        let fiber = unsafe { Fiber::new(base, limit, body, number as *mut ()) }?;
        workers[0].push(AtomicPtr::new(Box::into_raw(Box::new(Task(fiber, number, stack)))));
    }
    let cpus = workers.into_iter().zip(0..);
    let cpus = cpus.map(|(offered, id)| thread::spawn(move || cpu(id, mode, signal, offered)));
    for (id, cpu) in cpus.collect::<Vec<_>>().into_iter().enumerate() {
        println!("CPU {id}: {}", cpu.join().expect("no panic")?);
    }
    for (number, sum) in SUMS.lock().expect("no panic").drain(..) {
        assert_eq!(sum.to_bits(), add(0.0, number, 0..TERMS).to_bits());
    }
    println!("All {TASKS} tasks began on CPU 0. Their sums are what this thread gets, to the last bit.");
    Ok(())
}
