//! A list of one CPU alone.
//!
//! The items are linked in a ring, and the list is one word, the last item: its link is the first. So both ends are at
//! hand, and no list is ever copied as two words at a time.
#![allow(unsafe_code, reason = "links are pointers to items that the list does not own")]

use core::ptr::NonNull;

use super::atomics::{AtomicPtr, Ordering};

/// An item with room for a link.
///
/// # Safety
/// L. [`link`](Self::link) is the same field of the same item at every call, and nobody but the lists here touches it.
pub(crate) unsafe trait Linked: Sized {
    /// The link. Its value is nobody's business but the list's.
    fn link(&self) -> &AtomicPtr<Self>;
}

/// The link of `item`.
///
/// # Safety
/// A. `item` points to a live item, for as long as `'a`.
pub(super) unsafe fn link<'a, T: Linked + 'a>(item: NonNull<T>) -> &'a AtomicPtr<T> {
    // SAFETY: A.
    let item = unsafe { item.as_ref() };
    item.link()
}

/// Items in the order in which they came. Links are atomic for [`Inbox`](super::inbox::Inbox)'s sake; here, one CPU
/// reads and writes them.
#[must_use = "its items would be in no list"]
#[derive(Debug)]
pub(crate) struct Local<T> {
    /// The last item, whose link is the first; of every other item, the link is the next.
    last: Option<NonNull<T>>,
}

impl<T: Linked> Local<T> {
    /// No items.
    pub(crate) const fn new() -> Self {
        Self { last: None }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// Appends an item.
    ///
    /// # Safety
    /// A. `item` points to a live item, and stays valid for shared access until it was popped.
    /// B. The item is in no list, and nobody else puts it into one until then.
    pub(crate) unsafe fn push_back(&mut self, item: NonNull<T>) {
        // SAFETY: A and B.
        unsafe { self.push_front(item) };
        // In a ring, what lies in front of the first item lies behind the last.
        self.last = Some(item);
    }

    /// Puts an item before all others.
    ///
    /// # Safety
    /// A and B of [`push_back`](Self::push_back).
    pub(super) unsafe fn push_front(&mut self, item: NonNull<T>) {
        // SAFETY: A.
        let own = unsafe { link(item) };
        match self.last {
            None => {
                own.store(item.as_ptr(), Ordering::Relaxed);
                self.last = Some(item);
            }
            Some(last) => {
                // SAFETY: A of `last`, when it was pushed.
                let last = unsafe { link(last) };
                own.store(last.load(Ordering::Relaxed), Ordering::Relaxed);
                last.store(item.as_ptr(), Ordering::Relaxed);
            }
        }
    }

    /// Takes the first item out.
    pub(crate) fn pop_front(&mut self) -> Option<NonNull<T>> {
        let last = self.last?;
        // SAFETY: A of `last`, when it was pushed.
        let last_link = unsafe { link(last) };
        // SAFETY: by L and B, a link in the ring is what `push_front` or `pop_front` stored: an item.
        let first = unsafe { NonNull::new_unchecked(last_link.load(Ordering::Relaxed)) };
        if first == last {
            self.last = None;
        } else {
            // SAFETY: A of `first`, when it was pushed.
            let first_link = unsafe { link(first) };
            last_link.store(first_link.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        Some(first)
    }
}
