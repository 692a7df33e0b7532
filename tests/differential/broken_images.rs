//! Images that are damaged, or claim what they are not.

use super::{
    both, cases,
    emulator::{Deviation, cases_here},
    host, rfbm, same_registers,
};
use fpuswitch::{
    ComponentSet, Rfbm,
    check::{damaged_images, images},
    registers::{Fault, MemoryOperand, RegisterFile, SoftFault},
    xstate::{Area, Format, Refusal, SaveInstruction},
};
use proptest::prelude::*;
use std::cell::Cell;

/// Of which more than a quarter are refused, where there is XSAVE.
const BROKEN_IMAGES: u32 = 4_000;

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

/// Whether it is for the CPU to refuse the image: FXRSTOR has no mask, and is not executed for a part.
fn is_cpus(format: Format, rfbm: Rfbm) -> bool {
    format != Format::Fxsave || ComponentSet::LEGACY.iter().all(|component| rfbm.contains(component))
}

#[test]
fn hardware_refuses_what_the_check_refuses() {
    let Some(host) = host("broken-images") else { return };
    let images_tried = cases_here(BROKEN_IMAGES, 10);
    let instructions: Vec<_> =
        SaveInstruction::ALL.into_iter().filter(|instruction| both(&host, *instruction).is_some()).collect();
    let image = |instruction| {
        let (soft, _) = both(&host, instruction).expect("one of those that are there");
        (Just(instruction), prop_oneof![1 => images(&soft), 11 => damaged_images(&soft)])
    };
    let broken = (proptest::sample::select(instructions).prop_flat_map(image), rfbm());
    let refused = Cell::new(0);
    let same = cases(images_tried).run(&broken, |((instruction, mut image), rfbm)| {
        let (mut soft, mut host) = both(&host, instruction).expect("one of those that are there");
        if Deviation::X87Reserved.is_here() {
            settle_x87(image.area_mut());
        }
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
        // An image that lacks bytes is no #GP: it is refused without a try.
        let ought = match reason {
            None => Ok(()),
            Some(Refusal::Mxcsr { .. }) if Deviation::ReservedMxcsr.is_here() && is_cpus(format, rfbm) => {
                Ok(())
            }
            Some(_) => Err(Fault::GeneralProtection),
        };
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
    let least = images_tried / if host.layout().has_xsave() { 4 } else { 40 };
    assert!((least..images_tried).contains(&refused), "{refused} images were refused");
    println!("HARDWARE broken-images: ran");
    Deviation::ReservedMxcsr.report("broken-images-mxcsr");
    Deviation::X87Reserved.report("broken-images-x87");
}
