//! How CPUs hand threads to each other without a lock.
//!
//! | part | written by | read by |
//! |---|---|---|
//! | [`Inbox`](inbox::Inbox) of a CPU: threads handed to it | every CPU | its own |
//! | [`Request`](request::Request) in a thread: what the CPU is to do with it | who hands it over | who takes it out |
//! | [`Local`](local::Local) lists, such as the threads ready to run | their own CPU | the same |
//!
//! The owner's half of all this is part of the kernel path: words and pointers, nothing of 16 bytes, no allocation, no
//! thread-local, no call that can panic.

pub(crate) mod inbox;
pub(crate) mod local;
pub(crate) mod request;
#[cfg(test)]
mod tests;

use crate::CpuId;

/// All atomics that the files here use.
mod atomics {
    pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
}
