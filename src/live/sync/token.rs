//! Whether a thread waits, and who wakes it.
//!
//! A token counts: a notification that nobody has used yet, none, or a thread that waits for one.
//!
//! | from | [`take`](Token::take): the thread | [`park`](Token::park): its CPU's kernel | [`unpark`](Token::unpark): anyone |
//! |---|---|---|---|
//! | Notified | → Empty, true | → Empty, `Notified` | stays, `Running` |
//! | Empty | stays, false | → Parked, `Parked` | → Notified, `Running` |
//! | Parked | – | – | → Empty, `MustWake` |
//!
//! # Who may touch the thread
//! - Empty or Notified: whoever has the thread anyway, that is the CPU that runs it, or the list that it is in.
//! - Parked: nobody. The kernel that called `park` lets go of the thread with that call, for an unparker may already
//!   run it elsewhere when the call returns.
//! - The one unparker that moves it from Parked has `MustWake`, and with it the thread, until it pushes it to an inbox.
//!   Everyone after it finds Empty or Notified, and leaves a notification for the thread's next wait.
//!
//! No transition belongs to the way back: a thread that runs again because it was preempted and one that runs again
//! because it was woken look alike to the kernel, and a notification must survive the former.
//!
//! # Orders
//! - `park` releases, `unpark` acquires: what the CPU wrote about the thread before it let go (its context, its image,
//!   which CPU has its registers) is there for the unparker, and through the inbox for the CPU that runs it next.
//! - `unpark` releases, `take` and `park` acquire: a thread that used a notification sees what was written before it. Of
//!   a thread that waited, the push and the taking out of the inbox do that.
//! - Every write is a read-modify-write, also from Notified to Notified and from Notified to Empty, so that the
//!   notification used stands for all that came before it: a plain store would lose those in between.

use super::atomics::{AtomicU8, Ordering};

const PARKED: u8 = 0;
const EMPTY: u8 = 1;
const NOTIFIED: u8 = 2;

/// What [`Token::park`] did.
#[must_use = "a parked thread must not be touched, a notified one must run on"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Park {
    /// The thread waits, and is no longer the caller's.
    Parked,
    /// There was a notification, now used: the thread runs on.
    Notified,
}

/// What [`Token::unpark`] did.
#[must_use = "the thread may be the caller's to wake"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unpark {
    /// The thread waited, and is the caller's: to be pushed to the inbox of the CPU where it is to run.
    MustWake,
    /// The thread did not wait: it will find a notification.
    Running,
}

/// A thread's notification, or that it waits for one.
#[derive(Debug)]
pub(crate) struct Token(AtomicU8);

impl Token {
    /// No notification; the thread does not wait.
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(EMPTY))
    }

    /// Uses a notification, if there is one. For the thread itself, which need not enter the kernel then.
    #[must_use = "without a notification, the thread has to wait"]
    pub(crate) fn take(&self) -> bool {
        self.0.compare_exchange(NOTIFIED, EMPTY, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Uses a notification, or lets the thread wait for one.
    ///
    /// For the kernel of the CPU that runs the thread, once, when nothing there will touch the thread any more: its
    /// context is written, and the CPU is off its stack.
    pub(crate) fn park(&self) -> Park {
        // From Notified to Empty, or from Empty to Parked.
        if self.0.fetch_sub(1, Ordering::AcqRel) == NOTIFIED { Park::Notified } else { Park::Parked }
    }

    /// Wakes the thread, or leaves a notification. For everyone.
    pub(crate) fn unpark(&self) -> Unpark {
        let mut now = self.0.load(Ordering::Relaxed);
        loop {
            let (next, done) = match now {
                PARKED => (EMPTY, Unpark::MustWake),
                _ => (NOTIFIED, Unpark::Running),
            };
            match self.0.compare_exchange_weak(now, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return done,
                Err(other) => now = other,
            }
        }
    }
}
