//! What the tests of the software register file's instructions share: the bits, and registers that hold
//! something.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use fpuswitch::{
    Component, ComponentSet, Pkru, Rfbm, Value,
    registers::{MemoryOperand, Program, RegisterFile, SoftFault, SoftFrame, SoftRegs, UserFrames},
    xstate::{Area, Format, Layout, OwnedArea, SaveInstruction},
};
use std::ops::Range;

pub(crate) const X87: u64 = 1 << 0;
pub(crate) const SSE: u64 = 1 << 1;
pub(crate) const AVX: u64 = 1 << 2;
pub(crate) const OPMASK: u64 = 1 << 5;
pub(crate) const ZMM_HI256: u64 = 1 << 6;
pub(crate) const HI16_ZMM: u64 = 1 << 7;
pub(crate) const PKRU: u64 = 1 << 9;
pub(crate) const TILECFG: u64 = 1 << 17;
pub(crate) const TILEDATA: u64 = 1 << 18;
/// XCR0 of the default CPU.
pub(crate) const XCR0: u64 = X87 | SSE | AVX | OPMASK | ZMM_HI256 | HI16_ZMM | PKRU;
pub(crate) const ALL: u64 = u64::MAX;
pub(crate) const SEVEN: Value = Value::new(7).unwrap();
pub(crate) const A: Value = SEVEN;
pub(crate) const B: Value = Value::new(90).unwrap();
pub(crate) const PKRUS: [Pkru; 3] = [Pkru(0), Pkru::DEFAULT, Pkru(u32::MAX)];
pub(crate) const HEADER: Range<usize> = 512..576;

pub(crate) fn rfbm(bits: u64) -> Rfbm {
    Rfbm::new(ComponentSet::from_bits(bits))
}

pub(crate) fn components(bits: u64) -> impl Iterator<Item = Component> {
    ComponentSet::from_bits(bits).iter()
}

pub(crate) fn at() -> MemoryOperand {
    MemoryOperand::at(0x1000)
}

pub(crate) fn elsewhere() -> MemoryOperand {
    MemoryOperand::at(0x2000)
}

/// The default CPU with patterns in some components.
pub(crate) fn with(filled: u64) -> SoftRegs {
    let mut regs = SoftRegs::default();
    components(filled & !PKRU).for_each(|component| regs.run(Program::Fill(component, SEVEN)));
    if filled & PKRU != 0 {
        regs.set_pkru(Pkru(0x5555_5550));
    }
    regs
}

pub(crate) fn save(
    regs: &SoftRegs,
    instruction: SaveInstruction,
    mask: Rfbm,
    at: &MemoryOperand,
    area: &mut OwnedArea,
) -> Result<(), SoftFault> {
    match instruction {
        SaveInstruction::Fxsave => regs.fxsave(at, area),
        SaveInstruction::Xsave => regs.xsave(mask, at, area),
        SaveInstruction::Xsavec => regs.xsavec(mask, at, area),
        SaveInstruction::Xsaveopt => regs.xsaveopt(mask, at, area),
    }
}

/// An area whose bytes are all the same, but for XCOMP_BV and the reserved bytes of the header.
pub(crate) fn area_of(layout: &Layout, byte: u8) -> OwnedArea {
    let mut area = Area::initial(layout, Format::Standard);
    area.bytes_mut().fill(byte);
    area.bytes_mut()[520..576].fill(0);
    area
}

/// The instructions of a CPU.
pub(crate) fn instructions(layout: &Layout) -> impl Iterator<Item = SaveInstruction> + '_ {
    SaveInstruction::ALL.into_iter().filter(|instruction| instruction.is_on(layout))
}

/// Every CPU of these, saving with each instruction that it has.
pub(crate) fn every_register_file(
    layouts: impl Iterator<Item = (&'static str, Layout)>,
) -> impl Iterator<Item = (String, SoftRegs)> {
    layouts.flat_map(|(name, layout)| {
        let instructions: Vec<_> = instructions(&layout).collect();
        instructions.into_iter().map(move |instruction| {
            let regs = SoftRegs::new(&layout).with_save_instruction(instruction).unwrap();
            assert_eq!(regs.save_instruction(), instruction);
            (format!("{name} with {instruction}"), regs)
        })
    })
}

/// An area for the instruction.
pub(crate) fn area_for(layout: &Layout, instruction: SaveInstruction) -> OwnedArea {
    Area::initial(layout, if layout.has_xsave() { instruction.format() } else { Format::Fxsave })
}

pub(crate) fn restore(regs: &mut SoftRegs, rfbm: Rfbm, area: &OwnedArea) -> Result<(), SoftFault> {
    if area.format() == Format::Fxsave { regs.fxrstor(&at(), area) } else { regs.xrstor(rfbm, &at(), area) }
}

/// Registers with a value in every component.
pub(crate) fn filled(blank: &SoftRegs, value: Value) -> SoftRegs {
    let mut regs = blank.clone();
    regs.run(Program::FillAll(value));
    regs
}

/// A frame that these registers are saved to.
pub(crate) fn frame_of(regs: &SoftRegs) -> SoftFrame {
    let mut frame = regs.new_frame();
    regs.save_user(Rfbm::ALL, &mut frame).unwrap();
    frame
}

/// All components but PKRU.
pub(crate) fn without_pkru(regs: &SoftRegs) -> ComponentSet {
    regs.enabled().without(Component::PKRU)
}

pub(crate) fn old() -> SoftRegs {
    SoftRegs::new(&Layout::fxsave_only())
}

/// Registers whose components have `a`, but for those in `rest`.
pub(crate) fn assert_values(regs: &SoftRegs, a: ComponentSet, rest: Value, what: &str) {
    for component in without_pkru(regs).iter() {
        let expected = if a.contains(component) { A } else { rest };
        assert_eq!(regs.get(component), expected, "{what}, {component}");
    }
}
