//! What a CPU is to do with a thread that it finds in its inbox, and how a thread gets out of another CPU's registers.
//!
//! CPU *a* is to run a thread, but the newest copy of its registers is on CPU *b*. While that is so, the thread's image
//! and *b*'s owner slot belong to *b*, so *a* touches neither. It sends the thread instead:
//!
//! 1. *a* writes [`HandOver`](Request::HandOver)`(a)` into the thread, pushes it to *b*'s inbox, wakes *b*, and goes on with
//!    other work.
//! 2. *b* takes it out, saves the registers if they still hold the thread's state (it may have saved them on its own
//!    meanwhile), clears its own owner slot, writes [`Run`](Request::Run), pushes it to *a*'s inbox, and wakes *a*.
//! 3. *a* takes it out and runs it from the image. What *b* wrote is there: *b*'s push released it.
//!
//! Nobody waits for an answer, so two CPUs that ask each other at the same time cannot block each other. A CPU that
//! asks has to decide by a word that *b* does not change on its own account, for example the CPU that ran the thread
//! last: whether *b* still has the state in its registers is *b*'s to know.

use super::{
    CpuId,
    atomics::{AtomicU32, Ordering},
};

/// What the CPU that takes a thread out of its inbox does with it.
#[must_use = "the thread is in no list"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Runs it.
    Run,
    /// Saves its registers, and hands it over to this CPU.
    HandOver(CpuId),
}

/// A thread's [`Request`].
///
/// Written by who has the thread, before it pushes it; read by who took it out. The inbox orders the two, and the word
/// is an atomic for the sake of the shared reference only.
#[derive(Debug)]
pub(crate) struct RequestWord(AtomicU32);

impl RequestWord {
    /// [`Request::Run`].
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Writes the request. There is no CPU `u32::MAX`.
    pub(crate) fn set(&self, request: Request) {
        let word = match request {
            Request::Run => 0,
            Request::HandOver(CpuId(cpu)) => cpu.wrapping_add(1),
        };
        self.0.store(word, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Request {
        match self.0.load(Ordering::Relaxed) {
            0 => Request::Run,
            cpu => Request::HandOver(CpuId(cpu.wrapping_sub(1))),
        }
    }
}
