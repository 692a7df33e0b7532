//! Threads: results, panics, names, ends.

use crate::support::{Drops, machine, os_thread};
use fpuswitch::live::{LiveError, Spawn, current, park, yield_now};
use std::{
    backtrace::Backtrace,
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
};

#[test]
fn results_come_through_join() {
    let machine = machine(2);
    let text = machine.spawn(|| String::from("from a green thread")).expect("a thread");
    assert_eq!(text.join().expect("no panic"), "from a green thread");
    let outer = machine.spawn(|| {
        let here = || Spawn::here().expect("a green thread");
        let inner: Vec<_> = (0..10).map(|n| here().spawn(move || n * n).expect("a thread")).collect();
        inner.into_iter().map(|thread| thread.join().expect("no panic")).sum::<u64>()
    });
    assert_eq!(outer.expect("a thread").join().expect("no panic"), 285);
    assert!(Spawn::here().is_none() && current().is_none());
}

#[test]
fn a_panic_is_carried_to_the_join_and_others_go_on() {
    let machine = machine(1);
    let other = machine.spawn(|| {
        (0..100).for_each(|_| yield_now());
        7
    });
    let thread = machine.spawn(|| std::panic::panic_any(4711_u32)).expect("a thread");
    assert_eq!(thread.join().expect_err("the panic").downcast_ref(), Some(&4711_u32));
    // Of a green thread's, by a green thread.
    let outer = machine.spawn(|| {
        let inner = Spawn::here().expect("a green thread").spawn(|| std::panic::panic_any("inner"));
        let panic = inner.expect("a thread").join().expect_err("the panic");
        panic.downcast_ref::<&str>().copied()
    });
    assert_eq!(outer.expect("a thread").join().expect("no panic"), Some("inner"));
    assert_eq!(other.expect("a thread").join().expect("no panic"), 7);
}

#[test]
fn threads_have_names_and_ids() {
    let machine = machine(2);
    let named = machine.build().name("weaver").spawn(|| current().expect("itself")).expect("a thread");
    let (outside, id) = (named.thread().clone(), named.thread().id());
    let inside = named.join().expect("no panic");
    assert_eq!((inside.name(), inside.id()), (Some("weaver"), id));
    assert_eq!(outside.name(), Some("weaver"));
    let ids: HashSet<_> =
        (0..100).map(|_| machine.spawn(|| ()).expect("a thread").thread().id()).chain([id]).collect();
    assert_eq!(ids.len(), 101);
    assert_eq!(machine.spawn(|| ()).expect("a thread").thread().name(), None);
}

#[test]
fn every_value_is_dropped_once() {
    let (captured, joined, forgotten, thrown) =
        (Drops::default(), Drops::default(), Drops::default(), Drops::default());
    let machine = machine(2);
    for _ in 0..500 {
        let (value, result) = (captured.value(), joined.value());
        let thread = machine.spawn(move || {
            let _value = value;
            result
        });
        drop(thread.expect("a thread").join());
        let result = forgotten.value();
        // Nobody joins it: it goes on by itself.
        drop(machine.spawn(move || result));
    }
    for _ in 0..5 {
        let payload = thrown.value();
        let thread = machine.spawn(move || {
            std::panic::resume_unwind(Box::new(payload));
        });
        drop(thread);
    }
    machine.shutdown();
    assert_eq!((captured.count(), joined.count(), forgotten.count(), thrown.count()), (500, 500, 500, 5));
}

#[test]
fn thousands_of_threads_run() {
    let machine = machine(2);
    let count = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..3_000)
        .map(|n| {
            let count = Arc::clone(&count);
            let body = move || {
                yield_now();
                count.fetch_add(n, SeqCst);
            };
            machine.build().stack_bytes(16 * 1024).spawn(body).expect("a thread")
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic");
    }
    assert_eq!(count.load(SeqCst), (0..3_000).sum::<usize>());
}

#[test]
fn shutdown_waits_and_a_dropped_machine_goes_on() {
    let done = Arc::new(AtomicBool::new(false));
    let first = machine(2);
    let set = Arc::clone(&done);
    let thread = first.spawn(move || {
        let inner = Spawn::here().expect("a green thread").spawn(move || {
            (0..1_000).for_each(|_| yield_now());
            set.store(true, SeqCst);
        });
        drop(inner);
    });
    drop(thread);
    first.shutdown();
    assert!(done.load(SeqCst));

    let second = machine(2);
    let (said, says) = mpsc::channel();
    let thread = second.spawn(move || {
        park();
        said.send(os_thread())
    });
    let thread = thread.expect("a thread");
    drop(second);
    thread.thread().unpark();
    assert!(says.recv().is_ok());
    assert!(thread.join().expect("no panic").is_ok());
}

#[test]
fn a_machine_that_has_ended_makes_no_threads() {
    let machine = machine(2);
    let spawn = machine.build();
    let kernel = Drops::default();
    machine.shutdown();
    assert_eq!(spawn.clone().spawn(|| ()).err(), Some(LiveError::Ended));
    let value = kernel.value();
    let step = move || {
        let _ = &value;
        fpuswitch::live::Step::Done
    };
    assert_eq!(spawn.spawn_kernel(step).err(), Some(LiveError::Ended));
    assert_eq!(kernel.count(), 1);
}

/// The frames of a backtrace, innermost first.
fn frames() -> Vec<String> {
    let text = Backtrace::force_capture().to_string();
    text.lines().filter(|line| !line.trim_start().starts_with("at ")).map(str::to_owned).collect()
}

#[test]
fn backtraces_end_at_the_root_of_the_thread() {
    fn check(frames: &[String]) {
        let root = frames.iter().rposition(|frame| frame.contains("live::gate::stubs::root"));
        assert_eq!(root, Some(frames.len() - 1), "{frames:#?}");
        assert!(frames.iter().any(|frame| frame.ends_with("main")), "{frames:#?}");
    }
    let machine = machine(1);
    let body = || {
        let mut found = vec![frames()];
        #[expect(unsafe_code, reason = "a region that may be preempted")]
        // SAFETY: no tick: it is preempted at `preempt_self` alone.
        unsafe {
            fpuswitch::live::preemptible(|| {
                fpuswitch::live::preempt_self().expect("a region");
                found.push(fpuswitch::live::preempt_off(frames));
            });
        }
        yield_now();
        found.push(frames());
        found
    };
    let spawn = machine.build().stack_bytes(512 * 1024);
    let threads: Vec<_> = (0..2).map(|_| spawn.clone().spawn(body).expect("a thread")).collect();
    for thread in threads {
        thread.join().expect("no panic").iter().for_each(|frames| check(frames));
    }
    assert!(machine.shutdown().preemptions > 0);
}
