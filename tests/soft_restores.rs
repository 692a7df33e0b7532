//! XRSTOR and FXRSTOR of the software register file, and what registers make of what they load:
//! each rule with its section of the Intel SDM (volume 1 unless it says otherwise).

mod cpus;
mod soft;

use cpus::cpu;

use fpuswitch::{
    Component, ComponentSet, Pkru, Rfbm, Value,
    registers::{Fault, Program, RegisterFile, SoftFault, SoftRegs},
    xstate::{Area, Format, Layout, OwnedArea, Refusal, Rounding, SaveInstruction, XcompBv, XstateBv},
};
use soft::*;

/// A form, RFBM, and what is wrong with an image of the initial configuration.
type Broken = (Format, u64, fn(&mut OwnedArea));

/// 13.8.1 and 13.8.2: what becomes of a component, and of MXCSR, by RFBM and XSTATE_BV.
#[test]
fn a_restore_loads_initialises_or_leaves_each_component() {
    const BEFORE: Value = Value::new(1).unwrap();
    let (before, image, initial) = (0x3f80, 0x5f80, 0x1f80);
    #[rustfmt::skip]
    let table: [(Format, u64, u64, u32); 12] = [
        // form, RFBM, XSTATE_BV, MXCSR afterwards
        (Format::Standard, ALL, XCR0, image),
        (Format::Standard, ALL, 0, image),
        (Format::Standard, SSE, 0, image),
        (Format::Standard, AVX, 0, image),
        (Format::Standard, AVX | X87, AVX | SSE, image),
        (Format::Standard, X87 | OPMASK, XCR0, before),
        (Format::Standard, 0, XCR0, before),
        (Format::Compacted, ALL, XCR0, image),
        (Format::Compacted, ALL, 0, initial),
        (Format::Compacted, SSE, X87, initial),
        (Format::Compacted, AVX, SSE | AVX, before),
        (Format::Compacted, HI16_ZMM, OPMASK, before),
    ];
    for (format, mask, xstate_bv, mxcsr) in table {
        let mut regs = SoftRegs::default();
        regs.run(Program::FillAll(BEFORE));
        regs.set_pkru(Pkru(1));
        let mut area = Area::initial(regs.layout(), format);
        let mut other = SoftRegs::default();
        other.run(Program::FillAll(SEVEN));
        other.set_pkru(Pkru(7));
        for component in components(XCR0) {
            area.set_component(component, &other.read_back(component).unwrap()).unwrap();
        }
        area.set_xstate_bv(XstateBv(xstate_bv));
        area.legacy_mut().set_mxcsr(image);
        let mut sse = regs.read_back(Component::SSE).unwrap();
        sse[..4].copy_from_slice(&before.to_le_bytes());
        let mut setup = Area::initial(regs.layout(), Format::Standard);
        setup.set_component(Component::SSE, &sse).unwrap();
        regs.xrstor(rfbm(SSE), &at(), &setup).unwrap();

        regs.xrstor(rfbm(mask), &at(), &area).unwrap();

        let case = format!("{format:?}, RFBM {mask:#x}, XSTATE_BV {xstate_bv:#x}");
        for component in components(XCR0) {
            let bit = 1 << component.number();
            let value = match (mask & bit != 0, xstate_bv & bit != 0) {
                (false, _) => (BEFORE, Pkru(1)),
                (true, false) => (Value::INITIAL, Pkru(0)),
                (true, true) => (SEVEN, Pkru(7)),
            };
            match component {
                Component::PKRU => assert_eq!(regs.pkru(), Some(value.1), "{case}"),
                Component::SSE => {
                    let mut expected = SoftRegs::default();
                    expected.run(Program::Fill(Component::SSE, value.0));
                    let found = regs.read_back(component).unwrap();
                    assert_eq!(found[4..], expected.read_back(component).unwrap()[4..], "XMM, {case}");
                    assert_eq!(found[..4], u32::to_le_bytes(mxcsr), "MXCSR, {case}");
                }
                _ => assert_eq!(regs.get(component), value.0, "{component}, {case}"),
            }
        }
    }
}

/// 13.8.2: also where the compacted image has no place for the component.
#[test]
fn a_component_without_a_place_is_initialised() {
    let mut regs = with(ALL);
    let mut area = Area::initial(regs.layout(), Format::Compacted);
    area.set_xcomp_bv(XcompBv(1 << 63 | X87));
    regs.xrstor(Rfbm::ALL, &at(), &area).unwrap();
    assert_eq!(regs, SoftRegs::default());
}

/// 13.8, 13.8.1, 13.8.2 and volume 2, FXRSTOR: the reasons are those of `Area::check`, which has tests of its
/// own; here, that each form is asked and that nothing changes.
#[test]
fn a_refused_image_changes_nothing() {
    let standard = |change: fn(&mut OwnedArea)| (Format::Standard, ALL, change);
    let compacted = |change: fn(&mut OwnedArea)| (Format::Compacted, ALL, change);
    let mxcsr = Refusal::Mxcsr { mxcsr: 0x8000_1f80, mask: 0xffff };
    let enabled = ComponentSet::from_bits(XCR0);
    let xcomp_bv = XcompBv(1 << 63 | XCR0);
    let table: [(Broken, Refusal); 9] = [
        (
            standard(|area| area.set_xstate_bv(XstateBv(TILECFG))),
            Refusal::NotEnabled { xstate_bv: XstateBv(TILECFG), enabled },
        ),
        (standard(|area| area.set_xcomp_bv(XcompBv(1))), Refusal::XcompBv(XcompBv(1))),
        (
            standard(|area| area.reserved_header_bytes_mut()[7] = 1),
            Refusal::Reserved { offset: 23, value: 1 },
        ),
        (standard(|area| area.legacy_mut().set_mxcsr(0x8000_1f80)), mxcsr),
        // 13.8.1: even for AVX alone, whatever XSTATE_BV says.
        ((Format::Standard, AVX, |area| area.legacy_mut().set_mxcsr(0x8000_1f80)), mxcsr),
        (
            compacted(|area| area.set_xstate_bv(XstateBv(1 << 63))),
            Refusal::NoPlace { xstate_bv: XstateBv(1 << 63), xcomp_bv },
        ),
        (
            compacted(|area| area.set_xcomp_bv(XcompBv(1 << 63 | TILECFG))),
            Refusal::PlaceNotEnabled { xcomp_bv: XcompBv(1 << 63 | TILECFG), enabled },
        ),
        (
            compacted(|area| area.reserved_header_bytes_mut()[47] = 9),
            Refusal::Reserved { offset: 63, value: 9 },
        ),
        (
            compacted(|area| {
                area.set_xstate_bv(XstateBv(SSE));
                area.legacy_mut().set_mxcsr(0x8000_1f80);
            }),
            mxcsr,
        ),
    ];
    for ((format, mask, change), refusal) in table {
        let mut regs = with(ALL);
        let before = regs.clone();
        let mut area = Area::initial(regs.layout(), format);
        change(&mut area);
        let fault = regs.xrstor(rfbm(mask), &at(), &area).unwrap_err();
        assert_eq!(fault, SoftFault::Refused(refusal));
        assert_eq!(Fault::from(fault), Fault::GeneralProtection);
        assert_eq!(regs, before, "{refusal}");
    }
    // MXCSR is not looked at where it is not loaded.
    let mut area = Area::initial(SoftRegs::default().layout(), Format::Standard);
    area.legacy_mut().set_mxcsr(u32::MAX);
    assert_eq!(SoftRegs::default().xrstor(rfbm(X87 | OPMASK), &at(), &area), Ok(()));
    // FXRSTOR always looks, and not at the header.
    area.bytes_mut()[HEADER].fill(0xff);
    let mut regs = with(ALL);
    let fault = regs.fxrstor(&at(), &area);
    assert_eq!(fault, Err(SoftFault::Refused(Refusal::Mxcsr { mxcsr: u32::MAX, mask: 0xffff })));
    assert_eq!(regs, with(ALL));
    area.legacy_mut().set_mxcsr(0x1f80);
    regs.fxrstor(&at(), &area).unwrap();
    assert_eq!(regs.get(Component::AVX), SEVEN);
    assert_eq!(regs.get(Component::SSE), Value::INITIAL);
}

/// 10.5.1 and 13.5.1: FOP, FIP and FDP are what was loaded, with an exception pending and with none.
#[test]
fn registers_keep_the_last_x87_instruction() {
    let pointers = b"\x5a\x05FIP-bitsFDP-bits";
    for (fcw, fsw) in [(0x037f_u16, 0_u16), (0x0340, 0x8081)] {
        for format in [Format::Fxsave, Format::Standard, Format::Compacted] {
            let mut regs = SoftRegs::default();
            let mut x87 = regs.read_back(Component::X87).unwrap();
            x87[..2].copy_from_slice(&fcw.to_le_bytes());
            x87[2..4].copy_from_slice(&fsw.to_le_bytes());
            x87[6..24].copy_from_slice(pointers);
            let mut area = Area::initial(regs.layout(), format);
            area.set_component(Component::X87, &x87).unwrap();
            restore(&mut regs, Rfbm::ALL, &area).unwrap();
            assert_eq!(regs.read_back(Component::X87).unwrap(), x87, "{format:?}");
            for instruction in SaveInstruction::ALL {
                let mut saved = area_for(regs.layout(), instruction);
                save(&regs, instruction, Rfbm::ALL, &elsewhere(), &mut saved).unwrap();
                assert_eq!(saved.bytes()[6..24], *pointers, "{format:?}, {instruction}");
            }
        }
    }
}

/// 13.5: what registers lack is dropped; checked against an Intel CPU for x87.
#[test]
fn registers_keep_no_reserved_bits() {
    // With MPX and PKRU.
    let layout = cpu("qemu-max");
    let loaded = |layout: &Layout, component, value: &[u8]| {
        let mut regs = SoftRegs::new(layout);
        let mut area = Area::initial(layout, Format::Standard);
        area.set_component(component, value).unwrap();
        regs.xrstor(Rfbm::ALL, &at(), &area).unwrap();
        let saved = regs.read_back(component).unwrap();
        // And a save writes what is in the registers.
        regs.xsave(Rfbm::ALL, &at(), &mut area).unwrap();
        assert_eq!(*area.component(component).unwrap(), saved);
        saved
    };
    // FCW, FSW and FOP: in, out. ES and B follow from FCW and the exception flags (8.1.3).
    for (fcw, fsw, fop, expected) in [
        (0xffff_u16, 0xffff_u16, 0xffff_u16, (0x1f7f_u16, 0x7f7f_u16, 0x07ff_u16)),
        (0x0000, 0x0000, 0x0000, (0x0040, 0x0000, 0x0000)),
        (0x0340, 0x0001, 0x0123, (0x0340, 0x8081, 0x0123)),
        (0x037f, 0x0001, 0x0123, (0x037f, 0x0001, 0x0123)),
        (0x0340, 0x8080, 0x0000, (0x0340, 0x0000, 0x0000)),
    ] {
        let mut value = SoftRegs::default().read_back(Component::X87).unwrap();
        value[..2].copy_from_slice(&fcw.to_le_bytes());
        value[2..4].copy_from_slice(&fsw.to_le_bytes());
        value[5] = 0xff;
        value[6..8].copy_from_slice(&fop.to_le_bytes());
        value[24..40].fill(0xff);
        let saved = loaded(&layout, Component::X87, &value);
        let half = |n: usize| u16::from_le_bytes([saved[n], saved[n + 1]]);
        assert_eq!((half(0), half(2), half(6)), expected);
        assert_eq!(saved[5], 0);
        assert_eq!((&saved[24..34], &saved[34..40]), (&[0xff; 10][..], &[0; 6][..]));
    }
    // 13.5.7: PKRU has 32 bits.
    assert_eq!(loaded(&layout, Component::PKRU, &[0xff; 8]), [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    // 13.5.4: bits 2 to 11 of BNDCFGU, and what is behind BNDSTATUS.
    let bndcsr = loaded(&layout, Component::BNDCSR, &[0xff; 64]);
    assert_eq!(bndcsr[..3], [0x03, 0xf0, 0xff]);
    assert_eq!(bndcsr[8..], [[0xff; 8].as_slice(), &[0; 48]].concat());

    // Volume 2, LDTILECFG: what it would refuse is loaded as the initial configuration.
    let amx = cpu("sapphire-rapids");
    let mut legal = [0; 64];
    (legal[0], legal[1], legal[16], legal[48], legal[30], legal[55]) = (1, 3, 64, 16, 4, 1);
    assert_eq!(loaded(&amx, Component::TILECFG, &legal), legal);
    for (n, byte) in [(0, 2), (0, 0), (2, 1), (16, 65), (17, 1), (18, 1), (32, 1), (48, 17), (49, 1), (63, 1)]
    {
        let mut illegal = legal;
        illegal[n] = byte;
        assert_eq!(loaded(&amx, Component::TILECFG, &illegal), [0; 64], "byte {n} = {byte}");
    }
}

#[test]
fn programs_change_what_they_say() {
    let layout = cpu("sapphire-rapids");
    for (register, lane, component, byte) in [
        (0, 0, Component::SSE, 4),
        (15, 3, Component::SSE, 4 + 15 * 16 + 12),
        (0, 4, Component::AVX, 0),
        (15, 7, Component::AVX, 252),
        (1, 8, Component::ZMM_HI256, 32),
        (15, 15, Component::ZMM_HI256, 508),
        (16, 0, Component::HI16_ZMM, 0),
        (31, 15, Component::HI16_ZMM, 1020),
    ] {
        let mut regs = SoftRegs::new(&layout);
        let mut expected = regs.read_back(component).unwrap();
        expected[byte..byte + 4].copy_from_slice(&[4, 3, 2, 1]);
        regs.run(Program::ChangeLane { register, lane, value: 0x0102_0304 });
        assert_eq!(regs.read_back(component), Ok(expected), "zmm{register} lane {lane}");
        assert_eq!(regs.in_use(), Ok(ComponentSet::EMPTY.with(component)));
        assert_eq!(regs.get(component), Value::UNSPECIFIED);
    }
    let mut regs = SoftRegs::new(&cpu("qemu-haswell"));
    for (register, lane) in [(0, 8), (16, 0), (32, 0), (0, 16), (255, 255)] {
        regs.run(Program::ChangeLane { register, lane, value: 1 });
    }
    regs.run(Program::Fill(Component::OPMASK, SEVEN));
    regs.run(Program::Clear(Component::TILEDATA));
    assert_eq!(regs, SoftRegs::new(&cpu("qemu-haswell")));
    assert!(regs.read_back(Component::OPMASK).is_err());

    for (rounding, fcw, mxcsr) in [
        (Rounding::Down, 0x077f_u16, 0x3f80_u32),
        (Rounding::Up, 0x0b7f, 0x5f80),
        (Rounding::Zero, 0x0f7f, 0x7f80),
        (Rounding::Nearest, 0x037f, 0x1f80),
    ] {
        regs.run(Program::Round(rounding));
        assert_eq!(regs.read_back(Component::X87).unwrap()[..2], fcw.to_le_bytes());
        assert_eq!(regs.read_back(Component::SSE).unwrap()[..4], mxcsr.to_le_bytes());
    }
    assert_eq!(regs, SoftRegs::new(&cpu("qemu-haswell")));

    let mut regs = with(ALL);
    regs.run(Program::FillAll(Value::KERNEL));
    assert_eq!(regs.pkru(), Some(Pkru(0x5555_5550)), "PKRU is left out");
    for component in components(XCR0 & !PKRU) {
        assert_eq!(regs.get(component), Value::KERNEL);
        regs.run(Program::Clear(component));
    }
    regs.set_pkru(Pkru(0));
    assert_eq!(regs, SoftRegs::default());
}
