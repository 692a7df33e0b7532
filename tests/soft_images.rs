//! Images of the software registers: what they have room for, PKRU in them, and how a debugger sees them.

mod cpus;
mod soft;

use cpus::{cpu, layouts};
use fpuswitch::{
    Component, ComponentSet, Pkru, Rfbm, Value,
    registers::{Fault, Image, Program, RegisterFile, SoftRegs, XsaveImage},
    xstate::{Format, Layout, Refusal, Rounding, SaveInstruction, ViewError, XcompBv, XstateBv},
};
use soft::{A, B, PKRU, PKRUS, TILEDATA, every_register_file, filled, rfbm};

const TILES: ComponentSet = ComponentSet::EMPTY.with(Component::TILEDATA);

/// CPUs with tiles, saving with each instruction but FXSAVE.
fn with_tiles() -> impl Iterator<Item = (String, SoftRegs)> {
    let amx = ["sapphire-rapids", "emerald-rapids-amx"].map(|name| (name, cpu(name)));
    every_register_file(amx.into_iter()).filter(|(_, regs)| regs.dynamic() == TILES)
}

/// CPUs with PKRU in XCR0, likewise.
fn with_pkru() -> impl Iterator<Item = (String, SoftRegs)> {
    every_register_file(layouts()).filter(|(_, regs)| regs.enabled().contains(Component::PKRU))
}

fn saved(regs: &SoftRegs) -> XsaveImage {
    let mut image = regs.new_image();
    regs.save(Rfbm::ALL, &mut image);
    image
}

#[test]
fn a_new_image_has_room_for_all_but_what_xfd_can_disable() {
    assert!(with_tiles().count() >= 4);
    for (name, regs) in every_register_file(layouts()) {
        let image = regs.new_image();
        assert_eq!(image.room(), regs.enabled() - regs.dynamic(), "{name}");
        let own = regs.layout().restricted_to(image.room());
        let format = regs.save_instruction().format();
        assert_eq!(image.area().bytes().len(), own.size_bytes(format), "{name}");
        let compacted = format == Format::Compacted;
        let expected = if compacted { XcompBv::compacted(image.room()) } else { XcompBv::STANDARD };
        assert_eq!(image.area().xcomp_bv(), expected, "{name}");
        assert!(image.is_restorable(), "{name}");
        let all = XsaveImage::new(regs.layout(), format);
        assert_eq!(all.room(), regs.enabled(), "{name}");
        assert!(all.area().same_values(image.area()), "{name}");
        // The room for tiles is what a task may use: it tells images apart.
        assert_eq!(all == image, regs.dynamic().is_empty(), "{name}");
    }
    // Tiles that nothing can disable are in every image.
    let dump = cpus::CPUS.iter().find(|(name, _)| *name == "sapphire-rapids").unwrap().1;
    let without_xfd = cpus::layout(&dump.replace("0x01: eax=0x0000001f", "0x01: eax=0x0000000f"));
    let regs = SoftRegs::new(&without_xfd);
    assert_eq!((regs.dynamic(), regs.new_image().room()), (ComponentSet::EMPTY, regs.enabled()));
}

#[test]
fn a_save_leaves_out_what_the_image_has_no_room_for() {
    for (name, blank) in with_tiles() {
        let mut image = blank.new_image();
        let size = image.area().bytes().len();
        for mask in [Rfbm::ALL, rfbm(TILEDATA), rfbm(TILEDATA | soft::AVX)] {
            filled(&blank, A).save(mask, &mut image);
            assert_eq!(image.area().bytes().len(), size, "{name}");
            assert_eq!(image.get(Component::TILEDATA), Value::INITIAL, "{name}");
            assert_eq!(image.get(Component::AVX), A, "{name}");
            assert!(image.area().xcomp_bv().components().is_subset_of(image.room()), "{name}");
            assert!(image.is_restorable(), "{name}");
        }
        let before = image.clone();
        assert!(image.set(Component::TILEDATA, A).is_err(), "{name}");
        assert_eq!((&image, image.is_edited()), (&before, before.is_edited()), "{name}");
        image.reset();
        assert_eq!((image.room(), image.area().bytes().len()), (before.room(), size), "{name}");
        assert_eq!(image.area().xcomp_bv(), blank.new_image().area().xcomp_bv(), "{name}");
    }
    // In the standard format its bytes are there all the same, in front of others.
    let opmask = ComponentSet::EMPTY.with(Component::OPMASK);
    for (name, blank) in every_register_file([("zen4", cpu("zen4"))].into_iter()) {
        let room = blank.enabled() - opmask;
        let mut image = XsaveImage::with_room(blank.layout(), blank.save_instruction().format(), room);
        for mask in [Rfbm::ALL, Rfbm::new(opmask.with(Component::SSE))] {
            filled(&blank, A).save(mask, &mut image);
            assert_eq!(
                (image.get(Component::OPMASK), image.get(Component::SSE)),
                (Value::INITIAL, A),
                "{name}"
            );
            assert!(image.set(Component::OPMASK, A).is_err(), "{name}");
        }
    }
}

#[test]
fn an_image_without_room_makes_tiles_initial_and_nothing_else() {
    for (name, blank) in with_tiles() {
        let mut regs = filled(&blank, B);
        regs.restore(Rfbm::ALL, &saved(&filled(&blank, A))).unwrap();
        for component in blank.enabled().without(Component::PKRU).iter() {
            let expected = if component == Component::TILEDATA { Value::INITIAL } else { A };
            assert_eq!(regs.get(component), expected, "{name}, {component}");
        }
        assert_eq!(regs.xinuse().map(|in_use| in_use & TILES), Ok(ComponentSet::EMPTY), "{name}");

        let mut regs = filled(&blank, B);
        let mut expected = regs.clone();
        regs.restore(rfbm(TILEDATA), &blank.new_image()).unwrap();
        expected.run(Program::Clear(Component::TILEDATA));
        assert_eq!(regs, expected, "{name}");
    }
    // AVX brings MXCSR along in the standard format, but only if it is in the image.
    for (name, blank) in every_register_file(layouts()) {
        let format = blank.save_instruction().format();
        let legacy = XsaveImage::with_room(blank.layout(), format, ComponentSet::LEGACY);
        assert_eq!(legacy.room(), ComponentSet::LEGACY, "{name}");
        let extended = blank.enabled() - ComponentSet::LEGACY;
        let mut regs = filled(&blank, B);
        regs.run(Program::Round(Rounding::Up));
        let mut expected = regs.clone();
        regs.restore(Rfbm::new(extended), &legacy).unwrap();
        extended.iter().for_each(|component| expected.run(Program::Clear(component)));
        assert_eq!(regs, expected, "{name}");
    }
}

#[test]
fn a_restore_of_tiles_that_xfd_disables_is_nm() {
    for (name, blank) in with_tiles() {
        let mut image = blank.new_image();
        image.grow(TILES).unwrap();
        let mut full = image.clone();
        filled(&blank, A).save(Rfbm::ALL, &mut full);
        let mut disabled = filled(&blank, B);
        disabled.set_xfd(TILES).unwrap();
        for (what, image, expected) in [
            ("with tiles", &full, Err(Fault::DeviceNotAvailable)),
            ("initial tiles", &image, Ok(())),
            ("no room", &blank.new_image(), Ok(())),
        ] {
            let mut regs = disabled.clone();
            assert_eq!(regs.restore(Rfbm::ALL, image), expected, "{name}, {what}");
            let tiles = if expected.is_ok() { Value::INITIAL } else { B };
            assert_eq!(regs.get(Component::TILEDATA), tiles, "{name}, {what}");
        }
        assert_eq!(disabled.clone().restore(rfbm(!TILEDATA), &full), Ok(()), "{name}");
        // Saved as if in their initial configuration.
        disabled.save(Rfbm::ALL, &mut full);
        assert_eq!((full.get(Component::TILEDATA), full.get(Component::AVX)), (Value::INITIAL, B), "{name}");
        assert_eq!(disabled.restore(Rfbm::ALL, &full), Ok(()), "{name}");
    }
}

#[test]
fn growing_keeps_what_is_there() {
    type Change = fn(&mut XsaveImage);
    let changes: [(&str, Change); 6] = [
        ("as saved", |_| {}),
        ("edited", |image| image.set(Component::OPMASK, B).unwrap()),
        ("initial", Image::reset),
        ("PKRU", |image| image.set_pkru(Pkru(u32::MAX))),
        ("bad header", |image| image.area_mut().reserved_header_bytes_mut()[0] = 1),
        ("bad MXCSR", |image| image.area_mut().legacy_mut().set_mxcsr(u32::MAX)),
    ];
    for (name, blank) in with_tiles() {
        for (what, change) in changes {
            let mut image = saved(&filled(&blank, A));
            image.set_pkru(Pkru::DEFAULT);
            change(&mut image);
            let before = image.clone();
            assert_eq!(image.grow(TILES | ComponentSet::LEGACY), Ok(()), "{name}, {what}");
            assert_eq!(image.room(), blank.enabled(), "{name}, {what}");
            assert!(image.area().same_values(before.area()), "{name}, {what}");
            assert_eq!((image.refusal(), image.pkru()), (before.refusal(), before.pkru()), "{name}, {what}");
            // Once more changes nothing, and neither does what cannot be.
            let bytes = image.area().bytes().to_vec();
            assert_eq!(image.grow(TILES), Ok(()));
            assert!(image.grow(TILES.with(Component::BNDREGS)).is_err());
            assert_eq!(image.area().bytes(), bytes, "{name}, {what}");

            assert_eq!(image.set(Component::TILEDATA, B), Ok(()), "{name}, {what}");
            assert_eq!(image.get(Component::TILEDATA), B, "{name}, {what}");
            image.reset();
            assert!(image.area().same_values(blank.new_image().area()), "{name}, {what}");
            filled(&blank, B).save(Rfbm::ALL, &mut image);
            let mut regs = blank.clone();
            regs.restore(Rfbm::ALL, &image).unwrap();
            assert_eq!(regs, filled(&blank, B), "{name}, {what}");
        }
        let mut small = blank.new_image();
        assert!(small.grow(TILES.with(Component::BNDREGS)).is_err());
        assert_eq!(small.room(), blank.enabled() - TILES, "{name}");
    }
    let mut legacy = SoftRegs::new(&Layout::fxsave_only()).new_image();
    assert_eq!(legacy.grow(ComponentSet::LEGACY), Ok(()));
    assert!(legacy.grow(ComponentSet::EMPTY.with(Component::PKRU)).is_err());
}

#[test]
fn pkru_moves_where_it_is_asked_for() {
    for (name, blank) in with_pkru() {
        for pkru in PKRUS {
            let mut regs = filled(&blank, A);
            regs.set_pkru(pkru);
            for before in [Pkru(0), Pkru(4)] {
                let what = format!("{name}, {pkru:?} over {before:?}");
                let mut image = blank.new_image();
                image.grow(blank.dynamic()).unwrap();
                image.set_pkru(before);
                for mask in [rfbm(!PKRU), rfbm(soft::X87)] {
                    regs.save(mask, &mut image);
                    assert_eq!(image.pkru(), before, "{what}, {mask:?}");
                }
                let mut named = image.clone();
                regs.save(rfbm(PKRU), &mut named);
                assert_eq!((named.pkru(), named.get(Component::AVX)), (pkru, A), "{what}");
                let (mut left_alone, mut loaded) = (blank.clone(), blank.clone());
                left_alone.set_pkru(Pkru(8));
                left_alone.restore(rfbm(!PKRU), &named).unwrap();
                left_alone.restore_initial(rfbm(!PKRU));
                assert_eq!(left_alone.pkru(), Some(Pkru(8)), "{what}");
                loaded.set_pkru(Pkru(8));
                loaded.restore(Rfbm::ALL, &named).unwrap();
                assert_eq!(loaded, regs, "{what}");
                loaded.restore_initial(rfbm(PKRU));
                assert_eq!((loaded.pkru(), loaded.get(Component::AVX)), (Some(Pkru(0)), A), "{what}");
            }
        }
        // A clear bit is 0, whatever is in the component.
        let mut image = blank.new_image();
        image.set_pkru(Pkru(u32::MAX));
        let bits = image.area().xstate_bv().0;
        assert_eq!(bits, PKRU, "{name}");
        image.area_mut().set_xstate_bv(XstateBv(0));
        assert_eq!(image.pkru(), Pkru(0), "{name}");
        let mut regs = blank.clone();
        regs.set_pkru(Pkru(8));
        regs.restore(Rfbm::ALL, &image).unwrap();
        assert_eq!(regs.pkru(), Some(Pkru(0)), "{name}");
        image.set_pkru(Pkru(0));
        assert_eq!(image.area().xstate_bv(), XstateBv(0), "{name}");
        // Nor is it lost where all else is, or has to be left out.
        image.set_pkru(Pkru(4));
        image.area_mut().reserved_header_bytes_mut()[0] = 1;
        regs.save(rfbm(soft::AVX), &mut image);
        assert_eq!(image.pkru(), Pkru(4), "{name}");
    }
    let mut image = SoftRegs::new(&cpu("zen4").restricted_to(ComponentSet::LEGACY)).new_image();
    image.set_pkru(Pkru(4));
    assert_eq!((image.pkru(), image.area().xstate_bv()), (Pkru(0), XstateBv(0)), "no room");
}

#[test]
fn a_debugger_sees_all_that_the_cpu_has_and_writes_what_there_is_room_for() {
    for (name, blank) in with_tiles() {
        let mut image = saved(&filled(&blank, A));
        let regset = image.regset(Pkru(4)).unwrap();
        assert_eq!(regset.len(), blank.layout().size_bytes(Format::Standard), "{name}");
        assert_eq!(regset, image.area().regset(Pkru(4)).unwrap().bytes(), "{name}");
        let mut other = blank.new_image();
        let pkru = if blank.pkru().is_some() { Pkru(4) } else { Pkru(0) };
        assert_eq!(other.set_regset(&regset), Ok(pkru), "{name}");
        assert_eq!((&other, other.pkru()), (&image, Pkru(0)), "{name}");

        // Tiles are refused until there is room, and a refusal changes nothing.
        image.grow(TILES).unwrap();
        image.set(Component::TILEDATA, B).unwrap();
        image.set(Component::AVX, B).unwrap();
        let tiles = image.regset(Pkru(0)).unwrap();
        let allowed = other.room();
        let before = other.clone();
        let refused = Refusal::NotAllowed { xstate_bv: image.area().xstate_bv(), allowed };
        assert_eq!(other.set_regset(&tiles), Err(ViewError::Refused(refused)), "{name}");
        let mut bad = regset.clone();
        bad[24..28].fill(0xff);
        assert!(matches!(other.set_regset(&bad), Err(ViewError::Refused(Refusal::Mxcsr { .. }))), "{name}");
        assert!(matches!(other.set_regset(&regset[1..]), Err(ViewError::Length { .. })), "{name}");
        assert_eq!(other.area().bytes(), before.area().bytes(), "{name}");
        other.grow(TILES).unwrap();
        assert_eq!(other.set_regset(&tiles), Ok(Pkru(0)), "{name}");
        assert_eq!(other, image, "{name}");
    }
    let old = SoftRegs::default().with_save_instruction(SaveInstruction::Fxsave).unwrap();
    assert!(matches!(old.new_image().regset(Pkru(0)), Err(ViewError::NoXsave(_))));
    assert!(matches!(old.new_image().set_regset(&[0; 576]), Err(ViewError::NoXsave(_))));
}

/// What a task may use follows from the room: two images that differ in it lead to different machines.
#[test]
fn images_with_other_dynamic_room_differ() {
    let regs = SoftRegs::new(&cpu("sapphire-rapids"));
    let (image, mut grown) = (regs.new_image(), regs.new_image());
    grown.grow(TILES).unwrap();
    assert_ne!(image, grown);
    grown.area_mut().set_xstate_bv(XstateBv(1 << 18));
    assert!(grown.is_restorable());
    let mut bad = image.clone();
    bad.area_mut().set_xstate_bv(XstateBv(1 << 18));
    assert!(!bad.is_restorable(), "XFD disables what there is no room for");
}
