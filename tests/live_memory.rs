//! What a green thread takes: counted by the allocator.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(unsafe_code, reason = "an allocator that counts")]

use fpuswitch::{
    fpu::policy::OwnerSlot,
    live::{Config, Machine, park},
    registers::{HostRegs, RegisterFile},
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicIsize, Ordering::SeqCst},
};

static BYTES: AtomicIsize = AtomicIsize::new(0);

struct Counting;

// SAFETY: the system's, and two additions.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size() as isize, SeqCst);
        // SAFETY: as for ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as isize, SeqCst);
        // SAFETY: as for ours.
        unsafe { System.dealloc(at, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a thread takes beside its image and its stack, of which the allocator knows nothing.
const THREAD: usize = 256;
/// Its result, for the join, and the box of a closure without captures.
const RESULT: usize = 56;
/// A block more or less of the queue for new threads, by thread.
const QUEUE: usize = 4;

#[test]
fn a_thread_that_waits_takes_its_image_and_little_more() {
    const COUNT: usize = 1_000;
    let machine = Machine::start(OwnerSlot, Config { cpus: 1, ..Config::default() }).expect("a machine");
    // Larger than the image, or equal.
    let area = HostRegs::new().expect("the host's registers").new_image().area().bytes().len();
    let mut threads = Vec::with_capacity(COUNT);
    let round = |threads: &mut Vec<_>, count: usize| {
        threads.extend((0..count).map(|_| machine.spawn(park).expect("a thread")));
        // Another thread's turn comes behind theirs: all have parked.
        machine.spawn(|| ()).expect("a thread").join().expect("no panic");
        BYTES.load(SeqCst)
    };
    // The queues of new threads have their room by then.
    let before = round(&mut threads, 200);
    let after = round(&mut threads, 800);
    let each = (after - before) as usize / 800;
    assert!(each <= area + THREAD + RESULT + QUEUE, "{each} bytes, and the image is {area}");
    for thread in threads {
        thread.thread().unpark();
        thread.join().expect("no panic");
    }
}
