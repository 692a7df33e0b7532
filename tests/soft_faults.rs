//! #PF, #UD, #NM and misaligned areas on the software register file:
//! each rule with its section of the Intel SDM (volume 1 unless it says otherwise).

mod cpus;
mod soft;

use cpus::cpu;

use fpuswitch::{
    Component, ComponentSet, Pkru, Rfbm, Value,
    registers::{Fault, MemoryOperand, Program, RegisterFile, SoftFault, SoftFrame, SoftRegs, UserFrames},
    xstate::{Area, Format, Layout, Refusal, SaveInstruction, XcompBv, XstateBv},
};
use soft::*;
use std::ops::Range;

type Access = Result<(), SoftFault>;

/// 13.13: the components at hand are accessed, no others; each number is the first byte that must be present
/// and is not.
#[test]
fn an_absent_byte_faults_if_it_is_accessed() {
    use SaveInstruction::{Fxsave, Xsave, Xsavec, Xsaveopt};
    let (full, avx) = (with(ALL), with(AVX));
    let fault = |byte| Err(SoftFault::Page(byte));
    #[rustfmt::skip]
    let saves: [(&SoftRegs, SaveInstruction, u64, Range<usize>, Access); 14] = [
        (&full, Fxsave, ALL, 0..416, Ok(())),
        (&full, Fxsave, ALL, 0..415, fault(415)),
        (&full, Fxsave, ALL, 16..512, fault(0)),
        (&full, Xsave, ALL, 0..2696, Ok(())),
        (&full, Xsave, ALL, 0..2695, fault(2695)),
        (&full, Xsave, ALL, 0..1024, fault(1088)),
        (&full, Xsave, X87 | SSE, 0..576, Ok(())),
        (&full, Xsave, 0, 0..512, fault(512)),
        (&full, Xsave, OPMASK, 512..1152, Ok(())),
        (&full, Xsave, AVX, 512..4096, fault(24)),
        (&avx, Xsavec, ALL, 512..832, Ok(())),
        (&avx, Xsavec, ALL, 512..831, fault(831)),
        (&avx, Xsaveopt, ALL, 24..832, Ok(())),
        (&avx, Xsaveopt, OPMASK, 512..576, Ok(())),
    ];
    for (regs, instruction, mask, present, expected) in saves {
        let mut area = area_of(regs.layout(), 0xee);
        let before = area.clone();
        let at = MemoryOperand { present: present.clone(), ..at() };
        let result = save(regs, instruction, rfbm(mask), &at, &mut area);
        assert_eq!(result, expected, "{instruction} {mask:#x}, present {present:?}");
        assert!(result.is_ok() || area.bytes() == before.bytes(), "nothing is written");
    }

    #[rustfmt::skip]
    let restores: [(Format, u64, u64, Range<usize>, Access); 11] = [
        (Format::Standard, ALL, XCR0, 0..2696, Ok(())),
        (Format::Standard, ALL, XCR0, 0..2695, fault(2695)),
        (Format::Standard, ALL, XCR0, 0..575, fault(575)),
        (Format::Standard, ALL, XCR0 & !PKRU, 0..2688, Ok(())),
        (Format::Standard, ALL, 0, 24..576, Ok(())),
        (Format::Standard, ALL, 0, 32..576, fault(24)),
        (Format::Standard, OPMASK, XCR0, 512..1152, Ok(())),
        (Format::Compacted, ALL, 0, 512..576, Ok(())),
        (Format::Compacted, ALL, XCR0, 0..2440, Ok(())),
        (Format::Compacted, ALL, XCR0, 0..2439, fault(2439)),
        (Format::Compacted, X87, XCR0, 32..2440, fault(0)),
    ];
    for (format, mask, xstate_bv, present, expected) in restores {
        let mut regs = with(ALL);
        let before = regs.clone();
        let mut area = Area::initial(regs.layout(), format);
        area.set_xstate_bv(XstateBv(xstate_bv));
        let at = MemoryOperand { present: present.clone(), ..at() };
        let result = regs.xrstor(rfbm(mask), &at, &area);
        assert_eq!(result, expected, "{format:?}, {mask:#x}, {xstate_bv:#x}, present {present:?}");
        assert!(result.is_ok() || regs == before, "nothing is changed");
        assert!(result.is_ok() || result.map_err(Fault::from) == Err(Fault::Page));
    }
}

/// The order is the manual's only in part: the header says what is accessed.
#[test]
fn the_header_is_looked_at_first_and_nothing_that_is_absent() {
    let mut regs = with(ALL);
    let mut area = Area::initial(regs.layout(), Format::Standard);
    area.legacy_mut().set_mxcsr(u32::MAX);
    let without_mxcsr = MemoryOperand { present: 32..4096, ..at() };
    assert_eq!(regs.xrstor(Rfbm::ALL, &without_mxcsr, &area), Err(SoftFault::Page(24)));
    assert_eq!(regs.fxrstor(&without_mxcsr, &area), Err(SoftFault::Page(24)));
    area.reserved_header_bytes_mut()[0] = 1;
    let refused = Err(SoftFault::Refused(Refusal::Reserved { offset: 16, value: 1 }));
    assert_eq!(regs.xrstor(Rfbm::ALL, &without_mxcsr, &area), refused);
    assert_eq!(regs, with(ALL));
}

/// The registers are unspecified after a restore that faulted: this is one of the states that can be.
#[test]
fn a_torn_restore_has_loaded_what_lies_before_the_absent_byte() {
    let mut regs = with(ALL).with_torn_restores(true);
    let area = Area::initial(regs.layout(), Format::Standard);
    // Nothing is known without the header.
    let before = regs.clone();
    assert_eq!(regs.restore_user(Rfbm::ALL, &absent(&regs)), Err(Fault::Page));
    assert_eq!(regs, before);

    let mut full = area.clone();
    full.set_xstate_bv(XstateBv(XCR0));
    let at = MemoryOperand { present: 0..600, ..at() };
    assert_eq!(regs.xrstor(Rfbm::ALL, &at, &full), Err(SoftFault::Page(600)));
    assert_eq!(regs.get(Component::X87), Value::INITIAL);
    assert_eq!(regs.get(Component::AVX), Value::UNSPECIFIED);
    let (torn, whole) = (regs.read_back(Component::AVX).unwrap(), before.read_back(Component::AVX).unwrap());
    assert_eq!((&torn[..24], &torn[24..]), (&[0; 24][..], &whole[24..]));
    assert_eq!(regs.get(Component::OPMASK), SEVEN);
}

fn absent(regs: &SoftRegs) -> SoftFrame {
    let mut frame = regs.new_frame();
    frame.set_present(0..0);
    frame
}

/// 13.14.
#[test]
fn xfd_disables_components() {
    let layout = cpu("sapphire-rapids");
    let tiledata = ComponentSet::from_bits(TILEDATA);
    let mut regs = SoftRegs::new(&layout);
    regs.run(Program::FillAll(SEVEN));
    assert_eq!(regs.xfd(), Ok(ComponentSet::EMPTY));
    assert!(regs.set_xfd(ComponentSet::from_bits(AVX)).is_err(), "AVX is not dynamic");
    regs.set_xfd(tiledata).unwrap();

    // A use: #NM, and IA32_XFD_ERR.
    assert_eq!(regs.require(ComponentSet::from_bits(AVX | TILECFG)), Ok(()));
    assert_eq!(regs.xfd_err(), ComponentSet::EMPTY);
    let fault = regs.require(ComponentSet::from_bits(AVX | TILEDATA)).unwrap_err();
    assert_eq!(fault, SoftFault::DeviceNotAvailable(tiledata));
    assert_eq!(Fault::from(fault), Fault::DeviceNotAvailable);
    assert_eq!(regs.xfd_err(), tiledata);
    regs.set_xfd_err(ComponentSet::EMPTY);
    let before = regs.clone();
    regs.run(Program::Fill(Component::TILEDATA, Value::KERNEL));
    regs.run(Program::Clear(Component::TILEDATA));
    assert_eq!(regs, before);

    // Saves: as if in its initial configuration; XSAVE writes that, the others leave the bytes. (The tiles are
    // at 2816, and in that compacted image would be at 640.)
    let tiles = 2816..640 + 8192;
    for (instruction, written) in
        [(SaveInstruction::Xsave, true), (SaveInstruction::Xsaveopt, false), (SaveInstruction::Xsavec, false)]
    {
        let mut area = area_of(&layout, 0xee);
        area.set_xstate_bv(XstateBv(0));
        save(&regs, instruction, rfbm(TILECFG | TILEDATA), &at(), &mut area).unwrap();
        assert_eq!(area.xstate_bv(), XstateBv(TILECFG), "{instruction}");
        let expected = if written { 0 } else { 0xee };
        assert!(area.bytes()[tiles.clone()].iter().all(|byte| *byte == expected), "{instruction}");
    }

    // A restore: #NM to load it, none to initialise it.
    let mut area = Area::initial(&layout, Format::Standard);
    area.set_component(Component::TILEDATA, &[3; 8192]).unwrap();
    let before = regs.clone();
    let fault = regs.xrstor(Rfbm::ALL, &at(), &area);
    assert_eq!(fault, Err(SoftFault::DeviceNotAvailable(tiledata)));
    assert_eq!(regs.xfd_err(), tiledata);
    assert_eq!(regs.read_back(Component::AVX), before.read_back(Component::AVX));
    assert_eq!(regs.xrstor(rfbm(X87 | AVX), &at(), &area), Ok(()), "not in RFBM");
    area.set_xstate_bv(XstateBv(0));
    assert_eq!(regs.xinuse().map(|set| set.bits() & TILEDATA), Ok(TILEDATA), "XFD makes no difference");
    assert_eq!(regs.xrstor(Rfbm::ALL, &at(), &area), Ok(()));
    assert_eq!(regs.xinuse().map(|set| set.bits() & TILEDATA), Ok(0));

    let mut without = SoftRegs::new(&cpu("qemu-max"));
    assert!(without.xfd().is_err());
    assert!(without.set_xfd(ComponentSet::EMPTY).is_err());
}

#[test]
fn an_instruction_that_the_cpu_lacks_is_ud() {
    let ud = |name| Err(SoftFault::InvalidOpcode(name));
    let mut old = SoftRegs::new(&Layout::fxsave_only());
    let mut area = Area::initial(SoftRegs::default().layout(), Format::Standard);
    assert_eq!(old.xsave(Rfbm::ALL, &at(), &mut area), ud("XSAVE"));
    assert_eq!(old.xsavec(Rfbm::ALL, &at(), &mut area), ud("XSAVEC"));
    assert_eq!(old.xsaveopt(Rfbm::ALL, &at(), &mut area), ud("XSAVEOPT"));
    assert_eq!(old.xrstor(Rfbm::ALL, &at(), &area), ud("XRSTOR"));
    assert_eq!(old.xinuse(), Err(SoftFault::InvalidOpcode("XGETBV")));
    assert_eq!(old.rdpkru(), Err(SoftFault::InvalidOpcode("RDPKRU")));
    assert_eq!(old.wrpkru(Pkru(1)), ud("WRPKRU"));
    assert_eq!(
        old.require(ComponentSet::from_bits(AVX)),
        Err(SoftFault::NotEnabled(ComponentSet::from_bits(AVX)))
    );
    assert_eq!(Fault::from(old.rdpkru().unwrap_err()), Fault::InvalidOpcode);
    assert_eq!(old.fxsave(&at(), &mut area), Ok(()));

    let haswell = SoftRegs::new(&cpu("qemu-haswell"));
    assert_eq!(haswell.xsavec(Rfbm::ALL, &at(), &mut area), ud("XSAVEC"));
    assert_eq!(haswell.xsaveopt(Rfbm::ALL, &at(), &mut area), Ok(()));
    // 13.8, note 2: without the compacted form an image in it is refused.
    let mut haswell = haswell;
    area.set_xcomp_bv(XcompBv(1 << 63));
    area.set_xstate_bv(XstateBv(0));
    assert_eq!(
        haswell.xrstor(Rfbm::ALL, &at(), &area),
        Err(SoftFault::Refused(Refusal::NoXsavec(XcompBv(1 << 63))))
    );

    let mut regs = SoftRegs::default();
    assert_eq!(regs.wrpkru(Pkru(0x5555_5554)), Ok(()));
    assert_eq!(regs.rdpkru(), Ok(Pkru(0x5555_5554)));
}

/// 13.7 to 13.10: multiples of 64; 10.5: of 16.
#[test]
fn an_area_is_aligned() {
    let mut regs = SoftRegs::default();
    let mut area = Area::initial(regs.layout(), Format::Standard);
    let at = |address| MemoryOperand::at(address);
    for (address, alignment_bytes) in [(0x1010, 64), (0x1020, 64), (0x1001, 64), (0x1038, 64)] {
        let gp = Err(SoftFault::Misaligned { address, alignment_bytes });
        assert_eq!(regs.xsave(Rfbm::ALL, &at(address), &mut area), gp);
        assert_eq!(regs.xsavec(Rfbm::ALL, &at(address), &mut area), gp);
        assert_eq!(regs.xsaveopt(Rfbm::ALL, &at(address), &mut area), gp);
        assert_eq!(regs.xrstor(Rfbm::ALL, &at(address), &area), gp);
    }
    assert_eq!(regs.fxsave(&at(0x1010), &mut area), Ok(()));
    let gp = Err(SoftFault::Misaligned { address: 0x1008, alignment_bytes: 16 });
    assert_eq!(regs.fxsave(&at(0x1008), &mut area), gp);
    assert_eq!(regs.fxrstor(&at(0x1008), &area), gp);
}
