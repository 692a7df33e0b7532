//! XSAVE, XSAVEC, XSAVEOPT and FXSAVE of the software register file:
//! each rule with its section of the Intel SDM (volume 1 unless it says otherwise).

#![allow(clippy::single_range_in_vec_init, reason = "lists of ranges, which may be one")]

mod soft;

use fpuswitch::{
    Component, Rfbm,
    registers::{Program, RegisterFile, SoftRegs},
    xstate::{Rounding, SaveInstruction, XcompBv, XstateBv},
};
use soft::*;
use std::ops::Range;

type Ranges<'a> = &'a [Range<usize>];

/// Which bytes outside the header a save writes: what is there afterwards whatever was there before.
fn written(regs: &SoftRegs, instruction: SaveInstruction, mask: Rfbm) -> Vec<Range<usize>> {
    let [first, second] = [0x11, 0xee].map(|byte| {
        let mut area = area_of(regs.layout(), byte);
        save(regs, instruction, mask, &at(), &mut area).unwrap();
        area
    });
    let is_written = |n: usize| !HEADER.contains(&n) && first.bytes()[n] == second.bytes()[n];
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for n in (0..first.bytes().len()).filter(|n| is_written(*n)) {
        match ranges.last_mut() {
            Some(range) if range.end == n => range.end += 1,
            _ => ranges.push(n..n + 1),
        }
    }
    ranges
}

#[test]
fn each_save_writes_the_bytes_of_its_components_and_no_others() {
    use SaveInstruction::{Fxsave, Xsave, Xsavec, Xsaveopt};
    let rounded = {
        let mut regs = SoftRegs::default();
        regs.run(Program::Round(Rounding::Up));
        regs.run(Program::Clear(Component::X87));
        regs
    };
    let (initial, avx, full) = (with(0), with(AVX), with(ALL));
    #[rustfmt::skip]
    let table: [(&str, &SoftRegs, SaveInstruction, u64, Ranges<'_>); 24] = [
        // 10.5.1: not the reserved bytes from 416 on, nor those for software from 464 on.
        ("FXSAVE", &full, Fxsave, 0, &[0..416]),
        ("FXSAVE, initial", &initial, Fxsave, 0, &[0..416]),
        // 13.7, 13.4.1, 13.4.3: XSAVE saves what RFBM names, in use or not.
        ("XSAVE", &full, Xsave, ALL, &[0..416, 576..832, 1088..2696]),
        ("XSAVE, initial", &initial, Xsave, ALL, &[0..416, 576..832, 1088..2696]),
        ("XSAVE nothing", &full, Xsave, 0, &[]),
        ("XSAVE x87", &full, Xsave, X87, &[0..24, 32..160]),
        ("XSAVE SSE", &full, Xsave, SSE, &[24..32, 160..416]),
        // 13.7: MXCSR and MXCSR_MASK also if RFBM[2] = 1.
        ("XSAVE AVX", &full, Xsave, AVX, &[24..32, 576..832]),
        ("XSAVE opmask", &full, Xsave, OPMASK, &[1088..1152]),
        ("XSAVE PKRU", &full, Xsave, PKRU, &[2688..2696]),
        // What XCR0 does not enable is not in RFBM (13.7).
        ("XSAVE TILEDATA", &full, Xsave, TILEDATA, &[]),
        // 13.10: the init optimisation; the compacted format, with a place for all of RFBM.
        ("XSAVEC, initial", &initial, Xsavec, ALL, &[]),
        ("XSAVEC", &full, Xsavec, ALL, &[0..416, 576..2440]),
        ("XSAVEC opmask, Hi16_ZMM", &full, Xsavec, OPMASK | HI16_ZMM, &[576..640 + 1024]),
        ("XSAVEC, AVX in use", &avx, Xsavec, ALL, &[576..832]),
        ("XSAVEC opmask and PKRU, AVX in use", &avx, Xsavec, OPMASK | PKRU, &[]),
        // 13.10: all of SSE if MXCSR is not 1F80H; RFBM[2] does not count.
        ("XSAVEC, MXCSR", &rounded, Xsavec, ALL, &[24..32, 160..416]),
        ("XSAVEC AVX, MXCSR", &rounded, Xsavec, X87 | AVX, &[]),
        // 13.9: the init optimisation does not apply to MXCSR.
        ("XSAVEOPT, initial", &initial, Xsaveopt, ALL, &[24..32]),
        ("XSAVEOPT", &full, Xsaveopt, ALL, &[0..416, 576..832, 1088..2696]),
        ("XSAVEOPT, AVX in use", &avx, Xsaveopt, ALL, &[24..32, 576..832]),
        ("XSAVEOPT x87, AVX in use", &avx, Xsaveopt, X87, &[]),
        ("XSAVEOPT AVX, initial", &initial, Xsaveopt, AVX, &[24..32]),
        ("XSAVEOPT, MXCSR", &rounded, Xsaveopt, SSE, &[24..32]),
    ];
    for (name, regs, instruction, mask, expected) in table {
        assert_eq!(written(regs, instruction, rfbm(mask)), expected, "{name}");
    }
}

#[test]
fn each_save_writes_its_part_of_the_header() {
    use SaveInstruction::{Fxsave, Xsave, Xsavec, Xsaveopt};
    let mut rounded = SoftRegs::default();
    rounded.run(Program::Round(Rounding::Up));
    let avx = with(AVX);
    let compacted = |bits| 1 << 63 | bits;
    #[rustfmt::skip]
    let table: [(&str, &SoftRegs, SaveInstruction, u64, u64, u64); 12] = [
        ("FXSAVE", &avx, Fxsave, ALL, ALL, ALL),
        // 13.7 and 13.9: XSTATE_BV[i] is not changed where RFBM[i] = 0, XCOMP_BV never.
        ("XSAVE", &avx, Xsave, ALL, !XCR0 | AVX, ALL),
        ("XSAVE SSE", &avx, Xsave, SSE, !SSE, ALL),
        ("XSAVE AVX", &avx, Xsave, AVX, ALL, ALL),
        ("XSAVE nothing", &avx, Xsave, 0, ALL, ALL),
        ("XSAVEOPT", &avx, Xsaveopt, ALL, !XCR0 | AVX, ALL),
        ("XSAVEOPT SSE", &avx, Xsaveopt, SSE, !SSE, ALL),
        // 13.7 and 13.9: XINUSE[1] is about the XMM registers, not MXCSR. Not so in 13.10.
        ("XSAVE, MXCSR", &rounded, Xsave, SSE, !SSE, ALL),
        ("XSAVEOPT, MXCSR", &rounded, Xsaveopt, SSE, !SSE, ALL),
        ("XSAVEC, MXCSR", &rounded, Xsavec, SSE, SSE, compacted(SSE)),
        // 13.10: XSTATE_BV is not read; XCOMP_BV is bit 63 and RFBM.
        ("XSAVEC", &avx, Xsavec, ALL, AVX, compacted(XCR0)),
        ("XSAVEC x87", &avx, Xsavec, X87 | TILECFG, 0, compacted(X87)),
    ];
    for (name, regs, instruction, mask, xstate_bv, xcomp_bv) in table {
        let mut area = area_of(regs.layout(), 0xff);
        area.bytes_mut()[HEADER].fill(0xff);
        save(regs, instruction, rfbm(mask), &at(), &mut area).unwrap();
        assert_eq!(area.xstate_bv(), XstateBv(xstate_bv), "{name}");
        assert_eq!(area.xcomp_bv(), XcompBv(xcomp_bv), "{name}");
        // 13.7, 13.9, 13.10: no other part of the header.
        assert_eq!(area.reserved_header_bytes(), [0xff; 48], "{name}");
    }
}

/// 10.5.1 and 13.4.1: MXCSR_MASK is what the CPU accepts.
#[test]
fn saves_write_the_mask_of_mxcsr() {
    let regs = SoftRegs::new(&SoftRegs::default().layout().with_mxcsr_mask(0x2_ffff));
    for instruction in [SaveInstruction::Fxsave, SaveInstruction::Xsave, SaveInstruction::Xsaveopt] {
        let mut area = area_of(regs.layout(), 0);
        save(&regs, instruction, Rfbm::ALL, &at(), &mut area).unwrap();
        assert_eq!((area.legacy().mxcsr(), area.legacy().mxcsr_mask()), (0x1f80, 0x2_ffff), "{instruction}");
    }
}
