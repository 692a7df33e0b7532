//! How a CPU sleeps when it has nothing to do.
//!
//! ```text
//! CPU                                      whoever gives it work
//! 1. announces that it sleeps              1. gives the work (pushes to the inbox)
//! 2. looks for work once more              2. takes the announcement back
//! 3. sleeps, if there is none              3. wakes the CPU, if there was one
//! ```
//! Each writes one thing and then reads the other's, which Acquire and Release alone do not keep in order if the reads are
//! plain loads. Here both second steps follow from one word, which everyone changes by swaps only: they have an
//! order, and each swap reads from the one before. If the announcement comes first, the giver of work finds it. If it
//! comes second, it acquires what the giver released, and the look finds the work. So no SeqCst fence is needed (on
//! x86-64 the swap is one), and between the look and the sleep nothing can be lost: the futex sleeps only while the
//! word still has the announcement.
//!
//! The first swap acquires and the second releases. When the CPU is up again it takes the announcement back itself, to
//! spare others the system call; that is a swap, too, because a store would cut the chain: what an earlier giver
//! released would not reach the next announcement.

use super::{atomics::Ordering, futex::Futex};

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

/// What [`Idle::wake`] did.
#[must_use = "a system call was made, or not"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The CPU slept, or was about to: it was woken.
    Sent,
    /// The CPU will look for work without being told, or someone else has just woken it.
    NotNeeded,
}

/// Whether a CPU sleeps.
#[derive(Debug)]
pub(crate) struct Idle(Futex);

impl Idle {
    /// Awake.
    pub(crate) fn new() -> Self {
        Self(Futex::new(AWAKE))
    }

    /// Sleeps until there is work. For the CPU itself.
    ///
    /// `has_work` looks at all that others give before they call [`wake`](Self::wake), such as the inbox. May return
    /// without work: the caller looks again, and calls again.
    pub(crate) fn sleep(&self, has_work: impl FnOnce() -> bool) {
        self.0.swap(ASLEEP, Ordering::Acquire);
        if !has_work() {
            self.0.wait(ASLEEP);
        }
        self.0.swap(AWAKE, Ordering::Relaxed);
    }

    /// Wakes the CPU if it sleeps. For everyone, after giving it work.
    pub(crate) fn wake(&self) -> Wake {
        if self.0.swap(AWAKE, Ordering::Release) == ASLEEP {
            self.0.wake();
            Wake::Sent
        } else {
            Wake::NotNeeded
        }
    }
}
