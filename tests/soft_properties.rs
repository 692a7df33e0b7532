//! The software register file on any CPU: what it saves it restores, by whatever instruction, and nothing that can
//! be in memory upsets it.

mod cpus;
mod soft;

use cpus::{any_bytes, any_image, any_layout, cases, fill};
use fpuswitch::{
    Component, ComponentSet, Pkru, Rfbm, Value,
    check::{images, programs, refused_images},
    registers::{Fault, Image, MemoryOperand, Program, RegisterFile, SoftFault, SoftRegs, XsaveImage},
    xstate::{Area, Format, OwnedArea, Refusal, Rounding, SaveInstruction, XstateBv},
};
use proptest::{collection::vec, prelude::*};
use soft::{area_for, at, elsewhere, filled, instructions, restore, save};

const A: Value = Value::new(7).unwrap();

/// Saves to where nothing was restored from.
fn save_elsewhere(regs: &SoftRegs, instruction: SaveInstruction, rfbm: Rfbm, area: &mut OwnedArea) {
    assert_eq!(save(regs, instruction, rfbm, &elsewhere(), area), Ok(()), "{instruction}");
}

/// Where the header is, if there is one.
fn area_header(area: &OwnedArea) -> std::ops::Range<usize> {
    if area.format() == Format::Fxsave { 0..0 } else { 512..576 }
}

/// Registers that a valid image leads to, and programs from there.
fn any_regs() -> impl Strategy<Value = SoftRegs> {
    let ran = |image: OwnedArea| {
        let mut regs = SoftRegs::new(image.layout());
        restore(&mut regs, Rfbm::ALL, &image).unwrap();
        let ran = vec(programs(regs.enabled() | ComponentSet::LEGACY), 0..3);
        (Just(regs), ran).prop_map(|(mut regs, ran)| {
            ran.into_iter().for_each(|program| regs.run(program));
            regs
        })
    };
    any_image().prop_flat_map(ran)
}

/// Blank registers of any CPU that saves with any of its instructions.
fn any_cpu() -> impl Strategy<Value = SoftRegs> {
    (any_layout(), any::<prop::sample::Index>()).prop_map(|(layout, which)| {
        let instructions: Vec<_> = instructions(&layout).collect();
        let regs = SoftRegs::new(&layout).with_save_instruction(*which.get(&instructions));
        regs.expect("one of its own")
    })
}

/// The same, and one of its images, and one that is refused.
fn any_cpu_with_images() -> impl Strategy<Value = (SoftRegs, XsaveImage, XsaveImage)> {
    any_cpu().prop_flat_map(|regs| (Just(regs.clone()), images(&regs), refused_images(&regs)))
}

fn any_rfbm() -> impl Strategy<Value = Rfbm> {
    prop_oneof![Just(Rfbm::ALL), any::<u64>().prop_map(|bits| Rfbm::new(ComponentSet::from_bits(bits)))]
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn what_is_saved_is_restored(regs in any_regs(), other in any::<u64>()) {
        for instruction in instructions(regs.layout()) {
            let mut area = area_for(regs.layout(), instruction);
            if area.format() == Format::Fxsave && regs.layout().has_xsave() {
                continue;
            }
            save_elsewhere(&regs, instruction, Rfbm::ALL, &mut area);
            prop_assert_eq!(area.check(area.format(), Rfbm::ALL), Ok(()));
            let mut restored = filled(&SoftRegs::new(regs.layout()), Value::new(other as u8 % 254).unwrap());
            restored.set_pkru(Pkru(other as u32));
            restore(&mut restored, Rfbm::ALL, &area).unwrap();
            prop_assert_eq!(&restored, &regs);
            // Once more from where it was restored: for XSAVEOPT, all is unmodified.
            let mut again = area.clone();
            save(&restored, instruction, Rfbm::ALL, &at(), &mut again).unwrap();
            prop_assert!(again.same_values(&area));
        }
    }

    /// And what was refused can be saved to and is an image again.
    #[test]
    fn good_images_are_restored_and_bad_ones_refused((blank, image, refused) in any_cpu_with_images()) {
        prop_assert!(image.is_restorable() && !refused.is_restorable());
        let mut regs = blank.clone();
        prop_assert_eq!(regs.restore(Rfbm::ALL, &image), Ok(()));
        prop_assert_eq!(blank.clone().restore(Rfbm::ALL, &refused), Err(Fault::GeneralProtection));
        for component in blank.enabled().without(Component::PKRU).iter() {
            prop_assert_eq!(regs.get(component), image.get(component), "{}", component);
        }
        let (mut saved, mut repaired) = (image.clone(), refused);
        regs.save(Rfbm::ALL, &mut saved);
        prop_assert_eq!(&saved, &image);
        repaired.grow(image.room()).expect("room");
        regs.save(Rfbm::ALL, &mut repaired);
        prop_assert!(repaired.is_restorable());
        for component in image.room().without(Component::PKRU).iter() {
            prop_assert_eq!(repaired.get(component), image.get(component), "{}", component);
        }
    }

    #[test]
    fn the_forms_hold_the_same_values(regs in any_regs()) {
        let layout = regs.layout();
        for instruction in instructions(layout) {
            let mut area = area_for(layout, instruction);
            save_elsewhere(&regs, instruction, Rfbm::ALL, &mut area);
            let legacy = instruction == SaveInstruction::Fxsave;
            for component in layout.enabled().iter().filter(|component| !legacy || *component <= Component::SSE) {
                let found = area.component(component).unwrap().into_owned();
                prop_assert_eq!(found, regs.read_back(component).unwrap(), "{}", instruction);
            }
            if layout.has_xsave() {
                let converted = area.convert(layout, Format::Standard).unwrap();
                prop_assert!(converted.same_values(&area));
            }
        }
    }

    /// A partial save leaves the rest of the area alone, a partial restore the rest of the registers; but for
    /// MXCSR, which comes along with AVX in the standard format.
    #[test]
    fn masks_are_obeyed(
        regs in any_regs(), mask in any_rfbm(), seed in any::<u64>(), which in any::<prop::sample::Index>(),
    ) {
        let layout = regs.layout().clone();
        let instructions: Vec<_> = instructions(&layout).filter(|i| *i != SaveInstruction::Fxsave).collect();
        if instructions.is_empty() {
            return Ok(());
        }
        let instruction = instructions[which.index(instructions.len())];
        let mut area = area_for(&layout, instruction);
        let with_mxcsr = instruction.format() == Format::Standard && mask.of(layout.enabled()).contains(Component::AVX);
        save_elsewhere(&regs, instruction, mask, &mut area);
        let mut restored = filled(&SoftRegs::new(&layout), Value::new(seed as u8 % 254).unwrap());
        restored.run(Program::Round([Rounding::Up, Rounding::Zero][seed as usize % 2]));
        restored.set_pkru(Pkru(seed as u32));
        let before = restored.clone();
        restored.xrstor(mask, &at(), &area).unwrap();
        for component in layout.enabled().iter() {
            let [now, then, saved] = [&restored, &before, &regs].map(|regs| regs.read_back(component).unwrap());
            if component == Component::SSE {
                let (mxcsr, xmm) = (&now[..4], &now[4..]);
                let from = if mask.contains(component) || with_mxcsr { &saved } else { &then };
                prop_assert_eq!(mxcsr, &from[..4]);
                let from = if mask.contains(component) { &saved } else { &then };
                prop_assert_eq!(xmm, &from[4..]);
            } else {
                prop_assert_eq!(now, if mask.contains(component) { saved } else { then }, "{}", component);
            }
        }
    }

    /// Whatever is in memory: a restore happens if `Area::check` says so and all of it is there, and a restore
    /// that does not happen changes nothing.
    #[test]
    fn no_image_upsets_the_registers((layout, bytes) in any_bytes(), mask in any_rfbm(), torn in any::<bool>()) {
        let mut regs = filled(&SoftRegs::new(&layout), A);
        let before = regs.clone();
        let Ok(area) = Area::over(&bytes[..], &layout) else { return Ok(()) };
        let result = if layout.has_xsave() { regs.xrstor(mask, &at(), &area) } else { regs.fxrstor(&at(), &area) };
        match (area.check(area.format(), mask), result) {
            (Ok(()), result) => prop_assert_eq!(result, Ok(())),
            (Err(Refusal::BeyondEnd { .. }), result) => {
                prop_assert!(matches!(result, Ok(()) | Err(SoftFault::Page(_))), "{:?}", result);
            }
            (Err(refusal), result) => prop_assert_eq!(result, Err(SoftFault::Refused(refusal))),
        }
        if result.is_err() {
            prop_assert_eq!(&regs, &before);
        }
        // Saved over whatever was there, it comes back.
        let mut regs = regs.with_torn_restores(torn);
        let mut target = Area::over(bytes.clone(), &layout).unwrap();
        if layout.has_xsave() && regs.xsave(Rfbm::ALL, &at(), &mut target).is_ok() {
            target.bytes_mut()[520..576].fill(0);
            target.set_xstate_bv(XstateBv(target.xstate_bv().0 & layout.enabled().bits()));
            let saved = regs.clone();
            regs.restore_initial(Rfbm::ALL);
            regs.set_pkru(Pkru(1));
            prop_assert_eq!(regs.xrstor(Rfbm::ALL, &at(), &target), Ok(()));
            prop_assert_eq!(regs, saved);
        }
    }

    /// Where the area is cut off makes no difference but a page fault, and that byte is absent.
    #[test]
    fn an_absent_part_of_an_area_faults_or_makes_no_difference(
        regs in any_regs(), start in 0..600_usize, len in 0..3000_usize, seed in any::<u64>(),
    ) {
        let layout = regs.layout().clone();
        let present = (if seed & 1 == 0 { 0 } else { start })..start + len;
        let cut = MemoryOperand { address: 0x2000, present: present.clone() };
        for instruction in instructions(&layout) {
            let mut whole = area_for(&layout, instruction);
            let mut background = vec![0; whole.bytes().len()];
            fill(&mut background, seed);
            background[area_header(&whole)].fill(0);
            whole.bytes_mut().copy_from_slice(&background);
            let mut part = whole.clone();
            let result = save(&regs, instruction, Rfbm::ALL, &cut, &mut part);
            save_elsewhere(&regs, instruction, Rfbm::ALL, &mut whole);
            match result {
                Ok(()) => {
                    prop_assert_eq!(part.bytes(), whole.bytes());
                    let changed = (0..background.len()).filter(|n| background[*n] != whole.bytes()[*n]);
                    prop_assert!(changed.into_iter().all(|n| present.contains(&n)));
                }
                Err(SoftFault::Page(byte)) => {
                    prop_assert!(!present.contains(&byte));
                    prop_assert_eq!(part.bytes(), &background[..]);
                }
                Err(fault) => prop_assert!(false, "{}", fault),
            }
        }
    }

    #[test]
    fn an_absent_part_of_an_image_faults_or_makes_no_difference(
        image in any_image(), start in 0..600_usize, len in 0..3000_usize, from_start in any::<bool>(),
    ) {
        let present = (if from_start { 0 } else { start })..start + len;
        let cut = MemoryOperand { present: present.clone(), ..at() };
        let before = filled(&SoftRegs::new(image.layout()), A);
        let [mut whole, mut part] = [before.clone(), before.clone()];
        restore(&mut whole, Rfbm::ALL, &image).unwrap();
        let result = match image.format() {
            Format::Fxsave => part.fxrstor(&cut, &image),
            _ => part.xrstor(Rfbm::ALL, &cut, &image),
        };
        match result {
            Ok(()) => prop_assert_eq!(part, whole),
            Err(SoftFault::Page(byte)) => {
                prop_assert!(!present.contains(&byte));
                prop_assert_eq!(part, before);
            }
            Err(fault) => prop_assert!(false, "{}", fault),
        }
    }

    /// Equal registers hash alike, and equality goes by values: the tracking does not count.
    #[test]
    fn equality_goes_by_values(layout in any_layout(), number in 0..254_u8) {
        use std::hash::{BuildHasher, RandomState};
        let value = Value::new(number).unwrap();
        let written = filled(&SoftRegs::new(&layout), value);
        let mut image = written.new_image();
        image.grow(written.dynamic()).unwrap();
        written.save(Rfbm::ALL, &mut image);
        let mut loaded = SoftRegs::new(&layout);
        loaded.restore(Rfbm::ALL, &image).unwrap();
        prop_assert_eq!(&loaded, &written);
        let state = RandomState::new();
        prop_assert_eq!(state.hash_one(&loaded), state.hash_one(&written));
        loaded.run(Program::Fill(Component::X87, Value::KERNEL));
        prop_assert_ne!(&loaded, &written);
    }
}
