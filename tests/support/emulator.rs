//! What QEMU's software CPU does otherwise than the manual: asked of the CPU, by name, and nowhere else to be found.
//!
//! It needs nothing of the crate, whose own tests include it too.

#![allow(dead_code, reason = "each test binary uses a part of it")]

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[path = "probes.rs"]
mod probes;

use core::fmt;
use std::{println, sync::OnceLock};

/// A deviation from the manual. Each names the test that holds the software registers to the manual's rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deviation {
    /// XRSTOR, FXRSTOR and LDMXCSR take reserved bits of MXCSR, and the register has them.
    ///
    /// The rule: `a_refused_image_changes_nothing` in `soft_restores`, `fxrstor_looks_at_mxcsr_and_nothing_else` in
    /// `xstate_check`. (The software registers have no LDMXCSR.)
    ReservedMxcsr,
    /// RFBM = AVX alone neither loads nor stores MXCSR.
    ///
    /// The rule: `a_restore_loads_initialises_or_leaves_each_component` in `soft_restores`,
    /// `each_save_writes_the_bytes_of_its_components_and_no_others` in `soft_saves`.
    AvxWithoutMxcsr,
    /// FXSAVE and XSAVE store zeros for FOP, FIP and FDP, whatever was loaded, with an exception pending too.
    ///
    /// The rule: `registers_keep_the_last_x87_instruction` in `soft_restores`.
    X87Pointers,
    /// Reserved bits of FCW, and ES and B of FSW, are not what follows from the others.
    ///
    /// The rule: `registers_keep_no_reserved_bits` in `soft_restores`.
    X87Reserved,
    /// XSAVE and XGETBV(1) tell of everything but BNDREGS that it is in use. The manual allows that; no such CPU is known.
    ///
    /// The rule: `xinuse_tells_what_is_in_use` in `soft_tracking`.
    InUseAlways,
}

impl Deviation {
    pub(crate) const ALL: [Self; 5] =
        [Self::ReservedMxcsr, Self::AvxWithoutMxcsr, Self::X87Pointers, Self::X87Reserved, Self::InUseAlways];

    /// Whether this CPU deviates so.
    ///
    /// # Panics
    /// One that is not QEMU's does.
    pub(crate) fn is_here(self) -> bool {
        static SEEN: [OnceLock<bool>; Deviation::ALL.len()] = [const { OnceLock::new() }; _];
        *SEEN[self as usize].get_or_init(|| {
            let is_seen = self.is_seen();
            assert!(!is_seen || is_qemu_tcg(), "{self}, and this is not QEMU's CPU");
            is_seen
        })
    }

    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    fn is_seen(self) -> bool {
        match self {
            Self::ReservedMxcsr => probes::takes_reserved_mxcsr(),
            Self::AvxWithoutMxcsr => probes::avx_moves_mxcsr() == Some(false),
            Self::X87Pointers => !probes::keeps_x87_pointers(true),
            Self::X87Reserved => probes::keeps_x87_reserved(),
            Self::InUseAlways => probes::all_is_in_use() == Some(true),
        }
    }

    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    fn is_seen(self) -> bool {
        false
    }

    /// Prints the line that CI looks for: whether what the deviation is about was tested.
    pub(crate) fn report(self, test: &str) {
        if self.is_here() {
            println!("HARDWARE {test}: DEVIATES: {self}");
        } else {
            println!("HARDWARE {test}: ran");
        }
    }
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReservedMxcsr => "reserved-mxcsr",
            Self::AvxWithoutMxcsr => "avx-without-mxcsr",
            Self::X87Pointers => "x87-pointers",
            Self::X87Reserved => "x87-reserved",
            Self::InUseAlways => "in-use-always",
        })
    }
}

/// Whether this is QEMU's software CPU.
pub(crate) fn is_qemu_tcg() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    return probes::is_qemu_tcg();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    false
}

/// As many cases as that; on QEMU's CPU, on which they take `times` as long, so many fewer.
pub(crate) fn cases_here(cases: u32, times: u32) -> u32 {
    if is_qemu_tcg() { cases / times } else { cases }
}

/// Prints, for a test of all components, the lines that CI looks for of those that few CPUs have; `enabled` are the bits of
/// those that this one has.
pub(crate) fn report_rare_components(test: &str, enabled: u64) {
    // The first of each: BNDREGS, opmask.
    for (name, component) in [("MPX", 3), ("AVX-512", 5)] {
        if enabled >> component & 1 == 1 {
            println!("HARDWARE {test}-{name}: ran");
        } else {
            println!("HARDWARE {test}-{name}: SKIPPED: XCR0 has no component {component}");
        }
    }
}

/// FOP, FIP and FDP: where they are in x87's bytes, and in an area.
pub(crate) const LAST_X87_INSTRUCTION: core::ops::Range<usize> = 6..24;

/// Whether FXRSTOR and FXSAVE keep FOP, FIP and FDP while no exception is pending. AMD's CPUs do not, and it is no
/// deviation: older ones leave what was there, those with RstrFpErrPtrs (seen on a Zen 3) put zeros there.
///
/// # Panics
/// Any other CPU does not: then it is not the CPU.
pub(crate) fn keeps_x87_pointers() -> bool {
    static KEEPS: OnceLock<bool> = OnceLock::new();
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    let keeps = || {
        let keeps = probes::keeps_x87_pointers(false);
        assert!(keeps || Deviation::X87Pointers.is_here() || probes::is_amd(), "x87's pointers were lost");
        keeps
    };
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    let keeps = || true;
    *KEEPS.get_or_init(keeps)
}

/// Prints the line that CI looks for: whether a test compared them.
pub(crate) fn report_x87_pointers(test: &str) {
    if keeps_x87_pointers() || Deviation::X87Pointers.is_here() {
        Deviation::X87Pointers.report(test);
    } else {
        println!("HARDWARE {test}: SKIPPED: this CPU keeps them only while an exception is pending");
    }
}
