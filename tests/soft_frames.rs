//! Signal frames of the software registers: what Linux would have written, with PKRU, with tiles, and of other CPUs.

mod cpus;
mod soft;

use cpus::{cpu, layouts};
use fpuswitch::{
    Component, ComponentSet, FrameChange, Pkru, Rfbm, Value,
    registers::{
        Fault, Frame, FrameContents, Image, Program, RegisterFile, SoftFrame, SoftRegs, UserFrames,
        XsaveImage,
    },
    xstate::{Format, FrameKind, Rounding, SaveInstruction, SignalFrame, XstateBv},
};
use soft::{A, B, PKRU, PKRUS, assert_values, every_register_file, filled, frame_of, without_pkru};

#[test]
fn a_frame_is_what_linux_writes() {
    for (name, blank) in every_register_file(layouts()) {
        let mut rounded = blank.clone();
        rounded.run(Program::Round(Rounding::Up));
        rounded.run(Program::Clear(Component::X87));
        let standard = if blank.layout().has_xsave() { Format::Standard } else { Format::Fxsave };
        for room in [blank.enabled() - blank.dynamic(), blank.enabled(), ComponentSet::LEGACY] {
            let own = blank.layout().restricted_to(room.with(Component::PKRU));
            for regs in [&blank, &rounded, &filled(&blank, A)] {
                for pkru in PKRUS {
                    let mut image = XsaveImage::new(blank.layout(), blank.save_instruction().format());
                    regs.save(Rfbm::new(room), &mut image);
                    let own = image.area().convert(&own, standard).unwrap();
                    let expected = own.signal_frame(pkru).unwrap();

                    let mut frame = regs.frame_with_room(room);
                    // Whatever user code has left there.
                    let header = if blank.layout().has_xsave() { 464..576 } else { 464..512 };
                    frame.image_mut().bytes_mut()[header].fill(0xa5);
                    regs.save_user(Rfbm::ALL, &mut frame).unwrap();
                    assert_eq!(
                        frame.image().xstate_bv().0 & PKRU,
                        0,
                        "{name}: PKRU is written behind the save"
                    );
                    frame.set_pkru(pkru).unwrap();
                    assert_eq!(frame.image().bytes(), expected, "{name}, {room:?}, {pkru:?}");
                }
            }
        }
        let new = blank.new_frame();
        assert_eq!(
            (&new, new.image().bytes()),
            (&frame_of(&blank), frame_of(&blank).image().bytes()),
            "{name}"
        );
    }
}

#[test]
fn pkru_in_a_frame_counts_where_its_bit_is_set_and_all_of_the_frame_does() {
    let regs = SoftRegs::default();
    let allowed = regs.enabled() - ComponentSet::EMPTY.with(Component::PKRU);
    let pkru_of = |frame: &SoftFrame| frame.contents(allowed).unwrap().pkru;
    for pkru in PKRUS {
        let mut frame = frame_of(&regs);
        assert_eq!(pkru_of(&frame), Pkru(0));
        frame.set_pkru(pkru).unwrap();
        assert_eq!((pkru_of(&frame), frame.image().xstate_bv().0 & PKRU), (pkru, PKRU));
        // As a signal return would have it.
        let bytes = frame.image().bytes();
        assert_eq!(SignalFrame::over(bytes, regs.layout()).unwrap().image().unwrap().1, pkru);

        // The bytes stay, and mean nothing.
        let stale = frame.image().bytes()[2688..2696].to_vec();
        frame.change(FrameChange::Pkru(None)).unwrap();
        assert_eq!((pkru_of(&frame), &frame.image().bytes()[2688..2696]), (Pkru(0), &stale[..]));
        frame.change(FrameChange::Pkru(Some(pkru))).unwrap();
        assert_eq!(pkru_of(&frame), pkru);
        frame.change(FrameChange::BadMagic).unwrap();
        assert_eq!(pkru_of(&frame), Pkru(0), "a legacy frame has none");
    }
    for present in [0..512, 512..2688, 0..2688, 576..4096] {
        let mut frame = regs.new_frame();
        frame.set_present(present.clone());
        let before = frame.image().bytes().to_vec();
        assert_eq!(frame.set_pkru(Pkru(4)), Err(Fault::Page), "present {present:?}");
        assert_eq!(frame.image().bytes(), before, "present {present:?}");
    }
}

#[test]
fn tiles_are_in_frames_that_have_room_for_them() {
    let blank = SoftRegs::new(&cpu("sapphire-rapids"));
    let tiles = blank.dynamic();
    let full = filled(&blank, A);
    let mut small = full.new_frame();
    let mut large = full.frame_with_room(blank.enabled());
    assert_eq!(small.image().bytes().len(), 2816 + 4);
    assert_eq!(large.image().bytes().len(), 11008 + 4);
    for frame in [&mut small, &mut large] {
        full.save_user(Rfbm::ALL, frame).unwrap();
    }
    let all = without_pkru(&blank);
    assert_eq!(small.contents(all).unwrap().components, all - tiles);
    assert_eq!(large.contents(all).unwrap().components, all);
    // Too large for a task without permission.
    let without = large.contents(all - tiles).unwrap();
    assert_eq!((without.components, without.legacy_only), (ComponentSet::LEGACY, true));
    for (frame, value) in [(&small, Value::INITIAL), (&large, A)] {
        let mut regs = filled(&blank, B);
        regs.restore_user(Rfbm::ALL, frame).unwrap();
        let loaded = if value == A { all } else { all - tiles };
        assert_values(&regs, loaded, Value::INITIAL, "load");
        let mut image = blank.new_image();
        image.grow(tiles).unwrap();
        filled(&blank, B).save(Rfbm::ALL, &mut image);
        frame.copy_to(frame.contents(all).unwrap(), &mut image).unwrap();
        assert_eq!((image.get(Component::TILEDATA), image.get(Component::AVX)), (value, A));
        assert_eq!(image.room(), blank.enabled());
    }
    // A copy is held against what the task has, as in Linux.
    let mut image = blank.new_image();
    let copied = large.copy_to(large.contents(all).unwrap(), &mut image);
    assert_eq!((copied, &image), (Err(Fault::GeneralProtection), &blank.new_image()));
    // A header that claims what lies behind the end of the frame.
    let claimed = small.image().xstate_bv().0 | tiles.bits();
    small.image_mut().set_xstate_bv(XstateBv(claimed));
    assert_eq!(full.clone().restore_user(Rfbm::new(all - tiles), &small), Ok(()));
    assert_eq!(full.clone().restore_user(Rfbm::ALL, &small), Err(Fault::Page));

    let mut disabled = filled(&blank, B);
    disabled.set_xfd(tiles).unwrap();
    assert_eq!(disabled.restore_user(Rfbm::ALL, &large), Err(Fault::DeviceNotAvailable));
    disabled.save_user(Rfbm::ALL, &mut large).unwrap();
    assert_eq!(disabled.restore_user(Rfbm::ALL, &large), Ok(()));
    assert_eq!(disabled.get(Component::TILEDATA), Value::INITIAL);
}

/// What was checked before is what is copied: the frame may say something else by now.
#[test]
fn a_copy_goes_by_what_was_read_before() {
    let regs = filled(&SoftRegs::default(), A);
    let mut frame = frame_of(&regs);
    let contents = frame.contents(regs.enabled()).unwrap();
    frame.change(FrameChange::BadMagic).unwrap();
    let mut image = regs.new_image();
    frame.copy_to(contents, &mut image).unwrap();
    assert_eq!(image.get(Component::AVX), A);
    let part = FrameContents { components: ComponentSet::LEGACY, ..contents };
    frame.copy_to(part, &mut image).unwrap();
    assert_eq!((image.get(Component::SSE), image.get(Component::AVX)), (A, Value::INITIAL));
}

#[test]
fn frames_of_other_cpus_become_ones_of_their_own() {
    let (intel, amd) = (SoftRegs::new(&cpu("skylake-sp")), SoftRegs::new(&cpu("zen3")));
    let fxsave = intel.clone().with_save_instruction(SaveInstruction::Fxsave).unwrap();
    for from in [&intel, &amd, &fxsave] {
        for to in [&intel, &amd, &fxsave] {
            let mut frame = frame_of(&filled(from, B));
            filled(to, A).save_user(Rfbm::ALL, &mut frame).unwrap();
            assert_eq!(frame.image().bytes(), frame_of(&filled(to, A)).image().bytes());
            frame.change(FrameChange::Absent).unwrap();
            assert_eq!(to.save_user(Rfbm::ALL, &mut frame), Err(Fault::Page));
            let mut absent = from.new_frame();
            absent.change(FrameChange::Absent).unwrap();
            assert_eq!(to.save_user(Rfbm::ALL, &mut absent), Err(Fault::Page));
            assert_eq!(to.clone().restore_user(Rfbm::ALL, &absent), Err(Fault::Page));
            absent.fault_in().unwrap();
            let mut regs = filled(to, A);
            assert_eq!(regs.restore_user(Rfbm::ALL, &absent), Ok(()));
            assert_values(&regs, ComponentSet::EMPTY, Value::INITIAL, "an initial frame of another CPU");
        }
    }
    // There is no place for opmask on the other one.
    let frame = frame_of(&filled(&intel, A));
    assert_eq!(amd.clone().restore_user(Rfbm::ALL, &frame), Err(Fault::GeneralProtection));
}

/// The frame that a kernel would find, on the layout that its own reader has.
#[test]
fn a_reader_of_frames_takes_them() {
    for (name, blank) in every_register_file(layouts()) {
        let room = blank.enabled() - blank.dynamic();
        let mut frame = frame_of(&filled(&blank, A));
        frame.set_pkru(Pkru(4)).unwrap();
        let layout = blank.layout().restricted_to(room);
        let read = SignalFrame::over(frame.image().bytes(), &layout).unwrap();
        let is_extended = matches!(read.kind(), FrameKind::Extended(all) if all == room);
        assert_eq!(is_extended, blank.layout().has_xsave(), "{name}");
        let (image, pkru) = read.image().unwrap();
        assert_eq!(pkru, if blank.pkru().is_some() { Pkru(4) } else { Pkru(0) }, "{name}");
        let mut expected = blank.new_image();
        filled(&blank, A).save(Rfbm::new(without_pkru(&blank)), &mut expected);
        assert!(image.same_values(expected.area()), "{name}");
    }
}
