//! PKRU, which the real register file carries beside its instructions: the instructions that have it in their mask do the
//! same, and so do the software registers.
#![allow(unsafe_code, reason = "XSAVE, XRSTOR and WRPKRU in one block")]

use crate::{both, host};
use fpuswitch::{
    Component, ComponentSet, Pkru, Rfbm,
    registers::{HostRegs, Image, RegisterFile, XsaveImage},
    xstate::{Format, Layout, OwnedArea, SaveInstruction, XcompBv, XsaveFeatures, XstateBv},
};
use std::arch::asm;

const PKRU: ComponentSet = ComponentSet::EMPTY.with(Component::PKRU);

/// Nothing denied, what a new program has, single bits, everything; key 0, which this code's memory has, is allowed.
const VALUES: [u32; 6] = [0, 0x5555_5554, 4, 0x8000_0000, 0xaaaa_aaa8, 0xffff_fffc];

/// The host's registers, if there is PKRU and instructions have it in their masks.
fn host_with_pkru(test: &str) -> Option<HostRegs> {
    let host = host(test)?;
    let why = match host.pkru() {
        None => "no RDPKRU here (CPUID.7.0:ECX.OSPKE is clear)",
        Some(_) if host.layout().enabled().contains(Component::PKRU) => return Some(host),
        Some(_) => "no PKRU in XCR0",
    };
    println!("HARDWARE {test}: SKIPPED: {why}");
    None
}

/// Evaluates to what `$before` and `$instruction`, whose operand is `$area` and whose mask is `$rfbm`, leave in PKRU. It is the
/// calling code's own again behind it.
macro_rules! pkru_behind {
    ($before:expr, $instruction:literal, $area:expr, $rfbm:expr) => {{
        let (area, behind): (*mut u8, u32);
        area = $area;
        // SAFETY: the caller has looked up the instruction, OSPKE, and PKRU in XCR0, and the area is one of those of XCR0 and
        // a multiple of 64. The mask is PKRU alone or nothing, so that no other register changes (Intel SDM volume 1,
        // sections 13.7 to 13.10). Between the writes of PKRU all memory that is accessed has key 0, which `$before` allows;
        // behind a restore of an image that denies it there is none. `nostack`: nothing is pushed. `preserves_flags`: none of
        // these instructions writes any.
        unsafe {
            asm!(
                "mov ecx, 0",
                "rdpkru",
                "mov r8d, eax",
                "mov eax, {before:e}",
                "mov edx, 0",
                "wrpkru",
                "mov eax, {rfbm:e}",
                $instruction,
                "rdpkru",
                "mov {behind:e}, eax",
                "mov eax, r8d",
                "mov edx, 0",
                "wrpkru",
                before = in(reg) $before,
                rfbm = in(reg) $rfbm.bits() as u32,
                area = in(reg) area,
                behind = lateout(reg) behind,
                out("eax") _,
                out("ecx") _,
                out("edx") _,
                out("r8d") _,
                options(nostack, preserves_flags),
            );
        }
        behind
    }};
}

/// What an instruction that has PKRU alone in its mask makes of an area with nothing in it.
fn saved(instruction: SaveInstruction, pkru: u32, layout: &Layout) -> OwnedArea {
    let mut saved = OwnedArea::initial(layout, instruction.format());
    let area = saved.bytes_mut().as_mut_ptr();
    let behind = match instruction {
        SaveInstruction::Xsave => pkru_behind!(pkru, "xsave64 [{area}]", area, PKRU),
        SaveInstruction::Xsaveopt => pkru_behind!(pkru, "xsaveopt64 [{area}]", area, PKRU),
        SaveInstruction::Xsavec => pkru_behind!(pkru, "xsavec64 [{area}]", area, PKRU),
        SaveInstruction::Fxsave => panic!("it has no mask"),
    };
    assert_eq!(behind, pkru, "a save changes nothing");
    saved
}

/// What is in PKRU behind a restore from an image.
fn restored(area: &OwnedArea, rfbm: ComponentSet, before: u32) -> u32 {
    let mut area = area.clone();
    pkru_behind!(before, "xrstor64 [{area}]", area.bytes_mut().as_mut_ptr(), rfbm)
}

/// XINUSE while PKRU is that.
fn in_use(pkru: u32) -> ComponentSet {
    let low: u32;
    // SAFETY: as above; the caller has looked up XGETBV with ECX = 1.
    unsafe {
        asm!(
            "mov ecx, 0",
            "rdpkru",
            "mov r8d, eax",
            "mov eax, {pkru:e}",
            "mov edx, 0",
            "wrpkru",
            "mov ecx, 1",
            "xgetbv",
            "mov {low:e}, eax",
            "mov eax, r8d",
            "mov ecx, 0",
            "mov edx, 0",
            "wrpkru",
            pkru = in(reg) pkru,
            low = lateout(reg) low,
            out("eax") _,
            out("ecx") _,
            out("edx") _,
            out("r8d") _,
            options(nostack, preserves_flags),
        );
    }
    ComponentSet::from_bits(low.into())
}

fn saved_by(regs: &mut impl RegisterFile<Image = XsaveImage>, pkru: u32) -> XsaveImage {
    let mut image = regs.new_image();
    regs.set_pkru(Pkru(pkru));
    regs.save(Rfbm::new(PKRU), &mut image);
    image
}

fn restored_by(
    regs: &mut impl RegisterFile<Image = XsaveImage>,
    image: &XsaveImage,
    rfbm: ComponentSet,
    before: u32,
) -> u32 {
    regs.set_pkru(Pkru(before));
    assert_eq!(regs.restore(Rfbm::new(rfbm), image), Ok(()));
    regs.pkru().expect("it has PKRU").0
}

/// The four bytes of PKRU in an area, where its layout has them.
fn bytes_of_pkru(area: &OwnedArea) -> [u8; 4] {
    let at = match area.format() {
        // It is the only component of these areas behind the header.
        Format::Compacted if area.xcomp_bv() == XcompBv::compacted(PKRU) => 576,
        _ => area.layout().place(Component::PKRU).expect("enabled").offset_bytes as usize,
    };
    area.bytes()[at..at + 4].try_into().expect("four bytes")
}

#[test]
fn hardware_pkru_beside_an_instruction_is_as_if_in_its_mask() {
    let Some(host) = host_with_pkru("pkru-in-mask") else { return };
    for instruction in [SaveInstruction::Xsave, SaveInstruction::Xsaveopt, SaveInstruction::Xsavec] {
        let Some((mut soft, mut host)) = both(&host, instruction) else { continue };
        let layout = host.layout().clone();
        for pkru in VALUES {
            let what = format!("{instruction} of {pkru:#x}");
            let real = saved(instruction, pkru, &layout);
            let (ours, theirs) = (saved_by(&mut host, pkru), saved_by(&mut soft, pkru));
            for image in [&ours, &theirs] {
                assert_eq!(image.pkru(), Pkru(pkru), "{what}");
                assert!(real.same_values(image.area()), "{what}");
            }
            // The bit can be clear where PKRU is 0, and only there.
            let is_saved = real.xstate_bv().contains(Component::PKRU);
            assert!(real.xstate_bv().components().is_subset_of(PKRU) && (is_saved || pkru == 0), "{what}");
            if is_saved {
                assert_eq!(bytes_of_pkru(&real), pkru.to_le_bytes(), "{what}");
            }
            if ours.area().format() == Format::Standard && pkru != 0 {
                assert_eq!(bytes_of_pkru(ours.area()), pkru.to_le_bytes(), "{what}");
            }
            // Where the bit is clear, what is behind it does not count.
            let mut cleared = ours.clone();
            let others = ours.area().xstate_bv().0 & !PKRU.bits();
            cleared.area_mut().set_xstate_bv(XstateBv(others));
            assert!(pkru == 0 || cleared.area().bytes() != ours.area().bytes());
            for (image, expected) in [(&ours, pkru), (&theirs, pkru), (&cleared, 0)] {
                for before in VALUES {
                    assert_eq!(restored(image.area(), PKRU, before), expected, "{what}");
                    assert_eq!(restored_by(&mut host, image, PKRU, before), expected, "{what}");
                    assert_eq!(restored_by(&mut soft, image, PKRU, before), expected, "{what}");
                    // A mask without PKRU leaves it alone.
                    assert_eq!(restored(image.area(), ComponentSet::EMPTY, before), before, "{what}");
                    assert_eq!(restored_by(&mut host, image, ComponentSet::EMPTY, before), before, "{what}");
                    assert_eq!(restored_by(&mut soft, image, ComponentSet::EMPTY, before), before, "{what}");
                }
            }
            assert_eq!(restored(&real, PKRU, 8), pkru, "{what}");
        }
        println!("{instruction}");
    }
    println!("HARDWARE pkru-in-mask: ran");
}

#[test]
fn hardware_pkru_is_in_use_where_it_is_not_0() {
    let Some(mut host) = host_with_pkru("pkru-in-use") else { return };
    if !host.layout().features().contains(XsaveFeatures::XGETBV1) {
        return println!("HARDWARE pkru-in-use: SKIPPED: this CPU has no XGETBV with ECX = 1");
    }
    for pkru in VALUES {
        host.set_pkru(Pkru(pkru));
        let ours = host.in_use().expect("XGETBV(1)");
        assert_eq!(ours.contains(Component::PKRU), pkru != 0, "{pkru:#x}");
        // A CPU may say of 0, too, that it is in use.
        assert!(in_use(pkru).contains(Component::PKRU) || pkru == 0, "{pkru:#x}");
    }
    println!("HARDWARE pkru-in-use: ran");
}
