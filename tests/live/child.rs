//! Stories that end a process, or need one of their own: `support::tell` runs them.
#![allow(unsafe_code, reason = "faults, and signal handlers")]

use crate::{
    pkeys::{ALL_DENIED, Page, wrpkru},
    support::{STORY, machine},
};
use fpuswitch::{
    Rfbm,
    live::{park, yield_now},
    registers::{Fault, HostRegs, RegisterFile, UserFrames},
};
use std::{hint::black_box, ptr, time::Duration};

#[test]
#[ignore = "others run it, in a process of its own"]
fn story() {
    match std::env::var(STORY).expect("which story").as_str() {
        "idle" => idle(),
        "mappings" => crate::scale::mappings(),
        "thirty-thousand" => assert_eq!(crate::scale::fill(30_000), None),
        "last-signal" => crate::signals::last_signal(),
        "overflow" => run("deep", 64, || {
            black_box(recurse(black_box(u64::MAX)));
        }),
        "null" => run("null", 64, || {
            // SAFETY: none: a fault is what this is for.
            unsafe { ptr::null_mut::<u32>().write_volatile(1) };
        }),
        "wrong" => run("wrong", 64, || {
            // SAFETY: none, likewise: code cannot be written.
            unsafe { (recurse as *const () as *mut u8).write_volatile(1) };
        }),
        "denied-key" => {
            let page = Page::new().expect("a page with a key");
            run("denied", 64, move || {
                // SAFETY: key 0 is allowed, and for the rest none: a fault is what this is for.
                unsafe {
                    wrpkru(ALL_DENIED);
                    page.words().write_volatile(1);
                }
            });
        }
        "handled" => {
            handle_faults();
            run("handled", 64, || {
                // SAFETY: none, likewise.
                unsafe { ptr::null_mut::<u32>().write_volatile(1) };
            });
        }
        "op" => {
            // Its handler first, so that the report's gets the fault first.
            let mut host = HostRegs::new().expect("the host's registers");
            run("op", 256, move || {
                let mut frame = host.new_frame();
                frame.set_absent(0..frame.pages());
                assert_eq!(host.save_user(Rfbm::ALL, &mut frame), Err(Fault::Page));
                let mut image = host.new_image();
                host.save(Rfbm::ALL, &mut image);
                // Reserved in the header of either format; without XSAVE there is none.
                if let Some(byte) = image.area_mut().reserved_header_bytes_mut().first_mut() {
                    *byte = 1;
                    assert_eq!(host.restore(Rfbm::ALL, &image), Err(Fault::GeneralProtection));
                }
                panic!("a fault that is a result");
            });
        }
        "yield-in-unwinding" => run("unwinding", 64, || {
            struct Yields;
            impl Drop for Yields {
                fn drop(&mut self) {
                    yield_now();
                }
            }
            let _yields = Yields;
            panic!("to unwind");
        }),
        "panic" => {
            let kib = std::env::var("FPUSWITCH_LIVE_KIB").expect("a size").parse().expect("a number");
            run("panics", kib, || panic!("a message of {}", black_box(17)));
        }
        "wrong-keys" => crate::wrong_keys::threads_that_fault(),
        story => panic!("no story {story}"),
    }
}

/// Drop glue must not be run on the way out of a fault.
struct Unwound;

impl Drop for Unwound {
    fn drop(&mut self) {
        eprintln!("unwound");
    }
}

fn run(name: &str, kib: usize, body: impl FnOnce() + Send + 'static) {
    let machine = machine(1);
    let spawn = machine.build().name(name).stack_bytes(kib * 1024);
    let thread = spawn.spawn(|| {
        let _unwound = Unwound;
        body();
    });
    let ended = thread.expect("a thread").join();
    assert!(ended.is_err(), "the thread went on");
    eprintln!("carried");
}

#[expect(unconditional_recursion, reason = "a stack overflow is what this is for")]
fn recurse(n: u64) -> u64 {
    let kept = black_box([n; 16]);
    recurse(n - 1) + kept[3]
}

/// A program's own handler, installed before there is a machine.
fn handle_faults() {
    extern "C" fn on_fault(_: libc::c_int) {
        let text = b"the program's own handler\n";
        // SAFETY: so many bytes are there; `_exit` ends the process.
        unsafe {
            libc::write(2, text.as_ptr().cast(), text.len());
            libc::_exit(42);
        }
    }
    // SAFETY: the handler calls what a handler may call.
    unsafe { libc::signal(libc::SIGSEGV, on_fault as *const () as libc::sighandler_t) };
}

fn idle() {
    let machine = machine(4);
    let threads: Vec<_> = (0..100).map(|_| machine.spawn(park).expect("a thread")).collect();
    // They have parked, and the CPUs gone to sleep, soon.
    std::thread::sleep(Duration::from_millis(50));
    let before = cpu_time();
    std::thread::sleep(Duration::from_millis(300));
    let used = cpu_time() - before;
    // One CPU that spins would have used most of that.
    assert!(used < Duration::from_millis(100), "{used:?} of CPU time");
    for thread in threads {
        thread.thread().unpark();
        thread.join().expect("no panic");
    }
}

/// What the process has used.
fn cpu_time() -> Duration {
    // SAFETY: zeros are a `rusage`, which is written (getrusage(2)).
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut usage), 0);
        usage
    };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}
