//! The instructions, on this host.

#[path = "../../../tests/support/emulator.rs"]
mod emulator;
mod faults;
mod programs;
mod signals;
mod windows;

use super::{Features, ParkedRegs};
use crate::{
    Component, ComponentSet, Rfbm,
    xstate::{AlignedBytes, Area, initial_value},
};
use emulator::{Deviation, LAST_X87_INSTRUCTION, cases_here, keeps_x87_pointers, report_x87_pointers};
use std::{arch::asm, vec, vec::Vec};

fn features() -> Features {
    Features::detect().expect("an x86-64 Linux host")
}

fn parked(features: Features) -> ParkedRegs {
    ParkedRegs::new(features).expect("the handler can be installed")
}

/// Prints the line that CI looks for.
fn ran(name: &str) {
    std::println!("HARDWARE {name}: ran");
}

/// A component's bytes, with zeros for what the CPU does not keep.
fn kept(component: Component, mut bytes: Vec<u8>) -> Vec<u8> {
    if component == Component::X87 && !keeps_x87_pointers() {
        bytes[LAST_X87_INSTRUCTION].fill(0);
    }
    bytes
}

/// MXCSR without its flags, and FCW, of Rust's own code.
fn control_words() -> (u32, u16) {
    let (mut mxcsr, mut fcw) = (0_u32, 0_u16);
    // FWAIT raises what a window may have left pending.
    // SAFETY: two stores to two locals; no register is changed. `nostack`: nothing is pushed.
    unsafe {
        asm!("fwait", "stmxcsr [{}]", "fnstcw [{}]", in(reg) &mut mxcsr, in(reg) &mut fcw, options(nostack));
    };
    (mxcsr & !0x3f, fcw)
}

#[track_caller]
fn assert_rust_is_itself() {
    assert_eq!(control_words(), (0x1f80, 0x037f));
}

/// The components that parked CPUs have, with bytes for each in which no two registers are alike.
fn patterns(features: Features, number: u8) -> Vec<(Component, Vec<u8>)> {
    let of = |component: Component| {
        let size = features.component_bytes(component).expect("enabled");
        let byte = |n: usize| number ^ (n as u8).wrapping_mul(29) ^ (n / 256) as u8 ^ component.number();
        let mut bytes: Vec<u8> = (0..size).map(byte).collect();
        match component {
            // FCW, FSW with TOP 5 and condition codes, tags, FOP, and FIP and FDP of 32 bits.
            Component::X87 => {
                bytes[..8].copy_from_slice(&[0x7f, 0x0f, 0x00, 0x69, 0x5a, 0, number, 5]);
                bytes[12..16].fill(0);
                bytes[20..24].fill(0);
                bytes[24..].chunks_mut(16).for_each(|st| st[10..].fill(0));
            }
            // Round towards zero, flush to zero, divide-by-zero unmasked.
            Component::SSE => bytes[..4].copy_from_slice(&0xfd80_u32.to_le_bytes()),
            // No reserved bit of BNDCFGU, and nothing enabled.
            Component::BNDCSR => bytes.fill(0),
            _ => {}
        }
        (component, kept(component, bytes))
    };
    features.enabled().iter().map(of).collect()
}

/// Registers with these bytes in them, by moves.
fn filled(features: Features, number: u8) -> ParkedRegs {
    let mut parked = parked(features);
    for (component, bytes) in patterns(features, number) {
        parked.write(component, &bytes).expect("a component that is enabled");
    }
    parked
}

fn read(parked: &ParkedRegs, component: Component) -> Vec<u8> {
    let mut bytes = vec![0; parked.features().component_bytes(component).expect("enabled")];
    parked.read(component, &mut bytes).expect("a component that is enabled");
    kept(component, bytes)
}

/// That moves find these bytes in the components of `rfbm`.
#[track_caller]
fn assert_filled(parked: &ParkedRegs, rfbm: Rfbm, number: u8) {
    for (component, bytes) in patterns(parked.features(), number) {
        if rfbm.contains(component) {
            assert_eq!(read(parked, component), bytes, "{component}");
        }
    }
}

#[track_caller]
fn assert_initial(parked: &ParkedRegs, component: Component) {
    let found = read(parked, component);
    assert_eq!(found, initial_value(component, found.len()), "{component}");
}

/// All but one.
fn without(component: Component) -> Rfbm {
    Rfbm::new(ComponentSet::from_bits(u64::MAX).without(component))
}

fn only(component: Component) -> Rfbm {
    Rfbm::new(ComponentSet::EMPTY.with(component))
}

/// What the window's last XSAVE wrote, a witness that is not the programs'.
fn image(parked: &ParkedRegs, component: Component) -> Vec<u8> {
    let area = Area::over(parked.image(), parked.features().layout()).expect("a parked image");
    kept(component, area.component(component).expect("a component that is enabled").into())
}

/// An area with room for everything, whatever the format.
fn room(features: Features) -> AlignedBytes {
    AlignedBytes::zeroed(features.most_bytes().max(576))
}
