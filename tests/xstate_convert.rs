//! From one format and one CPU to another, and back.

mod cpus;

use cpus::{FORMATS, any_format, any_image, any_layout, cases, cpu, has_format, image, layouts};
use fpuswitch::{
    Component, ComponentSet, Rfbm,
    xstate::{Area, ConvertError, Format, Layout, OwnedArea, Refusal, XcompBv, XstateBv},
};
use proptest::prelude::*;

const AVX512: [Component; 3] = [Component::OPMASK, Component::ZMM_HI256, Component::HI16_ZMM];

fn set_all(area: &mut OwnedArea, components: &[Component]) {
    for (n, component) in components.iter().enumerate() {
        let size = area.size_of(*component).unwrap();
        area.set_component(*component, &vec![n as u8 + 1; size]).unwrap();
    }
}

/// The error of a conversion that must fail.
fn refused(area: &OwnedArea, to: &Layout, format: Format) -> ConvertError {
    area.convert(to, format).expect_err("the conversion fails")
}

#[test]
fn values_keep_their_names_and_not_their_offsets() {
    let mut intel = Area::initial(&cpu("skylake-sp"), Format::Standard);
    set_all(&mut intel, &AVX512);
    let amd = intel.convert(&cpu("zen4"), Format::Standard).unwrap();
    assert_eq!((intel.bytes()[1088], intel.bytes()[1664]), (1, 3));
    assert_eq!((amd.bytes()[832], amd.bytes()[1408]), (1, 3));
    assert_eq!(amd.xstate_bv(), XstateBv(0xe0));
    let packed = intel.convert(&cpu("skylake-sp"), Format::Compacted).unwrap();
    assert_eq!((packed.bytes()[960], packed.bytes()[1536]), (1, 3));
    assert_eq!((packed.xstate_bv(), packed.xcomp_bv()), (XstateBv(0xe0), XcompBv(1 << 63 | 0x2ff)));
}

#[test]
fn what_the_target_has_no_place_for_is_refused_by_name() {
    let intel = cpu("skylake-sp");
    for (target, lacks) in [
        ("zen4", &[Component::BNDREGS, Component::BNDCSR][..]),
        ("zen3", &[Component::BNDREGS, Component::BNDCSR, AVX512[0], AVX512[1], AVX512[2]]),
        ("qemu-haswell", &[Component::PKRU]),
        ("qemu-skylake-server", &[AVX512[0], AVX512[1], AVX512[2]]),
        ("emerald-rapids", &[Component::PKRU]),
        ("qemu-core2duo", &[Component::AVX]),
    ] {
        for component in lacks {
            let mut area = Area::initial(&intel, Format::Standard);
            set_all(&mut area, &[*component]);
            let format = if target == "qemu-core2duo" { Format::Fxsave } else { Format::Standard };
            let error = refused(&area, &cpu(target), format);
            assert_eq!(error, ConvertError::NoPlace(*component), "{target}");
            // In its initial configuration it needs no place, whether the bit says so or the bytes.
            area.set_component(*component, &vec![0; area.size_of(*component).unwrap()]).unwrap();
            let there = area.convert(&cpu(target), format).unwrap();
            assert!(there.same_values(&area), "{target} {component}");
            assert!(format == Format::Fxsave || there.xstate_bv().0 == 0);
            area.set_initial(*component).unwrap();
            assert!(area.convert(&cpu(target), format).is_ok());
        }
    }
}

#[test]
fn a_component_of_another_size_is_refused_unless_it_is_initial() {
    let text = cpus::CPUS.iter().find(|(name, _)| *name == "zen3").unwrap().1;
    let small = cpus::layout(&text.replace("eax=0x00000008", "eax=0x00000004"));
    let mut area = Area::initial(&cpu("zen3"), Format::Standard);
    set_all(&mut area, &[Component::PKRU]);
    let size = ConvertError::Size { component: Component::PKRU, from_bytes: 8, to_bytes: 4 };
    assert_eq!(refused(&area, &small, Format::Standard), size);
    area.set_component(Component::PKRU, &[0; 8]).unwrap();
    let there = area.convert(&small, Format::Standard).unwrap();
    assert_eq!((there.xstate_bv(), there.size_of(Component::PKRU)), (XstateBv(1 << 9), Ok(4)));
}

#[test]
fn the_bits_of_mxcsr_are_those_of_the_target() {
    let wide = cpu("zen3").with_mxcsr_mask(0x2_ffff);
    let mut area = Area::initial(&wide, Format::Standard);
    area.legacy_mut().set_mxcsr(0x2_1f80);
    let refusal = Refusal::Mxcsr { mxcsr: 0x2_1f80, mask: 0xffff };
    for format in FORMATS {
        assert!(area.convert(&wide, format).is_ok());
        assert_eq!(refused(&area, &cpu("zen4"), format), ConvertError::Target(refusal));
    }
    let narrow = Area::over(area.bytes().to_vec(), &cpu("zen3")).unwrap();
    let error = narrow.convert(&wide, Format::Standard).unwrap_err();
    assert_eq!(error, ConvertError::Source(refusal));
}

#[test]
fn mxcsr_alone_survives_the_compacted_format() {
    let layout = cpu("zen4");
    let mut standard = Area::initial(&layout, Format::Standard);
    standard.legacy_mut().set_mxcsr(0x9fc0);
    assert_eq!(standard.xstate_bv().0, 0);
    let compacted = standard.convert(&layout, Format::Compacted).unwrap();
    assert_eq!((compacted.mxcsr(), compacted.xstate_bv()), (0x9fc0, XstateBv(2)));
    // In the standard format it needs no bit, so it gets none.
    let again = standard.convert(&layout, Format::Standard).unwrap();
    assert_eq!((again.mxcsr(), again.xstate_bv()), (0x9fc0, XstateBv(0)));
    // What the compacted format would not load does not come along.
    let mut ignored = Area::initial(&layout, Format::Compacted);
    ignored.legacy_mut().set_mxcsr(u32::MAX);
    assert_eq!(ignored.convert(&layout, Format::Standard).unwrap().mxcsr(), 0x1f80);
    // A CPU that manages x87 alone has no place for it.
    let x87 = layout.restricted_to(ComponentSet::EMPTY);
    assert_eq!(refused(&standard, &x87, Format::Standard), ConvertError::NoPlace(Component::SSE));
    assert!(Area::initial(&layout, Format::Standard).convert(&x87, Format::Standard).is_ok());
}

#[test]
fn garbage_behind_a_clear_bit_stays_behind() {
    let layout = cpu("zen4");
    let mut area = Area::initial(&layout, Format::Standard);
    area.bytes_mut()[576..].fill(0xee);
    area.legacy_mut().set_xmm(3, u128::MAX);
    area.legacy_mut().set_fcw(0);
    for format in FORMATS {
        let there = area.convert(&layout, format).unwrap();
        assert!(!there.bytes().contains(&0xee));
        assert_eq!((there.legacy().xmm(3), there.legacy().fcw()), (0, 0x37f));
    }
}

#[test]
fn formats_that_the_target_lacks_are_refused() {
    let area = Area::initial(&cpu("zen4"), Format::Standard);
    let no_xsavec = Refusal::NoXsavec(XcompBv(1 << 63 | 7));
    assert_eq!(refused(&area, &cpu("qemu-haswell"), Format::Compacted), ConvertError::Target(no_xsavec));
    for asked in [Format::Standard, Format::Compacted] {
        let differs = Refusal::Format { asked, found: Format::Fxsave };
        assert_eq!(refused(&area, &Layout::fxsave_only(), asked), ConvertError::Target(differs));
    }
}

#[test]
fn an_image_that_is_not_valid_here_goes_nowhere() {
    let layout = cpu("zen4");
    let mut area = Area::initial(&layout, Format::Standard);
    area.set_xstate_bv(XstateBv(1 << 17));
    let refusal = area.check(Format::Standard, Rfbm::ALL).unwrap_err();
    assert_eq!(refused(&area, &layout, Format::Standard), ConvertError::Source(refusal));
    let mut area = Area::initial(&layout, Format::Compacted);
    area.bytes_mut()[560] = 1;
    let reserved = Refusal::Reserved { offset: 48, value: 1 };
    assert_eq!(refused(&area, &layout, Format::Standard), ConvertError::Source(reserved));
}

#[test]
fn an_image_that_is_cut_off_behind_what_is_in_it_is_whole_there() {
    // As a debugger or a monitor hands it out that knows of no tiles.
    let layout = cpu("sapphire-rapids");
    let mut whole = Area::initial(&layout, Format::Standard);
    set_all(&mut whole, &[Component::PKRU]);
    let cut = |len: usize| Area::over(&whole.bytes()[..len], &layout).unwrap();
    let there = cut(2696).convert(&layout, Format::Standard).unwrap();
    assert_eq!(there.bytes().len(), 11008);
    assert!(there.same_values(&whole));
    let beyond = Refusal::BeyondEnd { component: Component::PKRU, end_bytes: 2696, found_bytes: 2695 };
    assert_eq!(cut(2695).convert(&layout, Format::Standard).unwrap_err(), ConvertError::Source(beyond));
}

#[test]
fn a_kernels_image_is_read_without_its_supervisor_components() {
    let text = cpus::CPUS.iter().find(|(name, _)| *name == "zen4").unwrap().1;
    let layout = cpus::layout(&format!("{text}0x0000000d 0x0b: eax=0x10 ebx=0 ecx=1 edx=0\n"));
    let cet = Component::new(11).unwrap();
    let mut kernels = Area::over(vec![0; 4096], &layout).unwrap();
    kernels.set_initial_values();
    kernels.set_xcomp_bv(XcompBv::compacted(layout.enabled().with(cet)));
    kernels.set_component(Component::PKRU, &[7; 8]).unwrap();
    // XRSTOR refuses the place, a conversion does not.
    assert!(matches!(kernels.check(Format::Compacted, Rfbm::ALL), Err(Refusal::PlaceNotEnabled { .. })));
    let users = kernels.convert(&layout, Format::Compacted).unwrap();
    assert_eq!(users.xcomp_bv(), XcompBv::compacted(layout.enabled()));
    assert!(users.same_values(&kernels));

    kernels.set_component(cet, &[1; 16]).unwrap();
    assert_eq!(kernels.convert(&layout, Format::Compacted).unwrap_err(), ConvertError::NoPlace(cet));
    kernels.set_initial(cet).unwrap();
    assert!(kernels.convert(&layout, Format::Standard).unwrap().same_values(&kernels));
}

#[test]
fn supervisor_components_do_not_matter_in_the_standard_format() {
    // A CPU as none is, found by fuzzing: AVX is listed as a supervisor component, and would need MXCSR.
    let text = cpus::CPUS.iter().find(|(name, _)| *name == "zen3").unwrap().1;
    let odd = text.replace("ebx=0x00000240 ecx=0x00000000", "ebx=0x00000240 ecx=0x00000001");
    let odd = cpus::layout(&odd.replace("XCR0: 0x207", "XCR0: 0x1"));
    assert!(odd.place(Component::AVX).unwrap().is_supervisor);
    let mut area = Area::initial(&odd, Format::Standard);
    area.legacy_mut().set_mxcsr(u32::MAX);
    assert_eq!(area.check(Format::Standard, Rfbm::ALL), Ok(()));
    assert!(area.convert(&odd, Format::Standard).unwrap().same_values(&area));
}

#[test]
fn bytes_of_no_component_come_along() {
    let mut area = Area::initial(&cpu("zen4"), Format::Standard);
    area.legacy_mut().set_mxcsr_mask(0x2_ffff);
    area.bytes_mut()[416..512].fill(0x77);
    for format in FORMATS {
        let there = area.convert(&cpu("emerald-rapids"), format).unwrap();
        assert_eq!(there.legacy().mxcsr_mask(), 0x2_ffff);
        assert!(there.bytes()[416..512].iter().all(|byte| *byte == 0x77));
    }
}

#[test]
fn every_pair_of_cpus_and_formats_there_and_back() {
    let mut carried = 0;
    for (from_name, from) in layouts() {
        for (to_name, to) in layouts() {
            for (from_format, to_format) in FORMATS.iter().flat_map(|a| FORMATS.map(|b| (*a, b))) {
                if !has_format(&from, from_format) || !has_format(&to, to_format) {
                    continue;
                }
                let both = from.enabled() & to.enabled();
                let legacy = ComponentSet::from_bits(3);
                let any_fxsave = from_format == Format::Fxsave || to_format == Format::Fxsave;
                let set = if any_fxsave { legacy } else { both };
                let area = image(&from, from_format, set.bits(), u64::MAX, 0x1fbf);
                let what = format!("{from_name} {from_format:?} to {to_name} {to_format:?}");
                let there = area.convert(&to, to_format).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert!(there.same_values(&area), "{what}");
                assert!(set.iter().all(|c| there.component(c) == area.component(c)), "{what}");
                let back =
                    there.convert(&from, from_format).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(back.bytes(), area.bytes(), "{what}");
                carried += 1;
            }
        }
    }
    // 20 CPUs with FXSAVE, 15 of them with XSAVE, 6 with XSAVEC.
    assert_eq!(carried, 41 * 41, "every format of every CPU with every other");
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn a_conversion_keeps_every_value_or_names_what_it_cannot_keep(
        area in any_image(),
        to in any_layout(),
        format in any_format(),
    ) {
        match area.convert(&to, format) {
            Ok(there) => {
                prop_assert!(there.same_values(&area) && area.same_values(&there));
                prop_assert_eq!(there.check(format, Rfbm::ALL), Ok(()));
                prop_assert_eq!((there.format(), there.layout()), (format, &to));
                if format != Format::Fxsave {
                    let kept = area.xstate_bv().0 & to.enabled().bits();
                    let mxcsr = if area.mxcsr() == 0x1f80 { 0 } else { 2 };
                    prop_assert_eq!(there.xstate_bv().0 | mxcsr, kept | mxcsr);
                }
                let back = there.convert(area.layout(), area.format()).unwrap();
                prop_assert!(back.same_values(&area));
            }
            Err(ConvertError::NoPlace(component)) => {
                let is_initial = Area::initial(area.layout(), area.format()).component(component)
                    == area.component(component);
                let has_place = format != Format::Fxsave && to.enabled().contains(component);
                prop_assert!(!is_initial && !has_place, "{component}");
            }
            Err(error) => prop_assert!(!has_format(&to, format), "{error}"),
        }
    }

    #[test]
    fn to_its_own_layout_and_format_an_image_stays_as_it_is(area in any_image()) {
        let again = area.convert(area.layout(), area.format()).unwrap();
        prop_assert_eq!(again.bytes(), area.bytes());
    }
}
