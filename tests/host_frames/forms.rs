//! Images and frames of other CPUs, in the other form, and without room for everything.

use super::{components, filled, host, masks, pairs, seen, value};
use fpuswitch::{
    Component, ComponentSet, Rfbm, Value,
    registers::{Fault, Image, Program, RegisterFile, SoftRegs, UserFrames, XsaveImage},
    xstate::{CpuidDump, Format, Layout, SaveInstruction},
};

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
    let dump: CpuidDump = include_str!("../../cpus/zen4.txt").parse().expect("a description");
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
    for (to, host, soft) in &pairs {
        // An image that has no room for all that is enabled.
        let small = XsaveImage::with_room(host.layout(), to.format(), ComponentSet::LEGACY);
        let [mut ours, mut theirs] = [small.clone(), small];
        filled(host, 10).save(Rfbm::ALL, &mut ours);
        filled(soft, 10).save(Rfbm::ALL, &mut theirs);
        assert_eq!(ours.area().bytes().len(), theirs.area().bytes().len(), "{to}");
        for rfbm in masks().into_iter().chain([Rfbm::new(host.enabled() - ComponentSet::LEGACY)]) {
            let found = restored(host, rfbm, &ours);
            assert_eq!(found, restored(soft, rfbm, &theirs), "{to}, {rfbm:?}");
            for (component, value) in found.expect("what there is no room for is no refusal") {
                let expected = match (rfbm.contains(component), ours.has_room_for(component)) {
                    (true, true) => filled(host, 10).get(component),
                    (true, false) => Value::INITIAL,
                    (false, _) => filled(host, 80).get(component),
                };
                assert_eq!(value, expected, "{to}, {rfbm:?}, {component}");
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
    R: UserFrames + Clone,
{
    let mut frame = from.new_frame();
    filled(from, 10).save_user(Rfbm::ALL, &mut frame).expect("present");
    let mut regs = filled(to, 80);
    regs.restore_user(rfbm, &frame).map(|()| seen(&regs))
}

/// The frame becomes one of the CPU that saves.
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
                let hardware = through_a_frame_of(from_host, to_host, rfbm);
                assert_eq!(hardware, through_a_frame_of(from_soft, to_soft, rfbm), "{what}");
                let found = hardware.expect("a frame of this CPU");
                let filled = filled(to_host, 40);
                let saved = |(component, _): &&(Component, Value)| rfbm.contains(*component);
                assert!(found.iter().filter(saved).all(|(c, value)| *value == filled.get(*c)), "{what}");
            }
        }
    }
    println!("HARDWARE other-form-saves: ran");
}

/// A frame that one has saved, saved by the other and restored there.
fn through_a_frame_of<R>(from: &R, to: &R, rfbm: Rfbm) -> Result<Vec<(Component, Value)>, Fault>
where
    R: UserFrames + Clone,
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
