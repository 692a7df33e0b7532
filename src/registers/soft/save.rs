//! The instructions that save.

use super::{
    MemoryOperand, SoftFault, SoftRegs,
    piece::{HEADER, MXCSR, MXCSR_MASK, MXCSR_PIECE, Piece, XCOMP_BV, XSTATE_BV, pieces},
};
use crate::{
    Component, ComponentSet, Rfbm,
    xstate::{Area, SaveInstruction, XcompBv, XsaveFeatures, initial_value},
};

/// One execution of an instruction that saves. RFBM is within XCR0.
pub(super) struct Save<'a> {
    pub(super) instruction: SaveInstruction,
    pub(super) rfbm: ComponentSet,
    pub(super) at: &'a MemoryOperand,
}

/// What one execution writes.
struct Written {
    components: ComponentSet,
    /// MXCSR and MXCSR_MASK.
    mxcsr: bool,
    /// New bits of XSTATE_BV, for RFBM.
    xstate_bv: ComponentSet,
    /// The form of the extended region.
    xcomp_bv: XcompBv,
}

impl SoftRegs {
    /// FXSAVE64: x87 and SSE, whatever XCR0 says, to the legacy region.
    ///
    /// # Errors
    /// #GP unless aligned to 16, #PF.
    ///
    /// # Reference
    /// Intel SDM volume 1, section 10.5 "FXSAVE and FXRSTOR Instructions"; volume 2, "FXSAVE".
    pub fn fxsave<B: AsRef<[u8]> + AsMut<[u8]>>(
        &self,
        at: &MemoryOperand,
        area: &mut Area<B>,
    ) -> Result<(), SoftFault> {
        at.require_aligned(16)?;
        self.save_to(SaveInstruction::Fxsave, Rfbm::ALL, at, area)
    }

    /// XSAVE64: the components of RFBM, in the standard format. Of the header it writes XSTATE_BV, and there the
    /// bits of RFBM; MXCSR comes with AVX as well as with SSE.
    ///
    /// A component that XFD disables is saved as if in its initial configuration.
    ///
    /// # Errors
    /// #UD without XSAVE, #GP unless aligned to 64, #PF. Nothing is written then.
    ///
    /// # Reference
    /// Intel SDM volume 1, sections 13.7 "Operation of XSAVE" and 13.14 "Extended Feature Disable (XFD)".
    pub fn xsave<B: AsRef<[u8]> + AsMut<[u8]>>(
        &self,
        rfbm: Rfbm,
        at: &MemoryOperand,
        area: &mut Area<B>,
    ) -> Result<(), SoftFault> {
        self.require_xsave("XSAVE", XsaveFeatures::empty(), at)?;
        self.save_to(SaveInstruction::Xsave, rfbm, at, area)
    }

    /// XSAVEC64: those components of RFBM that are in use, in the compacted format with a place for each of
    /// RFBM. SSE is in use also if only MXCSR is not 1F80H; AVX alone does not save MXCSR. Of the header it
    /// writes XSTATE_BV and XCOMP_BV.
    ///
    /// # Errors
    /// #UD without XSAVEC, #GP unless aligned to 64, #PF. Nothing is written then.
    ///
    /// # Reference
    /// Intel SDM volume 1, section 13.10 "Operation of XSAVEC".
    pub fn xsavec<B: AsRef<[u8]> + AsMut<[u8]>>(
        &self,
        rfbm: Rfbm,
        at: &MemoryOperand,
        area: &mut Area<B>,
    ) -> Result<(), SoftFault> {
        self.require_xsave("XSAVEC", XsaveFeatures::XSAVEC, at)?;
        self.save_to(SaveInstruction::Xsavec, rfbm, at, area)
    }

    /// XSAVEOPT64: as XSAVE, but components are not written that are not in use, nor, if the last XRSTOR was
    /// the standard form and from the same address, those that have not been modified since. MXCSR always is.
    ///
    /// An image that software changed after that XRSTOR is not noticed: it keeps the changes.
    ///
    /// # Errors
    /// #UD without XSAVEOPT, #GP unless aligned to 64, #PF. Nothing is written then.
    ///
    /// # Reference
    /// Intel SDM volume 1, section 13.9 "Operation of XSAVEOPT".
    pub fn xsaveopt<B: AsRef<[u8]> + AsMut<[u8]>>(
        &self,
        rfbm: Rfbm,
        at: &MemoryOperand,
        area: &mut Area<B>,
    ) -> Result<(), SoftFault> {
        self.require_xsave("XSAVEOPT", XsaveFeatures::XSAVEOPT, at)?;
        self.save_to(SaveInstruction::Xsaveopt, rfbm, at, area)
    }

    /// #UD without XSAVE or the feature, #GP at an address that is no multiple of 64.
    pub(super) fn require_xsave(
        &self,
        name: &'static str,
        feature: XsaveFeatures,
        at: &MemoryOperand,
    ) -> Result<(), SoftFault> {
        if !self.layout.has_xsave() || !self.layout.features().contains(feature) {
            return Err(SoftFault::InvalidOpcode(name));
        }
        at.require_aligned(64)
    }

    fn save_to<B: AsRef<[u8]> + AsMut<[u8]>>(
        &self,
        instruction: SaveInstruction,
        rfbm: Rfbm,
        at: &MemoryOperand,
        area: &mut Area<B>,
    ) -> Result<(), SoftFault> {
        let save = Save { instruction, rfbm: rfbm.of(self.layout.enabled()), at };
        self.store(&save, area.bytes_mut())
    }

    fn written(&self, save: &Save<'_>) -> Written {
        let Save { instruction, rfbm, at } = *save;
        let with_mxcsr = rfbm.contains(Component::SSE) || rfbm.contains(Component::AVX);
        let in_use = (rfbm & self.tracked_in_use()) - self.xfd;
        let standard = |components| Written {
            components,
            mxcsr: with_mxcsr,
            xstate_bv: in_use,
            xcomp_bv: XcompBv::STANDARD,
        };
        match instruction {
            SaveInstruction::Fxsave => Written {
                components: ComponentSet::LEGACY,
                mxcsr: true,
                xstate_bv: ComponentSet::EMPTY,
                xcomp_bv: XcompBv::STANDARD,
            },
            SaveInstruction::Xsave => standard(rfbm),
            SaveInstruction::Xsaveopt => {
                let unchanged = match self.tracking.xrstor_info {
                    Some(info) if info == (at.address, XcompBv::STANDARD) => self.tracking.unmodified,
                    _ => ComponentSet::EMPTY,
                };
                standard(in_use - unchanged)
            }
            SaveInstruction::Xsavec => {
                let mxcsr_counts = rfbm.contains(Component::SSE) && !self.has_initial_mxcsr();
                let in_use = if mxcsr_counts { in_use.with(Component::SSE) } else { in_use };
                Written {
                    components: in_use,
                    mxcsr: in_use.contains(Component::SSE),
                    xstate_bv: in_use,
                    xcomp_bv: XcompBv::compacted(rfbm),
                }
            }
        }
    }

    /// Accesses what a save accesses, and writes nothing.
    pub(super) fn check_store(&self, save: &Save<'_>, memory: &[u8]) -> Result<(), SoftFault> {
        let written = self.written(save);
        if save.instruction != SaveInstruction::Fxsave {
            save.at.require(&HEADER, memory.len())?;
        }
        if written.mxcsr {
            save.at.require(&(MXCSR.start..MXCSR_MASK.end), memory.len())?;
        }
        let mut stretches = pieces(&self.layout, written.xcomp_bv, written.components);
        stretches.try_for_each(|piece| save.at.require(&piece.area, memory.len()))
    }

    /// Writes what a save writes; nothing if it faults.
    pub(super) fn store(&self, save: &Save<'_>, memory: &mut [u8]) -> Result<(), SoftFault> {
        self.check_store(save, memory)?;
        let written = self.written(save);
        for piece in pieces(&self.layout, written.xcomp_bv, written.components) {
            self.store_piece(&piece, memory);
        }
        if written.mxcsr {
            self.store_piece(&MXCSR_PIECE, memory);
            memory[MXCSR_MASK].copy_from_slice(&self.layout.mxcsr_mask().to_le_bytes());
        }
        let not_requested = match save.instruction {
            SaveInstruction::Fxsave => return Ok(()),
            SaveInstruction::Xsavec => {
                memory[XCOMP_BV].copy_from_slice(&written.xcomp_bv.0.to_le_bytes());
                0
            }
            SaveInstruction::Xsave | SaveInstruction::Xsaveopt => {
                let before = memory[XSTATE_BV].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
                before & !save.rfbm.bits()
            }
        };
        memory[XSTATE_BV].copy_from_slice(&(not_requested | written.xstate_bv.bits()).to_le_bytes());
        Ok(())
    }

    fn store_piece(&self, piece: &Piece, memory: &mut [u8]) {
        let Some(value) = self.values.get(&piece.component) else { return };
        let target = &mut memory[piece.area.clone()];
        if self.xfd.contains(piece.component) {
            target.copy_from_slice(&initial_value(piece.component, value.len())[piece.value()]);
        } else {
            target.copy_from_slice(&value[piece.value()]);
        }
    }
}
