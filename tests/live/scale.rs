//! As many threads as the system has room for.

use crate::support::{said, start, tell};
use fpuswitch::live::{Config, LiveError, park};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

/// In processes of their own: mappings are the process's.
#[test]
fn mappings_run_out_with_a_clear_error() {
    let output = tell("mappings", &[]);
    assert!(output.status.success(), "{}", said(&output));
}

#[cfg(not(debug_assertions))]
#[test]
fn thirty_thousand_threads_wait() {
    let output = tell("thirty-thousand", &[]);
    assert!(output.status.success(), "{}", said(&output));
}

/// Makes threads that wait until there is no room, or enough of them; wakes them.
pub(crate) fn fill(most: usize) -> Option<LiveError> {
    let config = Config { cpus: 2, stack_bytes: 16 * 1024, ..Config::default() };
    let machine = start("owner-slot", config).expect("a machine");
    let count = Arc::new(AtomicUsize::new(0));
    let mut threads = Vec::with_capacity(most);
    let mut refused = None;
    for _ in 0..most {
        let counting = Arc::clone(&count);
        let body = move || {
            park();
            counting.fetch_add(1, SeqCst);
        };
        match machine.spawn(body) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let made = threads.len();
    for thread in &threads {
        thread.thread().unpark();
    }
    for thread in threads {
        thread.join().expect("no panic");
    }
    assert_eq!(count.load(SeqCst), made);
    // There is room again.
    assert_eq!(machine.spawn(|| 8).expect("a thread").join().expect("no panic"), 8);
    refused
}

pub(crate) fn mappings() {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").expect("Linux");
    let limit: usize = text.trim().parse().expect("a number");
    if limit > 100_000 {
        return eprintln!("a limit of {limit} is not tried");
    }
    let refused = fill(limit).expect("a stack takes two");
    assert_eq!(refused, LiveError::Mappings { limit: limit as u64 });
    assert!(refused.to_string().contains("vm.max_map_count"), "{refused}");
}
