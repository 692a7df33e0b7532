//! Signal handlers that respect the one that was there.

use core::{
    ffi::{c_int, c_void},
    mem, ptr,
    sync::atomic::{AtomicPtr, Ordering},
};
use libc::{SA_NODEFER, SA_ONSTACK, SA_RESETHAND, SA_RESTART, SA_SIGINFO, SIG_DFL, SIG_IGN};
use std::{boxed::Box, io, sync::OnceLock};

/// A handler as SA_SIGINFO asks for.
pub(crate) type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

// SAFETY: zeros are a `sigaction` without handler (SIG_DFL is 0), flags and mask.
static DEFAULT: libc::sigaction = unsafe { mem::zeroed() };

/// What a signal did before ours.
#[derive(Debug)]
pub(crate) struct Chain {
    /// Never null while our handler can run, and never freed.
    previous: AtomicPtr<libc::sigaction>,
    installed: OnceLock<Result<(), i32>>,
}

impl Chain {
    pub(crate) const fn new() -> Self {
        Self { previous: AtomicPtr::new(ptr::null_mut()), installed: OnceLock::new() }
    }

    /// Installs the handler, once for the process. It runs on the alternate stack where the thread has one.
    ///
    /// The handler that was there stays in force for every signal that is [passed on](Self::pass_on). One that is
    /// installed later takes ours away, unless it passes on in turn.
    ///
    /// # Errors
    /// The system's.
    ///
    /// # Safety
    /// (a) `handler` is async-signal-safe, and keeps errno.
    pub(crate) unsafe fn install(&self, signal: c_int, handler: Handler, flags: c_int) -> Result<(), i32> {
        *self.installed.get_or_init(|| {
            let mut previous = DEFAULT;
            // SAFETY: no new action, and room for the old one (sigaction(2)).
            refused(unsafe { libc::sigaction(signal, ptr::null(), &mut previous) })?;
            let mut ours = DEFAULT;
            ours.sa_sigaction = handler as *const () as usize;
            // The previous handler runs inside ours: with its mask, and nested or restarting where it wants that.
            ours.sa_mask = previous.sa_mask;
            ours.sa_flags = flags | SA_SIGINFO | SA_ONSTACK | previous.sa_flags & (SA_NODEFER | SA_RESTART);
            // Before ours is installed: the handler may run at once, on another thread.
            let keep = |action| self.previous.store(Box::into_raw(Box::new(action)), Ordering::Release);
            keep(previous);
            let mut replaced = DEFAULT;
            // SAFETY: `ours` is complete, and has the signature that SA_SIGINFO asks for; the rest by (a).
            refused(unsafe { libc::sigaction(signal, &ours, &mut replaced) })?;
            // Another thread may have installed one in between.
            keep(replaced);
            Ok(())
        })
    }

    /// Does what would have been done without our handler, and keeps errno.
    ///
    /// # Safety
    /// (a) `signal`, `info` and `context` are those of the signal that is being handled, by a handler that
    /// [`install`](Self::install) installed for it.
    pub(crate) unsafe fn pass_on(
        &self,
        is_fault: bool,
        signal: c_int,
        info: *mut libc::siginfo_t,
        context: *mut c_void,
    ) {
        // SAFETY: `__errno_location` is this thread's errno, always valid.
        let errno = unsafe { *libc::__errno_location() };
        // SAFETY: `install` stored a pointer that is never freed before it installed the handler.
        let previous = unsafe { &*self.previous.load(Ordering::Acquire) };
        match previous.sa_sigaction {
            SIG_IGN if !is_fault => {}
            // Nothing either: to take the default would take our handler away.
            SIG_DFL if !is_fault && is_ignored_by_default(signal) => {}
            // A fault cannot be ignored: the kernel takes the default then.
            SIG_DFL | SIG_IGN => {
                // SAFETY: a complete action. What kills the process next is the fault, again, or the signal sent
                // again, once this handler has returned.
                unsafe {
                    libc::sigaction(signal, &DEFAULT, ptr::null_mut());
                    if !is_fault {
                        libc::raise(signal);
                    }
                }
            }
            handler => {
                if previous.sa_flags & SA_RESETHAND != 0 {
                    self.previous.store((&raw const DEFAULT).cast_mut(), Ordering::Release);
                }
                if previous.sa_flags & SA_SIGINFO != 0 {
                    // SAFETY: neither SIG_DFL nor SIG_IGN, so it is a function, of this type with SA_SIGINFO.
                    let handler: Handler = unsafe { mem::transmute(handler) };
                    handler(signal, info, context);
                } else {
                    // SAFETY: likewise, of this type without SA_SIGINFO.
                    let handler: extern "C" fn(c_int) = unsafe { mem::transmute(handler) };
                    handler(signal);
                }
            }
        }
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = errno };
    }
}

/// Signals whose default is that nothing happens (signal(7), "Standard signals").
fn is_ignored_by_default(signal: c_int) -> bool {
    matches!(signal, libc::SIGCHLD | libc::SIGCONT | libc::SIGURG | libc::SIGWINCH)
}

fn refused(result: c_int) -> Result<(), i32> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)) }
}
