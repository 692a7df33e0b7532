//! A word to sleep on: Linux's futex, futex(2).
//!
//! The system calls are asm, not C, so that they can stand on the kernel path: Linux leaves all fpregs alone in a
//! system call, and an idle CPU keeps what it has in them.
#![allow(unsafe_code, reason = "asm: a system call without libc")]

use core::arch::asm;

use super::atomics::{AtomicU32, Ordering};

// linux/futex.h: the operations, with FUTEX_PRIVATE_FLAG, as all sleepers are threads of one process.
const FUTEX_WAIT_PRIVATE: u32 = 128;
const FUTEX_WAKE_PRIVATE: u32 = 129;

/// A word that one OS thread can sleep on.
#[derive(Debug)]
pub(super) struct Futex(AtomicU32);

impl Futex {
    pub(super) fn new(value: u32) -> Self {
        Self(AtomicU32::new(value))
    }

    pub(super) fn swap(&self, value: u32, order: Ordering) -> u32 {
        self.0.swap(value, order)
    }

    /// Sleeps until [`wake`](Self::wake), unless the word is not `expected`. May return early, for example by a signal.
    pub(super) fn wait(&self, expected: u32) {
        self.futex(FUTEX_WAIT_PRIVATE, expected);
    }

    /// Wakes the sleeper.
    pub(super) fn wake(&self) {
        self.futex(FUTEX_WAKE_PRIVATE, 1);
    }

    /// futex(2) without a timeout. What it returns is dropped: whoever slept looks at the word again.
    fn futex(&self, operation: u32, value: u32) {
        // SAFETY: the kernel reads the word, and no other memory of this process; it does not need `self` to outlive the
        // call. `syscall` changes RAX, RCX and R11 (Intel SDM Vol. 2, SYSCALL) and Linux returns with all other
        // registers as they were. It leaves the stack alone (nostack).
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") libc::SYS_futex => _,
                in("rdi") self.0.as_ptr(),
                in("rsi") u64::from(operation),
                in("rdx") u64::from(value),
                in("r10") 0_u64, // no timeout
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
    }
}
