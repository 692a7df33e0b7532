//! A green thread as gate and protocol know it: a stack pointer, and an fpstate.

use super::{
    LiveError,
    form::Form,
    gate::{self, Context},
    image::LiveImage,
};
use crate::{
    TaskId,
    fpu::{Fpstate, TaskKind},
};
use core::{
    cell::Cell,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

/// A context that a [`Cpu`](super::Cpu) runs: user code on a stack of its own, with FPU state of its own.
///
/// The stack is the caller's, and has to outlive the fiber. A runtime puts the fiber into what it knows of a task, at a
/// place where it stays, and hands out pointers to it.
///
/// # How it ends
/// Its entry function calls the kernel with a call that the two of them agreed on, and the kernel answers with
/// [`exit`](super::Cpu::exit) and [`switch_out`](super::Cpu::switch_out) instead of [`run`](super::Cpu::run). Before that, the entry
/// function has dropped all that it owns. A panic has to be caught inside of it: as an `extern "C"` function, it aborts the
/// process otherwise.
///
/// # On which OS thread
/// A kernel that lets another CPU go on with a fiber changes the OS thread under it, in the middle of a call, or of a
/// region where it is [preempted](super::preemptible), at any instruction. That is sound for user code which has nothing
/// there that depends on the OS thread: no reference to a thread-local, no lock that the thread which took it has to release
/// (`std::sync::Mutex` is one), no value that is not `Send`. The compiler may keep the address of a thread-local across a
/// call to the kernel. Who cannot promise that keeps each fiber on the CPU that ran it first. This crate's own calls
/// have such an address too: the OS threads of the CPUs that run a fiber stay CPUs as long as it lives.
#[repr(C)]
#[derive(Debug)]
pub struct Fiber {
    /// First, as asm knows it.
    pub(super) context: Context,
    /// How many regions the thread is in that may be preempted, and how many in there that may not.
    pub(super) regions: Cell<u32>,
    pub(super) preempt_off: Cell<u32>,
    /// Where the stack ends: a signal handler writes nothing below.
    pub(super) stack_limit: usize,
    pub(super) stack_base: usize,
    pub(super) is_promised: bool,
    /// The CPU whose registers may hold the newest copy of a fiber that is not running, or [`NOBODY`]. Written by who has
    /// the fiber; a word of its own because that CPU may save the copy, and write the fpstate, at any moment.
    pub(super) held_by: AtomicU32,
    /// It is the first field of a thread of a [`Machine`](super::Machine).
    pub(super) is_of_machine: bool,
    pub(super) fpstate: Fpstate<LiveImage>,
}

/// No CPU: the newest copy is in memory.
pub(super) const NOBODY: u32 = u32::MAX;

/// How much stack a fiber needs at least: what the first frame takes, and what a preemption puts there.
const MIN_STACK_BYTES: usize = 1024;

impl Fiber {
    /// A fiber that begins with `entry(argument)` on the stack from the address `base` down to `limit`, with registers in the
    /// initial configuration, and PKRU as the calling thread has it.
    ///
    /// `limit` is the lowest byte that can be written: above the guard page, which the `limit()` of a `corosensei` stack is
    /// below. `base` is rounded down to a multiple of 16 (System V ABI, section 3.2.2 "The Stack Frame").
    ///
    /// # Errors
    /// [`LiveError::Registers`]; [`LiveError::Stack`] for a stack of less than a kilobyte. That is
    /// little: a preemption alone takes 344 bytes.
    ///
    /// # Safety
    /// (a) The stack is mapped and nobody else's as long as the fiber lives, and what is below overflows into a guard page.
    /// (b) `entry` may be called with `argument`, on whatever OS thread runs the fiber, and never returns: it leaves by a
    /// call to the kernel which ends it.
    pub unsafe fn new(
        base: usize,
        limit: usize,
        entry: unsafe extern "C" fn(*mut ()) -> !,
        argument: *mut (),
    ) -> Result<Self, LiveError> {
        let form = Form::of_this_cpu()?;
        let base = base & !0xf;
        if base < limit || base - limit < MIN_STACK_BYTES {
            return Err(LiveError::Stack {
                found_bytes: base.saturating_sub(limit),
                needed_bytes: MIN_STACK_BYTES,
            });
        }
        // SAFETY: (a) by ours, and there is room.
        let rsp = unsafe { gate::new_stack(base, entry, argument) };
        let fpstate = Fpstate::new(new_id(), TaskKind::User, LiveImage::new(form));
        Ok(Self {
            context: Context { rsp },
            regions: Cell::new(0),
            preempt_off: Cell::new(0),
            stack_limit: limit,
            stack_base: base,
            is_promised: false,
            held_by: AtomicU32::new(NOBODY),
            is_of_machine: false,
            fpstate: match form.has_pkru() {
                // SAFETY: (a) was looked up.
                true => fpstate.with_pkru(crate::Pkru(unsafe { super::instructions::rdpkru() })),
                false => fpstate,
            },
        })
    }

    /// A fiber of a kernel thread: it has no state that is switched, and is never run.
    pub(super) fn of_kernel() -> Result<Self, LiveError> {
        let form = Form::of_this_cpu()?;
        Ok(Self {
            context: Context { rsp: 0 },
            regions: Cell::new(0),
            preempt_off: Cell::new(0),
            stack_limit: 0,
            stack_base: 0,
            is_promised: false,
            held_by: AtomicU32::new(NOBODY),
            is_of_machine: false,
            fpstate: Fpstate::new(new_id(), TaskKind::KernelThread, LiveImage::new(form)),
        })
    }

    /// Promises that the thread never has other control words than the default (MXCSR 1F80H but for its sticky flags,
    /// FCW 037FH) when it enters the kernel, so that the gate need not look.
    ///
    /// # Safety
    /// (a) The promise is kept. Rust code outside of `asm!` always keeps it; a broken one lets kernel code run with the
    /// thread's control words, which Rust code may not.
    pub unsafe fn promise_default_control_words(&mut self) {
        self.is_promised = true;
    }

    /// The task that the protocol knows it as.
    #[inline]
    pub fn id(&self) -> TaskId {
        self.fpstate.id()
    }

    /// Its image in memory and what is known of it. The image is the truth only while
    /// [`need_fpu_load`](Fpstate::need_fpu_load) is set.
    pub fn fpstate(&self) -> &Fpstate<LiveImage> {
        &self.fpstate
    }
}

/// No two fibers of a process have the same name.
fn new_id() -> TaskId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    TaskId::in_generation(number as u32, (number >> 32) as u32)
}

/// The fiber whose user code is calling.
///
/// # Safety
/// (a) This is user code that a gate runs.
#[inline(always)]
pub(super) unsafe fn current() -> NonNull<Fiber> {
    let fiber: *mut Fiber;
    // SAFETY: by (a) GS points to a gate, whose context is the calling fiber, wherever the load happens. MOV touches neither
    // stack nor flags. `readonly` is not said: another CPU's gate may be read next time.
    unsafe {
        core::arch::asm!(
            "mov {fiber}, gs:[{context}]",
            fiber = out(reg) fiber,
            context = const core::mem::offset_of!(gate::Gate, context),
            options(nostack, preserves_flags),
        );
        NonNull::new_unchecked(fiber)
    }
}
