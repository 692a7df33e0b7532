//! Waiting for a thread's result.

use super::thread::{self, Thread};
use crate::live::user::{preempt_off, refuse_in_kernel};
use alloc::sync::Arc;
use parking_lot::{Condvar, Mutex};
use std::thread as os;

/// The result of a thread, and who waits for it.
pub(super) struct Packet<T> {
    state: Mutex<State<T>>,
}

enum State<T> {
    Running,
    /// A green thread waits.
    Green(Thread),
    /// An OS thread of another kind waits there.
    Os(Arc<Condvar>),
    Ended(os::Result<T>),
}

impl<T> Packet<T> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::Running) })
    }

    /// The thread has ended.
    pub(super) fn finish(&self, result: os::Result<T>) {
        let before = preempt_off(|| core::mem::replace(&mut *self.state.lock(), State::Ended(result)));
        match before {
            State::Green(thread) => thread.end_wait(),
            State::Os(ended) => {
                preempt_off(|| ended.notify_one());
            }
            State::Running | State::Ended(_) => {}
        }
    }

    /// The result if there is one, else the green thread is to be woken when there is.
    fn poll(&self, waiter: Thread) -> Option<os::Result<T>> {
        preempt_off(|| {
            let mut state = self.state.lock();
            match core::mem::replace(&mut *state, State::Green(waiter)) {
                State::Ended(result) => Some(result),
                _ => None,
            }
        })
    }

    /// The result, for which this OS thread sleeps.
    fn sleep(&self) -> os::Result<T> {
        let ended = Arc::new(Condvar::new());
        let mut state = self.state.lock();
        loop {
            match core::mem::replace(&mut *state, State::Os(Arc::clone(&ended))) {
                State::Ended(result) => return result,
                _ => ended.wait(&mut state),
            }
        }
    }
}

/// The right to a thread's result; dropped, the thread goes on by itself.
///
/// A thread is joined once: [`join`](Self::join) takes the handle.
///
/// ```compile_fail
/// # fn twice(handle: fpuswitch::live::JoinHandle<()>) {
/// handle.join();
/// handle.join(); // does not compile
/// # }
/// ```
pub struct JoinHandle<T> {
    pub(super) packet: Arc<Packet<T>>,
    pub(super) thread: Thread,
}

impl<T> JoinHandle<T> {
    /// Waits until the thread has ended, and returns its result. May be called by green threads, which are parked
    /// meanwhile, and by others, which sleep.
    ///
    /// # Errors
    /// What the thread panicked with.
    ///
    /// # Panics
    /// In the kernel of a CPU, such as in a kernel thread, which cannot wait.
    pub fn join(self) -> os::Result<T> {
        let Some(waiter) = thread::current() else {
            refuse_in_kernel();
            return self.packet.sleep();
        };
        loop {
            if let Some(result) = self.packet.poll(waiter.clone()) {
                return result;
            }
            thread::wait_for_end();
        }
    }

    /// The thread.
    pub fn thread(&self) -> &Thread {
        &self.thread
    }

    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        preempt_off(|| matches!(*self.packet.state.lock(), State::Ended(_)))
    }
}

impl<T> core::fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("JoinHandle").field("thread", &self.thread).finish()
    }
}
