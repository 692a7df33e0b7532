//! Faults of the instructions, and what is refused before they can touch memory of others.

use super::*;
use crate::arch::{
    Absent,
    HardwareFault::{GeneralProtection, Page},
    Mapping,
    OpError::{self, Fault, TooShort},
    RestoreOp,
};
use crate::xstate::{SaveInstruction, XcompBv, XsaveFeatures};

/// Where MXCSR is in an area.
const MXCSR: usize = 24;

fn has(features: Features, op: SaveInstruction) -> bool {
    !matches!(filled(features, 0).save(op, Rfbm::ALL, room(features).as_mut()), Err(OpError::Missing(_)))
}

#[test]
fn hardware_a_bad_header_is_a_general_protection_fault() {
    let features = features();
    if !features.layout().has_xsave() {
        std::println!("HARDWARE bad-header: SKIPPED: this CPU has no XSAVE");
        return;
    }
    let mut good = room(features);
    filled(features, 50).save(SaveInstruction::Xsave, Rfbm::ALL, good.as_mut()).unwrap();
    // XSTATE_BV with a bit that no XCR0 has, XCOMP_BV in the standard format, the reserved word behind it.
    for (at, byte) in [(518, 0x40), (520, 1), (528, 1)] {
        let mut parked = filled(features, 60);
        let mut bad = good.clone();
        bad.as_mut()[at] |= byte;
        let result = parked.restore(RestoreOp::Xrstor, Rfbm::ALL, bad.as_ref());
        assert_eq!(result, Err(Fault(GeneralProtection)), "byte {at}");
        assert_rust_is_itself();
        // Whatever is in the registers now, they work on.
        parked.restore(RestoreOp::Xrstor, Rfbm::ALL, good.as_ref()).unwrap();
        assert_filled(&parked, Rfbm::ALL, 50);
    }
    ran("bad-header");
}

#[test]
fn hardware_reserved_bits_of_mxcsr_are_a_general_protection_fault() {
    let features = features();
    let restores =
        [(SaveInstruction::Fxsave, RestoreOp::Fxrstor), (SaveInstruction::Xsave, RestoreOp::Xrstor)];
    for (save, restore) in restores.into_iter().filter(|(save, _)| has(features, *save)) {
        let mut good = room(features);
        filled(features, 50).save(save, Rfbm::ALL, good.as_mut()).unwrap();
        let mut bad = good.clone();
        bad.as_mut()[MXCSR + 3] |= 0x80;
        let mut parked = filled(features, 60);
        let result = parked.restore(restore, Rfbm::ALL, bad.as_ref());
        assert_rust_is_itself();
        if Deviation::ReservedMxcsr.is_here() {
            assert_eq!(result, Ok(()), "{restore:?}");
            assert_eq!(image(&parked, Component::SSE)[..4], bad.as_ref()[MXCSR..MXCSR + 4], "{restore:?}");
        } else {
            assert_eq!(result, Err(Fault(GeneralProtection)), "{restore:?}");
        }
        parked.restore(restore, Rfbm::ALL, good.as_ref()).unwrap();
        assert_filled(&parked, Rfbm::new(ComponentSet::LEGACY), 50);
    }
    Deviation::ReservedMxcsr.report("bad-mxcsr");
}

#[test]
fn hardware_a_misaligned_area_is_a_general_protection_fault() {
    for features in [features(), Features::fxsave_only()] {
        let mut parked = filled(features, 8);
        let mut bytes = AlignedBytes::zeroed(features.most_bytes() + 640);
        for op in SaveInstruction::ALL.into_iter().filter(|op| has(features, *op)) {
            let result = parked.save(op, Rfbm::ALL, &mut bytes.as_mut()[8..]);
            assert_eq!(result, Err(Fault(GeneralProtection)), "{op:?}");
        }
        for op in [RestoreOp::Xrstor, RestoreOp::Fxrstor] {
            if op == RestoreOp::Fxrstor || features.layout().has_xsave() {
                let result = parked.restore(op, Rfbm::ALL, &bytes.as_ref()[8..]);
                assert_eq!(result, Err(Fault(GeneralProtection)), "{op:?}");
            }
        }
        assert_filled(&parked, Rfbm::ALL, 8);
        assert_rust_is_itself();
    }
    ran("misaligned");
}

#[test]
fn hardware_a_page_without_access_is_a_page_fault_at_its_address() {
    for features in [features(), Features::fxsave_only()] {
        let ops = SaveInstruction::ALL.into_iter().filter(|op| has(features, *op));
        for (op, absent) in ops.flat_map(|op| [(op, 0..1), (op, 1..2), (op, 0..2)]) {
            // 256 bytes on the first page: XMM6 and up, and the header, are on the second.
            let mut area = Mapping::new(features, 4096 - 256).unwrap();
            area.set_absent(absent.clone()).unwrap();
            assert_eq!(area.bytes_mut(), Err(Absent));
            // Looking at the bytes gives the instructions no access.
            area.snapshot().unwrap();
            let base = area.address() & !4095;
            let absent = base + absent.start as u64 * 4096..base + absent.end as u64 * 4096;
            let in_absent = |result| match result {
                Err(Fault(Page { address })) => absent.contains(&address),
                _ => false,
            };
            let mut parked = filled(features, 21);
            let result = parked.save(op, Rfbm::ALL, &mut area);
            assert!(in_absent(result), "{op:?} {result:?} {area:?}");
            let restore = if op == SaveInstruction::Fxsave { RestoreOp::Fxrstor } else { RestoreOp::Xrstor };
            let result = parked.restore(restore, Rfbm::ALL, &area);
            assert!(in_absent(result), "{restore:?} {result:?} {area:?}");
            assert_rust_is_itself();
            // The pages come back, and the same instructions work.
            area.set_present().unwrap();
            area.bytes_mut().unwrap().fill(0);
            let parked = filled(features, 22);
            parked.save(op, Rfbm::ALL, &mut area).unwrap();
            let mut other = filled(features, 23);
            other.restore(restore, Rfbm::ALL, &area).unwrap();
            assert_filled(&other, Rfbm::new(ComponentSet::from_bits(3)), 22);
        }
    }
    ran("page-fault");
}

/// Right before a page without access, the bytes that are asked for are enough, and 64 less are not.
#[test]
fn hardware_instructions_touch_no_more_than_is_asked_for() {
    let features = features();
    let parked = filled(features, 4);
    let mut checked = 0;
    for op in SaveInstruction::ALL.into_iter().filter(|op| has(features, *op)) {
        for rfbm in (0..256).map(|bits| Rfbm::new(ComponentSet::from_bits(bits))) {
            let Err(TooShort { needed_bytes, found_bytes: 0 }) = parked.save(op, rfbm, &mut [][..]) else {
                panic!("{op:?} of no bytes");
            };
            let mut area = Mapping::new(features, 4096 - needed_bytes).unwrap();
            area.set_absent(1..area.pages()).unwrap();
            assert_eq!(parked.save(op, rfbm, &mut area), Ok(()), "{op:?} {rfbm:?} {needed_bytes}");
            let restore = if op == SaveInstruction::Fxsave { RestoreOp::Fxrstor } else { RestoreOp::Xrstor };
            assert_eq!(parked.clone().restore(restore, rfbm, &area), Ok(()), "{restore:?} {rfbm:?}");
            let image = area.snapshot().unwrap()[..needed_bytes].to_vec();
            let mut short = AlignedBytes::zeroed(needed_bytes - 64);
            let length = short.as_ref().len();
            short.as_mut().copy_from_slice(&image[..length]);
            let refused = Err(TooShort { needed_bytes, found_bytes: length });
            assert_eq!(parked.save(op, rfbm, short.as_mut()), refused, "{op:?} {rfbm:?}");
            assert_eq!(
                parked.clone().restore(restore, rfbm, short.as_ref()),
                match op {
                    // The header itself is cut off; then nobody knows what would be needed.
                    _ if length < 576 && op != SaveInstruction::Fxsave =>
                        Err(TooShort { needed_bytes: 576, found_bytes: length }),
                    _ => refused,
                }
            );
            checked += 1;
        }
    }
    assert!(checked >= 256);
    ran("extent");
}

#[test]
fn hardware_a_compacted_image_that_claims_more_than_there_is_is_refused() {
    let features = features();
    let full =
        features.host_layout().compacted_size_bytes(XcompBv::compacted(features.host_layout().enabled()));
    if !features.layout().features().contains(XsaveFeatures::XSAVEC) || full.unwrap() <= 576 {
        std::println!("HARDWARE compacted-extent: SKIPPED: this CPU has no XSAVEC");
        return;
    }
    let (needed_bytes, mut parked) = (full.unwrap(), filled(features, 3));
    let mut area = AlignedBytes::zeroed(needed_bytes - 1);
    area.as_mut()[520..528]
        .copy_from_slice(&(1 << 63 | features.host_layout().enabled().bits()).to_le_bytes());
    // RFBM asks for nothing of it, and XSTATE_BV is empty: still.
    let refused = Err(TooShort { needed_bytes, found_bytes: needed_bytes - 1 });
    assert_eq!(parked.restore(RestoreOp::Xrstor, Rfbm::new(ComponentSet::EMPTY), area.as_ref()), refused);
    // What no XCR0 has is up to the CPU.
    let mut area = AlignedBytes::zeroed(needed_bytes);
    area.as_mut()[520..528].copy_from_slice(&u64::MAX.to_le_bytes());
    let result = parked.restore(RestoreOp::Xrstor, Rfbm::ALL, area.as_ref());
    assert_eq!(result, Err(Fault(GeneralProtection)));
    assert_rust_is_itself();
    ran("compacted-extent");
}

#[test]
fn a_mapping_keeps_its_content_while_pages_are_absent() {
    let mut area = Mapping::new(features(), 4096 - 64).unwrap();
    let pages = area.pages();
    area.bytes_mut().unwrap().iter_mut().enumerate().for_each(|(n, byte)| *byte = n as u8 ^ (n >> 8) as u8);
    let content = area.snapshot().unwrap();
    for absent in [0..0, 0..1, 1..pages, 0..usize::MAX, pages..pages + 3] {
        area.set_absent(absent.clone()).unwrap();
        let some = absent.start < pages && !absent.is_empty();
        assert_eq!(area.bytes_mut() == Err(Absent), some);
        assert_eq!(area.snapshot().unwrap(), content);
        let mut clone = area.try_clone().unwrap();
        assert_eq!((clone.absent(), clone.pages()), (area.absent(), pages));
        clone.set_present().unwrap();
        assert_eq!(clone.bytes_mut().unwrap(), content);
        clone.bytes_mut().unwrap().fill(0);
        assert_eq!(area.snapshot().unwrap(), content);
    }
}
