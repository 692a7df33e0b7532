//! The instructions that restore.

use super::{
    MemoryOperand, SoftFault, SoftRegs,
    piece::{HEADER, MXCSR, MXCSR_PIECE, Piece, pieces},
    value,
};
use crate::{
    Component, ComponentSet, Rfbm,
    xstate::{Area, Format, Layout, Refusal, XcompBv, XsaveFeatures, initial_value},
};
use alloc::vec::Vec;

impl SoftRegs {
    /// FXRSTOR64: x87 and SSE, whatever XCR0 says, from the legacy region.
    ///
    /// # Errors
    /// #GP unless aligned to 16 and for an MXCSR that the CPU refuses, #PF.
    ///
    /// # Reference
    /// Intel SDM volume 1, section 10.5 "FXSAVE and FXRSTOR Instructions"; volume 2, "FXRSTOR".
    pub fn fxrstor<B: AsRef<[u8]>>(&mut self, at: &MemoryOperand, area: &Area<B>) -> Result<(), SoftFault> {
        at.require_aligned(16)?;
        self.load_legacy(at, ComponentSet::LEGACY, area.bytes())
    }

    /// XRSTOR64: the components of RFBM, those whose XSTATE_BV bit is clear as in their initial configuration.
    /// XCOMP_BV chooses the form. The standard form loads MXCSR whenever SSE or AVX is in RFBM; the compacted
    /// one treats it as a part of SSE.
    ///
    /// Reserved bits and bytes are dropped, and an illegal TILECFG is loaded as the initial one. Afterwards what
    /// was loaded is in use, and unmodified for an XSAVEOPT to the same address.
    ///
    /// # Errors
    /// #UD without XSAVE; #GP unless aligned to 64 and with the reason of [`Area::check`]; #NM if a component
    /// would be loaded that XFD disables; #PF. The registers are as before then, unless
    /// [`with_torn_restores`](Self::with_torn_restores) has asked for worse.
    ///
    /// # Reference
    /// Intel SDM volume 1, sections 13.8 "Operation of XRSTOR", 13.13 "Memory Accesses by the XSAVE Feature Set"
    /// and 13.14 "Extended Feature Disable (XFD)".
    pub fn xrstor<B: AsRef<[u8]>>(
        &mut self,
        rfbm: Rfbm,
        at: &MemoryOperand,
        area: &Area<B>,
    ) -> Result<(), SoftFault> {
        self.require_xsave("XRSTOR", XsaveFeatures::empty(), at)?;
        let memory = area.bytes();
        at.require(&HEADER, memory.len())?;
        // What is in memory means what it means to this CPU, whoever has written it.
        let layout = self.layout.clone();
        let area = Area::over(memory, &layout).map_err(|_| SoftFault::Page(memory.len()))?;
        let format = area.format();
        refuse(area.check(format, Rfbm::new(ComponentSet::EMPTY)))?;

        let rfbm = rfbm.of(layout.enabled());
        let loaded = rfbm & area.xstate_bv().components();
        self.require_not_disabled(loaded)?;

        let loads_mxcsr = match format {
            Format::Compacted => loaded.contains(Component::SSE),
            _ => rfbm.contains(Component::SSE) || rfbm.contains(Component::AVX),
        };
        if loads_mxcsr {
            at.require(&MXCSR, memory.len())?;
        }
        refuse(area.check(format, Rfbm::new(rfbm)))?;

        let mut stretches: Vec<Piece> = pieces(&layout, area.xcomp_bv(), loaded).collect();
        if loads_mxcsr {
            stretches.push(MXCSR_PIECE);
        }
        self.load(at, &stretches, memory)?;
        for component in rfbm.iter().filter(|component| !loaded.contains(*component)) {
            self.load_initial(component, format);
        }

        let tracking = &mut self.tracking;
        tracking.loaded = (tracking.loaded - rfbm) | loaded;
        tracking.unmodified = rfbm;
        tracking.xrstor_info = Some((at.address, area.xcomp_bv()));
        tracking.image = None;
        Ok(())
    }

    /// FXRSTOR, with a mask that it does not have.
    pub(super) fn load_legacy(
        &mut self,
        at: &MemoryOperand,
        mask: ComponentSet,
        memory: &[u8],
    ) -> Result<(), SoftFault> {
        let mut stretches: Vec<Piece> =
            pieces(&self.layout, XcompBv::STANDARD, ComponentSet::LEGACY & mask).collect();
        if mask.contains(Component::SSE) {
            stretches.push(MXCSR_PIECE);
        }
        at.require(&MXCSR, memory.len())?;
        let legacy = Layout::fxsave_only().with_mxcsr_mask(self.layout.mxcsr_mask());
        let area = Area::over(memory, &legacy).map_err(|_| SoftFault::Page(memory.len()))?;
        refuse(area.check(Format::Fxsave, Rfbm::ALL))?;
        self.load(at, &stretches, memory)?;
        self.touch(mask);
        Ok(())
    }

    /// Loads stretches of components. If a byte is absent, nothing, or what lies before it.
    fn load(&mut self, at: &MemoryOperand, stretches: &[Piece], memory: &[u8]) -> Result<(), SoftFault> {
        let access = |piece: &Piece| at.require(&piece.area, memory.len());
        if !self.torn_restores {
            stretches.iter().try_for_each(access)?;
        }
        for piece in stretches {
            let accessed = access(piece);
            let end = if let Err(SoftFault::Page(byte)) = accessed { byte } else { piece.area.end };
            if let Some(value) = self.values.get_mut(&piece.component) {
                let there = &memory[piece.area.start..end];
                value[piece.value_at..piece.value_at + there.len()].copy_from_slice(there);
                value::settle(piece.component, value);
            }
            if accessed.is_err() {
                let torn = stretches.iter().map(|piece| piece.component);
                self.touch(torn.fold(ComponentSet::EMPTY, ComponentSet::with));
            }
            accessed?;
        }
        Ok(())
    }

    fn load_initial(&mut self, component: Component, format: Format) {
        let Some(value) = self.values.get_mut(&component) else { return };
        if component != Component::SSE {
            *value = initial_value(component, value.len());
            return;
        }
        value::set_initial_xmm(value);
        // The standard form has loaded it.
        if format == Format::Compacted {
            value::set_initial_mxcsr(value);
        }
    }

    /// Notes that components have been written.
    fn touch(&mut self, components: ComponentSet) {
        self.tracking.loaded = self.tracking.loaded - components;
        self.tracking.unmodified = self.tracking.unmodified - components;
    }
}

/// A refusal as the fault that it is. What lies beyond the end of the area is no #GP but absent, and found out
/// where it is accessed.
fn refuse(checked: Result<(), Refusal>) -> Result<(), SoftFault> {
    match checked {
        Ok(()) | Err(Refusal::BeyondEnd { .. }) => Ok(()),
        Err(refusal) => Err(SoftFault::Refused(refusal)),
    }
}
