//! What a [`Value`] looks like in real bytes.
//!
//! Every byte of a pattern depends on the number, so that of two different patterns every byte differs, and a
//! component that was torn between two is recognised. Bytes that the CPU restricts (MXCSR, BNDCFGU, TILECFG)
//! take only what it accepts.

use crate::{
    Component, Value,
    xstate::{SSE_BYTES, X87_BYTES, initial_value},
};
use alloc::vec::Vec;

/// The bytes of `component` that stand for `value`, `size` of them (shapes: [`Area`](crate::xstate::Area)).
pub(crate) fn bytes(component: Component, size: usize, value: Value) -> Vec<u8> {
    let mut bytes = initial_value(component, size);
    if value == Value::INITIAL {
        return bytes;
    }
    let number = value.number();
    match component {
        Component::X87 => {
            // Rounding control, bits 10 and 11 of FCW; no exception pending in FSW; every register in use.
            bytes[1] |= (number & 3) << 2;
            bytes[4] = 0xff;
            for (i, register) in bytes[X87_BYTES - 128..].chunks_mut(16).enumerate() {
                spread(&mut register[..10], component, i * 16, number);
            }
        }
        Component::SSE => {
            // Rounding control, bits 13 and 14 of MXCSR.
            bytes[1] |= (number & 3) << 5;
            spread(&mut bytes[SSE_BYTES - 256..], component, 0, number);
        }
        // BNDCFGU has reserved bits, and a set enable bit would make branches write BND0–3: its base address
        // field alone is used.
        Component::BNDCSR => {
            bytes[2] = number;
            bytes[8] = number;
        }
        // Palette 1, and 1 to 16 rows of 4 to 64 bytes a tile: anything else would not be loaded. Two tiles, the
        // halves of the number the other way round, so that no byte can change alone.
        Component::TILECFG => {
            let (high, low) = (1 + number / 16, 1 + number % 16);
            bytes[0] = 1;
            (bytes[16], bytes[48]) = (4 * high, low);
            (bytes[18], bytes[49]) = (4 * low, high);
        }
        _ => spread(&mut bytes, component, 0, number),
    }
    bytes
}

fn spread(bytes: &mut [u8], component: Component, from: usize, number: u8) {
    for (n, byte) in (from..).zip(bytes) {
        *byte = number ^ spread_byte(component, n);
    }
}

fn spread_byte(component: Component, n: usize) -> u8 {
    (n as u8).wrapping_mul(29).wrapping_add(component.number().wrapping_mul(7))
}

/// FOP, FIP and FDP: what the last x87 instruction was, and not what a program computes with.
const LAST_INSTRUCTION: core::ops::Range<usize> = 6..24;

/// The value whose pattern these bytes are; unspecified if they are no pattern.
///
/// Which instruction was x87's last does not count: CPUs differ in whether a save and a restore keep it (Intel
/// SDM volume 1, section 8.1.8; AMD's keep it only while an exception is pending, but for recent ones).
pub(crate) fn value(component: Component, found: &[u8]) -> Value {
    let byte = |n: usize| found.get(n).copied().unwrap_or(0);
    // One byte tells the number, if it is a pattern at all.
    let told = |first: usize| byte(first) ^ spread_byte(component, 0);
    let number = match component {
        Component::X87 => told(X87_BYTES - 128),
        Component::SSE => told(SSE_BYTES - 256),
        Component::BNDCSR => byte(8),
        Component::TILECFG => (byte(16) / 4).wrapping_sub(1) << 4 | byte(48).wrapping_sub(1) & 0xf,
        _ => told(0),
    };
    let candidates = [Value::INITIAL, Value::from_number(number)];
    let fits = |value: &Value| {
        counted(component, &bytes(component, found.len(), *value)) == counted(component, found)
    };
    candidates.into_iter().find(fits).unwrap_or(Value::UNSPECIFIED)
}

/// The bytes that count, in two pieces.
fn counted(component: Component, bytes: &[u8]) -> (&[u8], &[u8]) {
    match component {
        Component::X87 if bytes.len() == X87_BYTES => {
            (&bytes[..LAST_INSTRUCTION.start], &bytes[LAST_INSTRUCTION.end..])
        }
        _ => (bytes, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [(Component, usize); 12] = [
        (Component::X87, X87_BYTES),
        (Component::SSE, SSE_BYTES),
        (Component::AVX, 256),
        (Component::BNDREGS, 64),
        (Component::BNDCSR, 64),
        (Component::OPMASK, 64),
        (Component::ZMM_HI256, 512),
        (Component::HI16_ZMM, 1024),
        (Component::PKRU, 8),
        (Component::TILECFG, 64),
        (Component::TILEDATA, 8192),
        (Component::new(40).unwrap(), 24),
    ];

    #[test]
    fn every_value_has_a_pattern_of_its_own() {
        for (component, size) in SIZES {
            for number in 0..=u8::MAX {
                let pattern = bytes(component, size, Value::from_number(number));
                assert_eq!(pattern.len(), size);
                assert_eq!(value(component, &pattern).number(), number, "{component}");
            }
        }
    }

    #[test]
    fn a_torn_pattern_is_unspecified() {
        for (component, size) in SIZES {
            let [a, b] = [7, 90].map(|number| bytes(component, size, Value::from_number(number)));
            let differing: Vec<usize> = (0..size).filter(|n| a[*n] != b[*n]).collect();
            for n in differing {
                let mut torn = a.clone();
                torn[n] = b[n];
                assert_eq!(value(component, &torn), Value::UNSPECIFIED, "{component} byte {n}");
            }
        }
    }
}
