//! One image as ptrace and KVM show it, and what all views have in common. Offsets are written down from the kernel's
//! asm/user_64.h and uapi/asm/kvm.h, and from its copy_xstate_to_uabi_buf.

mod cpus;

use cpus::{
    FORMATS, VALUES, any_bytes, any_image, cases, cpu, full, has_format, layouts, long, put, thread,
    with_garbage, word,
};
use fpuswitch::{
    Component, ComponentSet, Pkru,
    xstate::{Area, AreaError, Format, Refusal, SignalFrame, ViewError, XcompBv, XstateBv},
};
use proptest::prelude::*;

const ALL: ComponentSet = ComponentSet::from_bits(u64::MAX);
const REGSET: &str = "a register set (NT_X86_XSTATE)";

#[test]
fn user_fpregs_is_the_legacy_region_and_zeros() {
    let mut expected = [0; 512];
    VALUES[..11].iter().for_each(|(_, offset, value)| put(&mut expected, *offset, value));
    put(&mut expected, 28, &[0xff, 0xff, 2, 0]);
    for format in FORMATS {
        assert_eq!(thread(format).user_fpregs().unwrap(), expected, "{format:?}");
    }
    // Nothing in use.
    let mut initial = [0; 512];
    put(&mut initial, 0, &[0x7f, 3]);
    put(&mut initial, 24, &[0x80, 0x1f, 0, 0, 0xff, 0xff, 0, 0]);
    for (name, layout) in layouts() {
        for format in FORMATS.into_iter().filter(|format| has_format(&layout, *format)) {
            let area = with_garbage(&Area::initial(&layout, format));
            assert_eq!(area.user_fpregs().unwrap(), initial, "{name} {format:?}");
        }
    }
}

#[test]
fn user_fpregs_is_written_to_x87_and_sse_alone() {
    let mut fpregs = thread(Format::Standard).user_fpregs().unwrap();
    fpregs[416..].fill(0x77);
    for format in [Format::Standard, Format::Compacted] {
        let mut area = full(&cpu("skylake-sp"), format);
        area.legacy_mut().set_mxcsr_mask(0xffff);
        let before = area.clone();
        area.set_user_fpregs(&fpregs).unwrap();
        assert_eq!(area.user_fpregs().unwrap()[..416], with_mask(&fpregs)[..416]);
        assert_eq!(area.bytes()[416..], before.bytes()[416..], "no software bytes, nothing behind them");
        area.set_initial_values();
        area.set_user_fpregs(&fpregs).unwrap();
        assert_eq!(area.xstate_bv(), XstateBv(3));
    }
    let mut area = full(&cpu("skylake-sp"), Format::Standard);
    let before = area.bytes().to_vec();
    for found_bytes in [0, 511, 513, 576] {
        let form = "struct user_fpregs_struct";
        let length = ViewError::Length { form, expected_bytes: 512, found_bytes };
        assert_eq!(area.set_user_fpregs(&vec![0; found_bytes]), Err(length));
    }
    put(&mut fpregs, 24, &[0x80, 0x1f, 1, 0]);
    let refusal = Refusal::Mxcsr { mxcsr: 0x1_1f80, mask: 0xffff };
    assert_eq!(area.set_user_fpregs(&fpregs), Err(ViewError::Refused(refusal)));
    let mut x87 = Area::initial(&cpu("zen3").restricted_to(ComponentSet::EMPTY), Format::Standard);
    let no_place = ViewError::Area(AreaError::NoPlace(Component::SSE));
    assert_eq!(x87.set_user_fpregs(&[0; 512]), Err(no_place));
    assert_eq!(area.bytes(), before);
}

/// With the MXCSR_MASK of a CPU that says nothing else.
fn with_mask(fpregs: &[u8]) -> Vec<u8> {
    let mut fpregs = fpregs.to_vec();
    put(&mut fpregs, 28, &[0xff, 0xff, 0, 0]);
    fpregs
}

#[test]
fn a_register_set_is_what_linux_writes() {
    let mut expected = vec![0; 2696];
    VALUES.iter().for_each(|(_, offset, value)| put(&mut expected, *offset, value));
    put(&mut expected, 28, &[0xff, 0xff, 2, 0]);
    put(&mut expected, 464, &[0xff, 2]);
    put(&mut expected, 512, &[0b1010_0011, 2]);
    put(&mut expected, 2688, &[0x54, 0x55, 0x55, 0x55]);
    for format in [Format::Standard, Format::Compacted] {
        assert_eq!(thread(format).regset(Pkru::DEFAULT).unwrap().bytes(), expected, "{format:?}");
    }
    // An FXSAVE image has the first part of it.
    expected[1096..2688].fill(0);
    expected[512] = 3;
    assert_eq!(thread(Format::Fxsave).regset(Pkru::DEFAULT).unwrap().bytes(), expected);
}

#[test]
fn components_lie_where_that_cpu_has_them() {
    for (name, pkru_offset, size) in [("skylake-sp", 2688, 2696), ("zen4", 2432, 2440), ("zen3", 832, 840)] {
        let regset = Area::initial(&cpu(name), Format::Compacted).regset(Pkru(0xc)).unwrap();
        assert_eq!((regset.bytes().len(), long(regset.bytes(), pkru_offset)), (size, 0xc), "{name}");
        assert_eq!(long(regset.bytes(), 464), cpu(name).enabled().bits());
        assert_eq!(long(regset.bytes(), 512), 1 << 9);
    }
    let tiles = full(&cpu("sapphire-rapids"), Format::Compacted);
    let regset = tiles.regset(Pkru(0)).unwrap();
    assert_eq!(regset.bytes()[2816..], *tiles.component(Component::TILEDATA).unwrap());
}

/// The PKRU component's bit in the image, the thread's PKRU; the bit in the view.
const PKRU_BITS: [(bool, u32, bool); 5] = [
    (false, 0, false),
    (false, 0x5555_5554, true),
    (false, u32::MAX, true),
    (true, 0, true),
    (true, 4, true),
];

#[test]
fn pkru_comes_from_the_thread() {
    for (in_image, pkru, in_view) in PKRU_BITS {
        let mut area = Area::initial(&cpu("zen4"), Format::Compacted);
        if in_image {
            area.set_component(Component::PKRU, &[0xee; 8]).unwrap();
        }
        let regset = area.regset(Pkru(pkru)).unwrap();
        assert_eq!(long(regset.bytes(), 2432), u64::from(pkru), "{pkru:#x}");
        assert_eq!(regset.xstate_bv(), XstateBv(u64::from(in_view) << 9), "{pkru:#x}");
        let kvm = area.kvm_xsave(4096, Pkru(pkru)).unwrap();
        assert_eq!(kvm[..2440], *regset.bytes());

        let kept = in_view.then_some(Pkru(pkru));
        assert_eq!(area.set_regset(regset.bytes(), ALL), Ok(Pkru(pkru)));
        assert_eq!(area.set_kvm_xsave(&kvm, ALL), Ok(kept));
        assert_eq!(area.xstate_bv(), XstateBv(0), "its home is not the image");
        // A signal return loads it in any case.
        let frame = area.signal_frame(Pkru(pkru)).unwrap();
        assert_eq!((long(&frame, 512), long(&frame, 2432)), (1 << 9 | 3, u64::from(pkru)));
    }
    // What the component holds behind a clear bit is nothing.
    let mut regset = Area::initial(&cpu("zen4"), Format::Standard).regset(Pkru(0)).unwrap();
    regset.bytes_mut()[2432..].fill(0xff);
    let mut area = full(&cpu("zen4"), Format::Compacted);
    assert_eq!(area.set_regset(regset.bytes(), ALL), Ok(Pkru(0)));
    // Where there is no PKRU, there is none in the view.
    let haswell = Area::initial(&cpu("qemu-haswell"), Format::Standard).regset(Pkru::DEFAULT).unwrap();
    assert_eq!(haswell.xstate_bv(), XstateBv(0));
}

#[test]
fn mxcsr_alone_is_seen_by_whoever_reads() {
    let mut area = Area::initial(&cpu("zen4"), Format::Standard);
    area.legacy_mut().set_mxcsr(0x9f80);
    let regset = area.regset(Pkru(0)).unwrap();
    assert_eq!((regset.xstate_bv(), word(regset.bytes(), 24)), (XstateBv(2), 0x9f80));
    assert_eq!(word(&area.user_fpregs().unwrap(), 24), 0x9f80);
    // Taken with SSE or AVX, and otherwise not even looked at but for x87.
    for (xstate_bv, mxcsr, expected) in [
        (1 << 1, 0x9f80, Ok(0x9f80)),
        (1 << 2, 0x9f80, Ok(0x9f80)),
        (1 << 0, 0x9f80, Ok(0x1f80)),
        (1 << 5, 0x9f80, Ok(0x1f80)),
        (1 << 5, u32::MAX, Ok(0x1f80)),
        (0, u32::MAX, Ok(0x1f80)),
        (1 << 0, 0x1_1f80, Err(())),
        (1 << 1, 0x1_1f80, Err(())),
        (1 << 2, 0x1_1f80, Err(())),
    ] {
        let mut regset = Area::initial(&cpu("zen4"), Format::Standard).regset(Pkru(0)).unwrap();
        regset.legacy_mut().set_mxcsr(mxcsr);
        regset.set_xstate_bv(XstateBv(xstate_bv));
        for format in [Format::Standard, Format::Compacted] {
            let mut area = full(&cpu("zen4"), format);
            let taken = area.set_regset(regset.bytes(), ALL);
            let refused = ViewError::Refused(Refusal::Mxcsr { mxcsr, mask: 0xffff });
            assert_eq!(taken.map(|_| area.mxcsr()), expected.map_err(|()| refused), "{xstate_bv:#x}");
        }
    }
}

#[test]
fn a_register_set_that_a_kernel_refuses_changes_nothing() {
    let layout = cpu("sapphire-rapids");
    let good = full(&layout, Format::Standard).regset(Pkru(8)).unwrap();
    let user = ComponentSet::from_bits(0x2e7);
    let not_allowed = |xstate_bv| Refusal::NotAllowed { xstate_bv: XstateBv(xstate_bv), allowed: user };
    let rows: [(usize, &[u8], Refusal); 8] = [
        (512, &[0xe7, 2, 6], not_allowed(0x602e7)),
        (512, &[0xe7, 2, 0, 0, 0, 0, 0, 0x80], not_allowed(1 << 63 | 0x2e7)),
        (512, &[8, 0, 0], not_allowed(8)),
        (527, &[0x80], Refusal::XcompBv(XcompBv(1 << 63))),
        (520, &[1], Refusal::XcompBv(XcompBv(1))),
        (528, &[5], Refusal::Reserved { offset: 16, value: 5 }),
        (575, &[6], Refusal::Reserved { offset: 63, value: 6 }),
        (26, &[1], Refusal::Mxcsr { mxcsr: 0x1_9fbf, mask: 0xffff }),
    ];
    for format in FORMATS {
        let mut area = full(&layout, format);
        let before = area.bytes().to_vec();
        for (offset, bytes, refusal) in rows {
            let mut regset = good.bytes().to_vec();
            regset[514] = 0;
            put(&mut regset, offset, bytes);
            assert_eq!(area.set_regset(&regset, user), Err(ViewError::Refused(refusal)), "{offset}");
            assert_eq!(area.set_kvm_xsave(&regset, user), Err(ViewError::Refused(refusal)), "{offset}");
        }
        for found_bytes in [0, 512, 2696, 11007, 11009, 11012] {
            let form = REGSET;
            let length = ViewError::Length { form, expected_bytes: 11008, found_bytes };
            assert_eq!(area.set_regset(&vec![0; found_bytes], user), Err(length));
        }
        assert_eq!(area.bytes(), before, "{format:?}");
    }
    // Into an image that has no place for it.
    let mut legacy = full(&layout, Format::Fxsave);
    let before = legacy.bytes().to_vec();
    let no_place = ViewError::Area(AreaError::NoPlace(Component::AVX));
    assert_eq!(legacy.set_regset(good.bytes(), ALL), Err(no_place));
    assert_eq!(legacy.bytes(), before);
    let old = Area::initial(&cpu("qemu-core2duo"), Format::Fxsave);
    assert_eq!(old.regset(Pkru(0)).unwrap_err(), ViewError::NoXsave(REGSET));
    assert_eq!(old.clone().set_regset(&[0; 576], ALL), Err(ViewError::NoXsave(REGSET)));
}

#[test]
fn an_image_that_no_cpu_takes_has_no_view() {
    let mut area = Area::initial(&cpu("zen4"), Format::Standard);
    area.set_xstate_bv(XstateBv(1 << 17));
    let refusal = Refusal::NotEnabled { xstate_bv: XstateBv(1 << 17), enabled: cpu("zen4").enabled() };
    let refused = ViewError::Refused(refusal);
    assert_eq!(area.user_fpregs(), Err(refused));
    assert_eq!(area.regset(Pkru(0)).unwrap_err(), refused);
    assert_eq!(area.kvm_xsave(4096, Pkru(0)), Err(refused));
    assert_eq!(area.signal_frame(Pkru(0)), Err(refused));
    assert_eq!(area.xstate_note(Pkru(0)), Err(refused));
}

#[test]
fn a_kernels_supervisor_state_is_not_shown_and_not_changed() {
    let text = cpus::CPUS.iter().find(|(name, _)| *name == "zen4").unwrap().1;
    let layout = cpus::layout(&format!("{text}0x0000000d 0x0b: eax=0x10 ebx=0 ecx=1 edx=0\n"));
    let cet = Component::new(11).unwrap();
    let mut kernels = Area::over(vec![0; 4096], &layout).unwrap();
    kernels.set_initial_values();
    kernels.set_xcomp_bv(XcompBv::compacted(layout.enabled().with(cet)));
    kernels.set_component(cet, &[7; 16]).unwrap();
    kernels.set_component(Component::AVX, &[1; 256]).unwrap();
    let regset = kernels.regset(Pkru(0)).unwrap();
    assert_eq!(regset.xstate_bv(), XstateBv(1 << 2));
    let mut changed = regset.clone();
    changed.set_initial(Component::AVX).unwrap();
    assert_eq!(kernels.set_regset(changed.bytes(), layout.enabled()), Ok(Pkru(0)));
    assert_eq!((kernels.xstate_bv().0, &*kernels.component(cet).unwrap()), (1 << 11, &[7; 16][..]));
}

#[test]
fn what_does_not_fit_into_kvms_struct_is_refused_by_name() {
    let layout = cpu("sapphire-rapids");
    let mut area = Area::initial(&layout, Format::Compacted);
    area.set_component(Component::TILECFG, &[1; 64]).unwrap();
    area.set_component(Component::TILEDATA, &[2; 8192]).unwrap();
    let lost = |size_bytes| ViewError::DoesNotFit {
        component: Component::TILEDATA,
        end_bytes: 11008,
        form: "struct kvm_xsave",
        size_bytes,
    };
    for size in [4096, 11007] {
        assert_eq!(area.kvm_xsave(size, Pkru(4)), Err(lost(size)));
    }
    let whole = area.kvm_xsave(12288, Pkru(4)).unwrap();
    assert_eq!(whole[..11008], *area.regset(Pkru(4)).unwrap().bytes());
    assert!(whole[11008..].iter().all(|byte| *byte == 0));
    // Zeros are no loss, and then there is no bit for what is not there.
    area.set_component(Component::TILEDATA, &[0; 8192]).unwrap();
    let small = area.kvm_xsave(4096, Pkru(4)).unwrap();
    assert_eq!(long(&small, 512), 1 << 17 | 1 << 9);
    let mut other = full(&layout, Format::Standard);
    assert_eq!(other.set_kvm_xsave(&small, layout.enabled()), Ok(Some(Pkru(4))));
    assert!(other.same_values(&area));
    // A bit for what is beyond the end is no image.
    let mut cut = whole[..4096].to_vec();
    put(&mut cut, 512, &[0, 0, 4]);
    let beyond = Refusal::BeyondEnd { component: Component::TILEDATA, end_bytes: 11008, found_bytes: 4096 };
    assert_eq!(other.set_kvm_xsave(&cut, layout.enabled()), Err(ViewError::Refused(beyond)));
    let short =
        |found_bytes| ViewError::Length { form: "struct kvm_xsave", expected_bytes: 4096, found_bytes };
    assert_eq!(area.kvm_xsave(4095, Pkru(0)), Err(short(4095)));
    assert_eq!(other.set_kvm_xsave(&cut[..4095], layout.enabled()), Err(short(4095)));
}

#[test]
fn kvms_struct_without_xsave_has_a_header_all_the_same() {
    let mut area = full(&cpu("qemu-core2duo"), Format::Fxsave);
    let bytes = area.kvm_xsave(4096, Pkru(0)).unwrap();
    assert_eq!(bytes[..512], area.user_fpregs().unwrap());
    assert_eq!(long(&bytes, 512), 3);
    assert!(bytes[520..].iter().all(|byte| *byte == 0));
    let mut other = Area::initial(area.layout(), Format::Fxsave);
    assert_eq!(other.set_kvm_xsave(&bytes, ALL), Ok(None));
    assert!(other.same_values(&area));
    let mut more = bytes.clone();
    more[512] = 7;
    let refusal = Refusal::NotAllowed { xstate_bv: XstateBv(7), allowed: ComponentSet::from_bits(3) };
    assert_eq!(area.set_kvm_xsave(&more, ALL), Err(ViewError::Refused(refusal)));
}

#[test]
fn every_view_of_every_cpu_there_and_back() {
    let mut carried = 0;
    for (name, layout) in layouts() {
        for format in FORMATS.into_iter().filter(|format| has_format(&layout, *format)) {
            for area in
                [full(&layout, format), Area::initial(&layout, format)].map(|area| with_garbage(&area))
            {
                let what = format!("{name} {format:?}");
                let pkru = Pkru(if layout.enabled().contains(Component::PKRU) { 0x5555_5550 } else { 0 });
                let blank = Area::initial(&layout, format);
                let mut back = blank.clone();
                back.set_user_fpregs(&area.user_fpregs().unwrap()).unwrap();
                for component in [Component::X87, Component::SSE] {
                    assert_eq!(back.component(component), area.component(component), "{what}");
                }
                let (frame, kvm) = (area.signal_frame(pkru).unwrap(), area.kvm_xsave(16384, pkru).unwrap());
                let (image, found) = SignalFrame::over(&frame, &layout).unwrap().image().unwrap();
                assert!(image.same_values(&area) && found == pkru, "{what}");
                let mut back = blank.clone();
                let found = back.set_kvm_xsave(&kvm, layout.enabled()).unwrap();
                assert!(back.same_values(&area) && found.unwrap_or(Pkru(0)) == pkru, "{what}");
                if layout.has_xsave() {
                    let regset = area.regset(pkru).unwrap();
                    let mut back = blank.clone();
                    assert_eq!(back.set_regset(regset.bytes(), layout.enabled()), Ok(pkru), "{what}");
                    assert!(back.same_values(&area), "{what}");
                    assert_eq!(back.regset(pkru).unwrap().bytes(), regset.bytes(), "{what}");
                }
                carried += 1;
            }
        }
    }
    assert_eq!(carried, 2 * 41, "every format of every CPU");
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn hostile_bytes_give_an_error_or_a_valid_image(
        (layout, bytes) in any_bytes(),
        target in any_image(),
        allowed in any::<u64>(),
    ) {
        let allowed = ComponentSet::from_bits(allowed);
        let fit = |len: usize| { let mut bytes = bytes.clone(); bytes.resize(len, 0); bytes };
        let own = target.layout().size_bytes(Format::Standard);
        let with_magic = |xstate_size: usize| {
            let mut bytes = fit(xstate_size + 4);
            put(&mut bytes, 464, b"SXPF");
            put(&mut bytes, 468, &(xstate_size as u32 + 4).to_le_bytes());
            put(&mut bytes, 480, &(xstate_size as u32).to_le_bytes());
            put(&mut bytes, xstate_size, b"EXPF");
            bytes
        };
        let forms = [bytes.clone(), fit(512), fit(own), fit(4096), fit(11008), with_magic(own.max(576))];
        for form in &forms {
            let mut changed = target.clone();
            let results = [
                changed.set_user_fpregs(form).is_ok(),
                changed.set_regset(form, allowed).is_ok(),
                changed.set_kvm_xsave(form, allowed).is_ok(),
            ];
            if results == [false; 3] {
                prop_assert_eq!(changed.bytes(), target.bytes());
            }
            let format = changed.format();
            prop_assert_eq!(changed.check(format, fpuswitch::Rfbm::ALL), Ok(()));
            for layout in [&layout, target.layout()] {
                if let Ok((image, _)) = SignalFrame::over(form, layout).and_then(|frame| frame.image()) {
                    prop_assert_eq!(image.check(image.format(), fpuswitch::Rfbm::ALL), Ok(()));
                }
                let Ok(area) = Area::over(&form[..], layout) else { continue };
                let _ = (area.legacy().tag_word(), area.user_fpregs());
                if let Ok(regset) = area.regset(Pkru(7)) {
                    prop_assert_eq!(regset.check_user_image(layout.enabled()), Ok(()));
                    let mut back = Area::initial(layout, Format::Standard);
                    prop_assert!(back.set_regset(regset.bytes(), layout.enabled()).is_ok());
                    prop_assert!(area.signal_frame(Pkru(7)).is_ok() && area.kvm_xsave(16384, Pkru(7)).is_ok());
                }
            }
            let _ = Area::from_notes(form);
        }
    }
}
