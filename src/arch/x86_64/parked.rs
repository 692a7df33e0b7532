//! A parked CPU: registers in memory, and real instructions on them, each in a window.

use super::{
    fault,
    features::Features,
    window::{self, Area, Op},
};
use crate::{
    ComponentSet, Rfbm,
    arch::{HardwareFault, NotAvailable, OpError, RestoreOp, Source, Target},
    xstate::{Format, SaveInstruction, XcompBv, XsaveFeatures},
};
use core::fmt;

/// Legacy region and header: what XSAVE and XRSTOR touch at least.
const HEADER_END: usize = 576;

/// The registers of a simulated CPU, put into the real ones for one instruction or program at a time.
///
/// Between two operations Rust code runs on its own registers. Any number of these can be on one thread, and
/// any of them can go to another thread.
#[derive(Clone)]
pub(crate) struct ParkedRegs {
    features: Features,
    area: Area,
}

impl ParkedRegs {
    /// Registers in the initial configuration. The first call installs the SIGSEGV handler.
    ///
    /// # Errors
    /// [`NotAvailable::SignalHandler`].
    pub(crate) fn new(features: Features) -> Result<Self, NotAvailable> {
        fault::install()?;
        Ok(Self { features, area: Area::initial() })
    }

    /// Takes the initial configuration.
    pub(crate) fn reset(&mut self) {
        self.area = Area::initial();
    }

    /// What the CPU has.
    pub(crate) fn features(&self) -> Features {
        self.features
    }

    /// The registers as the last window left them: an image in the standard format of [`Features::layout`], without
    /// XSAVE the legacy region alone.
    pub(crate) fn image(&self) -> &[u8] {
        &self.area.bytes()[..self.features.layout().size_bytes(Format::Standard)]
    }

    /// Saves the components of `rfbm` that parked CPUs have (FXSAVE: x87 and SSE). The registers stay.
    ///
    /// XSAVEOPT omits what is in its initial configuration alone: the last XRSTOR before it was of the parked
    /// area, so nothing counts as unmodified (Intel SDM volume 1, section 13.6).
    ///
    /// # Errors
    /// [`OpError`]; after a fault the content of `to` is unspecified.
    pub(crate) fn save<'a>(
        &self,
        op: SaveInstruction,
        rfbm: Rfbm,
        to: impl Into<Target<'a>>,
    ) -> Result<(), OpError> {
        let features = self.features;
        let components = rfbm.of(features.enabled());
        let has_xsave = features.layout().has_xsave();
        let standard = features.layout().standard_size_bytes(components);
        let (is_there, name, code, needed): (_, _, Op, _) = match op {
            SaveInstruction::Xsave => (has_xsave, "XSAVE", window::xsave, standard),
            SaveInstruction::Xsaveopt => {
                (features.has(XsaveFeatures::XSAVEOPT), "XSAVEOPT", window::xsaveopt, standard)
            }
            SaveInstruction::Xsavec => {
                let compacted = features.layout().compacted_size_bytes(XcompBv::compacted(components));
                (features.has(XsaveFeatures::XSAVEC), "XSAVEC", window::xsavec, compacted)
            }
            SaveInstruction::Fxsave => (true, "FXSAVE", window::fxsave, Some(512)),
        };
        if !is_there {
            return Err(OpError::Missing(name));
        }
        let operand = match to.into() {
            Target::Bytes(bytes) => {
                long_enough(bytes.len(), needed)?;
                bytes.as_mut_ptr()
            }
            Target::Mapping(mapping) => mapping.area_ptr(),
        };
        // SAFETY: (a) just looked up. (b) The instruction writes to no more than `needed` bytes from `operand`,
        // which are borrowed exclusively, or to pages of a mapping, which has room for every component; where
        // it cannot, or the address is misaligned, it faults. (c) `OPS` has all four.
        unsafe { self.look(code, operand, components) }?;
        Ok(())
    }

    /// Restores the components of `rfbm` that parked CPUs have (FXRSTOR: x87 and SSE).
    ///
    /// # Errors
    /// [`OpError`]; after a fault the registers are what the CPU left in them.
    pub(crate) fn restore<'a>(
        &mut self,
        op: RestoreOp,
        rfbm: Rfbm,
        from: impl Into<Source<'a>>,
    ) -> Result<(), OpError> {
        let components = rfbm.of(self.features.enabled());
        let code: Op = match op {
            RestoreOp::Xrstor if !self.features.layout().has_xsave() => {
                return Err(OpError::Missing("XRSTOR"));
            }
            RestoreOp::Xrstor => window::xrstor,
            RestoreOp::Fxrstor => window::fxrstor,
        };
        let operand = match from.into() {
            Source::Bytes(bytes) => {
                let needed = match op {
                    RestoreOp::Xrstor => self.read_by_xrstor(components, bytes),
                    RestoreOp::Fxrstor => Some(512),
                };
                long_enough(bytes.len(), needed)?;
                bytes.as_ptr()
            }
            Source::Mapping(mapping) => mapping.area_ptr().cast_const(),
        };
        // SAFETY: (a) just looked at. (b) The instruction reads no more than `needed` bytes from `operand`, which
        // are borrowed, or pages of a mapping, which has room for every component in either format; it never
        // writes. (c) `OPS` has both.
        unsafe { self.change(code, operand.cast_mut(), components) }?;
        Ok(())
    }

    /// How far XRSTOR may read into `image`.
    ///
    /// It is the header that says where components lie, and XRSTOR believes it. A bit of XCOMP_BV that is not in
    /// XCR0 makes it fault before it reads any (Intel SDM volume 1, section 13.8).
    fn read_by_xrstor(&self, components: ComponentSet, image: &[u8]) -> Option<usize> {
        let Some(header) = image.get(512..HEADER_END) else { return Some(HEADER_END) };
        let xcomp_bv = XcompBv(header[8..16].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        let host = self.features.host_layout();
        if xcomp_bv.is_compacted() && self.features.has(XsaveFeatures::XSAVEC) {
            host.compacted_size_bytes(XcompBv::compacted(xcomp_bv.components() & host.enabled()))
        } else {
            host.standard_size_bytes(components)
        }
    }

    /// XINUSE of the components that parked CPUs have, as XGETBV(1) tells.
    ///
    /// # Errors
    /// [`OpError::Missing`].
    pub(crate) fn in_use(&self) -> Result<ComponentSet, OpError> {
        if !self.features.has(XsaveFeatures::XGETBV1) {
            return Err(OpError::Missing("XGETBV with ECX = 1"));
        }
        // SAFETY: (a) just looked up. (b) There is no operand. (c) It cannot fault.
        let in_use = unsafe { self.look(window::xgetbv1, core::ptr::null_mut(), ComponentSet::EMPTY) }?;
        Ok(ComponentSet::from_bits(in_use) & self.features.enabled())
    }

    /// Runs an op; what it does to the registers is forgotten.
    ///
    /// # Safety
    /// (a) The CPU has its instructions. (b) It may be given `operand` and `rfbm`. (c) If it can fault, it is in
    /// `fault::OPS`.
    pub(super) unsafe fn look(
        &self,
        op: Op,
        operand: *mut u8,
        rfbm: ComponentSet,
    ) -> Result<u64, HardwareFault> {
        let mut host = Area::zeroed();
        let window =
            if self.features.layout().has_xsave() { window::xsave_look } else { window::fxsave_look };
        // SAFETY: (a) `host` is new; `area` is from `Area::initial` or a window for `enabled`, of the one kind
        // that `features` ask for. (b) As `features` say. (c) Our (a) and (b). (d) Our (c), and `new` has
        // installed the handler.
        let outcome = unsafe {
            window(&mut host, &self.area, self.features.enabled().bits(), op, operand, rfbm.bits())
        };
        outcome.result()
    }

    /// Runs an op and parks what it left, after a fault too.
    ///
    /// # Safety
    /// As for [`look`](Self::look).
    pub(super) unsafe fn change(
        &mut self,
        op: Op,
        operand: *mut u8,
        rfbm: ComponentSet,
    ) -> Result<u64, HardwareFault> {
        let mut host = Area::zeroed();
        let window =
            if self.features.layout().has_xsave() { window::xsave_change } else { window::fxsave_change };
        // SAFETY: as in `look`; `area` is borrowed exclusively.
        let outcome = unsafe {
            window(&mut host, &mut self.area, self.features.enabled().bits(), op, operand, rfbm.bits())
        };
        outcome.result()
    }
}

/// `needed` is `None` if nobody knows, which no memory is enough for.
fn long_enough(found_bytes: usize, needed: Option<usize>) -> Result<(), OpError> {
    let needed_bytes = needed.unwrap_or(usize::MAX);
    if found_bytes < needed_bytes { Err(OpError::TooShort { needed_bytes, found_bytes }) } else { Ok(()) }
}

impl fmt::Debug for ParkedRegs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "parked registers, {:?}", self.features.enabled())
    }
}
