//! What the registers make of a component's bytes.

use crate::{
    Component,
    xstate::{Rounding, X87_BYTES, initial_value},
};

/// MXCSR at the start of SSE's value ([shapes](crate::xstate::Area#shapes)).
const MXCSR_BYTES: usize = 4;

fn half(bytes: &[u8], at: usize) -> u16 {
    bytes[at..].first_chunk().map_or(0, |half| u16::from_le_bytes(*half))
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, new: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&new);
}

pub(super) fn mxcsr(sse: &[u8]) -> u32 {
    sse.first_chunk().map_or(0, |mxcsr| u32::from_le_bytes(*mxcsr))
}

/// Whether a component is in its initial configuration, of which MXCSR is no part.
///
/// # Reference
/// Intel SDM volume 1, section 13.6 "Processor Tracking of XSAVE-Managed State".
pub(super) fn is_initial(component: Component, value: &[u8]) -> bool {
    match component {
        Component::X87 => value == initial_value(component, X87_BYTES),
        Component::SSE => value[MXCSR_BYTES..].iter().all(|byte| *byte == 0),
        _ => value.iter().all(|byte| *byte == 0),
    }
}

pub(super) fn has_initial_mxcsr(sse: &[u8]) -> bool {
    sse[..MXCSR_BYTES] == initial_value(Component::SSE, 0)[..MXCSR_BYTES]
}

pub(super) fn set_initial_mxcsr(sse: &mut [u8]) {
    sse[..MXCSR_BYTES].copy_from_slice(&initial_value(Component::SSE, 0)[..MXCSR_BYTES]);
}

pub(super) fn set_initial_xmm(sse: &mut [u8]) {
    sse[MXCSR_BYTES..].fill(0);
}

pub(super) fn set_x87_rounding(x87: &mut [u8], rounding: Rounding) {
    put(x87, 0, (half(x87, 0) & !(3 << 10) | (rounding as u16) << 10).to_le_bytes());
}

pub(super) fn set_sse_rounding(sse: &mut [u8], rounding: Rounding) {
    put(sse, 0, (mxcsr(sse) & !(3 << 13) | (rounding as u32) << 13).to_le_bytes());
}

/// Makes of what was loaded from memory what the registers hold: bits that do not exist are dropped or have
/// their fixed value.
pub(super) fn settle(component: Component, value: &mut [u8]) {
    match component {
        Component::X87 => settle_x87(value),
        // Intel SDM volume 1, section 13.5.4 "MPX State": BNDCFGU and BNDSTATUS, and reserved bytes behind them.
        // BNDCFGU has no bits 2 to 11 (17.3.3 "Configuration and Status Registers", in editions with Intel MPX).
        Component::BNDCSR => {
            value[0] &= 0x03;
            value[1] &= 0xf0;
            value[16..].fill(0);
        }
        // Section 13.5.7 "PKRU State": bytes 0 to 3, the others are ignored.
        Component::PKRU => value[4..].fill(0),
        Component::TILECFG if !is_legal_tilecfg(value) => value.fill(0),
        _ => {}
    }
}

/// Reserved bits and bytes of x87, and those of FSW that follow from the others.
///
/// # Reference
/// Intel SDM volume 1, sections 8.1.3 "x87 FPU Status Register", 8.1.5 "x87 FPU Control Word" and 8.1.9 "Last
/// Instruction Opcode". FCW's reserved bits are as Intel CPUs have them: bit 6 is set, the others are clear.
fn settle_x87(x87: &mut [u8]) {
    const EXCEPTIONS: u16 = 0x3f;
    const ES_AND_BUSY: u16 = 1 << 7 | 1 << 15;
    let fcw = half(x87, 0) & 0x1f3f | 1 << 6;
    let unmasked = half(x87, 2) & !fcw & EXCEPTIONS != 0;
    let fsw = half(x87, 2) & !ES_AND_BUSY | if unmasked { ES_AND_BUSY } else { 0 };
    put(x87, 0, fcw.to_le_bytes());
    put(x87, 2, fsw.to_le_bytes());
    x87[5] = 0;
    put(x87, 6, (half(x87, 6) & 0x07ff).to_le_bytes());
    for slot in x87[24..].chunks_mut(16) {
        slot[10..].fill(0);
    }
}

/// Whether LDTILECFG would take it: palette 1 with at most 16 rows of at most 64 bytes a tile, both zero or
/// neither. Everything else leaves the tiles in their initial configuration, as palette 0 does.
///
/// # Reference
/// Intel SDM volume 2, "LDTILECFG—Load Tile Configuration".
fn is_legal_tilecfg(value: &[u8]) -> bool {
    let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let tile = |n: usize| {
        let (row_bytes, rows) = (half(value, 16 + 2 * n), value[48 + n]);
        row_bytes <= 64 && rows <= 16 && (row_bytes == 0) == (rows == 0)
    };
    value[0] == 1 && zero(&value[2..16]) && zero(&value[32..48]) && zero(&value[56..64]) && (0..8).all(tile)
}
