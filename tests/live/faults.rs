//! Faults end the process, and say which thread's they are.

use crate::{
    pkeys::missing,
    support::{said, tell},
};
use std::os::unix::process::ExitStatusExt;

fn dies_by_segv(story: &str, thread: &str, what: &str) {
    let output = tell(story, &[]);
    let said = said(&output);
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{story}: {said}");
    assert!(said.contains("fpuswitch: green thread") && said.contains(thread), "{story}: {said}");
    assert!(said.contains(what), "{story}: {said}");
    assert!(!said.contains("unwound") && !said.contains("carried"), "{story}: {said}");
}

#[test]
fn faults_name_the_thread_and_end_the_process() {
    dies_by_segv("overflow", "(deep)", "overflowed its stack");
    dies_by_segv("null", "(null)", "at 0x0");
    dies_by_segv("wrong", "(wrong)", "accessed memory that it may not");
}

#[test]
fn hardware_a_denied_key_ends_the_process_too() {
    if let Some(why) = missing() {
        return println!("HARDWARE live-denied-key: SKIPPED: {why}");
    }
    dies_by_segv("denied-key", "(denied)", "accessed memory with a protection key that its PKRU denies");
    println!("HARDWARE live-denied-key: ran");
}

#[test]
fn a_handler_that_was_there_gets_the_fault() {
    let output = tell("handled", &[]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(42), "{said}");
    assert!(said.contains("(handled)") && said.contains("the program's own handler"), "{said}");
}

#[test]
fn a_fault_that_is_a_result_is_not_reported() {
    let output = tell("op", &[]);
    let said = said(&output);
    assert!(output.status.success() && said.contains("a fault that is a result"), "{said}");
    assert!(!said.contains("green thread"), "{said}");
}

#[test]
fn a_yield_while_a_panic_unwinds_aborts() {
    let output = tell("yield-in-unwinding", &[]);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT));
    assert!(said(&output).contains("std counts panics by OS thread"), "{}", said(&output));
}

/// How much stack the message of a panic takes, without and with a backtrace.
#[test]
fn a_panic_has_room_for_its_message() {
    for (kib, backtrace) in [("16", "0"), ("64", "1")] {
        let output = tell("panic", &[("FPUSWITCH_LIVE_KIB", kib), ("RUST_BACKTRACE", backtrace)]);
        let said = said(&output);
        assert!(output.status.success(), "{kib} KiB, RUST_BACKTRACE={backtrace}: {said}");
        assert!(said.contains("a message of 17") && said.contains("carried"), "{said}");
    }
}
