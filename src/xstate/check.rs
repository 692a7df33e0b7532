//! What a restore would refuse, and what a kernel refuses from a user: two things.

use super::{
    Area, AreaError, Component, ComponentSet, Format, Rfbm, XcompBv, XsaveFeatures, XstateBv, area::RESERVED,
};

/// Where the reserved bytes begin that the standard form looks at too, and where those end, in the header.
const RESERVED_START: usize = 16;
const STANDARD_RESERVED_END: usize = 24;

/// Why an image is refused: the field, what is in it and what it was held against.
///
/// All but [`Format`](Self::Format), [`NotAllowed`](Self::NotAllowed) and [`BeyondEnd`](Self::BeyondEnd)
/// stand for the #GP that a restore raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Another form than the header claims: bit 63 of XCOMP_BV chooses the form of XRSTOR, not the caller.
    #[error("asked to restore the {asked:?} format, the image is in the {found:?} format")]
    Format {
        /// What was asked for.
        asked: Format,
        /// What the header claims.
        found: Format,
    },
    /// The compacted form, which the CPU does not have.
    #[error("XCOMP_BV is {:#x}, bit 63 needs a CPU with XSAVEC", .0.0)]
    NoXsavec(XcompBv),
    /// Standard form: a component is in the image that is not enabled.
    #[error("XSTATE_BV is {:#x}, only the bits of XCR0 = {:#x} may be set", .xstate_bv.0, .enabled.bits())]
    NotEnabled {
        /// XSTATE_BV.
        xstate_bv: XstateBv,
        /// XCR0.
        enabled: ComponentSet,
    },
    /// Standard form, and every image from a user: XCOMP_BV is not zero.
    #[error("XCOMP_BV is {:#x}, expected 0 in the standard format", .0.0)]
    XcompBv(XcompBv),
    /// Compacted form: the image has a place for a component that is not enabled.
    #[error("XCOMP_BV is {:#x}, expected bit 63 and bits of XCR0 = {:#x} only", .xcomp_bv.0, .enabled.bits())]
    PlaceNotEnabled {
        /// XCOMP_BV.
        xcomp_bv: XcompBv,
        /// XCR0.
        enabled: ComponentSet,
    },
    /// Compacted form: a component is in the image that has no place in it.
    #[error("XSTATE_BV is {:#x}, expected bits 0 to 62 of XCOMP_BV = {:#x} only", .xstate_bv.0, .xcomp_bv.0)]
    NoPlace {
        /// XSTATE_BV.
        xstate_bv: XstateBv,
        /// XCOMP_BV.
        xcomp_bv: XcompBv,
    },
    /// A reserved byte of the header that is not zero.
    #[error("byte {offset} of the XSAVE header is {value:#x}, expected 0")]
    Reserved {
        /// Its offset in the header.
        offset: usize,
        /// What is there.
        value: u8,
    },
    /// A bit of MXCSR that the CPU does not have.
    #[error("MXCSR is {mxcsr:#x}, only the bits of {mask:#x} may be set")]
    Mxcsr {
        /// MXCSR.
        mxcsr: u32,
        /// The bits that the CPU accepts.
        mask: u32,
    },
    /// No #GP: the restore may read beyond the end of the image.
    #[error("{component} ends at byte {end_bytes}, the area has {found_bytes}")]
    BeyondEnd {
        /// The component that lies there.
        component: Component,
        /// Where it ends.
        end_bytes: usize,
        /// How long the image is.
        found_bytes: usize,
    },
    /// Not a restore's refusal: a component that the user may not change.
    #[error("XSTATE_BV is {:#x}, only the bits of {:#x} are allowed", .xstate_bv.0, .allowed.bits())]
    NotAllowed {
        /// XSTATE_BV.
        xstate_bv: XstateBv,
        /// What was allowed, and is enabled.
        allowed: ComponentSet,
    },
}

impl<B: AsRef<[u8]>> Area<B> {
    /// Tells whether a restore on the CPU of [`layout`](Self::layout) takes the image: FXRSTOR, or XRSTOR of
    /// that form with EDX:EAX = `rfbm`.
    ///
    /// Nothing is refused but what the instruction refuses. The image is taken to be aligned to 64 bytes
    /// wherever it is going to be restored.
    ///
    /// | | FXRSTOR | XRSTOR, standard form | XRSTOR, compacted form |
    /// |---|---|---|---|
    /// | XSTATE_BV within | not read | XCR0 | XCOMP_BV bits 0–62 |
    /// | XCOMP_BV | not read | zero | bit 63, and within XCR0 |
    /// | header bytes that are zero | none | 8–23 | 16–63 |
    /// | looks at MXCSR | always | if RFBM has SSE or AVX | if RFBM and XSTATE_BV have SSE |
    /// | may read | the legacy region | the components of RFBM | those of RFBM and XCOMP_BV |
    ///
    /// The header is held against XCR0 whatever `rfbm` says. What is in the extended region is no reason:
    /// reserved bits of BNDCFGU are ignored, and an illegal TILECFG leaves the tiles in their initial
    /// configuration. That XFD disables a component of XSTATE_BV (#NM) is no property of the image.
    ///
    /// # Errors
    /// The first reason in the order of the manual's list of #GP(0): the CPU has the form, XSTATE_BV,
    /// XCOMP_BV and the reserved bytes in the standard form, XCOMP_BV, XSTATE_BV and the reserved bytes in
    /// the compacted one, MXCSR. Before them the form itself, behind them what lies beyond the end. A
    /// component of RFBM may be read even where its XSTATE_BV bit is clear.
    ///
    /// # Reference
    /// Intel SDM volume 2, "XRSTOR—Restore Processor Extended States" and "FXRSTOR", protected-mode
    /// exceptions; volume 1, sections 13.8 "Operation of XRSTOR", 13.13 "Memory Access by the XSAVE Feature
    /// Set" and, of BNDCFGU, chapter 17 in editions that have Intel MPX there.
    ///
    /// ```
    /// use fpuswitch::xstate::{Area, Format, Layout, Refusal, Rfbm};
    /// let mut area = Area::initial(&Layout::fxsave_only(), Format::Fxsave);
    /// assert_eq!(area.check(Format::Fxsave, Rfbm::ALL), Ok(()));
    /// area.legacy_mut().set_mxcsr(0x1_1f80);
    /// let refusal = Refusal::Mxcsr { mxcsr: 0x1_1f80, mask: 0xffff };
    /// assert_eq!(area.check(Format::Fxsave, Rfbm::ALL), Err(refusal));
    /// ```
    pub fn check(&self, format: Format, rfbm: Rfbm) -> Result<(), Refusal> {
        self.check_restore(format, rfbm, self.layout().enabled())?;
        match format {
            Format::Fxsave => Ok(()),
            Format::Standard | Format::Compacted => self.check_room(rfbm.of(self.layout().enabled())),
        }
    }

    /// All but the length, where XCR0, or XCR0 and IA32_XSS, is `enabled`.
    pub(super) fn check_restore(
        &self,
        format: Format,
        rfbm: Rfbm,
        enabled: ComponentSet,
    ) -> Result<(), Refusal> {
        let found = self.format();
        // FXRSTOR reads the legacy region of whatever it is given.
        if format != found && format != Format::Fxsave {
            return Err(Refusal::Format { asked: format, found });
        }
        let looks_at_mxcsr = match format {
            Format::Fxsave => true,
            Format::Standard => {
                self.check_standard_header(enabled)?;
                let rfbm = rfbm.of(enabled);
                rfbm.contains(Component::SSE) || rfbm.contains(Component::AVX)
            }
            Format::Compacted => {
                self.check_compacted_header(enabled)?;
                rfbm.of(enabled).contains(Component::SSE) && self.xstate_bv().contains(Component::SSE)
            }
        };
        if looks_at_mxcsr { self.check_mxcsr() } else { Ok(()) }
    }

    /// Tells whether a kernel may take the image from a user who may change `allowed`: the user's signal
    /// frame, or a debugger's register set.
    ///
    /// Stricter than [`check`](Self::check) with any mask, but for the length: the standard format only, all
    /// reserved bytes of the header zero, MXCSR valid whatever XSTATE_BV says, so that the image can be
    /// restored as it is. (Linux copies component by component, and looks at MXCSR only where XSTATE_BV has
    /// x87, SSE or AVX.) Where there is no header, MXCSR is all there is to look at.
    ///
    /// # Errors
    /// The first reason: XSTATE_BV, XCOMP_BV, the reserved bytes, MXCSR, and a component of XSTATE_BV that
    /// lies beyond the end.
    ///
    /// # Reference
    /// Linux, arch/x86/kernel/fpu/xstate.c: validate_user_xstate_header and copy_uabi_to_xstate.
    pub fn check_user_image(&self, allowed: ComponentSet) -> Result<(), Refusal> {
        if !self.has_header() {
            return self.check_mxcsr();
        }
        self.check_user_header(allowed)?;
        self.check_mxcsr()?;
        self.check_room(self.xstate_bv().components())
    }

    /// The header's part of it.
    pub(super) fn check_user_header(&self, allowed: ComponentSet) -> Result<(), Refusal> {
        let (xstate_bv, xcomp_bv) = (self.xstate_bv(), self.xcomp_bv());
        let allowed = allowed & self.layout().enabled();
        if xstate_bv.0 & !allowed.bits() != 0 {
            return Err(Refusal::NotAllowed { xstate_bv, allowed });
        }
        if xcomp_bv != XcompBv::STANDARD {
            return Err(Refusal::XcompBv(xcomp_bv));
        }
        self.check_reserved(RESERVED.len())
    }

    fn check_standard_header(&self, enabled: ComponentSet) -> Result<(), Refusal> {
        let (xstate_bv, xcomp_bv) = (self.xstate_bv(), self.xcomp_bv());
        if xstate_bv.0 & !enabled.bits() != 0 {
            return Err(Refusal::NotEnabled { xstate_bv, enabled });
        }
        if xcomp_bv != XcompBv::STANDARD {
            return Err(Refusal::XcompBv(xcomp_bv));
        }
        self.check_reserved(STANDARD_RESERVED_END - RESERVED_START)
    }

    fn check_compacted_header(&self, enabled: ComponentSet) -> Result<(), Refusal> {
        let (xstate_bv, xcomp_bv) = (self.xstate_bv(), self.xcomp_bv());
        if !self.layout().features().contains(XsaveFeatures::XSAVEC) {
            return Err(Refusal::NoXsavec(xcomp_bv));
        }
        if xcomp_bv.components().bits() & !enabled.bits() != 0 {
            return Err(Refusal::PlaceNotEnabled { xcomp_bv, enabled });
        }
        if xstate_bv.0 & !xcomp_bv.components().bits() != 0 {
            return Err(Refusal::NoPlace { xstate_bv, xcomp_bv });
        }
        self.check_reserved(RESERVED.len())
    }

    /// The first `len` reserved bytes.
    fn check_reserved(&self, len: usize) -> Result<(), Refusal> {
        let mut bytes = self.reserved_header_bytes().iter().take(len).enumerate();
        match bytes.find(|(_, value)| **value != 0) {
            Some((n, value)) => Err(Refusal::Reserved { offset: RESERVED_START + n, value: *value }),
            None => Ok(()),
        }
    }

    /// MXCSR in memory, which is what is loaded wherever it is looked at.
    pub(super) fn check_mxcsr(&self) -> Result<(), Refusal> {
        let (mxcsr, mask) = (self.legacy().mxcsr(), self.layout().mxcsr_mask());
        if mxcsr & !mask != 0 { Err(Refusal::Mxcsr { mxcsr, mask }) } else { Ok(()) }
    }

    /// Whether those of `components` that have a place end within the bytes.
    pub(super) fn check_room(&self, components: ComponentSet) -> Result<(), Refusal> {
        components.iter().try_for_each(|component| match self.size_of(component) {
            Err(AreaError::BeyondEnd { component, end_bytes, found_bytes }) => {
                Err(Refusal::BeyondEnd { component, end_bytes, found_bytes })
            }
            _ => Ok(()),
        })
    }
}
