//! How CPUs hand threads to each other without a lock, and sleep without losing a wake-up.
//!
//! | part | written by | read by |
//! |---|---|---|
//! | [`Token`](token::Token) of a thread: whether it waits | itself, its CPU's kernel, whoever wakes it | the same |
//! | [`Inbox`](inbox::Inbox) of a CPU: threads handed to it | every CPU | its own |
//! | [`Request`](request::Request) in a thread: what the CPU is to do with it | who hands it over | who takes it out |
//! | [`Idle`](idle::Idle) of a CPU: whether it sleeps | every CPU | every CPU |
//! | [`Local`](local::Local) lists, such as the threads ready to run | their own CPU | the same |
//!
//! A thread is always in one hand: a CPU runs it, it waits, or it is in one list. Whoever takes it out of a list, or
//! has [`MustWake`](token::Unpark::MustWake) for it, has the only right to put it into the next.
//!
//! The owner's half of all this is part of the kernel path: words and pointers, nothing of 16 bytes, no allocation, no
//! thread-local, no call that can panic. Sleeping, too: a CPU that idles keeps its fpregs, as system calls do.
//!
//! The files here take their atomics and [`Futex`](futex::Futex) from `super`, so that `loom/tests/live.rs` runs
//! these very files on loom's.

mod futex;
pub(crate) mod idle;
pub(crate) mod inbox;
pub(crate) mod local;
pub(crate) mod request;
#[cfg(test)]
mod tests;
pub(crate) mod token;

pub(crate) use futex::futex_call;

use crate::CpuId;

/// What loom replaces.
mod atomics {
    pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering};
}
