//! Signals: what is not an op's fault is passed on, and windows nest in handlers.

use super::*;
use crate::{
    arch::x86_64::{fault, window},
    arch::{Mapping, Measurement, RestoreOp, TimedOp, through_pkru},
};
use core::{
    ffi::{c_int, c_void},
    mem, ptr,
};
use libc::{SIG_DFL, SIG_IGN, SIGSEGV, SIGUSR1, SIGUSR2};
use std::{
    env,
    os::unix::process::ExitStatusExt,
    process::{self, Command, ExitStatus},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    thread,
};

/// Set in the processes that the test starts, to the case that they are to play.
const CASE: &str = "FPUSWITCH_SIGNAL_CASE";

fn play(case: &str) -> ExitStatus {
    let mut this = Command::new(env::current_exe().expect("a test binary has a path"));
    let name = concat!(module_path!(), "::hardware_foreign_faults_are_passed_on");
    let name = name.split_once("::").expect("a path with the crate's name").1;
    this.args(["--exact", name, "--nocapture"]).env(CASE, case);
    let output = this.output().expect("the test binary starts again");
    output.status
}

fn set_handler(handler: usize, flags: c_int) {
    // SAFETY: zeros are a complete action without flags.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    (action.sa_sigaction, action.sa_flags) = (handler, flags);
    // SAFETY: a complete action, whose handler has the type that its flags ask for.
    assert_eq!(unsafe { libc::sigaction(SIGSEGV, &action, ptr::null_mut()) }, 0);
}

extern "C" fn exit_with_address(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's, passed on.
    let address = unsafe { (*info).si_addr() } as usize;
    let right = signal == SIGSEGV && !context.is_null() && address == FOREIGN.load(SeqCst) as usize * 4096;
    // SAFETY: ends the process.
    unsafe { libc::_exit(if right { 42 } else { 1 }) };
}

extern "C" fn exit_old_style(signal: c_int) {
    // SAFETY: ends the process.
    unsafe { libc::_exit(if signal == SIGSEGV { 43 } else { 1 }) };
}

extern "C" fn count(_: c_int) {
    set_errno(5);
    COUNT.fetch_add(1, SeqCst);
}

fn set_errno(value: c_int) {
    // SAFETY: this thread's errno.
    unsafe { *libc::__errno_location() = value };
}

static COUNT: AtomicU32 = AtomicU32::new(0);
/// The number of the page that is touched; in the lower 4 GB.
static FOREIGN: AtomicU32 = AtomicU32::new(16);

/// Touches the page: a fault that is not an op's.
fn fault_elsewhere() -> ! {
    // SAFETY: no page is mapped that low (mmap_min_addr); the process ends.
    unsafe { ptr::read_volatile((FOREIGN.load(SeqCst) as usize * 4096) as *const u8) };
    process::exit(2)
}

fn raise() {
    // SAFETY: a signal to this thread.
    unsafe { libc::raise(SIGSEGV) };
}

/// An op faults and goes on, with whatever handler there was.
fn fault_of_an_op() {
    let features = features();
    let mut parked = filled(features, 3);
    let mut area = Mapping::new(features, 0).unwrap();
    area.set_absent(0..1).unwrap();
    assert!(parked.restore(RestoreOp::Fxrstor, Rfbm::ALL, &area).is_err());
}

fn child(case: &str) -> ! {
    // SAFETY: no core files of processes that are to die.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &libc::rlimit { rlim_cur: 0, rlim_max: 0 }) };
    let (handler, flags) = match case {
        // The one that std installs for stack overflows.
        "std's fault" => {
            fault_of_an_op();
            fault_elsewhere()
        }
        "siginfo fault" => (exit_with_address as *const () as usize, libc::SA_SIGINFO),
        "old style fault" => (exit_old_style as *const () as usize, 0),
        "default fault" | "default sent" => (SIG_DFL, 0),
        "ignored fault" | "ignored sent" | "at an op" => (SIG_IGN, 0),
        "counted sent" => (count as *const () as usize, 0),
        "once sent" => (count as *const () as usize, libc::SA_RESETHAND),
        _ => process::exit(3),
    };
    set_handler(handler, flags);
    fault_of_an_op();
    match case {
        "ignored sent" => {
            raise();
            process::exit(0)
        }
        "counted sent" | "once sent" => {
            set_errno(77);
            raise();
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(77));
            assert_eq!(COUNT.load(SeqCst), 1);
            raise();
            process::exit(COUNT.load(SeqCst) as i32)
        }
        "default sent" => {
            raise();
            process::exit(2)
        }
        "at an op" => process::exit(i32::from(!sent_at_an_op_is_no_fault())),
        _ => fault_elsewhere(),
    }
}

/// kill(2) that hits right before an op is executed: RIP, and a vector left from an earlier fault, look like ours.
fn sent_at_an_op_is_no_fault() -> bool {
    // SAFETY: zeros are a `siginfo_t`, with the code SI_USER, and a `ucontext_t`.
    let (mut info, mut context): (libc::siginfo_t, libc::ucontext_t) = unsafe { mem::zeroed() };
    let rip = window::xrstor as *const () as usize as i64;
    let mut handle = |code| {
        info.si_code = code;
        context.uc_mcontext.gregs[libc::REG_RIP as usize] = rip;
        context.uc_mcontext.gregs[libc::REG_TRAPNO as usize] = 13;
        fault::on_sigsegv(SIGSEGV, &mut info, (&raw mut context).cast());
        context.uc_mcontext.gregs[libc::REG_RIP as usize] == rip
    };
    // SI_USER, SI_TKILL; and SEGV_MAPERR to see that it is the code that tells.
    handle(0) && handle(-6) && !handle(1)
}

#[test]
fn hardware_foreign_faults_are_passed_on() {
    if let Ok(case) = env::var(CASE) {
        child(&case);
    }
    for (case, code, signal) in [
        ("siginfo fault", Some(42), None),
        ("old style fault", Some(43), None),
        ("std's fault", None, Some(SIGSEGV)),
        ("default fault", None, Some(SIGSEGV)),
        ("ignored fault", None, Some(SIGSEGV)),
        ("default sent", None, Some(SIGSEGV)),
        ("ignored sent", Some(0), None),
        ("counted sent", Some(2), None),
        ("once sent", None, Some(SIGSEGV)),
        ("at an op", Some(0), None),
        ("no such case", Some(3), None),
    ] {
        let status = play(case);
        assert_eq!((status.code(), status.signal()), (code, signal), "{case}");
    }
    ran("chaining");
}

static CPU: OnceLock<ParkedRegs> = OnceLock::new();
static FAILED: AtomicBool = AtomicBool::new(false);
static HANDLED: AtomicU32 = AtomicU32::new(0);
static DONE: AtomicBool = AtomicBool::new(false);

/// Windows of another CPU, one of which faults; nothing that allocates.
extern "C" fn use_windows(_: c_int) {
    let Some(mut cpu) = CPU.get().cloned() else { return };
    let (mut found, bytes) = ([0; 260], [0; 1024]);
    let misaligned =
        cpu.restore(RestoreOp::Fxrstor, Rfbm::ALL, &bytes[1 + bytes.as_ptr().align_offset(16)..]);
    let read = cpu.read(Component::SSE, &mut found);
    let expected = |(n, byte): (usize, &u8)| n < 4 || *byte == n as u8;
    if read.is_err() || misaligned.is_ok() || !found.iter().enumerate().all(expected) {
        FAILED.store(true, SeqCst);
    }
    HANDLED.fetch_add(1, SeqCst);
}

#[test]
fn hardware_windows_nest_in_signal_handlers() {
    let features = features();
    let mut cpu = parked(features);
    let mut bytes: [u8; 260] = core::array::from_fn(|n| n as u8);
    bytes[..4].copy_from_slice(&0x1f80_u32.to_le_bytes());
    cpu.write(Component::SSE, &bytes).unwrap();
    CPU.set(cpu).expect("set once");
    // SAFETY: zeros are a complete action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // On the thread's own stack: the alternate one has no room for two frames and the areas.
    (action.sa_sigaction, action.sa_flags) = (use_windows as *const () as usize, libc::SA_RESTART);
    // SAFETY: an old-style handler, and nobody else here uses SIGUSR1.
    assert_eq!(unsafe { libc::sigaction(SIGUSR1, &action, ptr::null_mut()) }, 0);
    // One window that is open nearly all the time, with registers that are not initial.
    let (name, thread) = (OnceLock::new(), &filled(features, 90));
    thread::scope(|scope| {
        let open = scope.spawn(|| {
            // SAFETY: has no preconditions.
            name.set(unsafe { libc::pthread_self() } as usize).expect("set once");
            let mut open = Measurement::new(thread, TimedOp::Fxsave, 1).unwrap();
            while !DONE.load(SeqCst) {
                assert_filled(open.registers_after(100_000), Rfbm::ALL, 90);
                assert_rust_is_itself();
            }
        });
        for n in 0..cases_here(200, 4) {
            let thread = *name.wait() as libc::pthread_t;
            // SAFETY: the thread was not joined yet, so its name is valid, even if a check of its has failed.
            assert_eq!(unsafe { libc::pthread_kill(thread, SIGUSR1) }, 0);
            while HANDLED.load(SeqCst) <= n && !FAILED.load(SeqCst) && !open.is_finished() {
                thread::yield_now();
            }
        }
        DONE.store(true, SeqCst);
        open.join().expect("the thread's checks hold");
    });
    assert!(!FAILED.load(SeqCst));
    ran("nested-windows");
}

extern "C" fn count_another(_: c_int) {
    ARRIVED.fetch_add(1, SeqCst);
}

static ARRIVED: AtomicU32 = AtomicU32::new(0);
static ALL_ARRIVED: AtomicBool = AtomicBool::new(false);

/// The kernel writes to the stack for a signal, and to the area of rseq(2) after a preemption: where it cannot, it
/// kills. (QEMU's CPU lets a signal in between the two WRPKRU only with `-singlestep`.)
#[test]
fn hardware_signals_arrive_whatever_pkru_denies() {
    let features = features();
    if !features.has_pkru() {
        std::println!("HARDWARE pkru-signals: SKIPPED: no RDPKRU here (CPUID.7.0:ECX.OSPKE is clear)");
        return;
    }
    // SAFETY: zeros are a complete action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    (action.sa_sigaction, action.sa_flags) = (count_another as *const () as usize, libc::SA_RESTART);
    // SAFETY: an old-style handler, and nobody else here uses SIGUSR2.
    assert_eq!(unsafe { libc::sigaction(SIGUSR2, &action, ptr::null_mut()) }, 0);
    let name = OnceLock::new();
    thread::scope(|scope| {
        let denying = scope.spawn(|| {
            // SAFETY: has no preconditions.
            name.set(unsafe { libc::pthread_self() } as usize).expect("set once");
            while !ALL_ARRIVED.load(SeqCst) {
                assert_eq!(through_pkru(features, u32::MAX), Some(u32::MAX));
            }
        });
        for n in 0..cases_here(500, 5) {
            let thread = *name.wait() as libc::pthread_t;
            // SAFETY: the thread was not joined yet, so its name is valid, even if a check of its has failed.
            assert_eq!(unsafe { libc::pthread_kill(thread, SIGUSR2) }, 0);
            while ARRIVED.load(SeqCst) <= n && !denying.is_finished() {
                thread::yield_now();
            }
        }
        ALL_ARRIVED.store(true, SeqCst);
        denying.join().expect("the thread's checks hold");
    });
    ran("pkru-signals");
}
