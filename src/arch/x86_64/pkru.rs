//! PKRU, which no window restores: a parked PKRU could deny the window its own memory.

use super::features::Features;
use core::arch::asm;

/// Access and writes of key 0, which all memory has that was given no other.
const KEY_0: u32 = 3;

/// Writes PKRU, reads it back, and writes the host's value again; `None` where there is no RDPKRU.
///
/// What `pkru` says of key 0 is not written, but given back as it is: whenever a thread is preempted, the kernel
/// writes to its area for rseq(2), for a signal to its stack, and it kills the process if PKRU denies that.
pub(crate) fn through_pkru(features: Features, pkru: u32) -> Option<u32> {
    if !features.has_pkru() {
        return None;
    }
    let found: u32;
    // Contract: in edi = the value; out esi = what RDPKRU gave; clobbered eax, ecx, edx, r8d.
    //
    // SAFETY: CR4.PKE is set, as OSPKE tells, so RDPKRU and WRPKRU are there, with ECX = 0 and EDX = 0 for the
    // write (Intel SDM volume 2). Between the two writes there is no access to memory but of code, which PKRU
    // does not control (volume 3, section 4.6.2). `nostack`: nothing is pushed. `preserves_flags`: none of MOV,
    // RDPKRU and WRPKRU writes any. Not `nomem`, so that the compiler moves no access to memory over it.
    unsafe {
        asm!(
            "mov ecx, 0",
            "rdpkru",
            "mov r8d, eax",
            "mov eax, edi",
            "mov edx, 0",
            "wrpkru",
            "rdpkru",
            "mov esi, eax",
            "mov eax, r8d",
            "mov edx, 0",
            "wrpkru",
            in("edi") pkru & !KEY_0,
            out("esi") found,
            out("eax") _,
            out("ecx") _,
            out("edx") _,
            out("r8d") _,
            options(nostack, preserves_flags),
        );
    }
    Some(found | pkru & KEY_0)
}
