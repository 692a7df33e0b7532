//! XINUSE, XMODIFIED and XRSTOR_INFO of the software register file:
//! each rule with its section of the Intel SDM (volume 1 unless it says otherwise).

mod cpus;
mod soft;

use cpus::cpu;

use fpuswitch::{
    Component, ComponentSet, Pkru, Rfbm,
    registers::{MemoryOperand, Program, RegisterFile, SoftFault, SoftRegs},
    xstate::{Area, Format, OwnedArea, Rounding, XstateBv},
};
use soft::*;

/// 13.6 and 13.8.3. Seen on an Intel CPU: E7H after XRSTOR of initial values with all bits set, 0 after XRSTOR
/// with none set, 2 for MXCSR alone.
#[test]
fn xinuse_tells_what_is_in_use() {
    let xinuse = |regs: &SoftRegs| regs.xinuse().unwrap().bits();
    assert_eq!(xinuse(&with(0)), 0);
    assert_eq!(xinuse(&with(AVX | PKRU)), AVX | PKRU);
    assert_eq!(xinuse(&with(ALL)), XCR0);

    let mut regs = SoftRegs::default();
    regs.run(Program::Round(Rounding::Zero));
    assert_eq!(xinuse(&regs), X87 | SSE);

    // Loaded is in use, whatever the value.
    let mut area = Area::initial(regs.layout(), Format::Standard);
    area.set_xstate_bv(XstateBv(XCR0));
    regs.xrstor(rfbm(SSE | AVX | PKRU), &at(), &area).unwrap();
    assert_eq!(xinuse(&regs), X87 | SSE | AVX | PKRU);
    // RFBM[i] = 0: not changed.
    area.set_xstate_bv(XstateBv(0));
    regs.xrstor(rfbm(AVX), &at(), &area).unwrap();
    assert_eq!(xinuse(&regs), X87 | SSE | PKRU);
    // Written by software.
    regs.set_pkru(Pkru(0));
    regs.run(Program::Clear(Component::SSE));
    assert_eq!(xinuse(&regs), X87);
    assert_eq!(regs.in_use(), Ok(ComponentSet::from_bits(X87)));

    let old = SoftRegs::new(&cpu("qemu-haswell"));
    assert_eq!(old.xinuse(), Err(SoftFault::NoExtendedControlRegister(1)));
    assert!(old.in_use().is_err());
}

/// 13.9: XSAVEOPT relies on what the last XRSTOR found at the address, and software
/// that changes the image there is not noticed.
#[test]
fn xsaveopt_keeps_an_edit_that_was_made_behind_its_back() {
    let edited = [9; 256];
    let restored_and_edited = |regs: &mut SoftRegs| {
        let mut area = Area::initial(regs.layout(), Format::Standard);
        with(AVX).xsave(Rfbm::ALL, &at(), &mut area).unwrap();
        regs.xrstor(Rfbm::ALL, &at(), &area).unwrap();
        area.set_component(Component::AVX, &edited).unwrap();
        area
    };
    let avx = |area: &OwnedArea| area.component(Component::AVX).unwrap().into_owned();
    let expected = with(AVX).read_back(Component::AVX).unwrap();

    let mut regs = SoftRegs::default();
    let mut area = restored_and_edited(&mut regs);
    regs.xsaveopt(Rfbm::ALL, &at(), &mut area).unwrap();
    assert_eq!(regs.read_back(Component::AVX).unwrap(), expected);
    assert_eq!(avx(&area), edited, "the registers are not in the image");

    // The modified optimisation is not used …
    type Between = fn(&mut SoftRegs);
    let between: [(&str, Between); 6] = [
        ("after a write", |regs| regs.run(Program::Fill(Component::AVX, SEVEN))),
        ("after an XRSTOR from another address", |regs| {
            let area = Area::initial(regs.layout(), Format::Standard);
            regs.xrstor(rfbm(X87), &elsewhere(), &area).unwrap();
        }),
        ("after an XRSTOR without the component", |regs| {
            let area = Area::initial(regs.layout(), Format::Standard);
            regs.xrstor(rfbm(X87), &at(), &area).unwrap();
        }),
        ("after another XRSTOR from there", |regs| {
            let mut area = Area::initial(regs.layout(), Format::Standard);
            with(AVX).xsave(Rfbm::ALL, &at(), &mut area).unwrap();
            regs.xrstor(Rfbm::ALL, &elsewhere(), &area).unwrap();
        }),
        ("after a torn XRSTOR", |regs| {
            let mut area = Area::initial(regs.layout(), Format::Standard);
            with(AVX).xsave(Rfbm::ALL, &at(), &mut area).unwrap();
            let cut = MemoryOperand { present: 0..831, ..elsewhere() };
            *regs = regs.clone().with_torn_restores(true);
            assert_eq!(regs.xrstor(rfbm(AVX), &cut, &area), Err(SoftFault::Page(831)));
        }),
        ("after the compacted form", |regs| {
            let mut area = Area::initial(regs.layout(), Format::Compacted);
            regs.xsavec(Rfbm::ALL, &at(), &mut area).unwrap();
            regs.xrstor(Rfbm::ALL, &at(), &area).unwrap();
        }),
    ];
    for (name, between) in between {
        let mut regs = SoftRegs::default();
        let mut area = restored_and_edited(&mut regs);
        between(&mut regs);
        regs.xsaveopt(Rfbm::ALL, &at(), &mut area).unwrap();
        assert_eq!(avx(&area), expected, "{name}");
    }
    // … and nor at another address or by another instruction.
    let mut area = restored_and_edited(&mut regs);
    regs.xsaveopt(Rfbm::ALL, &elsewhere(), &mut area).unwrap();
    assert_eq!(avx(&area), expected);
    let mut area = restored_and_edited(&mut regs);
    regs.xsave(Rfbm::ALL, &at(), &mut area).unwrap();
    assert_eq!(avx(&area), expected);

    // FXRSTOR modifies x87 and SSE.
    let mut other = Area::initial(regs.layout(), Format::Standard);
    with(X87 | SSE).fxsave(&at(), &mut other).unwrap();
    regs.fxrstor(&elsewhere(), &other).unwrap();
    regs.xsaveopt(Rfbm::ALL, &at(), &mut area).unwrap();
    for component in components(X87 | SSE) {
        assert_eq!(area.component(component).unwrap().into_owned(), regs.read_back(component).unwrap());
    }
}
