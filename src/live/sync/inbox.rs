//! What other CPUs hand to a CPU.
//!
//! A stack: a push puts its item before the newest (compare and exchange of the head), and the owner takes all of them
//! at once (swap with null) and turns their order round. Nobody takes one item out, so a head that is the same again
//! after it was another (ABA) does no harm: the link that the pusher wrote is right whenever the exchange succeeds.
//!
//! Orders: a push is a Release, the taking an Acquire, so what was written before the push of an item can be read by
//! who took it. A later push is a read-modify-write: it continues the release sequence of those below it, and the one
//! Acquire is for all of them. The links are part of what was written, and need no order of their own.
#![allow(unsafe_code, reason = "links are pointers to items that the inbox does not own")]

use core::ptr::{self, NonNull};

use super::{
    atomics::{AtomicPtr, Ordering},
    local::{self, Linked, Local},
};

/// Items for one CPU, from any.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    /// The newest item, null if none. An item's link is the one that came before it.
    newest: AtomicPtr<T>,
}

impl<T: Linked> Inbox<T> {
    /// No items.
    pub(crate) fn new() -> Self {
        Self { newest: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Whether there was no item a moment ago.
    ///
    /// By itself, this orders nothing: a push on another CPU may not be seen yet. [`Idle`](super::idle::Idle) says when it is.
    pub(crate) fn is_empty(&self) -> bool {
        self.newest.load(Ordering::Relaxed).is_null()
    }

    /// Hands `item` to the owner, who has to be told ([`Idle::wake`](super::idle::Idle::wake)).
    ///
    /// # Safety
    /// A. `item` points to a live item, and stays valid for shared access until it was taken and popped.
    /// B. The item is in no list, and nobody else puts it into one until then.
    /// C. The owner, on another OS thread, may do with the item what it does with those that it takes.
    pub(crate) unsafe fn push(&self, item: NonNull<T>) {
        // SAFETY: A.
        let link = unsafe { local::link(item) };
        let mut newest = self.newest.load(Ordering::Relaxed);
        loop {
            link.store(newest, Ordering::Relaxed);
            match self.newest.compare_exchange_weak(
                newest,
                item.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => newest = now,
            }
        }
    }

    /// Takes all items out, oldest first.
    ///
    /// Sound on any CPU: no item is taken twice. Items keep their order only if one CPU takes them.
    pub(crate) fn take_all(&self) -> Local<T> {
        let mut taken = Local::new();
        let mut next = NonNull::new(self.newest.swap(ptr::null_mut(), Ordering::Acquire));
        while let Some(item) = next {
            // SAFETY: A of `item`, when it was pushed.
            let link = unsafe { local::link(item) };
            next = NonNull::new(link.load(Ordering::Relaxed));
            // SAFETY: A and B of `item`, when it was pushed; the swap took it out, and its link has been read.
            unsafe { taken.push_front(item) };
        }
        taken
    }
}
