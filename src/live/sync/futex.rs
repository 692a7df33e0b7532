//! A word to sleep on: Linux's futex, futex(2).
//!
//! The system calls are asm, not C, so that they can stand on the kernel path: Linux leaves all fpregs alone in a
//! system call, and an idle CPU keeps what it has in them.
#![allow(unsafe_code, reason = "asm: a system call without libc")]

use core::arch::{asm, naked_asm};

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

    /// What it returns is dropped: whoever slept looks at the word again.
    fn futex(&self, operation: u32, value: u32) {
        // A call in asm: of one in Rust, the compiler may keep the address on the stack across the gate, where the audit
        // does not follow it.
        // SAFETY: A: the word is there as long as `self`. The system reads it, and no other memory of this process. What is
        // not declared, `futex_call` keeps.
        unsafe {
            asm!(
                "call {futex_call}",
                futex_call = sym futex_call,
                in("rdi") self.0.as_ptr(), in("esi") operation, in("edx") value,
                out("rax") _, out("rcx") _, out("r10") _, out("r11") _,
            );
        }
    }
}

/// futex(2) without a timeout: a naked function, so that the audit knows it by its address.
///
/// # Safety
/// A. `word` is a futex word.
#[unsafe(naked)]
pub(crate) unsafe extern "sysv64" fn futex_call(word: *mut u32, operation: u32, value: u32) {
    // RDI, RSI and RDX are what they are at the call. `syscall` changes RAX, RCX and R11 (Intel SDM volume 2, "SYSCALL"),
    // and Linux returns with all other registers as they were, fpregs too.
    naked_asm!(
        "mov eax, {futex}",
        "xor r10d, r10d", // no timeout
        "syscall",
        "ret",
        futex = const libc::SYS_futex,
    )
}
