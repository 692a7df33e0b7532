//! Faults of green threads: what the system says with SIGSEGV or SIGBUS, told with the thread's name.
//!
//! A fault never unwinds, and never ends the thread alone: what the thread had half done stays as it was. The report goes to
//! the standard error output, and the signal to whoever had it before; if that was nobody, the process ends by it.

use super::{LiveError, gate, machine::thread_name, system, user};
use crate::arch::{Chain, is_op};
use core::{
    ffi::{c_int, c_void},
    fmt::{self, Write},
    sync::atomic::Ordering::Relaxed,
};

static SEGV: Chain = Chain::new();
static BUS: Chain = Chain::new();

/// Linux, include/uapi/asm-generic/siginfo.h.
const SEGV_PKUERR: c_int = 4;

/// Has faults of green threads reported, once for the process: who it was, and what happened. [`Machine::start`] does it.
///
/// Handlers of SIGSEGV and SIGBUS write a line to the standard error output, which tells a stack that overflowed, memory whose
/// protection key PKRU denies, and other faults apart. Then the fault goes to whoever had the signal before; by default,
/// the process ends. A stack that overflowed needs a [`SignalStack`](super::preempt::SignalStack) to be heard of.
///
/// # Errors
/// [`LiveError::Signal`].
///
/// [`Machine::start`]: super::Machine::start
pub fn report_faults() -> Result<(), LiveError> {
    for (chain, signal) in [(&SEGV, libc::SIGSEGV), (&BUS, libc::SIGBUS)] {
        // SAFETY: (a) the handler formats into bytes on its stack, writes them with write(2), and keeps errno.
        unsafe { chain.install(signal, on_fault, 0) }.map_err(|error| LiveError::Signal { signal, error })?;
    }
    Ok(())
}

extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system gives both to a handler with SA_SIGINFO, for as long as it runs.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // SAFETY: likewise.
    let rip = unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RIP as usize] };
    // Codes of faults are positive.
    let is_fault = code > 0;
    let is_mistake = is_fault && !is_op(rip as usize);
    // SAFETY: a CPU's GS points to its gate, whose words are this OS thread's.
    if is_mistake && user::is_cpu() && unsafe { (*gate::this()).in_user.load(Relaxed) } != 0 {
        // SAFETY: this thread's errno, always valid (errno(3)).
        let errno = unsafe { *libc::__errno_location() };
        report(signal, code, address);
        // SAFETY: likewise. Who had the signal before may mend the fault, and the code go on.
        unsafe { *libc::__errno_location() = errno };
    }
    let chain = if signal == libc::SIGBUS { &BUS } else { &SEGV };
    // SAFETY: (a) they are this signal's.
    unsafe { chain.pass_on(is_fault, signal, info, context) };
}

fn report(signal: c_int, code: c_int, address: usize) {
    // SAFETY: user code runs, so that the context is a fiber, and alive.
    let fiber = unsafe { &*(*gate::this()).context.cast::<super::Fiber>() };
    let mut text = Text { bytes: [0; 512], len: 0 };
    let guard = fiber.stack_limit.saturating_sub(system::page_bytes())..fiber.stack_limit;
    let name = thread_name(fiber).unwrap_or("without a name");
    let what = match (signal, code) {
        _ if guard.contains(&address) => "overflowed its stack: the guard page was accessed",
        (libc::SIGSEGV, SEGV_PKUERR) => "accessed memory with a protection key that its PKRU denies,",
        (libc::SIGBUS, _) => "accessed memory that is not there (SIGBUS),",
        _ => "accessed memory that it may not (SIGSEGV),",
    };
    // What does not fit is left out.
    let _ = writeln!(text, "fpuswitch: green thread {} ({name}) {what} at {address:#x}", fiber.id());
    // SAFETY: so many bytes are there (write(2)). Nothing can be done about an error.
    unsafe { libc::write(libc::STDERR_FILENO, text.bytes.as_ptr().cast(), text.len) };
}

/// Text without an allocation.
struct Text {
    bytes: [u8; 512],
    len: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.len..];
        let count = text.len().min(room.len());
        room[..count].copy_from_slice(&text.as_bytes()[..count]);
        self.len += count;
        if count == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}
