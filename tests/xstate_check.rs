//! What a restore refuses, reason by reason, and what a kernel refuses from a user.

mod cpus;

use cpus::{any_bytes, any_format, any_image, cases, cpu, has_format, layouts};
use fpuswitch::{
    Component, ComponentSet, Rfbm,
    xstate::{Area, Format, Layout, OwnedArea, Refusal, XcompBv, XstateBv},
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
