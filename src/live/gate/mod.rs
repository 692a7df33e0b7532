//! The gate: the only way from user code into the kernel of a CPU, and back.
//!
//! *User code* is what a green thread runs on its own stack; *the kernel* is what its CPU, an OS thread, runs on the OS
//! thread's stack between two stretches of user code. GS points to the CPU's [`Gate`], so that code which is moved to
//! another CPU finds that one's.
//!
//! ```text
//! user code ── enter (asm block) ──▶ ENTER ── control words looked at ──▶ kernel, behind its asm block
//!     ▲                                                                        │
//!     │  signal handler ──▶ PREEMPTED ──▶ ENTER                                ▼
//!     └──────────────── EXIT ◀── control words as they were ──── asm block in `Gate::exit`
//! ```
//!
//! The stack of a thread that is in the kernel, from its stack pointer up:
//!
//! ```text
//! voluntary   resume address │ RBX │ RBP │ …
//! preempted   PREEMPTED's second half │ R15 … RAX │ flags │ RIP │ red zone (128 bytes) │ …
//! new         ROOT │ entry function │ its argument │ 0 │ 0
//! ```
//!
//! Vector, mask and x87 registers are touched by nobody on this way: the kernel finds them as user code left them, and
//! user code finds them as the kernel left them. MXCSR and the x87 control word are the exception, because Rust code may
//! not run with others than the default: where user code changed them, the gate puts them aside, and back at the exit.
//! In the *parked* gate, all registers are saved to the CPU's parked image at the entry, and loaded from there at the
//! exit; that image then is the fpregs.

mod stubs;

pub(super) use stubs::{
    PREEMPTED_BYTES, RED_ZONE_BYTES, control_words, exit_stub, is_stub, new_stack, preempted,
};

use core::{
    arch::{asm, naked_asm},
    mem::offset_of,
    sync::atomic::AtomicU8,
};

/// MXCSR as Rust code wants it: every exception masked, rounding to nearest.
pub(super) const MXCSR: u32 = 0x1f80;
/// The x87 control word, likewise.
pub(super) const FCW: u16 = 0x037f;
/// The control bits of MXCSR: all but the sticky exception flags.
pub(super) const MXCSR_CONTROL: u32 = !0x3f;

/// What a thread asks of the kernel, in RAX at the entry.
pub(super) mod call {
    /// Set where the vector, mask and x87 registers are to be kept, as at an exception.
    pub(crate) const KEEP: u64 = 1 << 32;
    /// The thread asked for nothing: a signal took it here.
    pub(crate) const PREEMPTED: u64 = 1 << 33;
}

/// What [`Gate::leave`] says that the exit has to put back.
pub(super) mod leave {
    /// The control words are the default.
    pub(crate) const NOTHING: u8 = 0;
    /// MXCSR, from [`Gate::user_mxcsr`](super::Gate::user_mxcsr).
    pub(crate) const MXCSR: u8 = 1;
    /// x87, SSE and both control words, from [`Gate::aside`](super::Gate::aside).
    pub(crate) const LEGACY: u8 = 2;
    /// All registers, from [`Gate::parked`](super::Gate::parked).
    pub(crate) const PARKED: u8 = 3;
}

/// What [`Gate::check`] says that the entry has to look at.
pub(super) mod check {
    /// The control words.
    pub(crate) const COMPARE: u8 = 0;
    /// Nothing: the thread promised that they are the default.
    pub(crate) const PROMISED: u8 = 1;
    /// Nothing: all registers are parked.
    pub(crate) const PARK: u8 = 2;
}

/// How registers are saved and restored here.
pub(super) mod form {
    /// XSAVEC, XRSTOR.
    pub(crate) const XSAVEC: u8 = 0;
    /// XSAVE, XRSTOR.
    pub(crate) const XSAVE: u8 = 1;
    /// FXSAVE, FXRSTOR.
    pub(crate) const FXSAVE: u8 = 2;
}

/// What asm and kernel share about one CPU; GS points here. Only its own OS thread touches it.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Gate {
    /// User code runs: set last before it does, cleared first where it ends. A signal handler reads it.
    pub(super) in_user: AtomicU8,
    pub(super) leave: u8,
    pub(super) check: u8,
    pub(super) form: u8,
    /// Somebody wants the thread to give up the CPU, and could not take it from it.
    pub(super) need_resched: AtomicU8,
    pub(super) seen_fcw: u16,
    pub(super) seen_mxcsr: u32,
    pub(super) user_mxcsr: u32,
    pub(super) default_mxcsr: u32,
    /// The thread that runs, or that the kernel runs for.
    pub(super) context: *mut Context,
    kernel_rsp: usize,
    kernel_rip: usize,
    /// 512 bytes at a multiple of 16, for FXSAVE.
    pub(super) aside: *mut u8,
    /// An area in the standard format with room for `mask`.
    pub(super) parked: *mut u8,
    /// The components that are saved and restored.
    pub(super) mask: u64,
    /// Where this is.
    this: *mut Gate,
}

/// What asm knows of a thread.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Context {
    /// The stack pointer of a thread that is in the kernel.
    pub(super) rsp: usize,
}

impl Gate {
    pub(super) fn new(mask: u64, form: u8, parked: *mut u8, aside: *mut u8, is_parked: bool) -> Self {
        Self {
            in_user: AtomicU8::new(0),
            leave: if is_parked { leave::PARKED } else { leave::NOTHING },
            check: if is_parked { check::PARK } else { check::COMPARE },
            form,
            need_resched: AtomicU8::new(0),
            seen_fcw: 0,
            seen_mxcsr: 0,
            user_mxcsr: MXCSR,
            default_mxcsr: MXCSR,
            context: core::ptr::null_mut(),
            kernel_rsp: 0,
            kernel_rip: 0,
            aside,
            parked,
            mask,
            this: core::ptr::null_mut(),
        }
    }

    /// Tells the gate where it is, from now on: what [`this`] finds.
    ///
    /// # Safety
    /// (a) `gate` is a gate.
    pub(super) unsafe fn settle(gate: *mut Self) {
        // SAFETY: by (a).
        unsafe { (*gate).this = gate };
    }

    /// Runs the thread [`context`](Self::context) until it enters the kernel. `value` is what its last call returns to
    /// it; what comes back is its next call, and its argument.
    ///
    /// # Safety
    /// (a) This is called by the OS thread whose GS points to this gate, in its kernel. (b) `context` is a thread that
    /// stands in the kernel with one of the stacks above. (c) The registers, or what [`leave`] says, are the thread's.
    #[inline(always)]
    pub(super) unsafe fn exit(value: u64) -> (u64, u64) {
        let (call, argument);
        // Contract: in RAX the value; out RAX the call, RDX the argument. Everything else is clobbered, vector, mask and
        // x87 registers too (`clobber_abi`), as user code runs in between; RBX and RBP, which cannot be declared, are
        // pushed. The stack pointer and where to go on are left where ENTER finds them.
        //
        // SAFETY: by (a) and (b) EXIT finds a thread; whoever enters the kernel comes back to label 2 with this stack
        // pointer, because ENTER is the only way. By (c) user code finds its own registers.
        unsafe {
            asm!(
                "push rbp",
                "push rbx",
                "lea rcx, [rip + 2f]",
                "mov gs:[{kernel_rip}], rcx",
                "mov gs:[{kernel_rsp}], rsp",
                "jmp {exit}",
                "2:",
                "pop rbx",
                "pop rbp",
                kernel_rip = const offset_of!(Gate, kernel_rip),
                kernel_rsp = const offset_of!(Gate, kernel_rsp),
                exit = sym exit_stub,
                inout("rax") value => call,
                out("rdx") argument,
                out("r12") _, out("r13") _, out("r14") _, out("r15") _,
                clobber_abi("sysv64"),
            );
        }
        (call, argument)
    }
}

/// The text of an entry: RAX the call, RDX its argument; returns with RAX the value.
macro_rules! enter {
    ($call:ident, $argument:ident, $($clobbers:tt)*) => {
        asm!(
            // First: from here on no signal handler takes the CPU away.
            "mov byte ptr gs:[{in_user}], 0",
            "push rbp",
            "push rbx",
            "lea rcx, [rip + 2f]",
            "push rcx",
            "jmp {enter}",
            "2:",
            "pop rbx",
            "pop rbp",
            in_user = const offset_of!(Gate, in_user),
            enter = sym stubs::enter_stub,
            inout("rax") $call,
            inout("rdx") $argument => _,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            $($clobbers)*
        )
    };
}

/// Enters the kernel as a function that is called: vector, mask and x87 registers may be anything afterwards.
///
/// # Safety
/// (a) This is user code of a thread that a gate runs.
#[inline(always)]
pub(super) unsafe fn enter_by_call(mut call: u64, argument: u64) -> u64 {
    // SAFETY: by (a) GS points to a gate, whose kernel stands at label 2 of `Gate::exit`. What the block does not
    // declare, it keeps.
    unsafe { enter!(call, argument, clobber_abi("sysv64")) };
    call
}

/// Enters the kernel with every vector, mask and x87 register live: they are the same afterwards, whoever ran meanwhile.
///
/// # Safety
/// (a) This is user code of a thread that a gate runs.
#[inline(always)]
pub(super) unsafe fn enter_keeping(call: u64, argument: u64) -> u64 {
    let mut call = call | call::KEEP;
    // SAFETY: as for `enter_by_call`; that registers are kept is what `call::KEEP` asks for.
    unsafe {
        enter!(
            call, argument,
            out("rcx") _, out("rsi") _, out("rdi") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    call
}

/// [`enter_keeping`](super::enter_keeping) for callers in asm: no Rust code comes between their registers and the kernel.
///
/// | | | |
/// |---|---|---|
/// | in | RDI, RSI | the call, whose lower 32 bits are the caller's, and its argument |
/// | out | RAX | what the kernel gives |
/// | clobbered | RCX, RDX, RSI, RDI, R8–R11, flags | |
/// | preserved | | RBX, RBP, R12–R15, and every vector, mask and x87 register, MXCSR and the x87 control word |
///
/// # Safety
/// (a) This is user code of a fiber, in no panic. (b) As (a) of [`enter`](super::enter).
#[unsafe(naked)]
pub unsafe extern "sysv64" fn enter_from_asm(call: u64, argument: u64) -> u64 {
    naked_asm!(
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov byte ptr gs:[{in_user}], 0",
        "push rbp",
        "push rbx",
        "lea rcx, [rip + 2f]",
        "push rcx",
        "mov eax, edi",
        "mov rcx, {keep}",
        "or rax, rcx",
        "mov rdx, rsi",
        "jmp {enter}",
        "2:",
        "pop rbx",
        "pop rbp",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "ret",
        in_user = const offset_of!(Gate, in_user),
        keep = const call::KEEP,
        enter = sym stubs::enter_stub,
    )
}

/// The gate of this OS thread.
///
/// # Safety
/// (a) GS points to it.
#[inline(always)]
pub(super) unsafe fn this() -> *mut Gate {
    let gate;
    // SAFETY: by (a). MOV touches neither stack nor flags, and the word never changes while the caller runs here.
    unsafe {
        asm!(
            "mov {gate}, gs:[{this}]",
            gate = out(reg) gate,
            this = const offset_of!(Gate, this),
            options(nostack, preserves_flags, readonly),
        );
    }
    gate
}
