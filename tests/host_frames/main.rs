//! Images and signal frames on the real registers: what a save repairs, what a restore refuses, and what another
//! CPU's are worth. Wherever the software registers can do the same, they give the answer that is expected.

mod changes;
#[path = "../support/emulator.rs"]
mod emulator;
mod forms;
#[path = "../support/frame_changes.rs"]
mod frame_changes;

use emulator::Deviation;
use fpuswitch::{
    Component, ComponentSet, FrameChange, Pkru, Rfbm, Value,
    registers::{Fault, Frame, HostCpu, HostRegs, Program, RegisterFile, SoftRegs, UserFrames, XsaveImage},
    xstate::{Area, Format, Layout, SaveInstruction, XcompBv, XstateBv},
};
use std::hash::{DefaultHasher, Hash, Hasher};

/// The host's registers; says so if there are none.
fn host(test: &str) -> Option<HostRegs> {
    match HostRegs::new() {
        Ok(regs) => Some(regs),
        Err(error) => {
            println!("HARDWARE {test}: SKIPPED: {error}");
            None
        }
    }
}

/// The same CPU in hardware and in software, with each instruction that it has.
fn pairs(host: &HostRegs) -> Vec<(SaveInstruction, HostRegs, SoftRegs)> {
    let with = |instruction| {
        let soft = SoftRegs::new(host.layout()).with_save_instruction(instruction).ok()?;
        Some((instruction, host.clone().with_save_instruction(instruction).ok()?, soft))
    };
    let pairs: Vec<_> = SaveInstruction::ALL.into_iter().filter_map(with).collect();
    assert!(!pairs.is_empty(), "every CPU has FXSAVE");
    pairs
}

fn value(number: u8) -> Value {
    Value::new(number).expect("a number that stands for a value")
}

fn components(regs: &impl RegisterFile) -> ComponentSet {
    regs.enabled().without(Component::PKRU)
}

/// The same registers with a value of its own in every component, by `number`.
fn filled<R: RegisterFile + Clone>(regs: &R, number: u8) -> R {
    let mut regs = regs.clone();
    for (n, component) in (number..).zip(components(&regs).iter()) {
        regs.run(Program::Fill(component, value(n)));
    }
    regs
}

/// What a program sees.
fn seen(regs: &impl RegisterFile) -> Vec<(Component, Value)> {
    components(regs).iter().map(|component| (component, regs.get(component))).collect()
}

fn only(component: Component) -> Rfbm {
    Rfbm::new(ComponentSet::EMPTY.with(component))
}

/// Everything, parts, and nothing.
fn masks() -> [Rfbm; 4] {
    [Rfbm::ALL, only(Component::SSE), only(Component::X87), Rfbm::new(ComponentSet::EMPTY)]
}

/// Whether a spoiled image of these registers is refused: without a header it is bad by its MXCSR.
fn refuses_spoiled(host: &HostRegs) -> bool {
    host.layout().has_xsave() || !Deviation::ReservedMxcsr.is_here()
}

/// Makes every restore refuse the frame.
fn spoil_frame(frame: &mut impl Frame) {
    let spoiled = frame.change(FrameChange::BadHeader).or_else(|_| frame.change(FrameChange::BadMxcsr));
    spoiled.expect("every frame has an MXCSR");
}

/// Makes every restore refuse the image, likewise.
fn spoil(image: &mut XsaveImage) {
    match image.area_mut().reserved_header_bytes_mut().first_mut() {
        Some(byte) => *byte = 0xff,
        None => image.area_mut().legacy_mut().set_mxcsr(u32::MAX),
    }
}

/// Fills a frame, spoils it, saves to it, and restores all of it to registers with other values.
fn through_a_spoiled_frame<R: UserFrames + Clone>(regs: &R, rfbm: Rfbm, refuses: bool) -> R {
    let mut frame = regs.new_frame();
    filled(regs, 10).save_user(Rfbm::ALL, &mut frame).expect("present");
    spoil_frame(&mut frame);
    let refused = if refuses { Err(Fault::GeneralProtection) } else { Ok(()) };
    assert_eq!(filled(regs, 50).restore_user(Rfbm::ALL, &frame), refused);
    let mut after = filled(regs, 50);
    assert_eq!(filled(regs, 30).save_user(rfbm, &mut frame), Ok(()));
    assert_eq!(after.restore_user(Rfbm::ALL, &frame), Ok(()), "{rfbm:?}");
    after
}

#[test]
fn hardware_a_save_to_a_spoiled_frame_can_be_restored() {
    let Some(host) = host("spoiled-frames") else { return };
    for (instruction, host, soft) in pairs(&host) {
        for rfbm in masks() {
            let found = through_a_spoiled_frame(&host, rfbm, refuses_spoiled(&host));
            let expected = through_a_spoiled_frame(&soft, rfbm, true);
            assert_eq!(seen(&found), seen(&expected), "{instruction} {rfbm:?}");
        }
        let whole = through_a_spoiled_frame(&host, Rfbm::ALL, refuses_spoiled(&host));
        assert_eq!(whole, filled(&host, 30), "{instruction}");
        changes::assert_same(&host, &soft);
    }
    println!("HARDWARE spoiled-frames: ran");
    Deviation::ReservedMxcsr.report("spoiled-frames-mxcsr");
}

/// The same with an image.
fn through_a_spoiled_image<R>(regs: &R, rfbm: Rfbm, refuses: bool) -> R
where
    R: UserFrames<Image = XsaveImage> + Clone,
{
    let mut image = regs.new_image();
    filled(regs, 10).save(Rfbm::ALL, &mut image);
    spoil(&mut image);
    let refused = if refuses { Err(Fault::GeneralProtection) } else { Ok(()) };
    assert_eq!(filled(regs, 50).restore(Rfbm::ALL, &image), refused);
    let mut after = filled(regs, 50);
    filled(regs, 30).save(rfbm, &mut image);
    assert_eq!(after.restore(Rfbm::ALL, &image), Ok(()), "{rfbm:?}");
    after
}

#[test]
fn hardware_a_save_to_a_spoiled_image_can_be_restored() {
    let Some(host) = host("spoiled-images") else { return };
    for (instruction, host, soft) in pairs(&host) {
        for rfbm in masks() {
            let found = through_a_spoiled_image(&host, rfbm, refuses_spoiled(&host));
            let expected = through_a_spoiled_image(&soft, rfbm, true);
            assert_eq!(seen(&found), seen(&expected), "{instruction} {rfbm:?}");
        }
        let whole = through_a_spoiled_image(&host, Rfbm::ALL, refuses_spoiled(&host));
        assert_eq!(whole, filled(&host, 30), "{instruction}");
    }
    println!("HARDWARE spoiled-images: ran");
}

/// A header that claims a component that the host has enabled, and the simulated CPU has not.
#[test]
fn hardware_components_of_the_host_alone_are_refused() {
    let Some(host) = host("foreign-components") else { return };
    let cpu = HostCpu::new().expect("there are registers");
    let enabled = Layout::from_cpuid(&cpu).expect("there are registers").enabled();
    let foreign = enabled - host.layout().enabled();
    if foreign.is_empty() {
        println!("HARDWARE foreign-components: SKIPPED: this host enables nothing that it does not simulate");
        return;
    }
    let mut claims = vec![(Format::Standard, foreign)];
    claims.extend(foreign.iter().map(|component| (Format::Standard, ComponentSet::EMPTY.with(component))));
    let compacted: Vec<_> = claims.iter().map(|(_, foreign)| (Format::Compacted, *foreign)).collect();
    claims.extend(compacted);

    for (instruction, host, soft) in pairs(&host) {
        if instruction == SaveInstruction::Fxsave {
            continue;
        }
        let mut frame = host.new_frame();
        filled(&host, 20).save_user(Rfbm::ALL, &mut frame).expect("present");
        for (format, foreign) in &claims {
            let own = components(&host);
            let claim = |area: &mut Area<&mut [u8]>| match format {
                Format::Compacted => area.set_xcomp_bv(XcompBv::compacted(own | *foreign)),
                _ => area.set_xstate_bv(XstateBv(area.xstate_bv().0 | foreign.bits())),
            };
            let mut bad_frame = frame.clone();
            bad_frame.with_area(claim);
            let mut bad_image = XsaveImage::new(host.layout(), Format::Standard);
            let bytes = bad_image.area_mut().bytes_mut();
            bytes.copy_from_slice(&frame.image().bytes()[..bytes.len()]);
            claim(&mut Area::over(bytes, host.layout()).expect("an area"));
            for rfbm in masks() {
                let what = format!("{instruction}: {format:?} with {foreign:?}, {rfbm:?}");
                let refused = Err(Fault::GeneralProtection);
                assert_eq!(soft.clone().restore(rfbm, &bad_image), refused, "software, {what}");
                assert_eq!(host.clone().restore(rfbm, &bad_image), refused, "image, {what}");
                assert_eq!(host.clone().restore_user(rfbm, &bad_frame), refused, "frame, {what}");
            }
        }
        // It is not the rest that is refused.
        let mut after = host.clone();
        assert_eq!(after.restore_user(Rfbm::ALL, &frame), Ok(()));
        assert_eq!(after, filled(&host, 20));
    }
    println!("HARDWARE foreign-components: ran");
}

#[test]
fn hardware_an_absent_frame_is_a_page_fault_whatever_is_asked_for() {
    let Some(host) = host("absent-frames") else { return };
    for (instruction, host, soft) in pairs(&host) {
        for rfbm in [Rfbm::ALL, only(Component::SSE), only(Component::X87)] {
            let expected = through_an_absent_frame(&soft, rfbm);
            assert_eq!(expected[..2], [Err(Fault::Page); 2], "software, {instruction} {rfbm:?}");
            assert_eq!(through_an_absent_frame(&host, rfbm), expected, "{instruction} {rfbm:?}");
        }
    }
    println!("HARDWARE absent-frames: ran");
}

/// A save to and a restore from an absent frame, and the same again when it is present.
fn through_an_absent_frame<R: UserFrames + Clone>(regs: &R, rfbm: Rfbm) -> [Result<(), Fault>; 4] {
    let mut frame = regs.new_frame();
    frame.change(FrameChange::Absent).expect("every frame has pages");
    let mut other = filled(regs, 70);
    let absent = (filled(regs, 20).save_user(rfbm, &mut frame), other.restore_user(rfbm, &frame));
    frame.fault_in().expect("mapped");
    [absent.0, absent.1, filled(regs, 20).save_user(rfbm, &mut frame), other.restore_user(rfbm, &frame)]
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

#[test]
fn hardware_frames_are_equal_by_value_and_absence() {
    let Some(host) = host("equal-frames") else { return };
    for (instruction, host, _) in pairs(&host) {
        let with = |number| {
            let mut frame = host.new_frame();
            filled(&host, number).save_user(Rfbm::ALL, &mut frame).expect("present");
            frame
        };
        let changed = |change| {
            let mut frame = with(10);
            frame.change(change).expect("a field that there is");
            frame
        };
        let (frame, absent) = (with(10), changed(FrameChange::Absent));
        let unmapped = changed(FrameChange::Unmapped);
        let mut part = with(10);
        part.set_absent(0..1);
        let mut back = absent.clone();
        back.fault_in().expect("mapped");
        let mut spoiled = with(10);
        spoil_frame(&mut spoiled);
        let mut so_spoiled = with(10);
        spoil_frame(&mut so_spoiled);
        for (one, other, are_equal) in [
            (&frame, &with(10), true),
            (&frame, &frame.clone(), true),
            (&frame, &with(11), false),
            (&frame, &host.new_frame(), false),
            (&frame, &absent, false),
            (&frame, &part, false),
            (&absent, &part, part.pages() == 1),
            (&absent, &absent.clone(), true),
            (&absent, &unmapped, false),
            (&unmapped, &unmapped.clone(), true),
            (&frame, &back, true),
            (&frame, &spoiled, false),
            (&spoiled, &so_spoiled, true),
        ] {
            assert_eq!(one == other, are_equal, "{instruction}: {one:?} and {other:?}");
            assert_eq!(other == one, are_equal, "{instruction}: {one:?} and {other:?}");
            assert!(!are_equal || hash(one) == hash(other), "{instruction}: hashes");
        }
        for regs in [host.clone(), filled(&host, 10)] {
            for pkru in [Pkru(0), Pkru::DEFAULT, Pkru(u32::MAX)] {
                let mut image = regs.new_image();
                regs.save(Rfbm::new(components(&regs)), &mut image);
                let mut frame = regs.new_frame();
                regs.save_user(Rfbm::ALL, &mut frame).expect("present");
                frame.set_pkru(pkru).expect("present");
                let expected = image.area().signal_frame(pkru).expect("a good image");
                assert_eq!(frame.image().bytes(), expected, "{instruction}, as Linux writes it");
            }
        }
    }
    println!("HARDWARE equal-frames: ran");
}

#[test]
fn hardware_only_what_is_enabled_is_in_use() {
    let Some(host) = host("in-use") else { return };
    for (instruction, host, soft) in pairs(&host) {
        for regs in [host.clone(), filled(&host, 5)] {
            let Ok(in_use) = regs.in_use() else {
                assert!(soft.in_use().is_err(), "{instruction}: software tells");
                continue;
            };
            assert!(in_use.is_subset_of(regs.enabled()), "{instruction}: {in_use:?}");
        }
        if let Ok(in_use) = filled(&host, 5).in_use() {
            assert!(components(&host).is_subset_of(in_use), "{instruction}: {in_use:?}");
        }
    }
    println!("HARDWARE in-use: ran");
}
