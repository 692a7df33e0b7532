//! Images that are damaged, or claim what they are not.

use super::{both, cases, emulator::is_qemu_tcg, host, program, rfbm, same_registers};
use fpuswitch::{
    Component, Rfbm,
    registers::{Fault, MemoryOperand, RegisterFile, SoftFault},
    xstate::{Area, Format, Refusal, SaveInstruction, XcompBv, XstateBv},
};
use proptest::{prelude::*, sample::Index};
use std::cell::Cell;

/// Of which more than 1 000 are refused, where there is XSAVE.
const BROKEN_IMAGES: u32 = 4_000;

/// Damage to an image, or to what it claims.
#[derive(Clone, Debug)]
enum Damage {
    XstateBv(u64),
    XcompBv(u64),
    Compacted(u64),
    Reserved(Index, u8),
    Mxcsr(u32),
    Fcw(u16),
    Fsw(u16),
    None,
}

impl Damage {
    fn apply(&self, area: &mut Area<impl AsRef<[u8]> + AsMut<[u8]>>) {
        match self {
            Self::XstateBv(bits) => area.set_xstate_bv(XstateBv(area.xstate_bv().0 ^ bits)),
            Self::XcompBv(bits) => area.set_xcomp_bv(XcompBv(area.xcomp_bv().0 ^ bits)),
            Self::Compacted(bits) => area.set_xcomp_bv(XcompBv(1 << 63 | bits)),
            Self::Reserved(at, value) => {
                let bytes = area.reserved_header_bytes_mut();
                if !bytes.is_empty() {
                    *at.get_mut(bytes) = *value;
                }
            }
            Self::Mxcsr(bits) => {
                let mxcsr = area.legacy().mxcsr();
                area.legacy_mut().set_mxcsr(mxcsr ^ bits);
            }
            // Unmasked, and pending: nothing that a restore looks at.
            Self::Fcw(fcw) => area.legacy_mut().set_fcw(*fcw),
            Self::Fsw(fsw) => area.legacy_mut().set_fsw(*fsw),
            Self::None => {}
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let bit = || prop_oneof![(0..8_u32), (0..64_u32)].prop_map(|bit| 1_u64 << bit);
    prop_oneof![
        3 => bit().prop_map(Damage::XstateBv),
        1 => bit().prop_map(Damage::XcompBv),
        1 => prop_oneof![0..0x100_u64, any::<u64>()].prop_map(Damage::Compacted),
        1 => (any::<Index>(), 1..=u8::MAX).prop_map(|(at, value)| Damage::Reserved(at, value)),
        2 => (0..32_u32).prop_map(|bit| Damage::Mxcsr(1 << bit)),
        1 => any::<u16>().prop_map(Damage::Fcw),
        1 => any::<u16>().prop_map(Damage::Fsw),
        1 => Just(Damage::None),
    ]
}

/// Gives reserved bits of FCW, and ES and B of FSW, the values that a CPU gives them.
fn settle_x87(area: &mut Area<impl AsRef<[u8]> + AsMut<[u8]>>) {
    const EXCEPTIONS: u16 = 0x3f;
    const ES_AND_BUSY: u16 = 0x8080;
    let fcw = area.legacy().fcw() & 0x1f3f | 0x40;
    let fsw = area.legacy().fsw() & !ES_AND_BUSY;
    let is_pending = fsw & !fcw & EXCEPTIONS != 0;
    area.legacy_mut().set_fcw(fcw);
    area.legacy_mut().set_fsw(if is_pending { fsw | ES_AND_BUSY } else { fsw });
}

#[test]
fn hardware_refuses_what_the_check_refuses() {
    let Some(host) = host("broken-images") else { return };
    let is_qemu_tcg = is_qemu_tcg();
    if is_qemu_tcg && !host.layout().has_xsave() {
        println!(
            "HARDWARE broken-images: SKIPPED: QEMU's CPU takes reserved bits of MXCSR, and has no XSAVE"
        );
        return;
    }
    let enabled: Vec<_> = host.layout().enabled().without(Component::PKRU).iter().collect();
    let instructions: Vec<_> =
        SaveInstruction::ALL.into_iter().filter(|instruction| both(&host, *instruction).is_some()).collect();
    let broken = (
        proptest::sample::select(instructions),
        proptest::collection::vec(program(enabled), 0..4),
        proptest::collection::vec(damage(), 1..=3),
        rfbm(),
    );
    let refused = Cell::new(0);
    let same = cases(BROKEN_IMAGES).run(&broken, |(instruction, programs, damages, rfbm)| {
        let (mut soft, mut host) = both(&host, instruction).expect("one of those that are there");
        programs.iter().for_each(|program| soft.run(*program));
        let mut image = soft.new_image();
        soft.save(Rfbm::ALL, &mut image);
        damages.iter().for_each(|damage| damage.apply(image.area_mut()));
        if is_qemu_tcg {
            settle_x87(image.area_mut());
        }

        soft.reset();
        let format = image.area().format();
        let reason = image.area().check(format, rfbm).err();
        let restored = match format {
            Format::Fxsave => soft.fxrstor(&MemoryOperand::default(), image.area()),
            Format::Standard | Format::Compacted => {
                soft.xrstor(rfbm, &MemoryOperand::default(), image.area())
            }
        };
        prop_assert_eq!(restored.err(), reason.map(SoftFault::Refused));
        let real = host.restore(rfbm, &image);
        if is_qemu_tcg && matches!(reason, Some(Refusal::Mxcsr { .. })) {
            return Ok(());
        }
        // An image that lacks bytes is no #GP: it is refused without a try.
        let ought = reason.map_or(Ok(()), |_| Err(Fault::GeneralProtection));
        prop_assert_eq!(real, ought, "{:?}", reason);
        if reason.is_none() && format != Format::Fxsave {
            same_registers(&soft, &host)?;
        }
        if let Some(reason) = reason {
            refused.set(refused.get() + u32::from(!matches!(reason, Refusal::BeyondEnd { .. })));
        }
        // Whatever is pending in the parked registers, the program that runs here has its own.
        prop_assert_eq!(1.0 / std::hint::black_box(3.0), 1.0 / 3.0);
        Ok(())
    });
    same.unwrap_or_else(|failed| panic!("{failed}"));
    let refused = refused.get();
    // Of an image without a header, MXCSR is all that is looked at.
    let least = if host.layout().has_xsave() { 1_000 } else { 100 };
    assert!((least..BROKEN_IMAGES).contains(&refused), "{refused} images were refused");
    println!("HARDWARE broken-images: ran");
    for (what, quirk) in [
        ("broken-images-mxcsr", "QEMU's CPU takes reserved bits of MXCSR"),
        ("broken-images-x87", "QEMU's CPU keeps reserved bits of FCW, and ES and B of FSW"),
    ] {
        if is_qemu_tcg {
            println!("HARDWARE {what}: SKIPPED: {quirk}");
        } else {
            println!("HARDWARE {what}: ran");
        }
    }
}
