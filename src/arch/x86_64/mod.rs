//! x86-64: XSAVEC and XRSTOR of the calling thread's own registers, for measurements.
//!
//! # Safety of this folder
//! Everything exported is safe. A [`SaveRestore`] exists only where CPUID shows the instructions and XCR0 is
//! readable, and owns an area of the size that CPUID gives for them, aligned to 64 bytes. Rust's view of the
//! registers never changes: a save does not write registers, and a restore loads what the save right before
//! it, in the same asm block and with the same mask, stored.
#![allow(unsafe_code)]

use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, _xgetbv};
use std::vec::Vec;

/// TILECFG and TILEDATA: a process has to ask the kernel before it may touch them.
const AMX: u64 = 1 << 17 | 1 << 18;

/// 64 bytes of an XSAVE area, aligned as the instructions want it (Intel SDM volume 1, section 13.4).
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
struct Block([u8; 64]);

/// Saves and restores the calling thread's registers, to and from an area of its own.
#[derive(Debug)]
pub(crate) struct SaveRestore {
    area: Vec<Block>,
    mask: u64,
}

impl SaveRestore {
    /// `None` where the CPU or the operating system lacks XSAVEC.
    pub(crate) fn new() -> Option<Self> {
        // The macro looks at OSXSAVE and at the maximum leaf too.
        if !std::is_x86_feature_detected!("xsave") || !std::is_x86_feature_detected!("xsavec") {
            return None;
        }
        // SAFETY: XGETBV with ECX = 0 needs CR4.OSXSAVE, which "xsave" above stands for.
        let xcr0 = unsafe { _xgetbv(0) };
        // The size of the standard format for all that XCR0 enables, which is no less than the compacted one
        // of a part of it (Intel SDM volume 1, sections 13.2 and 13.4.3).
        let bytes = __cpuid_count(0x0d, 0).ebx as usize;
        let area = std::vec![Block([0; 64]); bytes.div_ceil(64) + COMPACTED_SLACK];
        Some(Self { area, mask: xcr0 & !AMX })
    }

    /// Saves `times` times. 0 does nothing.
    pub(crate) fn save(&mut self, times: u32) {
        if times == 0 {
            return;
        }
        // Contract: in rdi = area, edx:eax = mask (RFBM), ecx = count, not 0; out ecx = 0, flags changed, the
        // area written; every other register as before.
        //
        // SAFETY: XSAVEC is there and the area is large enough, aligned and ours (`new`). No register that
        // Rust knows of is written but ecx, which is declared. `nostack`: nothing is pushed. No `nomem`, the
        // area is written, and no `preserves_flags`, DEC changes them.
        unsafe {
            asm!(
                "2:",
                "xsavec64 [rdi]",
                "dec ecx",
                "jnz 2b",
                in("rdi") self.area.as_mut_ptr(),
                in("eax") self.mask as u32,
                in("edx") (self.mask >> 32) as u32,
                inout("ecx") times => _,
                options(nostack),
            );
        }
    }

    /// Saves and restores `times` times. 0 does nothing.
    pub(crate) fn save_and_restore(&mut self, times: u32) {
        if times == 0 {
            return;
        }
        // Contract: as in `save`; behind each XRSTOR the registers in the mask hold what they held before.
        //
        // SAFETY: as in `save`. XRSTOR reads what XSAVEC has just written with the same mask: XCOMP_BV says
        // the compacted format and the same components, and header bytes 16 to 63 are zero since `new`. XSAVEC
        // sets the SSE bit of XSTATE_BV whenever MXCSR is not 1F80H, so the MXCSR that XRSTOR loads, or resets
        // to 1F80H, is the live one. So it cannot fault, and every component gets its own value back, those in
        // their initial configuration too (Intel SDM volume 1, sections 13.8 and 13.10). Options as in `save`.
        unsafe {
            asm!(
                "2:",
                "xsavec64 [rdi]",
                "xrstor64 [rdi]",
                "dec ecx",
                "jnz 2b",
                in("rdi") self.area.as_mut_ptr(),
                in("eax") self.mask as u32,
                in("edx") (self.mask >> 32) as u32,
                inout("ecx") times => _,
                options(nostack),
            );
        }
    }
}

/// The compacted format may align components to 64 bytes where the standard one does not: one block each for
/// the 63 components there can be.
const COMPACTED_SLACK: usize = 63;

#[cfg(test)]
mod tests {
    use super::SaveRestore;

    #[test]
    fn hardware_saving_and_restoring_changes_no_value() {
        let Some(mut registers) = SaveRestore::new() else {
            std::println!("HARDWARE xsavec-xrstor: SKIPPED: this CPU has no XSAVEC");
            return;
        };
        // The asm declares no vector register, so these may live in some across it.
        let [a, b, c, d] = [1.5, 2.5, 3.5, 4.5].map(std::hint::black_box::<f64>);
        registers.save_and_restore(0);
        registers.save_and_restore(1000);
        registers.save(3);
        assert_eq!([a, b, c, d], [1.5, 2.5, 3.5, 4.5]);
        std::println!("HARDWARE xsavec-xrstor: ran");
    }
}
