//! Signal frames of the software registers that user code or the pager has changed, and absent pages.

mod cpus;
mod soft;

use cpus::{cpu, layouts};
use fpuswitch::{
    ComponentSet, FrameChange, Pkru, Rfbm, Value,
    registers::{Fault, Frame, FrameContents, Image, RegisterFile, SoftRegs, UserFrames},
};
use soft::{A, B, PKRUS, assert_values, every_register_file, filled, frame_of, old, without_pkru};
use std::{
    hash::{BuildHasher, RandomState},
    ops::Range,
};

/// What a frame says, and what comes of an attempt to load it in each way.
struct Expected {
    legacy_only: bool,
    pkru: Pkru,
    restore: Result<(), Fault>,
    restore_legacy: Result<(), Fault>,
    copy: Result<(), Fault>,
    /// Which components come back.
    loaded: ComponentSet,
}

/// Every change that there is, and what becomes of a frame that held A everywhere, and 4 as PKRU.
fn changes(regs: &SoftRegs) -> Vec<(FrameChange, Expected)> {
    use FrameChange::{
        Absent, BadHeader, BadMagic, BadMxcsr, BadSize, Pkru as Keys, RestAbsent, Short, Unmapped,
    };
    let (page, refused, all) = (Err(Fault::Page), Err(Fault::GeneralProtection), without_pkru(regs));
    let four = if regs.pkru().is_some() { Pkru(4) } else { Pkru(0) };
    let row = |legacy_only, pkru, restore, restore_legacy, copy, loaded| Expected {
        legacy_only,
        pkru,
        restore,
        restore_legacy,
        copy,
        loaded,
    };
    let is_old = !regs.layout().has_xsave();
    let mut rows = vec![
        (Absent, row(is_old, four, page, page, page, all)),
        (Unmapped, row(is_old, four, page, page, page, all)),
        (BadMxcsr, row(is_old, four, refused, refused, refused, all)),
    ];
    if is_old {
        return rows;
    }
    let legacy = ComponentSet::LEGACY;
    rows.extend([
        (RestAbsent, row(false, four, page, Ok(()), page, all)),
        (BadHeader, row(false, four, refused, Ok(()), refused, all)),
        (BadMagic, row(true, Pkru(0), Ok(()), Ok(()), Ok(()), legacy)),
        (BadSize, row(true, Pkru(0), Ok(()), Ok(()), Ok(()), legacy)),
        (Short, row(false, Pkru(0), Ok(()), Ok(()), Ok(()), legacy)),
    ]);
    if regs.pkru().is_some() {
        rows.push((Keys(None), row(false, Pkru(0), Ok(()), Ok(()), Ok(()), all)));
        rows.extend(PKRUS.map(|pkru| (Keys(Some(pkru)), row(false, pkru, Ok(()), Ok(()), Ok(()), all))));
    }
    rows
}

#[test]
fn each_change_shows_in_what_a_frame_says_and_loads() {
    for (name, blank) in every_register_file(layouts()) {
        let room = without_pkru(&blank) - blank.dynamic();
        let (a, b) = (filled(&blank, A), filled(&blank, B));
        for (change, expected) in changes(&blank) {
            let what = format!("{name}, {change:?}");
            let mut frame = frame_of(&a);
            frame.set_pkru(Pkru(4)).unwrap();
            let contents = frame.contents(room).unwrap();
            assert_eq!(contents.components, room, "{what}");
            frame.change(change).unwrap();

            let components = if expected.legacy_only { ComponentSet::LEGACY } else { room };
            let says = FrameContents { components, legacy_only: expected.legacy_only, pkru: expected.pkru };
            let said = frame.contents(room);
            let mapped = change != FrameChange::Unmapped;
            assert_eq!(said, if mapped { Ok(says) } else { Err(Fault::Page) }, "{what}");

            let mut regs = b.clone();
            assert_eq!(regs.restore_user(Rfbm::new(components), &frame), expected.restore, "{what}");
            if expected.restore.is_ok() {
                let kept = blank.enabled() - components;
                regs.restore_initial(Rfbm::new(kept));
                assert_values(&regs, expected.loaded & room, Value::INITIAL, &what);
            }
            assert_eq!(regs.pkru(), b.pkru(), "{what}");
            let mut regs = b.clone();
            assert_eq!(regs.restore_user_legacy(&frame), expected.restore_legacy, "{what}");
            if expected.restore_legacy.is_ok() {
                assert_values(&regs, ComponentSet::LEGACY, B, &what);
            }

            let mut image = blank.new_image();
            b.save(Rfbm::ALL, &mut image);
            image.set_pkru(Pkru(8));
            let before = image.clone();
            assert_eq!(frame.copy_to(says, &mut image), expected.copy, "{what}");
            assert_eq!((image.room(), image.pkru()), (before.room(), before.pkru()), "{what}");
            if expected.copy.is_ok() {
                assert!(image.is_restorable(), "{what}");
                for component in room.iter() {
                    let value = if expected.loaded.contains(component) { A } else { Value::INITIAL };
                    assert_eq!(image.get(component), value, "{what}, {component}");
                }
            } else {
                assert_eq!(image.area().bytes(), before.area().bytes(), "{what}");
            }

            // The next save makes it good again, but for its pages.
            assert_eq!(frame.fault_in(), if mapped { Ok(()) } else { Err(Fault::Page) }, "{what}");
            assert_eq!(b.save_user(Rfbm::ALL, &mut frame), if mapped { Ok(()) } else { Err(Fault::Page) });
            if mapped {
                assert_eq!(frame, frame_of(&b), "{what}");
            }
        }
    }
}

#[test]
fn fields_that_a_frame_does_not_have_cannot_change() {
    use FrameChange::{BadHeader, BadMagic, BadSize, Pkru as Keys, Short};
    let haswell = SoftRegs::new(&cpu("qemu-haswell"));
    let keys = [Keys(None), Keys(Some(Pkru(4)))];
    for (regs, changes) in
        [(&old(), &[BadHeader, BadMagic, BadSize, Short, keys[0], keys[1]][..]), (&haswell, &keys)]
    {
        for change in changes {
            let mut frame = frame_of(&filled(regs, A));
            assert!(frame.change(*change).is_err(), "{change:?}");
            assert_eq!(frame, frame_of(&filled(regs, A)), "{change:?}");
            assert_eq!(frame.set_pkru(Pkru(4)), Ok(()), "no room, and nothing to be done");
            assert_eq!(frame, frame_of(&filled(regs, A)), "{change:?}");
        }
    }
}

/// Bytes are absent from a boundary on, or up to it: what an access touches, the manual and the kernel say.
#[test]
fn an_absent_part_of_a_frame_is_a_page_fault() {
    for (name, blank) in every_register_file(layouts()) {
        let (a, b) = (filled(&blank, A), filled(&blank, B));
        let good = frame_of(&a);
        let room = without_pkru(&blank) - blank.dynamic();
        let contents = good.contents(room).unwrap();
        let len = good.image().bytes().len();
        let magic2 = if blank.layout().has_xsave() { len - 4 } else { len };
        // Where the last component ends that XRSTOR is asked for; FXSAVE's area ends with XMM15.
        let extended = blank.layout().standard_size_bytes(room).filter(|_| blank.layout().has_xsave());
        let restored_end = extended.unwrap_or(416);
        let copied_end = if blank.layout().has_xsave() { magic2 } else { 512 };
        for boundary in (0..len).step_by(64).chain([magic2, len]) {
            for (present, before) in [(0..boundary, false), (boundary..usize::MAX, true)] {
                let what = format!("{name}, present {present:?}");
                let cut = |end: usize| {
                    let is_absent = if before { boundary > 0 } else { boundary < end };
                    if is_absent { Err(Fault::Page) } else { Ok(()) }
                };
                let mut frame = good.clone();
                frame.set_present(present.clone());
                let absent = frame.clone();
                assert_eq!(frame.contents(room), Ok(contents), "{what}");

                assert_eq!(b.save_user(Rfbm::ALL, &mut frame), cut(len), "save, {what}");
                if cut(len).is_err() {
                    assert_eq!(frame.image().bytes(), good.image().bytes(), "{what}");
                }
                let mut regs = b.clone();
                assert_eq!(regs.restore_user(Rfbm::new(room), &absent), cut(restored_end), "restore, {what}");
                assert_eq!(regs.clone().restore_user_legacy(&absent), cut(416), "legacy, {what}");
                let mut image = blank.new_image();
                b.save(Rfbm::ALL, &mut image);
                let bytes = image.area().bytes().to_vec();
                assert_eq!(absent.copy_to(contents, &mut image), cut(copied_end), "copy, {what}");
                assert!(cut(copied_end).is_ok() || image.area().bytes() == bytes, "{what}");
                let legacy =
                    FrameContents { legacy_only: true, components: ComponentSet::LEGACY, ..contents };
                assert_eq!(absent.copy_to(legacy, &mut image), cut(512), "legacy copy, {what}");
            }
        }
    }
}

/// A load does not look at what only says what is there.
#[test]
fn a_load_does_not_need_the_second_magic_number() {
    let regs = filled(&SoftRegs::default(), A);
    let mut frame = frame_of(&regs);
    let image_bytes = frame.image().bytes().len() - 4;
    frame.set_present(0..image_bytes);
    let contents = frame.contents(regs.enabled()).unwrap();
    assert!(!contents.legacy_only);
    assert_eq!(regs.clone().save_user(Rfbm::ALL, &mut frame), Err(Fault::Page));
    assert_eq!(regs.clone().restore_user(Rfbm::ALL, &frame), Ok(()));
    assert_eq!(frame.copy_to(contents, &mut regs.new_image()), Ok(()));
    frame.fault_in().unwrap();
    assert_eq!(regs.save_user(Rfbm::ALL, &mut frame), Ok(()));
}

/// By value, by what is present, and by what a signal return would make of them.
#[test]
fn frames_are_equal_if_nothing_tells_them_apart() {
    let state = RandomState::new();
    for blank in [SoftRegs::default(), old()] {
        let with = |value| frame_of(&filled(&blank, value));
        let changed: Vec<_> = changes(&blank).into_iter().map(|(change, _)| change).collect();
        for change in &changed {
            let (frame, mut other) = (with(A), with(A));
            assert_eq!((&frame, state.hash_one(&frame)), (&other, state.hash_one(&other)));
            other.change(*change).unwrap();
            let is_same = matches!(change, FrameChange::Pkru(None | Some(Pkru(0))));
            assert_eq!(frame == other, is_same, "{change:?}");
            assert!(!is_same || state.hash_one(&frame) == state.hash_one(&other), "{change:?}");
            assert_eq!(other, other.clone(), "{change:?}");
        }
        assert_ne!(with(A), with(B));
        let (mut absent, mut unmapped) = (with(A), with(A));
        absent.change(FrameChange::Absent).unwrap();
        unmapped.change(FrameChange::Unmapped).unwrap();
        assert_ne!(absent, unmapped);
        absent.fault_in().unwrap();
        assert_eq!(absent, with(A));
        // What is gone stays gone, whatever else goes.
        let mut first = with(A);
        first.change(FrameChange::Absent).unwrap();
        let has_rest = first.change(FrameChange::RestAbsent).is_ok();
        assert_eq!(has_rest, blank.layout().has_xsave());
        assert_eq!(blank.clone().restore_user_legacy(&first), Err(Fault::Page));
    }
}

/// Where the pages of a frame end.
#[test]
fn legacy_region_and_header_are_on_the_first_page() {
    let regs = filled(&SoftRegs::default(), A);
    let first: Range<usize> = 0..576;
    let (mut rest, mut set) = (frame_of(&regs), frame_of(&regs));
    rest.change(FrameChange::RestAbsent).unwrap();
    set.set_present(first);
    assert_eq!(rest, set);
}
