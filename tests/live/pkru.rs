//! PKRU: each thread has its own, across switches of every kind.
#![allow(unsafe_code, reason = "WRPKRU, pages that are denied, and regions that may be preempted")]

use crate::pkeys::{Page, denied, missing, missing_in_images, rdpkru, wrpkru};
use fpuswitch::{
    fpu::policy::{EagerOwner, LazySave, OwnerSlot},
    live::{Config, Gate, Machine, Step, preempt_self, preemptible, yield_now},
};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::SeqCst},
};

#[test]
fn hardware_each_thread_has_its_own_pkru() {
    if let Some(why) = missing_in_images() {
        return println!("HARDWARE live-pkru: SKIPPED: {why}");
    }
    for gate in [Gate::Auto, Gate::Parked] {
        let config = || Config { cpus: 2, gate, ..Config::default() };
        let machines = [
            Machine::start(OwnerSlot, config()),
            Machine::start(LazySave, config()),
            Machine::start(EagerOwner, config()),
        ];
        for machine in machines.map(|machine| machine.expect("a machine")) {
            let run = |number: u32| {
                // Two bits a key, none for key 0.
                let own = number << 2;
                // SAFETY: key 0 is allowed.
                unsafe { wrpkru(own) };
                for _ in 0..1_000 {
                    yield_now();
                    assert_eq!(rdpkru(), own, "behind a yield");
                }
                for _ in 0..100 {
                    // SAFETY: nothing in the region belongs to others.
                    unsafe {
                        preemptible(|| {
                            preempt_self().expect("a region");
                            assert_eq!(rdpkru(), own, "behind a preemption");
                        });
                    }
                }
            };
            let mut left = 1_000;
            let kernel_thread = machine.build().spawn_kernel(move || {
                left -= 1;
                if left == 0 { Step::Done } else { Step::Again }
            });
            let threads: Vec<_> =
                (1..=6).map(|number| machine.spawn(move || run(number)).expect("a thread")).collect();
            for thread in threads {
                thread.join().expect("its own PKRU");
            }
            kernel_thread.expect("a kernel thread").join().expect("no panic");
            machine.shutdown();
        }
    }
    println!("HARDWARE live-pkru: ran");
}

/// For the thread that allows its key, a page can be accessed, by the kernel too, and for no other.
#[test]
fn hardware_a_key_guards_a_page_from_other_threads() {
    if let Some(why) = missing() {
        return println!("HARDWARE live-key: SKIPPED: {why}");
    }
    for gate in [Gate::Auto, Gate::Parked] {
        let page = Arc::new(Page::new().expect("a page with a key"));
        let config = Config { cpus: 1, gate, ..Config::default() };
        let machine = Machine::start(OwnerSlot, config).expect("a machine");
        // Neither is done before the other has begun.
        let begun = Arc::new(AtomicU32::new(0));
        let begin = |begun: &AtomicU32| {
            begun.fetch_add(1, SeqCst);
            while begun.load(SeqCst) < 2 {
                yield_now();
            }
        };
        let (owners, have) = (Arc::clone(&page), Arc::clone(&begun));
        let owner = machine.spawn(move || {
            // SAFETY: key 0 is allowed.
            unsafe { wrpkru(rdpkru() & !denied(owners.key())) };
            begin(&have);
            for number in 0..1_000 {
                // SAFETY: the page is ours, and the key allowed.
                unsafe { owners.words().write_volatile(number) };
                yield_now();
                // SAFETY: likewise.
                assert_eq!(unsafe { owners.words().read_volatile() }, number);
                assert!(owners.is_allowed_in_kernel(false));
            }
        });
        let other = machine.spawn(move || {
            // SAFETY: key 0 is allowed; the page is not accessed by this thread but through the system.
            unsafe { wrpkru(rdpkru() | denied(page.key())) };
            begin(&begun);
            for _ in 0..1_000 {
                assert!(!page.is_allowed_in_kernel(false) && !page.is_allowed_in_kernel(true));
                yield_now();
            }
        });
        owner.expect("a thread").join().expect("it may");
        other.expect("a thread").join().expect("it may not");
    }
    println!("HARDWARE live-key: ran");
}
