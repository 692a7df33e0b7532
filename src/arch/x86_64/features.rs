//! The proof token: what this CPU has, and this system has enabled.

use crate::{
    arch::NotAvailable,
    xstate::{Component, ComponentSet, CpuidReader, CpuidResult, Format, Layout, XsaveFeatures},
};
use core::arch::x86_64::{__cpuid_count, _fxsave64, _xgetbv};
use std::sync::OnceLock;

use super::window::Area;

/// The components that a parked CPU has, where XCR0 enables them: 0 to 7, from x87 to Hi16_ZMM.
///
/// PKRU (9) is not among them: a restored PKRU could deny the window its own memory; see
/// [`through_pkru`](super::pkru::through_pkru). Tiles (17, 18) need a permission of the process. Of what this
/// crate does not know, nobody can say that Rust code may find it changed.
const PARKED: u64 = 0xff;

/// Proof that the CPU was looked at. Cheap to copy; XCR0 and CPUID do not change while a system runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Features(&'static Detected);

/// What was found.
#[derive(Debug)]
struct Detected {
    host_layout: Layout,
    layout: Layout,
    has_pkru: bool,
    moves: Moves,
}

/// Which moves between registers and memory there are, XCR0 considered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moves {
    pub(super) avx: bool,
    pub(super) avx512f: bool,
    pub(super) avx512bw: bool,
}

impl Features {
    /// Looks at the CPU, at the first call.
    ///
    /// # Errors
    /// A CPU without FXSAVE, one that contradicts itself, or one whose areas are larger than any known.
    pub(crate) fn detect() -> Result<Self, NotAvailable> {
        static DETECTED: OnceLock<Result<Detected, NotAvailable>> = OnceLock::new();
        DETECTED.get_or_init(Detected::read).as_ref().map(Self).map_err(|error| *error)
    }

    /// The areas of parked CPUs: of what XCR0 enables, components 0 to 7; without XSAVE, FXSAVE's 512 bytes.
    /// With the MXCSR bits that the CPU accepts.
    pub(crate) fn layout(self) -> &'static Layout {
        &self.0.layout
    }

    /// The same for all that XCR0 enables: what XRSTOR goes by.
    pub(crate) fn host_layout(self) -> &'static Layout {
        &self.0.host_layout
    }

    /// The components that parked CPUs have.
    pub(crate) fn enabled(self) -> ComponentSet {
        self.0.layout.enabled()
    }

    /// Whether XSAVE is there and one of the newer instructions.
    pub(super) fn has(self, newer: XsaveFeatures) -> bool {
        self.0.layout.has_xsave() && self.0.layout.features().contains(newer)
    }

    /// Whether there are RDPKRU and WRPKRU (CPUID.7.0:ECX.OSPKE).
    pub(crate) fn has_pkru(self) -> bool {
        self.0.has_pkru
    }

    pub(super) fn moves(self) -> Moves {
        self.0.moves
    }

    /// More than any instruction touches of an area here, in either format, with all that XCR0 enables, and Linux
    /// behind it in a signal frame.
    pub(crate) fn most_bytes(self) -> usize {
        let host = self.host_layout();
        host.signal_frame_bytes().max(host.size_bytes(Format::Compacted))
    }

    /// How many bytes a component takes in one piece (shapes as in [`Area`](crate::xstate::Area));
    /// `None` where parked CPUs do not have it.
    pub(crate) fn component_bytes(self, component: Component) -> Option<usize> {
        if !self.enabled().contains(component) {
            return None;
        }
        match component {
            Component::X87 => Some(crate::xstate::X87_BYTES),
            Component::SSE => Some(crate::xstate::SSE_BYTES),
            _ => self.layout().place(component).map(|place| place.size_bytes as usize),
        }
    }
}

#[cfg(test)]
impl Features {
    /// A CPU with FXSAVE alone, and no more than SSE's moves: this one can be taken for such a CPU.
    pub(super) fn fxsave_only() -> Self {
        let layout = Layout::fxsave_only();
        let moves = Moves { avx: false, avx512f: false, avx512bw: false };
        let found = Detected { host_layout: layout.clone(), layout, has_pkru: false, moves };
        Self(std::boxed::Box::leak(std::boxed::Box::new(found)))
    }

    /// This CPU without AVX-512BW.
    pub(super) fn without_masked_moves(self) -> Self {
        let moves = Moves { avx512bw: false, ..self.0.moves };
        let (host_layout, layout) = (self.0.host_layout.clone(), self.0.layout.clone());
        let found = Detected { host_layout, layout, has_pkru: self.0.has_pkru, moves };
        Self(std::boxed::Box::leak(std::boxed::Box::new(found)))
    }
}

impl Detected {
    fn read() -> Result<Self, NotAvailable> {
        let mut area = Area::zeroed();
        // SAFETY: FXSAVE64 writes 512 bytes at a multiple of 16; the area has more, at a multiple of 64. Every
        // x86-64 CPU has FXSAVE (Intel SDM volume 2, "FXSAVE"; the target's baseline has `fxsr`).
        unsafe { _fxsave64(area.as_mut_ptr()) };
        let mask = area.legacy().mxcsr_mask();
        let host_layout = Layout::from_cpuid(&Host)?.with_mxcsr_mask(mask);
        let layout = host_layout.restricted_to(ComponentSet::from_bits(PARKED));
        let bytes = layout.size_bytes(Format::Standard);
        if bytes > Area::BYTES {
            return Err(NotAvailable::AreaTooLarge { bytes, most: Area::BYTES });
        }
        Ok(Self {
            host_layout,
            layout,
            has_pkru: Host.cpuid(0, 0).eax >= 7 && Host.cpuid(7, 0).ecx & OSPKE != 0,
            // The macro looks at XCR0 too.
            moves: Moves {
                avx: std::is_x86_feature_detected!("avx"),
                avx512f: std::is_x86_feature_detected!("avx512f"),
                avx512bw: std::is_x86_feature_detected!("avx512bw"),
            },
        })
    }
}

/// CPUID.7.0:ECX bit 4.
const OSPKE: u32 = 1 << 4;
/// CPUID.1:ECX bit 27.
const OSXSAVE: u32 = 1 << 27;

/// The CPU that this runs on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host;

impl CpuidReader for Host {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        let found = __cpuid_count(leaf, subleaf);
        CpuidResult { eax: found.eax, ebx: found.ebx, ecx: found.ecx, edx: found.edx }
    }

    /// 3 where there is no XCR0: x87 and SSE.
    fn xcr0(&self) -> u64 {
        if self.cpuid(1, 0).ecx & OSXSAVE == 0 {
            return 3;
        }
        // SAFETY: XGETBV with ECX = 0 needs CR4.OSXSAVE, which was just seen (Intel SDM volume 2, "XGETBV").
        unsafe { _xgetbv(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_features_agree_with_what_std_detects() {
        let features = Features::detect().expect("the host");
        assert_eq!(features.layout().has_xsave(), std::is_x86_feature_detected!("xsave"));
        assert_eq!(features.has(XsaveFeatures::XSAVEC), std::is_x86_feature_detected!("xsavec"));
        assert_eq!(features.has(XsaveFeatures::XSAVEOPT), std::is_x86_feature_detected!("xsaveopt"));
        let enabled = features.enabled();
        assert_eq!(enabled.contains(Component::AVX), features.moves().avx);
        assert_eq!(enabled.contains(Component::HI16_ZMM), features.moves().avx512f);
        assert!(enabled.contains(Component::X87) && enabled.contains(Component::SSE));
        assert!(!enabled.contains(Component::PKRU));
        assert!(features.layout().size_bytes(Format::Standard) <= features.most_bytes());
        // Rust's own MXCSR must be acceptable.
        assert_eq!(0x1f80 & !features.layout().mxcsr_mask(), 0);
        std::println!("HARDWARE features: ran");
    }
}
