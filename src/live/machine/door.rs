//! What the kernel path leaves to ordinary code: each function here runs inside a kernel FPU section, in which the
//! registers are the kernel's. None of them unwinds.

use super::{
    Shared,
    thread::{Body, Inner, StepFn},
};
use alloc::sync::Arc;
use core::{arch::naked_asm, ptr};
use crossbeam_deque::Steal;

/// A thread that has not run yet: one of this CPU's, or another's. Null if there is none.
///
/// # Safety
/// (a) `shared` is the machine's.
#[inline(never)]
pub(super) unsafe extern "C" fn take_fresh(shared: *const Shared, cpu: u32) -> *mut Inner {
    // SAFETY: by (a).
    let shared = unsafe { &*shared };
    let count = shared.cpus.len();
    for n in 0..count {
        let owner = (cpu as usize + n) % count;
        let from = &shared.cpus[owner].fresh;
        loop {
            match from.steal() {
                Steal::Success(thread) => {
                    shared.fresh_taken();
                    thread.move_home(owner as u32, cpu);
                    return Arc::into_raw(thread).cast_mut();
                }
                Steal::Empty => break,
                Steal::Retry => {}
            }
        }
    }
    ptr::null_mut()
}

/// Frees the stack of a thread that has ended, and the scheduler's handle to it.
///
/// # Safety
/// (a) The thread has ended, its CPU is off its stack, and no list has it.
#[inline(never)]
pub(super) unsafe extern "C" fn end(thread: *mut Inner) {
    // SAFETY: by (a): `spawn` made the handle the scheduler's.
    let thread = unsafe { Arc::from_raw(thread.cast_const()) };
    drop(thread.stack.take());
    if let Body::Kernel(body) = &thread.body {
        // SAFETY: the pair is what `spawn_kernel` made, and by (a) no step runs any more.
        unsafe { (body.end)(body.argument) };
    }
    let shared = Arc::clone(&thread.shared);
    drop(thread);
    shared.thread_ended();
}

/// Calls a step of a kernel thread. The audit does not look behind this: those steps that are called outside of a kernel
/// FPU section are audited each for itself.
///
/// # Safety
/// (a) The argument is the step's.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn call_step(argument: *mut (), step: StepFn) -> u64 {
    naked_asm!("jmp rsi")
}
