//! Signals that are not ours go where they went before.
#![allow(unsafe_code, reason = "signal handlers")]

use crate::support::start;
use fpuswitch::live::{Config, Machine, preempt::SignalStack, preempt_self, preemptible, yield_now};
use std::{
    mem, ptr,
    sync::{
        Arc,
        atomic::{AtomicI32, AtomicU64, Ordering::SeqCst},
    },
};

static CALLS: [AtomicU64; 65] = [const { AtomicU64::new(0) }; 65];
/// Who sent the last signal that told it.
static SENDER: AtomicI32 = AtomicI32::new(0);

extern "C" fn with_info(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    assert!(!context.is_null());
    // SAFETY: the system gives it to a handler with SA_SIGINFO.
    SENDER.store(unsafe { (*info).si_pid() }, SeqCst);
    CALLS[signal as usize].fetch_add(1, SeqCst);
}

extern "C" fn without(signal: i32) {
    CALLS[signal as usize].fetch_add(1, SeqCst);
}

fn install(signal: i32, handler: usize, flags: i32) {
    // SAFETY: a complete action, whose handler has the signature that the flags say, and touches atomics alone.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0);
    }
}

/// Whether a green thread in a region is preempted.
fn is_preempted(machine: &Machine) -> bool {
    let turns = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&turns);
    let body = move || {
        while counting.load(SeqCst) == 0 {
            yield_now();
        }
        let before = counting.load(SeqCst);
        // SAFETY: nothing in the region depends on the other thread.
        unsafe { preemptible(preempt_self) }.expect("a region");
        let is_preempted = counting.load(SeqCst) != before;
        counting.store(u64::MAX, SeqCst);
        is_preempted
    };
    let thread = machine.spawn(body).expect("a thread");
    let other = machine.spawn(move || {
        while turns.fetch_add(1, SeqCst) < u64::MAX / 2 {
            yield_now();
        }
    });
    let is_preempted = thread.join().expect("no panic");
    other.expect("a thread").join().expect("no panic");
    is_preempted
}

/// By `kill` to the process, by `pthread_kill` to an OS thread, which is no CPU, and to one that is.
fn send(signal: i32, machine: &Machine) {
    // SAFETY: it takes nothing.
    let own = unsafe { libc::pthread_self() };
    let calls = || CALLS[signal as usize].load(SeqCst);
    let before = calls();
    // SAFETY: the handler is there, and the thread alive: it is this one.
    unsafe { assert_eq!(libc::pthread_kill(own, signal), 0) };
    assert_eq!(calls(), before + 1);
    let in_thread = move || {
        // SAFETY: as above: its own OS thread.
        unsafe { libc::pthread_kill(libc::pthread_self(), signal) }
    };
    assert_eq!(machine.spawn(in_thread).expect("a thread").join().expect("no panic"), 0);
    assert_eq!(calls(), before + 2);
    // SAFETY: the handler is there.
    unsafe { assert_eq!(libc::kill(libc::getpid(), signal), 0) };
    while calls() < before + 3 {
        std::thread::yield_now();
    }
}

#[test]
fn hardware_a_handler_that_was_there_gets_what_is_not_ours() {
    let handlers = [
        (libc::SIGUSR1, with_info as *const () as usize, libc::SA_SIGINFO),
        (libc::SIGUSR2, without as *const () as usize, 0),
        (libc::SIGRTMAX() - 1, without as *const () as usize, libc::SA_RESTART),
    ];
    for (signal, handler, flags) in handlers {
        install(signal, handler, flags);
        let config = Config { cpus: 1, signal, ..Config::default() };
        let machine = start("owner-slot", config).expect("a machine");
        assert!(is_preempted(&machine));
        assert_eq!(CALLS[signal as usize].load(SeqCst), 0, "that one was ours");
        send(signal, &machine);
        assert!(is_preempted(&machine));
        // A second machine finds the handler installed, and the chain as it was.
        let config = Config { cpus: 1, signal, ..Config::default() };
        let second = start("owner-slot", config).expect("a machine");
        send(signal, &second);
        assert!(is_preempted(&second) && is_preempted(&machine));
    }
    assert_eq!(SENDER.load(SeqCst) as u32, std::process::id());
    println!("HARDWARE live-foreign-signals: ran");
}

/// Those of the default signal are ignored, as they were, and the last one has no other handler either.
#[test]
fn hardware_a_signal_that_nobody_handles_changes_nothing() {
    for signal in [libc::SIGURG, libc::SIGWINCH] {
        let config = Config { cpus: 1, signal, ..Config::default() };
        let machine = start("owner-slot", config).expect("a machine");
        // SAFETY: the thread is alive: it is this one.
        unsafe { assert_eq!(libc::pthread_kill(libc::pthread_self(), signal), 0) };
        assert!(is_preempted(&machine), "signal {signal}");
    }
    println!("HARDWARE live-ignored-signals: ran");
}

#[test]
fn hardware_the_last_signal_is_passed_on_too() {
    let signal = libc::SIGRTMAX();
    // Before anybody installs ours for it, or behind: then it is the only one, and ours is installed again.
    let output = crate::support::tell("last-signal", &[]);
    assert!(output.status.success(), "{signal}: {}", crate::support::said(&output));
    println!("HARDWARE live-last-signal: ran");
}

/// In a process of its own: other tests take this signal too.
pub(crate) fn last_signal() {
    let signal = libc::SIGRTMAX();
    install(signal, without as *const () as usize, 0);
    let machine = start("owner-slot", Config { cpus: 1, signal, ..Config::default() }).expect("a machine");
    send(signal, &machine);
    assert!(is_preempted(&machine));
}

/// Where the alternate stack of the calling OS thread is.
fn alternate_stack() -> usize {
    // SAFETY: zeros are a `stack_t`, and there is room for the one in force (sigaltstack(2)).
    unsafe {
        let mut stack: libc::stack_t = mem::zeroed();
        assert_eq!(libc::sigaltstack(ptr::null(), &mut stack), 0);
        stack.ss_sp.addr()
    }
}

/// Dropped in whatever order, no stack is in force whose memory somebody else may get.
#[test]
fn a_stack_that_another_brings_back_is_not_freed() {
    let at_first = alternate_stack();
    let outer = SignalStack::new().expect("a stack");
    let outer_at = alternate_stack();
    let inner = SignalStack::new().expect("a stack");
    drop(inner);
    assert_eq!(alternate_stack(), outer_at);
    let inner = SignalStack::new().expect("a stack");
    let inner_at = alternate_stack();
    drop(outer);
    assert_eq!(alternate_stack(), inner_at);
    drop(inner);
    // Brought back, and nobody else's.
    assert_eq!(alternate_stack(), outer_at);
    let next = SignalStack::new().expect("a stack");
    assert_ne!(alternate_stack(), outer_at);
    drop(next);
    assert_ne!(at_first, outer_at);
}
