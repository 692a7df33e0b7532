//! Registers by name, over all layouts and formats.

mod cpus;

use cpus::{FORMATS, any_image, cases, cpu, fill, has_format, layouts};
use fpuswitch::{
    Component, ComponentSet,
    xstate::{Area, AreaError, Format, OwnedArea, Register, UnknownRegister, XcompBv},
};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn register(name: &str) -> Register {
    name.parse().unwrap()
}

fn read(area: &OwnedArea, name: &str) -> Vec<u8> {
    area.register(register(name)).unwrap().bytes().to_vec()
}

#[test]
fn every_register_has_a_name_of_its_own() {
    let names: BTreeSet<String> = Register::all().map(|register| register.to_string()).collect();
    assert_eq!(names.len(), 3 * 32 + 4 * 8 - 8 + 4 + 11);
    assert_eq!(names.len(), Register::all().count());
    for known in Register::all() {
        assert_eq!(known.to_string().parse(), Ok(known));
        assert_eq!(known.to_string().to_uppercase().parse(), Ok(known));
    }
    for name in ["st7", "xmm31", "ymm31", "zmm31", "k7", "bnd3", "tmm7", "mxcsr", "fcw", "fsw", "ftw", "fop"]
    {
        assert!(names.contains(name), "{name}");
    }
    for name in ["fip", "fdp", "pkru", "bndcfgu", "bndstatus", "tilecfg"] {
        assert!(names.contains(name), "{name}");
    }
}

#[test]
fn text_that_names_no_register_is_given_back() {
    for text in [
        "", "xmm", "xmm32", "xmm07", "xmm-1", "xmm+1", "st8", "k8", "fcw0", "rax", "xmm1 ", "mm0", "tmm256",
        "ymm٣",
    ] {
        assert_eq!(text.parse::<Register>(), Err(UnknownRegister(text.into())));
    }
    let error = "rax".parse::<Register>().unwrap_err();
    assert!(error.to_string().starts_with("\"rax\" names no register"));
}

#[test]
fn registers_lie_where_the_manual_puts_them() {
    let layout = cpu("sapphire-rapids");
    // Name, and the bytes of the standard format that it is made of.
    let rows: &[(&str, &[(usize, usize)])] = &[
        ("fcw", &[(0, 2)]),
        ("fsw", &[(2, 4)]),
        ("ftw", &[(4, 5)]),
        ("fop", &[(6, 8)]),
        ("fip", &[(8, 16)]),
        ("fdp", &[(16, 24)]),
        ("mxcsr", &[(24, 28)]),
        ("st0", &[(32, 42)]),
        ("st7", &[(144, 154)]),
        ("xmm0", &[(160, 176)]),
        ("xmm15", &[(400, 416)]),
        ("ymm7", &[(272, 288), (688, 704)]),
        ("zmm7", &[(272, 288), (688, 704), (1376, 1408)]),
        ("zmm15", &[(400, 416), (816, 832), (1632, 1664)]),
        ("k0", &[(1088, 1096)]),
        ("k7", &[(1144, 1152)]),
        ("xmm16", &[(1664, 1680)]),
        ("ymm17", &[(1728, 1760)]),
        ("zmm31", &[(2624, 2688)]),
        ("pkru", &[(2688, 2692)]),
        ("tilecfg", &[(2752, 2816)]),
        ("tmm0", &[(2816, 3840)]),
        ("tmm7", &[(9984, 11008)]),
    ];
    let mut area = Area::initial(&layout, Format::Standard);
    fill(area.bytes_mut(), 5);
    area.set_xstate_bv(fpuswitch::xstate::XstateBv(layout.enabled().bits()));
    area.set_xcomp_bv(XcompBv::STANDARD);
    for (name, ranges) in rows {
        let expected: Vec<u8> =
            ranges.iter().flat_map(|(from, to)| &area.bytes()[*from..*to]).copied().collect();
        assert_eq!(read(&area, name), expected, "{name}");
        assert_eq!(register(name).size_bytes(), expected.len(), "{name}");
    }
    let mpx = cpu("qemu-max");
    let mut area = Area::initial(&mpx, Format::Standard);
    fill(&mut area.bytes_mut()[960..1040], 5);
    area.set_xstate_bv(fpuswitch::xstate::XstateBv(0x18));
    for (name, range) in
        [("bnd0", 960..976), ("bnd3", 1008..1024), ("bndcfgu", 1024..1032), ("bndstatus", 1032..1040)]
    {
        assert_eq!(read(&area, name), area.bytes()[range], "{name}");
    }
}

#[test]
fn every_register_is_written_and_read_back_and_no_other_changes() {
    for (name, layout) in layouts() {
        for format in FORMATS.into_iter().filter(|format| has_format(&layout, *format)) {
            let blank = Area::initial(&layout, format);
            for known in Register::all() {
                let mut area = blank.clone();
                let mut value = vec![0; known.size_bytes()];
                fill(&mut value, 11);
                if let Err(error) = area.set_register(known, &value) {
                    let lacking = known.components().iter().find(|c| !blank.has_room_for(*c)).unwrap();
                    assert_eq!(error, AreaError::NoPlace(lacking), "{name} {known}");
                    assert_eq!(blank.register(known), Err(error), "{name} {known}");
                    continue;
                }
                assert_eq!(area.register(known).unwrap().bytes(), value, "{name} {known}");
                if area.format() != Format::Fxsave {
                    assert_eq!(area.xstate_bv().components(), known.components(), "{name} {known}");
                }
                // Outside its parts everything is as it was.
                let changed: usize = layout
                    .enabled()
                    .iter()
                    .filter_map(|c| Some((area.component(c).ok()?, blank.component(c).ok()?)))
                    .map(|(now, before)| now.iter().zip(before.iter()).filter(|(a, b)| a != b).count())
                    .sum();
                assert!(changed <= value.len(), "{name} {known} changed {changed} bytes");
                for part in known.components().iter() {
                    assert!(blank.has_room_for(part));
                }
            }
        }
    }
}

#[test]
fn the_upper_half_of_zmm_stays_when_ymm_is_written() {
    let mut area = Area::initial(&cpu("zen4"), Format::Compacted);
    area.set_register(register("zmm7"), &[0xaa; 64]).unwrap();
    area.set_register(register("ymm7"), &[0xbb; 32]).unwrap();
    area.set_register(register("xmm7"), &[0xcc; 16]).unwrap();
    assert_eq!(read(&area, "zmm7"), [[0xcc; 16], [0xbb; 16], [0xaa; 16], [0xaa; 16]].concat());
    assert_eq!(read(&area, "zmm6"), [0; 64]);
    assert_eq!(read(&area, "zmm8"), [0; 64]);
    assert_eq!(area.mxcsr(), 0x1f80);
}

#[test]
fn nothing_is_written_when_a_part_has_no_place() {
    // AVX is there, ZMM_Hi256 is cut off.
    let layout = cpu("skylake-sp");
    let mut bytes = Area::initial(&layout, Format::Standard).bytes()[..1600].to_vec();
    let before = bytes.clone();
    let mut area = Area::over(&mut bytes[..], &layout).unwrap();
    let beyond = AreaError::BeyondEnd { component: Component::ZMM_HI256, end_bytes: 1664, found_bytes: 1600 };
    assert_eq!(area.set_register(register("zmm0"), &[1; 64]), Err(beyond));
    assert_eq!(area.register(register("zmm0")), Err(beyond));
    assert!(area.register(register("ymm0")).is_ok());
    let length = AreaError::RegisterLength { register: register("ymm0"), needed_bytes: 32, found_bytes: 31 };
    assert_eq!(area.set_register(register("ymm0"), &[1; 31]), Err(length));
    assert_eq!(length.to_string(), "ymm0 takes 32 bytes, got 31");
    assert_eq!(bytes, before);
}

#[test]
fn a_register_without_a_place_is_refused_by_component() {
    let sse_only = Area::initial(&cpu("qemu-core2duo"), Format::Fxsave);
    let compacted = {
        let mut area = Area::initial(&cpu("zen4"), Format::Compacted);
        area.set_xcomp_bv(XcompBv::compacted(ComponentSet::from_bits(3)));
        area
    };
    for area in [sse_only, compacted] {
        assert!(area.register(register("xmm15")).is_ok());
        for (name, component) in [
            ("ymm0", Component::AVX),
            ("zmm0", Component::AVX),
            ("xmm16", Component::HI16_ZMM),
            ("k1", Component::OPMASK),
            ("pkru", Component::PKRU),
        ] {
            assert_eq!(area.register(register(name)), Err(AreaError::NoPlace(component)), "{name}");
        }
    }
}

#[test]
fn values_print_in_groups_with_the_most_significant_first() {
    let mut area = Area::initial(&cpu("zen3"), Format::Standard);
    area.set_register(register("ymm7"), &core::array::from_fn::<u8, 32, _>(|n| n as u8)).unwrap();
    let ymm7 = area.register(register("ymm7")).unwrap();
    assert_eq!(ymm7.to_string(), "1f1e1d1c_1b1a1918_17161514_13121110_0f0e0d0c_0b0a0908_07060504_03020100");
    assert_eq!(ymm7.as_u128(), None);
    area.set_register(register("st0"), &[0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f]).unwrap();
    let st0 = area.register(register("st0")).unwrap();
    assert_eq!(
        (st0.to_string(), st0.as_u128()),
        ("3fff_80000000_00000000".into(), Some(0x3fff << 64 | 1 << 63))
    );
    assert_eq!(area.register(register("mxcsr")).unwrap().to_string(), "00001f80");
    assert_eq!(area.register(register("ftw")).unwrap().to_string(), "00");
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn writing_what_was_read_changes_no_value(mut area in any_image()) {
        let before = area.clone();
        for known in Register::all() {
            if let Ok(value) = area.register(known) {
                area.set_register(known, value.bytes()).unwrap();
            }
        }
        prop_assert!(area.same_values(&before));
    }
}
