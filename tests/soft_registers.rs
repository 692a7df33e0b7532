//! The software register file behind the seam: as any CPU, with any of its instructions.

mod cpus;
mod soft;

use cpus::{cpu, layouts};
use fpuswitch::{
    Component, ComponentSet, CpuId, EntryKind, Event, FrameChange, KernelContext, Pkru, Rfbm, TaskId, Value,
    fpu::policy::Builtin,
    machine::Machine,
    registers::{AbstractRegs, Fault, Image, MemoryOperand, Program, RegisterFile, SoftRegs, XsaveImage},
    xstate::{AlignedBytes, Area, Format, Layout, Rounding, SaveInstruction},
};
use soft::{A, B, area_for, at, every_register_file, filled};

#[test]
fn every_described_cpu_makes_registers() {
    for (name, regs) in every_register_file(layouts()) {
        let enabled = regs.enabled();
        let has_pkru = enabled.contains(Component::PKRU);
        assert_eq!(regs.pkru(), has_pkru.then_some(Pkru(0)), "{name}");
        for component in ComponentSet::from_bits(u64::MAX).iter() {
            assert_eq!(regs.read_back(component).is_ok(), enabled.contains(component), "{name}, {component}");
            assert_eq!(regs.get(component), Value::INITIAL, "{name}, {component}");
        }
        let image = regs.new_image();
        assert_eq!(image.area().format(), regs.save_instruction().format(), "{name}");
        assert_eq!(image.refusal(), None, "{name}");
    }
    let layout = cpu("qemu-haswell");
    let xsavec = SoftRegs::new(&layout).with_save_instruction(SaveInstruction::Xsavec);
    assert_eq!(xsavec.map_err(|error| error.0), Err("XSAVEC"));
    let instructions = [("zen4", SaveInstruction::Xsavec), ("qemu-max", SaveInstruction::Xsave)];
    for (name, instruction) in instructions {
        assert_eq!(SoftRegs::new(&cpu(name)).save_instruction(), instruction, "{name}");
    }
    assert_eq!(SoftRegs::new(&cpu("qemu-nehalem")).save_instruction(), SaveInstruction::Fxsave);
    // The default CPU is Intel's, without MPX.
    let wanted = SoftRegs::default().enabled();
    let intel = cpu("skylake-sp").restricted_to(wanted);
    assert_eq!(SoftRegs::default().layout().places().len(), wanted.iter().count() - 2);
    assert!(SoftRegs::default().layout().places().iter().all(|place| intel.places().contains(place)));
}

#[test]
fn images_hold_what_was_saved_and_restores_bring_it_back() {
    for (name, blank) in every_register_file(layouts()) {
        let (a, b) = (filled(&blank, A), filled(&blank, B));
        let mut image = blank.new_image();
        image.grow(blank.dynamic()).unwrap();
        a.save(Rfbm::ALL, &mut image);
        for component in blank.enabled().without(Component::PKRU).iter() {
            assert_eq!(image.get(component), A, "{name}, {component}");
        }
        let mut regs = b.clone();
        regs.restore(Rfbm::ALL, &image).unwrap();
        assert_eq!(regs, a, "{name}");
        // Saved again without a change, and after one.
        for changed in [Program::FillAll(A), Program::Fill(Component::SSE, B), Program::Round(Rounding::Up)] {
            regs.run(changed);
            regs.save(Rfbm::ALL, &mut image);
            let mut other = blank.clone();
            other.restore(Rfbm::ALL, &image).unwrap();
            assert_eq!(other, regs, "{name}, {changed:?}");
        }
        // The initial configuration, in three ways.
        regs.restore_initial(Rfbm::ALL);
        assert_eq!(regs, blank, "{name}");
        regs = b.clone();
        regs.restore(Rfbm::ALL, &blank.new_image()).unwrap();
        assert_eq!(regs, blank, "{name}");
        regs.save(Rfbm::ALL, &mut image);
        assert!(image.area().same_values(blank.new_image().area()), "{name}");
    }
}

/// It is an XRSTOR, which loads MXCSR with AVX in the standard format.
#[test]
fn a_partial_reset_leaves_what_is_not_asked_for() {
    let mut regs = filled(&SoftRegs::default(), A);
    regs.run(Program::Round(Rounding::Up));
    let before = regs.read_back(Component::SSE).unwrap();
    regs.restore_initial(Rfbm::new(ComponentSet::EMPTY.with(Component::AVX)));
    let after = regs.read_back(Component::SSE).unwrap();
    assert_eq!(after, before);
    assert_eq!(regs.get(Component::AVX), Value::INITIAL);
    assert_eq!(regs.get(Component::OPMASK), A);
}

#[test]
fn a_partial_save_keeps_the_rest_of_the_image() {
    let avx = Rfbm::new(ComponentSet::EMPTY.with(Component::AVX));
    for (name, blank) in
        every_register_file(layouts()).filter(|(_, regs)| regs.enabled().contains(Component::AVX))
    {
        let mut image = blank.new_image();
        filled(&blank, A).save(Rfbm::ALL, &mut image);
        let mut regs = filled(&blank, B);
        // Restored before, so that XSAVEOPT could take it for unchanged.
        regs.restore(Rfbm::ALL, &image).unwrap();
        regs.save(avx, &mut image);
        assert_eq!(image.get(Component::AVX), A, "{name}");
        regs.run(Program::Fill(Component::AVX, B));
        regs.save(avx, &mut image);
        regs.save(avx, &mut image);
        assert_eq!(image.get(Component::AVX), B, "{name}");
        assert_eq!(image.get(Component::SSE), A, "{name}");
        assert_eq!(image.get(Component::X87), A, "{name}");
    }
}

/// The seam is what keeps XSAVEOPT from being fooled: by edits, by copies, and by another CPU's saves.
#[test]
fn an_edited_image_is_saved_whole() {
    let blank = SoftRegs::default().with_save_instruction(SaveInstruction::Xsaveopt).unwrap();
    let mut image = blank.new_image();
    filled(&blank, A).save(Rfbm::ALL, &mut image);
    type Change = fn(&mut XsaveImage);
    let changes: [(&str, Change); 4] = [
        ("set", |image| image.set(Component::AVX, B).unwrap()),
        ("set through the area", |image| {
            let edited = filled(&SoftRegs::default(), B).read_back(Component::AVX).unwrap();
            image.area_mut().set_component(Component::AVX, &edited).unwrap();
        }),
        ("reset", |image| image.reset()),
        ("saved by another CPU", |image| {
            let other = SoftRegs::default().with_save_instruction(SaveInstruction::Xsaveopt).unwrap();
            filled(&other, B).save(Rfbm::ALL, image);
        }),
    ];
    for (name, change) in changes {
        let mut regs = blank.clone();
        regs.restore(Rfbm::ALL, &image).unwrap();
        let mut changed = image.clone();
        change(&mut changed);
        regs.save(Rfbm::ALL, &mut changed);
        assert_eq!(changed, image, "{name}");
        assert!(!changed.is_edited(), "{name}");
        regs.save(Rfbm::ALL, &mut changed);
        assert_eq!(changed, image, "{name}, again");
    }
}

/// Of two XRSTORs only the last one counts, whoever asked for it.
#[test]
fn an_instruction_between_restore_and_save_is_noticed() {
    let mut regs = SoftRegs::default().with_save_instruction(SaveInstruction::Xsaveopt).unwrap();
    let mut image = regs.new_image();
    filled(&regs, A).save(Rfbm::ALL, &mut image);
    regs.restore(Rfbm::ALL, &image).unwrap();
    let mut area = area_for(regs.layout(), SaveInstruction::Xsave);
    filled(&regs, B).xsave(Rfbm::ALL, &at(), &mut area).unwrap();
    // Where the images of the protocol are, too.
    regs.xrstor(Rfbm::ALL, &MemoryOperand::at(0xffff_8000_0000_0000), &area).unwrap();
    regs.save(Rfbm::ALL, &mut image);
    assert_eq!(image.get(Component::AVX), B);
}

/// XSAVE writes the bytes of components in their initial configuration, XSAVEOPT does not.
#[test]
fn xsaveopt_is_not_used_on_an_edited_image() {
    let avx_bytes = |image: &XsaveImage| image.area().bytes()[576..832].to_vec();
    let blank = SoftRegs::default().with_save_instruction(SaveInstruction::Xsaveopt).unwrap();
    let mut image = blank.new_image();
    filled(&blank, A).save(Rfbm::ALL, &mut image);
    let before = avx_bytes(&image);
    blank.save(Rfbm::ALL, &mut image);
    assert_eq!(avx_bytes(&image), before, "XSAVEOPT");
    image.set(Component::X87, B).unwrap();
    blank.save(Rfbm::ALL, &mut image);
    assert_eq!(avx_bytes(&image), [0; 256], "XSAVE");
}

#[test]
fn another_cpus_image_is_carried_over() {
    let (intel, amd) = (SoftRegs::new(&cpu("skylake-sp")), SoftRegs::new(&cpu("zen3")));
    let mut image = amd.new_image();
    filled(&amd, A).save(Rfbm::ALL, &mut image);
    let mut regs = filled(&intel, B);
    regs.restore(Rfbm::ALL, &image).unwrap();
    assert_eq!(regs.get(Component::AVX), A);
    assert_eq!(regs.get(Component::OPMASK), Value::INITIAL);
    regs.run(Program::Fill(Component::AVX, B));
    // A save makes it an image of this CPU: nothing is left out for which there was no room.
    regs.run(Program::Fill(Component::OPMASK, A));
    regs.save(Rfbm::ALL, &mut image);
    assert_eq!((image.get(Component::AVX), image.get(Component::OPMASK)), (B, A));
    assert_eq!(image.area().layout(), intel.layout());
    // There is no room for opmask on the other CPU.
    let mut image = intel.new_image();
    filled(&intel, A).save(Rfbm::ALL, &mut image);
    let mut regs = filled(&amd, B);
    assert_eq!(regs.restore(Rfbm::ALL, &image), Err(Fault::GeneralProtection));
    assert_eq!(regs, filled(&amd, B));
    // An FXSAVE image has x87 and SSE, and the rest is as in the initial configuration.
    let old = SoftRegs::new(&Layout::fxsave_only());
    let mut image = old.new_image();
    filled(&old, A).save(Rfbm::ALL, &mut image);
    regs.restore(Rfbm::ALL, &image).unwrap();
    assert_eq!((regs.get(Component::SSE), regs.get(Component::AVX)), (A, Value::INITIAL));
    let mut image = XsaveImage::new(amd.layout(), Format::Fxsave);
    filled(&amd, B).save(Rfbm::ALL, &mut image);
    let mut regs = filled(&amd, A);
    regs.restore(Rfbm::ALL, &image).unwrap();
    assert_eq!((regs.get(Component::SSE), regs.get(Component::AVX)), (B, B));
    // So does one that was replaced by an area that is too short.
    let mut image = amd.new_image();
    *image.area_mut() = Area::over(AlignedBytes::zeroed(576), amd.layout()).unwrap();
    filled(&amd, B).save(Rfbm::ALL, &mut image);
    assert_eq!((image.get(Component::SSE), image.get(Component::AVX)), (B, B));
}

/// Every outcome is the same as on abstract registers, for every CPU, instruction and policy.
#[test]
fn a_story_goes_as_on_abstract_registers() {
    let (cpu, a, b) = (CpuId(0), TaskId::first(0), TaskId::first(1));
    let story = [
        Event::Spawn(a),
        Event::Spawn(b),
        Event::ScheduleIn(cpu, a),
        Event::Return(cpu, a),
        Event::UserWrite(cpu, Component::SSE, A),
        Event::Entry(cpu, EntryKind::Interrupt),
        Event::SignalDeliver(cpu),
        Event::SignalSave(cpu),
        Event::Frame(a, FrameChange::Absent),
        Event::SignalEnter(cpu),
        Event::Return(cpu, a),
        Event::Entry(cpu, EntryKind::SystemCall),
        Event::SigReturn(cpu),
        Event::SigReturnLoad(cpu),
        Event::SignalFaultIn(cpu),
        Event::SigReturnLoad(cpu),
        Event::KernelFpuBegin(cpu, KernelContext::SoftIrq),
        Event::KernelFpuEnd(cpu),
        Event::ScheduleOut(cpu),
        Event::ScheduleIn(cpu, b),
        Event::Return(cpu, b),
        Event::UserWrite(cpu, Component::SSE, B),
        Event::Entry(cpu, EntryKind::Interrupt),
        Event::ScheduleOut(cpu),
        Event::Write(a, Component::SSE, B),
        Event::Read(a, Component::SSE),
        Event::ScheduleIn(cpu, a),
        Event::Return(cpu, a),
        Event::Entry(cpu, EntryKind::SystemCall),
        Event::Exec(cpu),
        Event::Exit(cpu),
    ];
    for policy in Builtin::ALL {
        let mut plain = Machine::<AbstractRegs, _>::new(policy, 1);
        let expected: Vec<_> = story.iter().map(|event| plain.apply(*event)).collect();
        assert!(expected.iter().filter(|outcome| outcome.is_ok()).count() > 25, "{expected:?}");
        for (name, regs) in every_register_file(layouts()) {
            let mut machine = Machine::with_registers(policy, 1, regs);
            for (event, expected) in story.iter().zip(&expected) {
                assert_eq!(machine.apply(*event), *expected, "{name}: {event}");
            }
        }
    }
    let default = Machine::<SoftRegs, _>::new(Builtin::ALL[0], 2);
    let mut booted = SoftRegs::default();
    booted.set_pkru(Pkru::DEFAULT);
    assert_eq!(default.cpus()[1].regs(), &booted);
}
