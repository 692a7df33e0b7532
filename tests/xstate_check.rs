//! What a restore refuses, reason by reason, and what a kernel refuses from a user.

mod cpus;

use cpus::{any_bytes, any_format, any_image, cases, cpu, has_format, layouts};
use fpuswitch::{
    Component, ComponentSet, Rfbm,
    xstate::{Area, Format, Layout, OwnedArea, Refusal, XcompBv, XsaveFeatures, XstateBv},
};
use proptest::prelude::*;

type Change = fn(&mut OwnedArea);

/// XCR0 of the CPU in most tests: x87, SSE, AVX and AVX-512.
const ENABLED: u64 = 0xe7;

fn rfbm(bits: u64) -> Rfbm {
    Rfbm::new(ComponentSet::from_bits(bits))
}

fn changed(format: Format, change: Change) -> OwnedArea {
    let mut area = Area::initial(&cpu("emerald-rapids"), format);
    change(&mut area);
    area
}

fn enabled() -> ComponentSet {
    ComponentSet::from_bits(ENABLED)
}

#[test]
fn the_standard_form_refuses_what_the_manual_lists() {
    let rows: &[(&str, Change, u64, Option<Refusal>)] = &[
        ("all bits of XCR0", |a| a.set_xstate_bv(XstateBv(ENABLED)), ENABLED, None),
        (
            "a bit that XCR0 lacks, whatever the mask",
            |a| a.set_xstate_bv(XstateBv(1 << 17)),
            0,
            Some(Refusal::NotEnabled { xstate_bv: XstateBv(1 << 17), enabled: enabled() }),
        ),
        (
            "bit 63",
            |a| a.set_xstate_bv(XstateBv(1 << 63)),
            ENABLED,
            Some(Refusal::NotEnabled { xstate_bv: XstateBv(1 << 63), enabled: enabled() }),
        ),
        ("XCOMP_BV", |a| a.set_xcomp_bv(XcompBv(1)), 0, Some(Refusal::XcompBv(XcompBv(1)))),
        ("byte 16", |a| a.bytes_mut()[528] = 3, 0, Some(Refusal::Reserved { offset: 16, value: 3 })),
        ("byte 23", |a| a.bytes_mut()[535] = 3, 0, Some(Refusal::Reserved { offset: 23, value: 3 })),
        ("byte 24", |a| a.bytes_mut()[536..576].fill(0xff), u64::MAX, None),
        ("MXCSR, x87 alone", |a| a.legacy_mut().set_mxcsr(u32::MAX), 1, None),
        ("MXCSR, all but SSE and AVX", |a| a.legacy_mut().set_mxcsr(u32::MAX), ENABLED & !6, None),
        (
            "MXCSR, SSE, though XSTATE_BV is 0",
            |a| a.legacy_mut().set_mxcsr(0x1_0000),
            2,
            Some(Refusal::Mxcsr { mxcsr: 0x1_0000, mask: 0xffff }),
        ),
        (
            "MXCSR, AVX alone",
            |a| a.legacy_mut().set_mxcsr(1 << 31),
            4,
            Some(Refusal::Mxcsr { mxcsr: 1 << 31, mask: 0xffff }),
        ),
        ("MXCSR that is valid", |a| a.legacy_mut().set_mxcsr(0xffff), ENABLED, None),
        ("what is in a component", |a| a.bytes_mut()[576..].fill(0xff), u64::MAX, None),
        ("what software has", |a| a.bytes_mut()[416..512].fill(0xff), u64::MAX, None),
    ];
    for (what, change, mask, expected) in rows {
        let found = changed(Format::Standard, *change).check(Format::Standard, rfbm(*mask)).err();
        assert_eq!(found, *expected, "{what}");
    }
}

#[test]
fn the_compacted_form_refuses_what_the_manual_lists() {
    const ALL: u64 = 1 << 63 | ENABLED;
    let outside = |xstate_bv, xcomp_bv| {
        Some(Refusal::NoPlace { xstate_bv: XstateBv(xstate_bv), xcomp_bv: XcompBv(xcomp_bv) })
    };
    let rows: &[(&str, Change, u64, Option<Refusal>)] = &[
        ("all bits of XCR0", |a| a.set_xstate_bv(XstateBv(ENABLED)), ENABLED, None),
        (
            "a place for what XCR0 lacks, whatever the mask",
            |a| a.set_xcomp_bv(XcompBv(1 << 63 | 1 << 17)),
            0,
            Some(Refusal::PlaceNotEnabled { xcomp_bv: XcompBv(1 << 63 | 1 << 17), enabled: enabled() }),
        ),
        ("a bit that XCOMP_BV lacks", |a| a.set_xstate_bv(XstateBv(1 << 9)), 0, outside(1 << 9, ALL)),
        ("bit 63", |a| a.set_xstate_bv(XstateBv(1 << 63)), 0, outside(1 << 63, ALL)),
        (
            "x87 and SSE without their bits in XCOMP_BV",
            |a| {
                a.set_xcomp_bv(XcompBv(1 << 63 | 4));
                a.set_xstate_bv(XstateBv(3));
            },
            0,
            outside(3, 1 << 63 | 4),
        ),
        ("no place at all", |a| a.set_xcomp_bv(XcompBv(1 << 63)), u64::MAX, None),
        ("byte 16", |a| a.bytes_mut()[528] = 3, 0, Some(Refusal::Reserved { offset: 16, value: 3 })),
        ("byte 63", |a| a.bytes_mut()[575] = 9, 0, Some(Refusal::Reserved { offset: 63, value: 9 })),
        ("MXCSR where SSE is initial", |a| a.legacy_mut().set_mxcsr(u32::MAX), u64::MAX, None),
        (
            "MXCSR where SSE is in the image",
            |a| {
                a.legacy_mut().set_mxcsr(0x1_0000);
                a.set_xstate_bv(XstateBv(2));
            },
            2,
            Some(Refusal::Mxcsr { mxcsr: 0x1_0000, mask: 0xffff }),
        ),
        (
            "the same with AVX alone in the mask",
            |a| {
                a.legacy_mut().set_mxcsr(0x1_0000);
                a.set_xstate_bv(XstateBv(6));
            },
            4,
            None,
        ),
    ];
    for (what, change, mask, expected) in rows {
        let found = changed(Format::Compacted, *change).check(Format::Compacted, rfbm(*mask)).err();
        assert_eq!(found, *expected, "{what}");
    }
}

#[test]
fn fxrstor_looks_at_mxcsr_and_nothing_else() {
    for (name, layout) in layouts() {
        for format in cpus::FORMATS {
            let mut area = Area::initial(&layout, format);
            if area.bytes().len() >= 576 {
                area.bytes_mut()[512..576].fill(0xff);
            }
            assert_eq!(area.check(Format::Fxsave, rfbm(0)), Ok(()), "{name}");
            area.legacy_mut().set_mxcsr(0x1_0000);
            let refused = Err(Refusal::Mxcsr { mxcsr: 0x1_0000, mask: 0xffff });
            assert_eq!(area.check(Format::Fxsave, rfbm(0)), refused, "{name}");
        }
    }
}

#[test]
fn the_mask_of_mxcsr_is_the_cpus() {
    let with = |mask| Area::initial(&Layout::fxsave_only().with_mxcsr_mask(mask), Format::Fxsave);
    let (mut old, mut amd) = (with(0), with(0x2_ffff));
    old.legacy_mut().set_mxcsr(0x1fc0);
    amd.legacy_mut().set_mxcsr(0x2_1f80);
    assert_eq!(old.check(Format::Fxsave, Rfbm::ALL), Err(Refusal::Mxcsr { mxcsr: 0x1fc0, mask: 0xffbf }));
    assert_eq!(amd.check(Format::Fxsave, Rfbm::ALL), Ok(()));
}

#[test]
fn the_form_is_the_headers() {
    let (standard, compacted) = (Format::Standard, Format::Compacted);
    let layout = cpu("zen4");
    let differs = |asked, found| Err(Refusal::Format { asked, found });
    assert_eq!(Area::initial(&layout, standard).check(compacted, Rfbm::ALL), differs(compacted, standard));
    assert_eq!(Area::initial(&layout, compacted).check(standard, Rfbm::ALL), differs(standard, compacted));
    for asked in [standard, compacted] {
        let headerless = Area::initial(&Layout::fxsave_only(), asked);
        assert_eq!(headerless.check(asked, Rfbm::ALL), differs(asked, Format::Fxsave));
    }
    let old = Area::initial(&cpu("qemu-haswell"), compacted);
    assert_eq!(old.check(compacted, Rfbm::ALL), Err(Refusal::NoXsavec(XcompBv(1 << 63 | 7))));
}

#[test]
fn what_may_be_read_must_be_there_even_where_the_bit_is_clear() {
    let layout = cpu("emerald-rapids");
    for (format, end_bytes, avx_end) in [(Format::Standard, 2688, 832), (Format::Compacted, 2432, 832)] {
        let whole = Area::initial(&layout, format);
        let cut = |len: usize| Area::over(&whole.bytes()[..len], &layout).unwrap();
        assert_eq!(cut(end_bytes).check(format, Rfbm::ALL), Ok(()));
        let component = Component::HI16_ZMM;
        let beyond = Refusal::BeyondEnd { component, end_bytes, found_bytes: end_bytes - 1 };
        assert_eq!(cut(end_bytes - 1).check(format, Rfbm::ALL), Err(beyond));
        // With a mask that leaves it out, up to where the last of the mask ends.
        assert_eq!(cut(avx_end).check(format, rfbm(7)), Ok(()));
        let component = Component::AVX;
        let beyond = Refusal::BeyondEnd { component, end_bytes: avx_end, found_bytes: avx_end - 1 };
        assert_eq!(cut(avx_end - 1).check(format, rfbm(7)), Err(beyond));
        assert_eq!(cut(576).check(format, rfbm(3)), Ok(()));
    }
    // What XCOMP_BV leaves out is not read.
    let mut small = Area::initial(&layout, Format::Compacted);
    small.set_xcomp_bv(XcompBv::compacted(ComponentSet::from_bits(7)));
    assert_eq!(
        Area::over(&small.bytes()[..832], &layout).unwrap().check(Format::Compacted, Rfbm::ALL),
        Ok(())
    );
}

#[test]
fn reasons_come_in_the_order_of_the_manual() {
    // Everything is wrong; each step mends the reason that was given.
    let layout = cpu("emerald-rapids");
    let mut bytes = vec![0xff; 2687];
    let mut area = Area::over(&mut bytes[..], &layout).unwrap();
    let standard = |area: &Area<&mut [u8]>| area.check(Format::Standard, Rfbm::ALL).unwrap_err();
    assert!(matches!(standard(&area), Refusal::Format { .. }));
    area.set_xcomp_bv(XcompBv(1));
    assert!(matches!(standard(&area), Refusal::NotEnabled { .. }));
    area.set_xstate_bv(XstateBv(ENABLED));
    assert!(matches!(standard(&area), Refusal::XcompBv(_)));
    area.set_xcomp_bv(XcompBv(0));
    assert!(matches!(standard(&area), Refusal::Reserved { offset: 16, .. }));
    area.bytes_mut()[528..536].fill(0);
    assert!(matches!(standard(&area), Refusal::Mxcsr { .. }));
    area.legacy_mut().set_mxcsr(0);
    assert!(matches!(standard(&area), Refusal::BeyondEnd { component: Component::HI16_ZMM, .. }));

    let haswell = cpu("qemu-haswell");
    let old = Area::over(&[0xff; 832][..], &haswell).unwrap();
    assert_eq!(old.check(Format::Compacted, Rfbm::ALL), Err(Refusal::NoXsavec(XcompBv(u64::MAX))));

    area.bytes_mut().fill(0xff);
    let compacted = |area: &Area<&mut [u8]>| area.check(Format::Compacted, Rfbm::ALL).unwrap_err();
    assert!(matches!(compacted(&area), Refusal::PlaceNotEnabled { .. }));
    area.set_xcomp_bv(XcompBv::compacted(enabled()));
    assert!(matches!(compacted(&area), Refusal::NoPlace { .. }));
    area.set_xstate_bv(XstateBv(ENABLED));
    assert!(matches!(compacted(&area), Refusal::Reserved { offset: 16, .. }));
    area.bytes_mut()[528..576].fill(0);
    assert!(matches!(compacted(&area), Refusal::Mxcsr { .. }));
}

#[test]
fn a_user_image_is_held_to_more() {
    let allowed = ComponentSet::from_bits(7);
    let rows: &[(&str, Change, Option<Refusal>)] = &[
        ("what is allowed", |a| a.set_xstate_bv(XstateBv(7)), None),
        (
            "what is enabled and not allowed",
            |a| a.set_xstate_bv(XstateBv(0x27)),
            Some(Refusal::NotAllowed { xstate_bv: XstateBv(0x27), allowed }),
        ),
        ("any XCOMP_BV", |a| a.set_xcomp_bv(XcompBv(2)), Some(Refusal::XcompBv(XcompBv(2)))),
        ("byte 16", |a| a.bytes_mut()[528] = 1, Some(Refusal::Reserved { offset: 16, value: 1 })),
        ("byte 63", |a| a.bytes_mut()[575] = 1, Some(Refusal::Reserved { offset: 63, value: 1 })),
        (
            "MXCSR where no component uses it",
            |a| a.legacy_mut().set_mxcsr(0x1_0000),
            Some(Refusal::Mxcsr { mxcsr: 0x1_0000, mask: 0xffff }),
        ),
        ("what is in the components", |a| a.bytes_mut()[576..].fill(0xff), None),
        ("what is in the legacy region elsewhere", |a| a.bytes_mut()[28..512].fill(0xff), None),
    ];
    for (what, change, expected) in rows {
        let found = changed(Format::Standard, *change).check_user_image(allowed).err();
        assert_eq!(found, *expected, "{what}");
    }
    let compacted = Area::initial(&cpu("emerald-rapids"), Format::Compacted);
    assert_eq!(compacted.check_user_image(allowed), Err(Refusal::XcompBv(XcompBv(1 << 63 | ENABLED))));
    // Allowing what is not enabled allows nothing.
    let tiles = changed(Format::Standard, |a| a.set_xstate_bv(XstateBv(1 << 18)));
    let refused = Refusal::NotAllowed { xstate_bv: XstateBv(1 << 18), allowed: enabled() };
    assert_eq!(tiles.check_user_image(ComponentSet::from_bits(u64::MAX)), Err(refused));
}

#[test]
fn a_user_image_may_end_behind_what_is_in_it() {
    let layout = cpu("emerald-rapids");
    let whole = changed(Format::Standard, |a| a.set_xstate_bv(XstateBv(4)));
    let cut = |len: usize| Area::over(&whole.bytes()[..len], &layout).unwrap().check_user_image(enabled());
    assert_eq!(cut(832), Ok(()));
    let beyond = Refusal::BeyondEnd { component: Component::AVX, end_bytes: 832, found_bytes: 831 };
    assert_eq!(cut(831), Err(beyond));
}

#[test]
fn of_a_user_image_without_header_mxcsr_is_looked_at() {
    let mut area = Area::initial(&Layout::fxsave_only(), Format::Fxsave);
    assert_eq!(area.check_user_image(ComponentSet::EMPTY), Ok(()));
    area.legacy_mut().set_mxcsr(0x1_0000);
    let refused = Err(Refusal::Mxcsr { mxcsr: 0x1_0000, mask: 0xffff });
    assert_eq!(area.check_user_image(ComponentSet::EMPTY), refused);
}

#[test]
fn refusals_say_the_field_and_both_values() {
    let texts = [
        (
            Refusal::NotEnabled { xstate_bv: XstateBv(0x200), enabled: enabled() },
            "XSTATE_BV is 0x200, only the bits of XCR0 = 0xe7 may be set",
        ),
        (Refusal::Reserved { offset: 17, value: 4 }, "byte 17 of the XSAVE header is 0x4, expected 0"),
        (Refusal::XcompBv(XcompBv(1)), "XCOMP_BV is 0x1, expected 0 in the standard format"),
        (
            Refusal::Mxcsr { mxcsr: 0x11f80, mask: 0xffff },
            "MXCSR is 0x11f80, only the bits of 0xffff may be set",
        ),
    ];
    for (refusal, text) in texts {
        assert_eq!(refusal.to_string(), text);
    }
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn valid_images_are_accepted_with_every_mask(area in any_image(), mask: u64) {
        prop_assert_eq!(area.check(area.format(), rfbm(mask)), Ok(()));
    }

    #[test]
    fn a_smaller_mask_never_refuses_more((layout, bytes) in any_bytes(), mask: u64, format in any_format()) {
        let Ok(area) = Area::over(&bytes[..], &layout) else { return Ok(()) };
        if area.check(format, Rfbm::ALL).is_ok() {
            prop_assert_eq!(area.check(format, rfbm(mask)), Ok(()));
        }
    }

    #[test]
    fn what_a_user_may_hand_in_is_restored_without_a_fault(
        (layout, bytes) in any_bytes(),
        allowed in prop_oneof![Just(u64::MAX), any::<u64>()],
        mask: u64,
    ) {
        let Ok(area) = Area::over(&bytes[..], &layout) else { return Ok(()) };
        if area.check_user_image(ComponentSet::from_bits(allowed)).is_ok() {
            let format = area.format();
            prop_assert!(format != Format::Compacted && has_format(&layout, format));
            let checked = area.check(format, rfbm(mask));
            prop_assert!(matches!(checked, Ok(()) | Err(Refusal::BeyondEnd { .. })), "{:?}", checked);
        }
    }
}

/// The reason, worked out from the raw bytes by the text of the manual (volume 1, sections 13.8.1 and 13.8.2),
/// without anything of the crate.
fn reason_by_the_manual(
    bytes: &[u8],
    xcr0: u64,
    has_xsavec: bool,
    mask: u32,
    rfbm: u64,
) -> Option<&'static str> {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let mxcsr = u32::from_le_bytes(bytes[24..28].try_into().unwrap());
    let (xstate_bv, xcomp_bv, rfbm) = (word(512), word(520), rfbm & xcr0);
    let is_zero = |from: usize, to: usize| bytes[from..to].iter().all(|byte| *byte == 0);
    let refused = if xcomp_bv >> 63 == 0 {
        [
            (xstate_bv & !xcr0 != 0, "XSTATE_BV"),
            (xcomp_bv != 0, "XCOMP_BV"),
            (!is_zero(528, 536), "reserved"),
            (rfbm & 0b110 != 0 && mxcsr & !mask != 0, "MXCSR"),
        ]
        .to_vec()
    } else {
        let places = xcomp_bv & !(1 << 63);
        [
            (!has_xsavec, "no XSAVEC"),
            (places & !xcr0 != 0, "XCOMP_BV"),
            (xstate_bv & !places != 0, "XSTATE_BV"),
            (!is_zero(528, 576), "reserved"),
            (rfbm & xstate_bv & 0b10 != 0 && mxcsr & !mask != 0, "MXCSR"),
        ]
        .to_vec()
    };
    refused.into_iter().find(|(is_so, _)| *is_so).map(|(_, reason)| reason)
}

fn name(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NoXsavec(_) => "no XSAVEC",
        Refusal::NotEnabled { .. } | Refusal::NoPlace { .. } => "XSTATE_BV",
        Refusal::XcompBv(_) | Refusal::PlaceNotEnabled { .. } => "XCOMP_BV",
        Refusal::Reserved { .. } => "reserved",
        Refusal::Mxcsr { .. } => "MXCSR",
        other => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(cases(4096))]

    #[test]
    fn reasons_are_those_of_the_manual(
        image in any_image(),
        bits in [0..70_u32, 0..70_u32],
        at in 16..64_usize,
        mxcsr in any::<u32>(),
        damage in 0..64_u32,
        mask in any::<u64>(),
    ) {
        let mut image = image;
        let layout = image.layout().clone();
        if image.format() == Format::Fxsave {
            return Ok(());
        }
        let flipped = |word: u64, bit: u32| if bit < 64 { word ^ 1 << bit } else { word };
        if damage & 1 != 0 {
            image.set_xstate_bv(XstateBv(flipped(image.xstate_bv().0, bits[0])));
        }
        if damage & 6 == 2 {
            image.set_xcomp_bv(XcompBv(flipped(image.xcomp_bv().0, bits[1])));
        }
        if damage & 24 == 8 {
            image.reserved_header_bytes_mut()[at - 16] = 1;
        }
        if damage & 32 != 0 {
            image.legacy_mut().set_mxcsr(mxcsr >> (mask % 20));
        }
        let has_xsavec = layout.features().contains(XsaveFeatures::XSAVEC);
        let expected =
            reason_by_the_manual(image.bytes(), layout.enabled().bits(), has_xsavec, layout.mxcsr_mask(), mask);
        let found = match image.check(image.format(), rfbm(mask)) {
            Err(Refusal::BeyondEnd { .. }) => None,
            other => other.err().map(name),
        };
        prop_assert_eq!(found, expected);
    }

    /// Whatever is written to an image that a restore takes, it takes afterwards, but for an MXCSR that is no good.
    #[test]
    fn writing_keeps_an_image_acceptable(image in any_image(), places in any::<u64>(), component in 0..20_u8) {
        let mut image = image;
        if image.format() == Format::Compacted {
            image.set_xcomp_bv(XcompBv(image.xcomp_bv().0 & (places | 1 << 63)));
            image.set_xstate_bv(XstateBv(image.xstate_bv().0 & image.xcomp_bv().0));
        }
        let accepted = |image: &OwnedArea| image.check(image.format(), Rfbm::ALL);
        if accepted(&image).is_err() {
            return Ok(());
        }
        let component = Component::new(component).unwrap();
        let mut written = image.clone();
        let Ok(value) = written.component(component).map(|value| value.into_owned()) else { return Ok(()) };
        if written.set_component(component, &value).is_ok() {
            prop_assert_eq!(accepted(&written), Ok(()), "set {}", component);
        }
        if image.set_initial(component).is_ok() {
            prop_assert_eq!(accepted(&image), Ok(()), "initial {}", component);
        }
    }
}
