//! The bitmaps of the XSAVE feature set, one type each, so that none is taken for another.
//!
//! All have a bit a component. What a set of components *means* differs: what an instruction is asked for
//! ([`Rfbm`]), what an image holds ([`XstateBv`]), how it is laid out ([`XcompBv`]).

use super::{Component, ComponentSet};
use core::fmt;

/// The requested-feature bitmap: the components that one instruction acts on.
///
/// An instruction acts on those of them that XCR0 enables. The protocol always restores with all that are
/// enabled ([`Rfbm::ALL`] asks for the same): a component left out would keep another task's value.
///
/// # Reference
/// Intel SDM volume 1, section 13.6 "Processor tracking of XSAVE-managed state" and the pages of the
/// instructions: RFBM is XCR0 AND EDX:EAX.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rfbm(ComponentSet);

impl Rfbm {
    /// Everything that is enabled: EDX:EAX of all ones.
    pub const ALL: Self = Self(ComponentSet::from_bits(u64::MAX));

    /// Asks for `components`.
    pub const fn new(components: ComponentSet) -> Self {
        Self(components)
    }

    /// What an instruction acts on where XCR0 is `enabled`.
    pub fn of(self, enabled: ComponentSet) -> ComponentSet {
        self.0 & enabled
    }

    /// Whether `component` is asked for.
    pub const fn contains(self, component: Component) -> bool {
        self.0.contains(component)
    }
}

impl fmt::Debug for Rfbm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RFBM {:?}", self.0)
    }
}

/// XSTATE_BV, the first word of the XSAVE header: a set bit says that the component is in the image, a clear
/// one that it is in its initial configuration.
///
/// Two saves of the same registers may differ in it. Every bit is kept, also what no instruction accepts.
///
/// # Reference
/// Intel SDM volume 1, section 13.4.2 "XSAVE Header".
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct XstateBv(pub u64);

impl XstateBv {
    /// The components that are in the image. Bit 63 names none.
    pub const fn components(self) -> ComponentSet {
        ComponentSet::from_bits(self.0)
    }

    /// Whether `component` is in the image.
    pub const fn contains(self, component: Component) -> bool {
        self.components().contains(component)
    }

    /// The same, with `component` in the image.
    pub(super) const fn with(self, component: Component) -> Self {
        Self(self.0 | 1 << component.number())
    }
}

impl fmt::Debug for XstateBv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "XSTATE_BV {:#x}", self.0)
    }
}

/// XCOMP_BV, the second word of the XSAVE header: bit 63 says that the image is in the compacted format, the
/// others which components have a place in it. Zero in the standard format.
///
/// # Reference
/// Intel SDM volume 1, sections 13.4.2 "XSAVE Header" and 13.4.3 "Extended Region of an XSAVE Area".
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct XcompBv(pub u64);

impl XcompBv {
    /// The standard format.
    pub const STANDARD: Self = Self(0);

    /// The compacted format with a place for `components`.
    pub const fn compacted(components: ComponentSet) -> Self {
        Self(1 << 63 | components.bits())
    }

    /// Whether bit 63 is set.
    pub const fn is_compacted(self) -> bool {
        self.0 >> 63 != 0
    }

    /// Bits 62 to 0.
    pub const fn components(self) -> ComponentSet {
        ComponentSet::from_bits(self.0)
    }
}

impl fmt::Debug for XcompBv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "XCOMP_BV {:#x}", self.0)
    }
}
