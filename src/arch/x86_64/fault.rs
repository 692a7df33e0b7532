//! Faults of ops: a SIGSEGV handler that lets the window go on, and passes on what is not ours.

use super::{
    program,
    window::{self, Op},
};
use crate::arch::NotAvailable;
use core::{
    ffi::{c_int, c_void},
    mem, ptr,
    sync::atomic::{AtomicPtr, Ordering},
};
use libc::{SA_NODEFER, SA_ONSTACK, SA_RESETHAND, SA_RESTART, SA_SIGINFO, SIG_DFL, SIG_IGN, SIGSEGV};
use std::{boxed::Box, io, sync::OnceLock};

/// The ops that can fault, at their first instruction. A fault anywhere else is not ours.
static OPS: [Op; 7] = [
    window::xsave,
    window::xsavec,
    window::xsaveopt,
    window::fxsave,
    window::xrstor,
    window::fxrstor,
    program::write_sse,
];

/// What the program had installed: never null while our handler can run, and never freed.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());

// SAFETY: zeros are a `sigaction` without handler (SIG_DFL is 0), flags and mask.
static DEFAULT: libc::sigaction = unsafe { mem::zeroed() };

/// Installs the handler, once for the process.
///
/// The handler that was there stays in force for every fault that is not an op's. One that is installed later
/// takes ours away, unless it passes on in turn.
///
/// # Errors
/// [`NotAvailable::SignalHandler`].
pub(super) fn install() -> Result<(), NotAvailable> {
    static INSTALLED: OnceLock<Result<(), NotAvailable>> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        let mut previous = DEFAULT;
        // SAFETY: no new action, and room for the old one (sigaction(2)).
        refused(unsafe { libc::sigaction(SIGSEGV, ptr::null(), &mut previous) })?;
        let mut ours = DEFAULT;
        ours.sa_sigaction = on_sigsegv as *const () as usize;
        // The previous handler runs inside ours: with its mask, and nested or restarting where it wants that.
        ours.sa_mask = previous.sa_mask;
        ours.sa_flags = SA_SIGINFO | SA_ONSTACK | previous.sa_flags & (SA_NODEFER | SA_RESTART);
        // Before ours is installed: the handler may run at once, on another thread.
        let keep = |action| PREVIOUS.store(Box::into_raw(Box::new(action)), Ordering::Release);
        keep(previous);
        let mut replaced = DEFAULT;
        // SAFETY: `ours` is complete, and `on_sigsegv` has the signature that SA_SIGINFO asks for and is
        // async-signal-safe: it takes no lock, allocates nothing, and keeps errno.
        refused(unsafe { libc::sigaction(SIGSEGV, &ours, &mut replaced) })?;
        // Another thread may have installed one in between.
        keep(replaced);
        Ok(())
    })
}

fn refused(result: c_int) -> Result<(), NotAvailable> {
    if result == 0 {
        return Ok(());
    }
    Err(NotAvailable::SignalHandler(io::Error::last_os_error().raw_os_error().unwrap_or(0)))
}

pub(super) extern "C" fn on_sigsegv(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives both to a handler with SA_SIGINFO, for as long as it runs (sigaction(2)). Nothing
    // else has a reference to them.
    let (code, registers) =
        unsafe { ((*info).si_code, &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs) };
    // Codes of faults are positive. kill(2) and the like can hit while RIP is at an op, too.
    let is_fault = code > 0;
    if is_fault && leave_op(registers) {
        return;
    }
    // SAFETY: `__errno_location` is this thread's errno, always valid.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: (a) `signal`, `info` and `context` are what the kernel gave us.
    unsafe { pass_on(is_fault, signal, info, context) };
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// If an op's first instruction faulted: goes on behind the op, with the vector in R10 and CR2 in R11.
fn leave_op(registers: &mut [libc::greg_t; 23]) -> bool {
    let rip = registers[libc::REG_RIP as usize] as usize;
    // #GP and #PF are the op's own. The kernel can force a SIGSEGV for reasons of its own, with RIP there by chance.
    let is_fault = matches!(registers[libc::REG_TRAPNO as usize], 13 | 14);
    let is_op = is_fault && OPS.iter().any(|op| *op as usize == rip);
    if is_op {
        registers[libc::REG_R10 as usize] = registers[libc::REG_TRAPNO as usize];
        registers[libc::REG_R11 as usize] = registers[libc::REG_CR2 as usize];
        // The return address is on top of the stack still; RET takes it, as the processor's shadow stack wants.
        registers[libc::REG_RIP as usize] = window::give_up as *const () as usize as libc::greg_t;
    }
    is_op
}

/// Does what would have been done without our handler.
///
/// # Safety
/// (a) `signal`, `info` and `context` are those of the signal that is being handled.
unsafe fn pass_on(is_fault: bool, signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: `install` stored a pointer that is never freed before it installed the handler.
    let previous = unsafe { &*PREVIOUS.load(Ordering::Acquire) };
    match previous.sa_sigaction {
        SIG_IGN if !is_fault => {}
        // A fault cannot be ignored: the kernel takes the default then.
        SIG_DFL | SIG_IGN => {
            // SAFETY: a complete action. What kills the process next is the fault, again, or the signal sent
            // again, once this handler has returned.
            unsafe {
                libc::sigaction(SIGSEGV, &DEFAULT, ptr::null_mut());
                if !is_fault {
                    libc::raise(SIGSEGV);
                }
            }
        }
        handler => {
            if previous.sa_flags & SA_RESETHAND != 0 {
                PREVIOUS.store((&raw const DEFAULT).cast_mut(), Ordering::Release);
            }
            if previous.sa_flags & SA_SIGINFO != 0 {
                // SAFETY: neither SIG_DFL nor SIG_IGN, so it is a function, of this type with SA_SIGINFO.
                let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                    unsafe { mem::transmute(handler) };
                handler(signal, info, context);
            } else {
                // SAFETY: likewise, of this type without SA_SIGINFO.
                let handler: extern "C" fn(c_int) = unsafe { mem::transmute(handler) };
                handler(signal);
            }
        }
    }
}
