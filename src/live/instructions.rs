//! The instructions that move the fpregs, each a naked function: the audit's *sites*.
//!
//! They work on the gate that GS points to. Where the fpregs are parked, an instruction works on them as it would on
//! live ones: they are loaded, it runs, they are parked again.
//!
//! | | | |
//! |---|---|---|
//! | in | RDI, RSI | area, RFBM |
//! | clobbered | RAX, RCX, RDX, flags | |
//! | preserved | | all other integer registers; MXCSR and x87 control are the default before and after |

use super::gate::{FCW, Gate, MXCSR, MXCSR_CONTROL, control_words, form, leave};
use core::{
    arch::{asm, naked_asm},
    mem::offset_of,
};

/// Saves the fpregs, as user code left them, to an area; they stay as they are.
///
/// # Safety
/// (a) GS points to the gate of this OS thread, which is in its kernel. (b) The area has room for `rfbm` in the gate's
/// form, at a multiple of 64, and its header's reserved bytes are zero.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn save(area: *mut u8, rfbm: u64) {
    naked_asm!(
        "cmp byte ptr gs:[{leave}], {leave_legacy}",
        "ja 4f",
        "je 3f",
        "cmp byte ptr gs:[{leave}], 0",
        "je 7f",
        // 1. User code's MXCSR is to be seen.
        "ldmxcsr gs:[{user_mxcsr}]",
        "call 7f",
        "ldmxcsr gs:[{default_mxcsr}]",
        "ret",
        // 2. Likewise x87 and SSE.
        "3:",
        "mov rcx, gs:[{aside}]",
        "fxrstor64 [rcx]",
        "call 7f",
        "fninit",
        "ldmxcsr gs:[{default_mxcsr}]",
        "ret",
        // 3. The parked registers.
        "4:",
        "mov rcx, gs:[{parked}]",
        "cmp byte ptr gs:[{form}], {fxsave}",
        "je 5f",
        "mov eax, gs:[{mask}]",
        "mov edx, gs:[{mask} + 4]",
        "xrstor64 [rcx]",
        "jmp 6f",
        "5:",
        "fxrstor64 [rcx]",
        "6:",
        "call 7f",
        "fninit",
        "ldmxcsr gs:[{default_mxcsr}]",
        "ret",
        // 4. EDX:EAX = RFBM, and the instruction.
        "7:",
        "mov eax, esi",
        "mov rdx, rsi",
        "shr rdx, 32",
        "cmp byte ptr gs:[{form}], {xsave}",
        "ja 9f",
        "je 8f",
        "xsavec64 [rdi]",
        "ret",
        "8:",
        "xsave64 [rdi]",
        "ret",
        "9:",
        "fxsave64 [rdi]",
        "ret",
        leave = const offset_of!(Gate, leave),
        leave_legacy = const leave::LEGACY,
        user_mxcsr = const offset_of!(Gate, user_mxcsr),
        default_mxcsr = const offset_of!(Gate, default_mxcsr),
        aside = const offset_of!(Gate, aside),
        parked = const offset_of!(Gate, parked),
        form = const offset_of!(Gate, form),
        xsave = const form::XSAVE,
        fxsave = const form::FXSAVE,
        mask = const offset_of!(Gate, mask),
    )
}

/// Restores the fpregs from an area. What it brings of control words other than the default is put aside.
///
/// # Safety
/// (a) As for [`save`]. (b) The area is an image in the gate's form that a restore of `rfbm` takes.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn restore(area: *const u8, rfbm: u64) {
    naked_asm!(
        "mov eax, esi",
        "mov rdx, rsi",
        "shr rdx, 32",
        "cmp byte ptr gs:[{leave}], {leave_parked}",
        "je 4f",
        "mov byte ptr gs:[{leave}], 0",
        "cmp byte ptr gs:[{form}], {fxsave}",
        "je 2f",
        "xrstor64 [rdi]",
        "jmp 3f",
        "2:",
        "fxrstor64 [rdi]",
        "3:",
        control_words!("ret"),
        // The parked registers: loaded, changed, parked again.
        "4:",
        "mov rcx, gs:[{parked}]",
        "cmp byte ptr gs:[{form}], {fxsave}",
        "je 5f",
        "mov eax, gs:[{mask}]",
        "mov edx, gs:[{mask} + 4]",
        "xrstor64 [rcx]",
        "mov eax, esi",
        "mov rdx, rsi",
        "shr rdx, 32",
        "xrstor64 [rdi]",
        "mov eax, gs:[{mask}]",
        "mov edx, gs:[{mask} + 4]",
        "xsave64 [rcx]",
        "jmp 6f",
        "5:",
        "fxrstor64 [rdi]",
        "fxsave64 [rcx]",
        "6:",
        "fninit",
        "ldmxcsr gs:[{default_mxcsr}]",
        "ret",
        leave = const offset_of!(Gate, leave),
        leave_parked = const leave::PARKED,
        leave_mxcsr = const leave::MXCSR,
        leave_legacy = const leave::LEGACY,
        seen_mxcsr = const offset_of!(Gate, seen_mxcsr),
        seen_fcw = const offset_of!(Gate, seen_fcw),
        control = const MXCSR_CONTROL as i32,
        mxcsr = const MXCSR,
        fcw = const FCW,
        user_mxcsr = const offset_of!(Gate, user_mxcsr),
        default_mxcsr = const offset_of!(Gate, default_mxcsr),
        aside = const offset_of!(Gate, aside),
        parked = const offset_of!(Gate, parked),
        form = const offset_of!(Gate, form),
        fxsave = const form::FXSAVE,
        mask = const offset_of!(Gate, mask),
    )
}

/// The x87 and MXCSR as Rust code wants them: kernel code that uses the registers begins. What is in them is lost.
///
/// # Safety
/// (a) As for [`save`]. (b) Nobody's only copy is in the registers.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn take_for_kernel() {
    naked_asm!(
        "fninit",
        "ldmxcsr gs:[{default_mxcsr}]",
        "ret",
        default_mxcsr = const offset_of!(Gate, default_mxcsr),
    )
}

/// XINUSE of the live registers.
///
/// # Safety
/// (a) The CPU has XGETBV with ECX = 1.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn xinuse() -> u64 {
    naked_asm!("mov ecx, 1", "xgetbv", "shl rdx, 32", "or rax, rdx", "ret")
}

/// Reads PKRU.
///
/// # Safety
/// (a) The CPU has RDPKRU, and CR4.PKE is set (CPUID.7.0:ECX.OSPKE).
#[inline(always)]
pub(super) unsafe fn rdpkru() -> u32 {
    let pkru;
    // SAFETY: by (a). RDPKRU wants ECX = 0 and zeroes EDX (Intel SDM volume 2, "RDPKRU"). It touches no memory, stack or
    // flags; it is not `pure`, so that it stays where it is among other asm.
    unsafe {
        asm!("rdpkru", in("ecx") 0, out("eax") pkru, out("edx") _, options(nomem, nostack, preserves_flags));
    }
    pkru
}

/// Writes PKRU.
///
/// # Safety
/// (a) As for [`rdpkru`]. (b) What is accessed from here on has a key that `pkru` allows.
#[inline(always)]
pub(super) unsafe fn wrpkru(pkru: u32) {
    // SAFETY: by (a) and (b). WRPKRU wants ECX = EDX = 0 (Intel SDM volume 2, "WRPKRU"). Not `nomem`: accesses to memory
    // are not moved over it. It touches neither stack nor flags.
    unsafe {
        asm!("wrpkru", in("eax") pkru, in("ecx") 0, in("edx") 0, options(nostack, preserves_flags));
    }
}

/// Copies with REP MOVSB, which touches integer registers alone, where a call of `memcpy` would not.
///
/// # Safety
/// (a) `to` can be written and `from` read for `count` bytes, and they do not overlap.
#[inline(always)]
pub(super) unsafe fn copy_bytes(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: by (a); the direction flag is clear, as the ABI has it. MOVS writes no flags, and no stack.
    unsafe {
        asm!(
            "rep movsb",
            inout("rdi") to => _, inout("rsi") from => _, inout("rcx") count => _,
            options(nostack, preserves_flags),
        );
    }
}
