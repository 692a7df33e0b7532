//! The parked window: asm that puts a parked CPU's registers in, runs one *op* on them, and puts the host's
//! back, with no Rust code in between.
//!
//! An op is a naked function: one instruction or one register program, then RET. The window is written once
//! for CPUs with XSAVE and once for those with FXSAVE alone, each with and without parking again:
//!
//! ```text
//! save    host area   ◀─ the host's registers
//! restore parked area ─▶ registers
//! CALL op                 may fault at its first instruction: fault.rs, which sets R10 and R11
//! save    parked area ◀─ registers       (not in the windows that only look)
//! restore host area   ─▶ the host's registers
//! ```
//!
//! Ops are called, not pasted in: so there are four windows to read and not four for each op, and the address that
//! can fault is the op's own, which is all that the handler has to know. Naked functions are neither inlined, nor
//! cloned, nor merged with others.
//!
//! The host area lives in the frame of the Rust caller: one for each window that is open, so that windows may
//! nest (a signal handler's in the window that it interrupts) and run on any number of threads. A signal that
//! arrives in a window finds a handler with fresh registers and returns to the parked ones; the kernel sees to
//! that (`fpu__clear_user_states`, sigreturn(2)).

use crate::{arch::HardwareFault, xstate::LegacyRegion};
use core::{arch::naked_asm, fmt};

/// A 64-byte aligned area in the standard format, with room for components 0 to 7 of every known CPU.
#[repr(C, align(64))]
#[derive(Clone)]
pub(super) struct Area([u8; Self::BYTES]);

impl Area {
    /// The largest published layout has Hi16_ZMM end at byte 2688.
    pub(super) const BYTES: usize = 3072;

    pub(super) fn zeroed() -> Self {
        Self([0; Self::BYTES])
    }

    /// The initial configuration, for XRSTOR and FXRSTOR alike.
    ///
    /// FXRSTOR reads FCW and MXCSR whatever the header says, and XRSTOR reads MXCSR; zeros would unmask every
    /// exception (Intel SDM volume 1, sections 13.6 "Processor tracking of XSAVE-managed state" and 13.8.1).
    pub(super) fn initial() -> Self {
        let mut area = Self::zeroed();
        area.0[..2].copy_from_slice(&0x037f_u16.to_le_bytes());
        area.0[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        area
    }

    pub(super) fn bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8; Self::BYTES] {
        &mut self.0
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    pub(super) fn legacy(&self) -> LegacyRegion<&[u8; Self::BYTES]> {
        LegacyRegion::over(&self.0).expect("the area has more than 512 bytes")
    }
}

impl fmt::Debug for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an area")
    }
}

/// The code of an op.
///
/// # Safety
/// (a) It is called by a window, as follows. (b) The CPU has its instructions. (c) Its operand is what it says.
///
/// In: RDI = operand, EDX:EAX = RFBM, R10 = R11 = 0. Out: R11 = a result, if it has one. It may change RAX, RCX,
/// RDX, RSI, RDI, R8, R9, R11, the flags, and every register of the components that are parked; it keeps RBX,
/// RBP, RSP, R10, R12–R15 and the direction flag. It needs no stack but its return address.
pub(super) type Op = unsafe extern "sysv64" fn();

/// What comes back in RAX and RDX.
#[repr(C)]
pub(super) struct Outcome {
    /// The vector of the fault, 0 if there was none (#DE is never a SIGSEGV).
    trapno: u64,
    /// CR2 after a page fault; without a fault, the op's result.
    value: u64,
}

impl Outcome {
    pub(super) fn result(&self) -> Result<u64, HardwareFault> {
        match self.trapno {
            0 => Ok(self.value),
            13 => Err(HardwareFault::GeneralProtection),
            14 => Err(HardwareFault::Page { address: self.value }),
            other => Err(HardwareFault::Other(other)),
        }
    }
}

/// | | register | |
/// |---|---|---|
/// | in | RDI | host area: 64-byte aligned, header zero, written |
/// | in | RSI | parked area: 64-byte aligned, an image that restores without a fault; written if parked again |
/// | in | RDX | the components of both areas |
/// | in | RCX | the op |
/// | in | R8, R9 | the op's operand and RFBM |
/// | out | RAX, RDX | [`Outcome`] |
/// | clobbered | | what `sysv64` allows, of the integer registers |
/// | preserved | | RBX, RBP, R12–R15, DF, and every register of the components in RDX |
/// | stack | | 56 bytes with the op's return address |
macro_rules! window {
    ($(#[$doc:meta])* $name:ident($parked:ty): $save:literal, $restore:literal $(, $park:literal)?) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// (a) `host` and `parked` are two areas of their own; `host`'s header is zero, and `parked` is what
        /// [`Area::initial`] made or a window of this kind with the same `enabled` left.
        /// (b) The CPU has the window's instructions, and XCR0 enables `enabled`.
        /// (c) The CPU has the op's instructions, and the op may be given `operand` and `rfbm`.
        /// (d) Where the op's first instruction can fault, it is in `fault::OPS` and the handler is installed;
        /// its other instructions cannot fault.
        #[unsafe(naked)]
        pub(super) unsafe extern "sysv64" fn $name(
            host: *mut Area,
            parked: $parked,
            enabled: u64,
            op: Op,
            operand: *mut u8,
            rfbm: u64,
        ) -> Outcome {
            naked_asm!(
                // 1. Keep the arguments where the op leaves them alone: RBX host area, R12 parked area, R13
                // components, R14 op. With five pushes the stack is at a multiple of 16 again.
                "push rbp",
                "mov rbp, rsp",
                "push rbx",
                "push r12",
                "push r13",
                "push r14",
                "mov rbx, rdi",
                "mov r12, rsi",
                "mov r13, rdx",
                "mov r14, rcx",
                // 2. EDX:EAX = components. The host's registers out, the parked ones in.
                "mov eax, r13d",
                "shr rdx, 32",
                concat!($save, " [rbx]"),
                concat!($restore, " [r12]"),
                // 3. RDI = operand, EDX:EAX = RFBM, R10 and R11 = no fault, no result.
                "mov rdi, r8",
                "mov eax, r9d",
                "mov rdx, r9",
                "shr rdx, 32",
                "xor r10d, r10d",
                "xor r11d, r11d",
                "call r14",
                // 4. EDX:EAX = components. Park, and the host's registers in.
                "mov eax, r13d",
                "mov rdx, r13",
                "shr rdx, 32",
                $(concat!($park, " [r12]"),)?
                concat!($restore, " [rbx]"),
                // 5. RAX = vector of the fault, RDX = its address or the result.
                "mov rax, r10",
                "mov rdx, r11",
                "pop r14",
                "pop r13",
                "pop r12",
                "pop rbx",
                "pop rbp",
                "ret",
            )
        }
    };
}

window! {
    /// A window on a CPU with XSAVE that parks what the op left.
    xsave_change(*mut Area): "xsave64", "xrstor64", "xsave64"
}
window! {
    /// A window on a CPU with XSAVE after which the parked registers are what they were.
    xsave_look(*const Area): "xsave64", "xrstor64"
}
window! {
    /// A window on a CPU without XSAVE that parks what the op left.
    fxsave_change(*mut Area): "fxsave64", "fxrstor64", "fxsave64"
}
window! {
    /// A window on a CPU without XSAVE after which the parked registers are what they were.
    fxsave_look(*const Area): "fxsave64", "fxrstor64"
}

/// The ops of one instruction each.
macro_rules! ops {
    ($($name:ident: $($line:literal),+;)+) => {$(
        /// An [`Op`].
        #[unsafe(naked)]
        pub(super) unsafe extern "sysv64" fn $name() {
            naked_asm!($($line,)+ "ret")
        }
    )+};
}

ops! {
    xsave: "xsave64 [rdi]";
    xsavec: "xsavec64 [rdi]";
    xsaveopt: "xsaveopt64 [rdi]";
    fxsave: "fxsave64 [rdi]";
    xrstor: "xrstor64 [rdi]";
    fxrstor: "fxrstor64 [rdi]";
    // XINUSE of what XCR0 enables, to R11.
    xgetbv1: "mov ecx, 1", "xgetbv", "shl rdx, 32", "lea r11, [rdx + rax]";
    // Where an op goes on whose first instruction faulted.
    give_up: "nop";
}
