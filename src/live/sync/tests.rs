//! What needs one thread only, and what loom has no model of. The rest is in `tests/loom_live.rs`.
#![allow(unsafe_code, reason = "items are pushed by pointer")]

use core::{ptr::NonNull, time::Duration};
use std::{collections::VecDeque, sync::atomic::AtomicUsize, thread, vec::Vec};

use super::{
    CpuId,
    atomics::{AtomicPtr, Ordering},
    idle::{Idle, Wake},
    inbox::Inbox,
    local::{Linked, Local},
    request::{Request, RequestWord},
};

#[derive(Debug, Default)]
struct Item {
    link: AtomicPtr<Item>,
}

// SAFETY: L: a field, and the tests leave it alone.
unsafe impl Linked for Item {
    fn link(&self) -> &AtomicPtr<Self> {
        &self.link
    }
}

/// Does the operations whose numbers are the digits of `code` in base `OPERATIONS`.
fn compare_with_a_deque(code: u32, length: u32) {
    const OPERATIONS: u32 = 5;
    let items: Vec<Item> = (0..3 * length).map(|_| Item::default()).collect();
    let mut unused = items.iter().map(NonNull::from);
    let mut fresh = || unused.next().expect("three an operation");
    let (mut list, mut model) = (Local::new(), VecDeque::new());
    for digit in (0..length).map(|place| code / OPERATIONS.pow(place) % OPERATIONS) {
        match digit {
            0 => {
                let item = fresh();
                // SAFETY: A: `items` outlives the list. B: fresh.
                unsafe { list.push_back(item) };
                model.push_back(item);
            }
            1 => assert_eq!(list.pop_front(), model.pop_front()),
            others => {
                let inbox = Inbox::new();
                for _ in 2..others {
                    let item = fresh();
                    // SAFETY: A: `items` outlives the list. B: fresh. C: it stays on this thread.
                    unsafe { inbox.push(item) };
                    model.push_back(item);
                }
                assert_eq!(inbox.is_empty(), others == 2);
                let mut taken = inbox.take_all();
                while let Some(item) = taken.pop_front() {
                    // SAFETY: A: `items` outlives the list. B: just taken out.
                    unsafe { list.push_back(item) };
                }
                assert!(inbox.is_empty());
            }
        }
        assert_eq!(list.is_empty(), model.is_empty());
    }
    let rest: Vec<_> = core::iter::from_fn(|| list.pop_front()).collect();
    assert_eq!(rest, Vec::from(model), "{code} of {length}");
}

#[test]
fn lists_keep_the_order_in_which_items_came() {
    for code in 0..5_u32.pow(5) {
        compare_with_a_deque(code, 5);
    }
}

#[test]
fn requests_come_back_as_they_were_written() {
    let word = RequestWord::new();
    assert_eq!(word.get(), Request::Run);
    for request in [Request::HandOver(CpuId(0)), Request::HandOver(CpuId(u32::MAX - 1)), Request::Run] {
        word.set(request);
        assert_eq!(word.get(), request);
    }
}

/// On the real futex. A wake-up that is lost hangs the test.
#[test]
fn a_sleeping_cpu_is_woken_whenever_there_is_work() {
    const END: usize = usize::MAX;
    let (idle, given, seen) = (Idle::new(), AtomicUsize::new(0), AtomicUsize::new(0));
    let give = |round| {
        given.store(round, Ordering::Release);
        idle.wake()
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut done = 0;
            while done != END {
                idle.sleep(|| given.load(Ordering::Relaxed) != done);
                done = given.load(Ordering::Acquire);
                seen.store(done, Ordering::Release);
            }
        });
        let (mut woken, mut round) = (0, 0);
        while woken < 20 {
            round += 1;
            woken += usize::from(give(round) == Wake::Sent);
            while seen.load(Ordering::Acquire) != round {
                thread::yield_now();
            }
            // It falls asleep meanwhile, in most rounds.
            thread::sleep(Duration::from_millis(1));
        }
        let _ = give(END);
    });
}
