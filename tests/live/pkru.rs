//! PKRU: each thread has its own, across switches of every kind.
#![allow(unsafe_code, reason = "RDPKRU and WRPKRU, and the system calls of protection keys")]

use fpuswitch::{
    fpu::policy::{EagerOwner, LazySave, OwnerSlot},
    live::{Config, Gate, Machine, Step, preempt_self, preemptible, yield_now},
};
use std::arch::asm;

/// CPUID.7.0:ECX bit 4: RDPKRU and WRPKRU are there, and the system uses them.
pub(crate) fn has_pkru() -> bool {
    use std::arch::x86_64::__cpuid_count;
    __cpuid_count(0, 0).eax >= 7 && __cpuid_count(7, 0).ecx >> 4 & 1 == 1
}

fn rdpkru() -> u32 {
    let pkru;
    // SAFETY: only called where the CPU has it.
    unsafe { asm!("rdpkru", in("ecx") 0, out("eax") pkru, out("edx") _, options(nostack)) };
    pkru
}

/// # Safety
/// Key 0 stays allowed, and nothing that is accessed has another.
unsafe fn wrpkru(pkru: u32) {
    // SAFETY: by the caller.
    unsafe { asm!("wrpkru", in("eax") pkru, in("ecx") 0, in("edx") 0, options(nostack)) };
}

#[test]
fn hardware_each_thread_has_its_own_pkru() {
    if !has_pkru() {
        println!(
            "HARDWARE live-pkru: SKIPPED: the CPU has no protection keys, or the system does not use them"
        );
        return;
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
                            let _ = preempt_self();
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

/// A page with a key of its own can be written by the thread that allows the key, and by no other.
#[test]
fn hardware_a_key_guards_a_page_from_other_threads() {
    if !has_pkru() {
        println!(
            "HARDWARE live-key: SKIPPED: the CPU has no protection keys, or the system does not use them"
        );
        return;
    }
    // SAFETY: a new mapping of ours.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(page, libc::MAP_FAILED);
    // SAFETY: both take numbers, and a mapping of ours.
    let key = unsafe { libc::syscall(libc::SYS_pkey_alloc, 0, 0) };
    assert!(key > 0, "a key");
    // SAFETY: likewise.
    let protected = unsafe {
        libc::syscall(libc::SYS_pkey_mprotect, page, 4096, libc::PROT_READ | libc::PROT_WRITE, key)
    };
    assert_eq!(protected, 0);
    let page = page as usize;
    let machine = Machine::start(OwnerSlot, Config { cpus: 1, ..Config::default() }).expect("a machine");
    let denied = 3 << (2 * key);
    let owner = machine.spawn(move || {
        // SAFETY: key 0 is allowed.
        unsafe { wrpkru(rdpkru() & !denied) };
        for number in 0..1_000_u32 {
            // SAFETY: the page is ours, and the key allowed.
            unsafe { (page as *mut u32).write_volatile(number) };
            yield_now();
            // SAFETY: likewise.
            assert_eq!(unsafe { (page as *const u32).read_volatile() }, number);
        }
    });
    let other = machine.spawn(move || {
        // SAFETY: key 0 is allowed; the page is not accessed by this thread but through the system.
        unsafe { wrpkru(rdpkru() | denied) };
        let mut pipe = [0; 2];
        // SAFETY: room for two descriptors.
        assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
        for _ in 0..1_000 {
            // The kernel reads the page for this thread, and is denied.
            // SAFETY: the system checks the address.
            let written = unsafe { libc::write(pipe[1], page as *const _, 4) };
            let error = std::io::Error::last_os_error().raw_os_error();
            assert_eq!((written, error), (-1, Some(libc::EFAULT)));
            yield_now();
        }
    });
    owner.expect("a thread").join().expect("it may");
    other.expect("a thread").join().expect("it may not");
    println!("HARDWARE live-key: ran");
}
