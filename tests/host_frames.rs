//! Images and signal frames on the real registers: what a save repairs, what a restore refuses, and what another
//! CPU's are worth. Wherever the software registers can do the same, they give the answer that is expected.

#[path = "support/emulator.rs"]
#[allow(dead_code, reason = "one of its quirks is none here")]
mod emulator;

use emulator::is_qemu_tcg;
use fpuswitch::{
    Component, ComponentSet, FrameChange, Rfbm, Value,
    registers::{Fault, Frame, HostCpu, HostRegs, Image, Program, RegisterFile, SoftRegs, XsaveImage},
    xstate::{Area, CpuidDump, Format, Layout, SaveInstruction, XcompBv, XstateBv},
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
    host.layout().has_xsave() || !is_qemu_tcg()
}

/// Makes every restore refuse the image, as [`FrameChange::BadHeader`] does with a frame.
fn spoil(image: &mut XsaveImage) {
    match image.area_mut().reserved_header_bytes_mut().first_mut() {
        Some(byte) => *byte = 0xff,
        None => image.area_mut().legacy_mut().set_mxcsr(u32::MAX),
    }
}

/// Fills a frame, spoils it, saves to it, and restores all of it to registers with other values.
fn through_a_spoiled_frame<R: RegisterFile + Clone>(regs: &R, rfbm: Rfbm, refuses: bool) -> R {
    let mut frame = regs.new_frame();
    filled(regs, 10).save_user(Rfbm::ALL, &mut frame).expect("present");
    frame.change(FrameChange::BadHeader);
    let mut after = filled(regs, 50);
    if refuses {
        assert_eq!(after.restore_user(Rfbm::ALL, &frame), Err(Fault::GeneralProtection));
        after = filled(regs, 50);
    }
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
    }
    println!("HARDWARE spoiled-frames: ran");
}

/// The same with an image.
fn through_a_spoiled_image<R>(regs: &R, rfbm: Rfbm, refuses: bool) -> R
where
    R: RegisterFile<Image = XsaveImage> + Clone,
{
    let mut image = regs.new_image();
    filled(regs, 10).save(Rfbm::ALL, &mut image);
    spoil(&mut image);
    let mut after = filled(regs, 50);
    if refuses {
        assert_eq!(after.restore(Rfbm::ALL, &image), Err(Fault::GeneralProtection));
        after = filled(regs, 50);
    }
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
fn through_an_absent_frame<R: RegisterFile + Clone>(regs: &R, rfbm: Rfbm) -> [Result<(), Fault>; 4] {
    let mut frame = regs.new_frame();
    frame.change(FrameChange::Absent);
    let mut other = filled(regs, 70);
    let absent = (filled(regs, 20).save_user(rfbm, &mut frame), other.restore_user(rfbm, &frame));
    frame.fault_in();
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
            frame.change(change);
            frame
        };
        let (frame, absent) = (with(10), changed(FrameChange::Absent));
        let mut part = with(10);
        part.set_absent(0..1);
        let mut back = absent.clone();
        back.fault_in();
        let spoiled = changed(FrameChange::BadHeader);
        for (one, other, are_equal) in [
            (&frame, &with(10), true),
            (&frame, &frame.clone(), true),
            (&frame, &with(11), false),
            (&frame, &host.new_frame(), false),
            (&frame, &absent, false),
            (&frame, &part, false),
            (&absent, &part, false),
            (&absent, &absent.clone(), true),
            (&frame, &back, true),
            (&frame, &spoiled, false),
            (&spoiled, &changed(FrameChange::BadHeader), true),
        ] {
            assert_eq!(one == other, are_equal, "{instruction}: {one:?} and {other:?}");
            assert_eq!(other == one, are_equal, "{instruction}: {one:?} and {other:?}");
            assert!(!are_equal || hash(one) == hash(other), "{instruction}: hashes");
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

/// What becomes of registers like these that an image is restored to.
fn restored<R>(regs: &R, rfbm: Rfbm, image: &XsaveImage) -> Result<Vec<(Component, Value)>, Fault>
where
    R: RegisterFile<Image = XsaveImage> + Clone,
{
    let mut regs = filled(regs, 80);
    regs.restore(rfbm, image)?;
    Ok(seen(&regs))
}

#[test]
fn hardware_restores_other_cpus_images_as_software_does() {
    let Some(host) = host("converted-images") else { return };
    let dump: CpuidDump = include_str!("../cpus/zen4.txt").parse().expect("a description");
    let zen4 = SoftRegs::new(&Layout::from_cpuid(&dump).expect("no contradiction"));
    let with_it = |instruction| zen4.clone().with_save_instruction(instruction).expect("it has them all");
    for from in SaveInstruction::ALL.map(with_it) {
        // All that it has, what both have, and the legacy region alone.
        let shared = components(&from) & components(&host);
        for used in [components(&from), shared, ComponentSet::LEGACY] {
            let mut filled = from.clone();
            for (n, component) in (10..).zip(used.iter()) {
                filled.run(Program::Fill(component, value(n)));
            }
            let mut image = from.new_image();
            filled.save(Rfbm::ALL, &mut image);
            for (instruction, host, soft) in pairs(&host) {
                let what = format!("{} to {instruction}: {used:?}", from.save_instruction());
                for rfbm in masks() {
                    let found = restored(&host, rfbm, &image);
                    assert_eq!(found, restored(&soft, rfbm, &image), "{what}, {rfbm:?}");
                }
                if used.is_subset_of(host.enabled()) {
                    let found = restored(&host, Rfbm::ALL, &image).expect("there is a place for everything");
                    assert!(found.into_iter().all(|(component, value)| value == filled.get(component)));
                }
            }
        }
    }
    println!("HARDWARE converted-images: ran");
}

/// An image or a frame of FXSAVE on registers with XSAVE, and the other way round.
#[test]
fn hardware_takes_images_and_frames_in_the_other_form() {
    let Some(host) = host("other-forms") else { return };
    if !host.layout().has_xsave() {
        println!("HARDWARE other-forms: SKIPPED: this CPU has no XSAVE");
        return;
    }
    let pairs = pairs(&host);
    for (from, from_host, from_soft) in &pairs {
        for (to, to_host, to_soft) in &pairs {
            let mut images = [from_host.new_image(), from_soft.new_image()];
            filled(from_host, 10).save(Rfbm::ALL, &mut images[0]);
            filled(from_soft, 10).save(Rfbm::ALL, &mut images[1]);
            for rfbm in masks() {
                let found = restored(to_host, rfbm, &images[0]);
                assert_eq!(found, restored(to_soft, rfbm, &images[1]), "image, {from} to {to}, {rfbm:?}");
                let found = from_a_frame_of(from_host, to_host, rfbm);
                assert_eq!(
                    found,
                    from_a_frame_of(from_soft, to_soft, rfbm),
                    "frame, {from} to {to}, {rfbm:?}"
                );
            }
        }
    }
    let [fxsave, xsave] = [SaveInstruction::Fxsave, SaveInstruction::Xsave]
        .map(|instruction| host.clone().with_save_instruction(instruction).expect("it has both"));
    let mut image = fxsave.new_image();
    filled(&fxsave, 10).save(Rfbm::ALL, &mut image);
    assert_eq!(image.area().format(), Format::Fxsave);
    let found = restored(&xsave, Rfbm::ALL, &image).expect("it has place for everything");
    for (component, value) in found {
        let in_legacy = ComponentSet::LEGACY.contains(component);
        let expected = if in_legacy { filled(&fxsave, 10).get(component) } else { Value::INITIAL };
        assert_eq!(value, expected, "{component}");
    }
    println!("HARDWARE other-forms: ran");
}

/// A frame that one has saved, restored by the other.
fn from_a_frame_of<R>(from: &R, to: &R, rfbm: Rfbm) -> Result<Vec<(Component, Value)>, Fault>
where
    R: RegisterFile + Clone,
{
    let mut frame = from.new_frame();
    filled(from, 10).save_user(Rfbm::ALL, &mut frame).expect("present");
    let mut regs = filled(to, 80);
    regs.restore_user(rfbm, &frame).map(|()| seen(&regs))
}

/// The frame becomes one of the CPU that saves: what it saves is in it afterwards, and what it does not save stays.
#[test]
fn hardware_saves_to_frames_in_the_other_form() {
    let Some(host) = host("other-form-saves") else { return };
    if !host.layout().has_xsave() {
        println!("HARDWARE other-form-saves: SKIPPED: this CPU has no XSAVE");
        return;
    }
    let pairs = pairs(&host);
    for (from, from_host, from_soft) in &pairs {
        for (to, to_host, to_soft) in &pairs {
            for rfbm in masks() {
                let what = format!("{from} to {to}, {rfbm:?}");
                let saved = rfbm.of(components(to_host));
                let (kept, filled) = (filled(from_host, 10), filled(to_host, 40));
                let of = |component| {
                    let regs = if saved.contains(component) { &filled } else { &kept };
                    (component, regs.get(component))
                };
                let expected: Vec<_> = components(to_host).iter().map(of).collect();
                let hardware = through_a_frame_of(from_host, to_host, rfbm);
                assert_eq!(hardware, Ok(expected.clone()), "hardware, {what}");
                let software = through_a_frame_of(from_soft, to_soft, rfbm);
                assert_eq!(software, Ok(expected), "software, {what}");
            }
        }
    }
    println!("HARDWARE other-form-saves: ran");
}

/// A frame that one has saved, saved by the other and restored there.
fn through_a_frame_of<R>(from: &R, to: &R, rfbm: Rfbm) -> Result<Vec<(Component, Value)>, Fault>
where
    R: RegisterFile + Clone,
{
    let mut frame = from.new_frame();
    filled(from, 10).save_user(Rfbm::ALL, &mut frame)?;
    filled(to, 40).save_user(rfbm, &mut frame)?;
    let mut regs = filled(to, 80);
    regs.restore_user(Rfbm::ALL, &frame).map(|()| seen(&regs))
}

#[test]
fn hardware_a_cpu_without_xsave_has_no_avx() {
    let Some(host) = host("fxsave-cpu") else { return };
    let before = filled(&host, 10);
    let fxsave = before.clone().with_save_instruction(SaveInstruction::Fxsave).expect("every CPU has it");
    assert_eq!(components(&fxsave), ComponentSet::LEGACY);
    for component in (components(&host) - ComponentSet::LEGACY).iter() {
        assert!(fxsave.read_back(component).is_err(), "{component}");
        assert_eq!(fxsave.get(component), Value::INITIAL, "{component}");
        // Nor can a program write it.
        let mut written = fxsave.clone();
        written.run(Program::Fill(component, value(9)));
        written.run(Program::ChangeLane { register: 3, lane: 5, value: 7 });
        assert_eq!(written, fxsave, "{component}");
    }
    // It goes both ways: what was there before does not come back.
    let best = host.save_instruction();
    let again = filled(&fxsave, 20).with_save_instruction(best).expect("it had it before");
    assert_eq!(components(&again), components(&host));
    for component in (components(&host) - ComponentSet::LEGACY).iter() {
        assert_eq!(again.get(component), Value::INITIAL, "{component}");
    }
    // An image that was saved before is one of a CPU with XSAVE.
    let mut image = before.new_image();
    before.save(Rfbm::ALL, &mut image);
    assert!(components(&host).iter().all(|component| image.has_room_for(component)));
    let soft = SoftRegs::new(host.layout()).with_save_instruction(SaveInstruction::Fxsave);
    let soft = soft.expect("every CPU has it");
    assert_eq!(restored(&fxsave, Rfbm::ALL, &image), restored(&soft, Rfbm::ALL, &image));
    println!("HARDWARE fxsave-cpu: ran");
}
