//! What a host with PKRU does, on any host.

use super::*;
use crate::{
    registers::{MemoryOperand, SoftRegs},
    xstate::CpuidDump,
};

#[test]
fn pkru_beside_a_save_is_as_if_saved_with_the_rest() {
    let dump: CpuidDump = include_str!("../../../cpus/skylake-sp.txt").parse().expect("a description");
    let layout = Layout::from_cpuid(&dump).expect("no contradiction");
    let at = MemoryOperand::default();
    for instruction in [SaveInstruction::Xsave, SaveInstruction::Xsavec] {
        let mut regs = SoftRegs::new(&layout).with_save_instruction(instruction).expect("it has both");
        regs.run(Program::FillAll(Value::KERNEL));
        for pkru in [Pkru(0), Pkru::DEFAULT, Pkru(u32::MAX)] {
            regs.set_pkru(pkru);
            let mut expected = regs.new_image();
            regs.save(Rfbm::ALL, &mut expected);
            for left_out in [None, Some(Component::X87), Some(Component::PKRU)] {
                let all = layout.enabled();
                let saved = left_out.map_or(all, |component| all.without(component));
                let keys = Some(pkru).filter(|_| saved.contains(Component::PKRU));
                let mut image = expected.clone();
                if keys.is_some() {
                    image.set_pkru(Pkru(8));
                }
                image.save(&layout, instruction.format(), saved, |area, components| {
                    let parked = Rfbm::new(components.without(Component::PKRU));
                    let saved = match instruction {
                        SaveInstruction::Xsavec => regs.xsavec(parked, &at, area),
                        _ => regs.xsave(parked, &at, area),
                    };
                    saved.expect("room, and all present");
                    add_pkru(area, components, keys);
                });
                let what = std::format!("{instruction}, {pkru:?}, without {left_out:?}");
                assert_eq!((&image, image.pkru()), (&expected, pkru), "{what}");
                assert_eq!(image.area().xcomp_bv(), expected.area().xcomp_bv(), "{what}");
            }
        }
    }
}
