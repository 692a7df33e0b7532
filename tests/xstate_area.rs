//! Reading and writing the components of an area, whoever holds its bytes.

mod cpus;

use cpus::{FORMATS, any_bytes, any_image, cases, cpu, fill, has_format, layouts};
use fpuswitch::{
    Component, ComponentSet, Rfbm,
    xstate::{Area, AreaError, Format, Layout, LegacyRegion, OwnedArea, Register, XcompBv, XstateBv},
};
use proptest::prelude::*;

/// A whole standard image of Skylake-SP in which every bit is clear and every byte of a component is A5H.
fn garbage_behind_clear_bits(layout: &Layout, format: Format) -> OwnedArea {
    let mut area = Area::initial(layout, format);
    let (xcomp_bv, len) = (area.xcomp_bv(), area.bytes().len());
    area.bytes_mut().fill(0xa5);
    if len >= 576 {
        area.bytes_mut()[512..576].fill(0);
        area.set_xcomp_bv(xcomp_bv);
    }
    area
}

/// The initial value, written down apart from the code.
fn initial(component: Component, len: usize) -> Vec<u8> {
    let mut value = vec![0; len];
    match component {
        Component::X87 => value[..2].copy_from_slice(&[0x7f, 0x03]),
        Component::SSE => value[..4].copy_from_slice(&[0x80, 0x1f, 0, 0]),
        _ => {}
    }
    value
}

#[test]
fn a_new_area_is_in_the_initial_configuration() {
    for (name, layout) in layouts() {
        for format in FORMATS {
            let area = Area::initial(&layout, format);
            assert_eq!(area.bytes().as_ptr() as usize % 64, 0, "{name}");
            assert_eq!((area.legacy().fcw(), area.mxcsr()), (0x37f, 0x1f80), "{name}");
            assert_eq!(area.xstate_bv().0, if area.format() == Format::Fxsave { 3 } else { 0 });
            for component in layout.enabled().iter() {
                match area.component(component) {
                    Ok(value) => assert_eq!(value, initial(component, value.len()), "{name} {component}"),
                    Err(error) => {
                        assert_eq!(area.format(), Format::Fxsave);
                        assert_eq!(error, AreaError::NoPlace(component));
                    }
                }
            }
        }
    }
}

#[test]
fn a_clear_bit_hides_what_is_in_memory() {
    let layout = cpu("skylake-sp");
    for format in [Format::Standard, Format::Compacted] {
        let area = garbage_behind_clear_bits(&layout, format);
        for component in layout.enabled().iter().filter(|c| *c != Component::SSE) {
            let value = area.component(component).unwrap();
            assert_eq!(value, initial(component, value.len()), "{component}");
        }
        // MXCSR alone comes from memory, and in the standard format only.
        let mxcsr = if format == Format::Standard { 0xa5a5_a5a5 } else { 0x1f80 };
        assert_eq!(area.mxcsr(), mxcsr);
        let sse = area.component(Component::SSE).unwrap();
        assert_eq!(sse[..4], mxcsr.to_le_bytes());
        assert!(sse[4..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn writing_a_part_shows_nothing_of_the_garbage_behind_the_bit() {
    let layout = cpu("sapphire-rapids");
    for format in [Format::Standard, Format::Compacted] {
        let mut area = garbage_behind_clear_bits(&layout, format);
        area.legacy_mut().set_mxcsr(0x1f80);
        for register in ["zmm7", "zmm20", "k1", "tmm3", "fcw", "tilecfg"] {
            let register: Register = register.parse().unwrap();
            area.set_register(register, &vec![0xff; register.size_bytes()]).unwrap();
        }
        let bits = 0b1110_0111 | 3 << 17;
        assert_eq!(area.xstate_bv().0, bits);
        for component in ComponentSet::from_bits(bits).iter() {
            let value = area.component(component).unwrap();
            let expected = initial(component, value.len());
            for (n, byte) in value.iter().enumerate() {
                assert!(*byte == 0xff || *byte == expected[n], "{component} byte {n} is {byte:#x}");
            }
        }
    }
}

#[test]
fn a_write_sets_the_bit_and_nothing_else() {
    for (name, layout) in layouts() {
        for format in FORMATS.into_iter().filter(|format| has_format(&layout, *format)) {
            for component in layout.enabled().iter() {
                let mut area = Area::initial(&layout, format);
                let Ok(size) = area.size_of(component) else { continue };
                let mut value = vec![0; size];
                fill(&mut value, 7);
                area.set_component(component, &value).unwrap();
                let bits = if area.format() == Format::Fxsave { 3 } else { 1 << component.number() };
                assert_eq!(area.xstate_bv().0, bits, "{name} {component}");
                for other in layout.enabled().without(component).iter() {
                    if let Ok(value) = area.component(other) {
                        assert_eq!(value, initial(other, value.len()), "{name} {component} {other}");
                    }
                }
                area.set_initial(component).unwrap();
                assert!(area.same_values(&Area::initial(&layout, format)), "{name} {component}");
                assert_eq!(area.xstate_bv().0, if area.format() == Format::Fxsave { 3 } else { 0 });
            }
        }
    }
}

#[test]
fn fxsave_has_sse_whatever_is_enabled() {
    let x87 = cpu("zen3").restricted_to(ComponentSet::EMPTY);
    let [mut a, b] = [0, 1].map(|_| Area::initial(&x87, Format::Fxsave));
    a.set_component(Component::SSE, &[1; 260]).unwrap();
    assert_eq!(a.component(Component::SSE).unwrap()[..], [1; 260]);
    assert!(!a.same_values(&b));
    let standard = Area::initial(&x87, Format::Standard);
    assert_eq!(standard.component(Component::SSE), Err(AreaError::NoPlace(Component::SSE)));
}

#[test]
fn reserved_bytes_of_x87_read_as_zero() {
    let mut area = Area::initial(&Layout::fxsave_only(), Format::Fxsave);
    area.bytes_mut().fill(0xff);
    let x87 = area.component(Component::X87).unwrap().into_owned();
    assert_eq!(x87[5], 0);
    assert!(x87[24..].chunks(16).all(|slot| slot[..10] == [0xff; 10] && slot[10..] == [0; 6]));
    assert_eq!(area.legacy().ftw(), 0xff);
}

#[test]
fn somebody_elses_bytes_are_read_and_changed_in_place() {
    let layout = cpu("zen4");
    let mut bytes = Area::initial(&layout, Format::Standard).into_inner().as_ref().to_vec();
    Area::over(&mut bytes[..], &layout)
        .unwrap()
        .set_component(Component::PKRU, &[4, 0, 0, 0, 0, 0, 0, 0])
        .unwrap();
    assert_eq!(bytes[2432], 4);
    let area = Area::over(&bytes[..], &layout).unwrap();
    assert_eq!(area.xstate_bv(), XstateBv(1 << 9));
    assert_eq!(area.component(Component::PKRU).unwrap()[0], 4);
    // The same bytes are something else on another CPU.
    let intel = Area::over(&bytes[..], &cpu("skylake-sp")).unwrap();
    let beyond = AreaError::BeyondEnd { component: Component::PKRU, end_bytes: 2696, found_bytes: 2440 };
    assert_eq!(intel.component(Component::PKRU), Err(beyond));
}

#[test]
fn an_area_that_is_cut_off_lacks_what_is_behind() {
    let layout = cpu("skylake-sp");
    let whole = Area::initial(&layout, Format::Standard);
    let short = |needed_bytes, found_bytes| Err(AreaError::TooShort { needed_bytes, found_bytes });
    assert_eq!(Area::over(&whole.bytes()[..575], &layout).map(|_| ()), short(576, 575));
    assert_eq!(Area::over(&[0; 511][..], &Layout::fxsave_only()).map(|_| ()), short(512, 511));
    assert_eq!(LegacyRegion::over(&[0; 511][..]).map(|_| ()), short(512, 511));
    for place in layout.places() {
        let end_bytes = (place.offset_bytes + place.size_bytes) as usize;
        let mut bytes = whole.bytes()[..end_bytes].to_vec();
        assert!(Area::over(&bytes[..], &layout).unwrap().component(place.component).is_ok());
        bytes.pop();
        let mut area = Area::over(&mut bytes[..], &layout).unwrap();
        let component = place.component;
        let beyond = AreaError::BeyondEnd { component, end_bytes, found_bytes: end_bytes - 1 };
        assert_eq!(area.component(component), Err(beyond));
        assert_eq!(area.set_component(component, &vec![1; place.size_bytes as usize]), Err(beyond));
        assert_eq!(area.set_initial(component), Err(beyond));
        assert!(!area.has_room_for(component));
        assert_eq!(area.xstate_bv().0, 0, "nothing was changed");
    }
}

#[test]
fn a_compacted_image_has_no_place_for_what_xcomp_bv_leaves_out() {
    let layout = cpu("skylake-sp");
    let mut area = Area::initial(&layout, Format::Compacted);
    let some = ComponentSet::EMPTY.with(Component::AVX).with(Component::PKRU);
    area.set_xcomp_bv(XcompBv::compacted(some));
    area.set_component(Component::PKRU, &[9; 8]).unwrap();
    assert_eq!(area.bytes()[832..840], [9; 8]);
    assert_eq!(area.component(Component::OPMASK), Err(AreaError::NoPlace(Component::OPMASK)));
    assert_eq!(area.set_component(Component::OPMASK, &[0; 64]), Err(AreaError::NoPlace(Component::OPMASK)));
    // x87 and SSE have theirs in any case.
    assert!(area.component(Component::SSE).is_ok());
}

#[test]
fn what_is_not_enabled_has_no_place_in_the_standard_format() {
    let mut area = Area::initial(&cpu("emerald-rapids"), Format::Standard);
    for component in [Component::TILECFG, Component::PKRU, Component::new(62).unwrap()] {
        assert_eq!(area.component(component), Err(AreaError::NoPlace(component)));
        assert_eq!(area.set_component(component, &[0; 64]), Err(AreaError::NoPlace(component)));
    }
}

#[test]
fn a_value_of_the_wrong_length_is_refused() {
    let mut area = Area::initial(&cpu("zen3"), Format::Standard);
    for (component, needed_bytes) in
        [(Component::X87, 152), (Component::SSE, 260), (Component::AVX, 256), (Component::PKRU, 8)]
    {
        for found_bytes in [0, needed_bytes - 1, needed_bytes + 1] {
            let wrong = AreaError::Length { component, needed_bytes, found_bytes };
            assert_eq!(area.set_component(component, &vec![1; found_bytes]), Err(wrong));
        }
    }
    assert!(area.same_values(&Area::initial(&cpu("zen3"), Format::Standard)));
    assert_eq!(area.xstate_bv().0, 0);
}

#[test]
fn values_are_compared_whatever_the_format_and_the_bits() {
    let (intel, amd) = (cpu("skylake-sp"), cpu("zen4"));
    let mut a = Area::initial(&intel, Format::Standard);
    let mut b = Area::initial(&amd, Format::Compacted);
    assert!(a.same_values(&b) && b.same_values(&a));
    // A set bit and zeros are the initial configuration as well; MPX has no place in the other.
    a.set_component(Component::ZMM_HI256, &[0; 512]).unwrap();
    a.set_component(Component::BNDREGS, &[0; 64]).unwrap();
    assert!(a.same_values(&b) && b.same_values(&a));
    a.set_component(Component::BNDREGS, &[1; 64]).unwrap();
    assert!(!a.same_values(&b) && !b.same_values(&a));
    a.set_initial(Component::BNDREGS).unwrap();
    a.set_component(Component::PKRU, &[1; 8]).unwrap();
    b.set_component(Component::PKRU, &[1; 8]).unwrap();
    assert!(a.same_values(&b));
    b.legacy_mut().set_mxcsr(0x9fc0);
    assert!(a.same_values(&b), "the compacted format does not look at MXCSR without SSE's bit");
    a.legacy_mut().set_mxcsr(0x9fc0);
    assert!(!a.same_values(&b), "the standard format does");
}

#[test]
fn initial_components_of_different_sizes_are_the_same() {
    let text = cpus::CPUS.iter().find(|(name, _)| *name == "zen3").unwrap().1;
    let other = cpus::layout(&text.replace("eax=0x00000008", "eax=0x00000004"));
    let (mut a, b) = (Area::initial(&cpu("zen3"), Format::Standard), Area::initial(&other, Format::Standard));
    assert!(a.same_values(&b));
    a.set_component(Component::PKRU, &[1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    assert!(!a.same_values(&b));
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn what_was_set_is_read_back(mut area in any_image(), seed: u64) {
        for component in area.layout().enabled().iter().collect::<Vec<_>>() {
            let Ok(size) = area.size_of(component) else { continue };
            let before = area.clone();
            let mut value = vec![0; size];
            fill(&mut value, seed);
            area.set_component(component, &value).unwrap();
            if component == Component::X87 {
                // Reserved bytes do not come back.
                cpus::clear_reserved(&mut value);
            }
            prop_assert_eq!(&area.component(component).unwrap()[..], &value[..]);
            for other in area.layout().enabled().without(component).iter() {
                prop_assert_eq!(area.component(other), before.component(other));
            }
        }
    }

    #[test]
    fn no_bytes_make_a_public_function_panic((layout, mut bytes) in any_bytes(), other in cpus::any_layout()) {
        let _ = Layout::from_regset(&bytes);
        let _ = Layout::from_note(&bytes);
        let _ = LegacyRegion::over(&bytes[..]).map(|region| (region.fip(), region.st(9), region.xmm(99)));
        let found_bytes = bytes.len();
        let mut area = match Area::over(&mut bytes[..], &layout) {
            Ok(area) => area,
            Err(error) => {
                let needed_bytes = if layout.has_xsave() { 576 } else { 512 };
                prop_assert_eq!(error, AreaError::TooShort { needed_bytes, found_bytes });
                return Ok(());
            }
        };
        let _ = (area.format(), area.mxcsr(), area.reserved_header_bytes().len(), area.same_values(&area));
        let _ = area.check_user_image(ComponentSet::from_bits(u64::MAX));
        for format in FORMATS {
            let _ = area.check(format, Rfbm::ALL);
            if let Ok(converted) = area.convert(&other, format) {
                prop_assert!(converted.same_values(&area));
            }
        }
        for component in ComponentSet::from_bits(u64::MAX).iter() {
            if let Ok(value) = area.component(component).map(|value| value.into_owned()) {
                area.set_component(component, &value).unwrap();
                prop_assert_eq!(&area.component(component).unwrap()[..], &value[..]);
            }
        }
        for register in Register::all() {
            if let Ok(value) = area.register(register) {
                area.set_register(register, value.bytes()).unwrap();
                prop_assert_eq!(area.register(register), Ok(value));
            }
        }
        area.set_initial_values();
        for component in layout.enabled().iter() {
            let _ = area.set_initial(component);
        }
    }
}

#[test]
fn a_value_that_is_cut_off_is_not_known() {
    let layout = cpu("zen3");
    let mut whole = Area::initial(&layout, Format::Standard);
    whole.set_component(Component::AVX, &[7; 256]).unwrap();
    let cut = |bytes: &[u8]| Area::over(bytes[..600].to_vec(), &layout).unwrap();
    let truncated = cut(whole.bytes());
    assert!(truncated.same_values(&truncated));
    assert!(!truncated.same_values(&whole));
    assert!(!truncated.same_values(&Area::initial(&layout, Format::Standard)));
    whole.set_component(Component::AVX, &[8; 256]).unwrap();
    assert!(!truncated.same_values(&cut(whole.bytes())));
    // Where the bit is clear, nothing is cut off.
    let initial = Area::initial(&layout, Format::Standard);
    assert!(cut(initial.bytes()).same_values(&initial));
}
