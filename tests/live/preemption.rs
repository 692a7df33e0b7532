//! Taking the CPU away: by whom, where, and where not.
#![allow(unsafe_code, reason = "regions that may be preempted, and system calls")]

use crate::support::start;
use fpuswitch::{
    CpuId,
    live::{Config, JoinHandle, Machine, preempt::Signal, preempt_off, preempt_self, preemptible, yield_now},
};
use std::{
    hint::spin_loop,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

/// A thread of CPU 0 that counts its turns.
#[derive(Clone, Default)]
struct Neighbour {
    turns: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Neighbour {
    fn of(machine: &Machine) -> (Self, JoinHandle<()>) {
        let this = Self::default();
        let theirs = this.clone();
        let body = move || {
            while !theirs.stop.load(SeqCst) {
                theirs.turns.fetch_add(1, SeqCst);
                yield_now();
            }
        };
        let spawn = machine.build().cpu(CpuId(0)).expect("a CPU");
        (this, spawn.spawn(body).expect("a thread"))
    }

    fn turns(&self) -> u64 {
        self.turns.load(SeqCst)
    }

    /// It has begun: it is ready whenever the calling thread runs.
    fn wait(&self) {
        while self.turns() == 0 {
            yield_now();
        }
    }

    /// Nobody but a signal gives it the CPU.
    fn spin_until_it_had_a_turn(&self) {
        let before = self.turns();
        while self.turns() == before {
            spin_loop();
        }
    }
}

/// Runs `body` on CPU 0, beside a neighbour there.
fn beside_a_neighbour<T: Send + 'static>(
    config: Config,
    body: impl FnOnce(&Neighbour, &Machine) -> T + Send + 'static,
) -> T {
    let machine = Arc::new(start("owner-slot", Config { cpus: 1, ..config }).expect("a machine"));
    let (neighbour, other) = Neighbour::of(&machine);
    let (theirs, theirs_too) = (neighbour.clone(), Arc::clone(&machine));
    let thread = machine.spawn(move || {
        theirs.wait();
        body(&theirs, &theirs_too)
    });
    let result = thread.expect("a thread").join();
    neighbour.stop.store(true, SeqCst);
    other.join().expect("no panic");
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn signals() -> [i32; 4] {
    [Signal::DEFAULT, libc::SIGWINCH, libc::SIGRTMIN() + 1, libc::SIGRTMAX()]
}

#[test]
fn hardware_preemption_by_itself_by_others_and_by_the_tick() {
    for signal in signals() {
        beside_a_neighbour(Config { signal, ..Config::default() }, |neighbour, _| {
            for _ in 0..20 {
                let before = neighbour.turns();
                // SAFETY: nothing in the region depends on the neighbour.
                unsafe { preemptible(preempt_self) }.expect("a region");
                assert_eq!(neighbour.turns(), before + 1);
            }
        });
        let tick = Some(Duration::from_micros(300));
        beside_a_neighbour(Config { signal, tick, ..Config::default() }, |neighbour, _| {
            // SAFETY: as above: the region reads a word.
            unsafe { preemptible(|| (0..5).for_each(|_| neighbour.spin_until_it_had_a_turn())) };
        });
        let config = Config { cpus: 1, signal, ..Config::default() };
        let machine = start("owner-slot", config).expect("a machine");
        let (neighbour, other) = Neighbour::of(&machine);
        let theirs = neighbour.clone();
        let body = move || {
            theirs.wait();
            // SAFETY: as above.
            unsafe { preemptible(|| (0..5).for_each(|_| theirs.spin_until_it_had_a_turn())) };
        };
        let thread = machine.spawn(body).expect("a thread");
        while !thread.is_finished() {
            machine.preempt(CpuId(0)).expect("a CPU");
            std::thread::sleep(Duration::from_micros(200));
        }
        thread.join().expect("no panic");
        neighbour.stop.store(true, SeqCst);
        other.join().expect("no panic");
    }
    println!("HARDWARE live-preemption: ran");
}

#[test]
fn hardware_nobody_is_preempted_where_it_is_off() {
    beside_a_neighbour(Config::default(), |neighbour, machine| {
        // To one's own OS thread, so that the signal has come when this returns.
        let ask = || machine.preempt(CpuId(0)).expect("a CPU");
        let before = neighbour.turns();
        ask();
        assert_eq!(neighbour.turns(), before, "outside of a region");
        // SAFETY: nothing in the regions depends on the neighbour.
        unsafe {
            preemptible(|| assert_eq!(neighbour.turns(), before + 1, "remembered until the region"));
            preemptible(|| {
                preempt_off(|| {
                    ask();
                    preempt_off(ask);
                    preemptible(|| ());
                    assert_eq!(neighbour.turns(), before + 1, "in a section without");
                });
                assert_eq!(neighbour.turns(), before + 2, "remembered until its end");
                preemptible(ask);
                assert_eq!(neighbour.turns(), before + 3, "in a region in a region");
                ask();
                assert_eq!(neighbour.turns(), before + 4, "behind a region in a region");
            });
        }
        ask();
        assert_eq!(neighbour.turns(), before + 4, "behind the regions");
    });
    println!("HARDWARE live-preempt-off: ran");
}

#[test]
fn hardware_a_region_that_panics_is_left() {
    beside_a_neighbour(Config::default(), |neighbour, machine| {
        struct Asks<'a>(&'a Machine);
        impl Drop for Asks<'_> {
            fn drop(&mut self) {
                self.0.preempt(CpuId(0)).expect("a CPU");
            }
        }
        let before = neighbour.turns();
        let region = || {
            let _asks = Asks(machine);
            std::panic::resume_unwind(Box::new(1_u8));
        };
        // SAFETY: nothing in the region depends on the neighbour, and the destructor does not call the kernel.
        let result =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| unsafe { preemptible(region) }));
        assert!(result.is_err());
        assert_eq!(neighbour.turns(), before, "while it unwinds");
        assert!(preempt_self().is_err(), "behind the region");
        yield_now();
        assert_eq!(neighbour.turns(), before + 1);
    });
    println!("HARDWARE live-preempt-unwinding: ran");
}

#[test]
fn hardware_a_system_call_goes_on_behind_the_signal() {
    let mut pipe = [0; 2];
    // SAFETY: room for two numbers (pipe(2)).
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    let tick = Some(Duration::from_micros(200));
    let machine = start("owner-slot", Config { cpus: 1, tick, ..Config::default() }).expect("a machine");
    let body = move || {
        let mut byte = 0_u8;
        // SAFETY: room for a byte (read(2)).
        let read = unsafe { libc::read(pipe[0], (&raw mut byte).cast(), 1) };
        (read, byte)
    };
    let thread = machine.spawn(body).expect("a thread");
    std::thread::sleep(Duration::from_millis(30));
    // SAFETY: one byte is there (write(2)).
    assert_eq!(unsafe { libc::write(pipe[1], b"x".as_ptr().cast(), 1) }, 1);
    assert_eq!(thread.join().expect("no panic"), (1, b'x'));
    // SAFETY: both are this test's.
    unsafe { (libc::close(pipe[0]), libc::close(pipe[1])) };
    println!("HARDWARE live-restarted-calls: ran");
}

#[test]
fn handlers_have_a_stack_with_room_for_the_registers() {
    let stack = || {
        // SAFETY: zeros are a `stack_t`, which is written (sigaltstack(2)); the rest takes a number.
        unsafe {
            let mut stack: libc::stack_t = std::mem::zeroed();
            assert_eq!(libc::sigaltstack(std::ptr::null(), &mut stack), 0);
            (stack.ss_flags, stack.ss_size as u64, libc::getauxval(libc::AT_MINSIGSTKSZ))
        }
    };
    beside_a_neighbour(Config::default(), move |_, _| {
        let (flags, size, least) = stack();
        assert_eq!(flags, 0, "it is enabled, and not in use");
        assert!(size >= least.max(libc::MINSIGSTKSZ as u64), "{size} bytes, at least {least}");
    });
}
