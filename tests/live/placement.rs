//! Which CPU a thread runs on.

use crate::{
    steps::Pattern,
    support::{POLICIES, machine, os_thread, start},
};
use fpuswitch::{
    CpuId, Value,
    live::{Call, Config, Spawn, current, preempt_self, preemptible, yield_now},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

/// The OS threads of a machine's CPUs.
fn os_threads(spawn: &Spawn, cpus: u32) -> Vec<i32> {
    let on = |cpu| spawn.clone().cpu(CpuId(cpu)).expect("a CPU").spawn(os_thread).expect("a thread");
    (0..cpus).map(|cpu| on(cpu).join().expect("no panic")).collect()
}

#[test]
fn pinned_threads_run_on_their_cpu() {
    let machine = machine(3);
    let expected = os_threads(&machine.build(), 3);
    assert!(expected[0] != expected[1] && expected[1] != expected[2] && expected[0] != expected[2]);
    for _ in 0..20 {
        assert_eq!(os_threads(&machine.build(), 3), expected);
    }
}

#[test]
fn a_thread_that_has_started_stays() {
    let machine = machine(3);
    let body = || {
        let first = os_thread();
        for _ in 0..200 {
            yield_now();
            assert_eq!(os_thread(), first);
        }
    };
    let threads: Vec<_> = (0..30).map(|_| machine.spawn(body).expect("a thread")).collect();
    for thread in threads {
        thread.join().expect("the same OS thread");
    }
}

#[test]
fn a_thread_that_has_not_started_is_taken_by_whoever_is_free() {
    let machine = machine(2);
    let stop = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&stop);
    let body = move || {
        while !until.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let busy = machine.build().cpu(CpuId(0)).expect("a CPU").spawn(body).expect("a thread");
    let others: Vec<_> = (0..20).map(|_| machine.spawn(os_thread).expect("a thread")).collect();
    let places: Vec<_> = others.into_iter().map(|thread| thread.join().expect("no panic")).collect();
    assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
    stop.store(true, SeqCst);
    busy.join().expect("no panic");
}

#[test]
fn hardware_migration_keeps_registers() {
    for policy in POLICIES {
        let machine = start(policy, Config { cpus: 3, ..Config::default() }).expect("a machine");
        let places = os_threads(&machine.build(), 3);
        let run = move |number: u8| {
            let mut pattern = Pattern::new(Value::new(number).expect("a small number"));
            let this = current().expect("itself");
            for round in 0..150 {
                let to = (round * 7 + usize::from(number)) % 3;
                let is_elsewhere = os_thread() != places[to];
                this.migrate_to(CpuId(to as u32)).expect("a migratable thread");
                assert!(pattern.survives(Call::Yield), "{}", pattern.difference());
                // One that is told to stay may be given to a CPU that has nothing to do.
                assert!(!is_elsewhere || os_thread() == places[to], "round {round}");
            }
        };
        let threads: Vec<_> = (1..=5)
            .map(|number| {
                let run = run.clone();
                #[expect(unsafe_code, reason = "a thread that migrates")]
                // SAFETY: what it has across calls is its own memory.
                unsafe { machine.build().spawn_migratable(move || run(number)) }.expect("a thread")
            })
            .collect();
        for thread in threads {
            if let Err(panic) = thread.join() {
                panic!("{policy}: {:?}", panic.downcast_ref::<String>());
            }
        }
    }
    println!("HARDWARE live-migration: ran");
}

/// Its newest copy is in the registers of the CPU that it leaves, with the policies that save late.
#[test]
fn hardware_a_parked_thread_is_told_to_migrate() {
    for policy in POLICIES {
        let machine = start(policy, Config { cpus: 2, ..Config::default() }).expect("a machine");
        let places = os_threads(&machine.build(), 2);
        let rounds = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&rounds);
        let body = move || {
            let mut pattern = Pattern::new(Value::new(3).expect("a small number"));
            (1..=60)
                .map(|round| {
                    counting.store(round, SeqCst);
                    assert!(pattern.survives_park(), "{}", pattern.difference());
                    os_thread()
                })
                .collect::<Vec<_>>()
        };
        #[expect(unsafe_code, reason = "a thread that migrates")]
        // SAFETY: what it has across calls is its own memory.
        let thread = unsafe { machine.build().spawn_migratable(body) }.expect("a thread");
        for round in 1..=60 {
            while rounds.load(SeqCst) != round {
                std::thread::yield_now();
            }
            // Most likely it has parked by then.
            std::thread::sleep(Duration::from_micros(300));
            thread.thread().migrate_to(CpuId((round % 2) as u32)).expect("a migratable thread");
            thread.thread().unpark();
        }
        let ran =
            thread.join().unwrap_or_else(|panic| panic!("{policy}: {:?}", panic.downcast_ref::<String>()));
        let there = ran.iter().zip((1..).map(|round| places[round % 2]));
        assert!(there.filter(|(ran, told)| *ran == told).count() > 40, "{policy}");
    }
    println!("HARDWARE live-remote-flush: ran");
}

#[test]
fn a_thread_goes_where_it_was_told_before_it_started() {
    let machine = machine(2);
    let places = os_threads(&machine.build(), 2);
    for round in 0..200 {
        let told = Arc::new(AtomicBool::new(false));
        let wait = Arc::clone(&told);
        let body = move || {
            while !wait.load(SeqCst) {
                yield_now();
            }
            yield_now();
            os_thread()
        };
        #[expect(unsafe_code, reason = "a thread that migrates")]
        // SAFETY: what it has across calls is its own memory.
        let thread = unsafe { machine.build().spawn_migratable(body) }.expect("a thread");
        // Threads that nobody places begin on the CPUs in turn: this is the other one.
        let to = 1 - round % 2;
        thread.thread().migrate_to(CpuId(to as u32)).expect("a migratable thread");
        told.store(true, SeqCst);
        assert_eq!(thread.join().expect("no panic"), places[to], "round {round}");
    }
}

/// The signal is its own OS thread's, wherever it is to go.
#[test]
fn hardware_a_thread_preempts_itself_to_another_cpu() {
    let machine = machine(2);
    let places = os_threads(&machine.build(), 2);
    let body = move || {
        let this = current().expect("itself");
        for round in 0..100 {
            let to = usize::from(os_thread() == places[0]);
            this.migrate_to(CpuId(to as u32)).expect("a migratable thread");
            #[expect(unsafe_code, reason = "a region that may be preempted")]
            // SAFETY: nothing in the region depends on other threads.
            unsafe { preemptible(preempt_self) }.expect("a region");
            assert_eq!(os_thread(), places[to], "round {round}");
        }
    };
    #[expect(unsafe_code, reason = "a thread that migrates")]
    // SAFETY: what it has across calls is its own memory.
    let thread = unsafe { machine.build().spawn_migratable(body) }.expect("a thread");
    thread.join().expect("the other OS thread");
    assert!(machine.shutdown().preemptions >= 100);
    println!("HARDWARE live-preempted-away: ran");
}
