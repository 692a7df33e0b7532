//! Waiting: for a notification, and for a thread's end.

use crate::support::{machine, tell};
use fpuswitch::{
    CpuId,
    live::{Spawn, Thread, current, park, yield_now},
};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::SeqCst},
    mpsc,
};

#[test]
fn a_notification_is_kept_once() {
    let machine = machine(1);
    let thread = machine.spawn(|| {
        let this = current().expect("itself");
        // Two are one.
        this.unpark();
        this.unpark();
        park();
        let woken = Arc::new(AtomicU32::new(0));
        let wake = {
            let woken = Arc::clone(&woken);
            move || {
                woken.store(1, SeqCst);
                this.unpark();
            }
        };
        let waker = Spawn::here().expect("a green thread").spawn(wake).expect("a thread");
        park();
        let seen = woken.load(SeqCst);
        waker.join().expect("no panic");
        seen
    });
    assert_eq!(thread.expect("a thread").join().expect("no panic"), 1);
}

#[test]
fn no_wake_up_is_lost_between_cpus() {
    const ROUNDS: u32 = 20_000;
    let machine = machine(2);
    let ball = Arc::new(AtomicU32::new(0));
    let pairs: Vec<_> = (0..2)
        .map(|me| {
            let (give, take) = mpsc::channel::<Thread>();
            let ball = Arc::clone(&ball);
            let body = move || {
                park();
                let other = take.recv().expect("the other");
                for round in 0..ROUNDS {
                    while ball.load(SeqCst) != 2 * round + me {
                        park();
                    }
                    ball.fetch_add(1, SeqCst);
                    other.unpark();
                }
            };
            let spawn = machine.build().cpu(CpuId(me)).expect("a CPU");
            (spawn.spawn(body).expect("a thread"), give)
        })
        .collect();
    for (me, (thread, give)) in pairs.iter().enumerate() {
        give.send(pairs[1 - me].0.thread().clone()).expect("it listens");
        thread.thread().unpark();
    }
    for (thread, _) in pairs {
        thread.join().expect("no panic");
    }
    assert_eq!(ball.load(SeqCst), 2 * ROUNDS);
}

#[test]
fn os_threads_wake_green_threads() {
    let machine = machine(2);
    let count = Arc::new(AtomicU32::new(0));
    for _ in 0..500 {
        let counting = Arc::clone(&count);
        let body = move || {
            park();
            counting.fetch_add(1, SeqCst);
        };
        let thread = machine.spawn(body).expect("a thread");
        // Before it parks, or behind.
        thread.thread().unpark();
        thread.join().expect("no panic");
    }
    assert_eq!(count.load(SeqCst), 500);
}

#[test]
fn join_takes_nobodys_notification() {
    let machine = machine(1);
    let thread = machine.spawn(|| {
        current().expect("itself").unpark();
        let other = Spawn::here().expect("a green thread").spawn(yield_now).expect("a thread");
        other.join().expect("no panic");
        // Would wait for ever.
        park();
    });
    thread.expect("a thread").join().expect("no panic");
}

#[test]
fn join_leaves_no_notification() {
    let machine = machine(2);
    let thread = machine.build().cpu(CpuId(0)).expect("a CPU").spawn(|| {
        let this = current().expect("itself");
        for _ in 0..2_000 {
            let here = || Spawn::here().expect("a green thread");
            let other = here().cpu(CpuId(1)).expect("a CPU").spawn(|| ()).expect("a thread");
            other.join().expect("no panic");
            let (woken, waking) = (Arc::new(AtomicU32::new(0)), this.clone());
            let set = Arc::clone(&woken);
            let wake = move || {
                set.store(1, SeqCst);
                waking.unpark();
            };
            let waker = here().cpu(CpuId(0)).expect("a CPU").spawn(wake).expect("a thread");
            park();
            assert_eq!(woken.load(SeqCst), 1, "nobody has woken it");
            waker.join().expect("no panic");
        }
    });
    thread.expect("a thread").join().expect("no panic");
}

#[test]
fn os_threads_keep_their_notification_in_a_join() {
    let machine = machine(1);
    let worker = std::thread::spawn(move || {
        std::thread::current().unpark();
        machine.spawn(yield_now).expect("a thread").join().expect("no panic");
        std::thread::park();
    });
    worker.join().expect("no panic");
}

#[test]
fn idle_cpus_sleep() {
    let output = tell("idle", &[]);
    assert!(output.status.success(), "{}", crate::support::said(&output));
}
