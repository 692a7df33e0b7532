//! Where the bytes of a component are, in its value and in an area.

use crate::{
    Component, ComponentSet,
    xstate::{Layout, XcompBv},
};
use core::ops::Range;

/// The header of an XSAVE area. The manual says which of its bytes each instruction reads and writes; they are
/// all in one line of 64 bytes, so that they are present together.
///
/// # Reference
/// Intel SDM volume 1, section 13.4.2 "XSAVE Header".
pub(super) const HEADER: Range<usize> = 512..576;
pub(super) const XSTATE_BV: Range<usize> = 512..520;
pub(super) const XCOMP_BV: Range<usize> = 520..528;
/// MXCSR, and the mask behind it, which instructions write and do not read.
///
/// # Reference
/// Intel SDM volume 1, section 10.5.1 "FXSAVE Area".
pub(super) const MXCSR: Range<usize> = 24..28;
pub(super) const MXCSR_MASK: Range<usize> = 28..32;

/// A stretch of a component, as large in its value as in an area.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) component: Component,
    /// Where it starts in the value ([shapes](crate::xstate::Area#shapes)).
    pub(super) value_at: usize,
    /// Where it is in the area.
    pub(super) area: Range<usize>,
}

impl Piece {
    /// Where it is in the value.
    pub(super) fn value(&self) -> Range<usize> {
        self.value_at..self.value_at + self.area.len()
    }
}

/// MXCSR, which instructions treat otherwise than the rest of SSE.
pub(super) const MXCSR_PIECE: Piece = Piece { component: Component::SSE, value_at: 0, area: MXCSR };

/// x87, in two stretches, and the XMM registers.
const LEGACY: [Piece; 3] = [
    Piece { component: Component::X87, value_at: 0, area: 0..24 },
    Piece { component: Component::X87, value_at: 24, area: 32..160 },
    Piece { component: Component::SSE, value_at: 4, area: 160..416 },
];

/// The stretches of `components`, without MXCSR, by ascending number. `xcomp_bv` tells the form of the extended
/// region.
pub(super) fn pieces<'a>(
    layout: &'a Layout,
    xcomp_bv: XcompBv,
    components: ComponentSet,
) -> impl Iterator<Item = Piece> + 'a {
    let legacy = LEGACY.into_iter().filter(move |piece| components.contains(piece.component));
    let extended = layout.places().iter().filter(move |place| components.contains(place.component));
    let extended = extended.filter_map(move |place| {
        let start = if xcomp_bv.is_compacted() {
            layout.compacted_offset_bytes(xcomp_bv, place.component)?
        } else {
            place.offset_bytes as usize
        };
        let area = start..start + place.size_bytes as usize;
        Some(Piece { component: place.component, value_at: 0, area })
    });
    legacy.chain(extended)
}
