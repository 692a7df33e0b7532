//! The software registers against the real ones: the same sequences on both, equal by component and value.
//!
//! What may differ is what the manual leaves to the CPU: which components count as in use, and with that the
//! bits of XSTATE_BV; what is in the registers after a fault; whether an absent byte is touched that need not
//! be.

mod absent_pages;
mod broken_images;
#[path = "../cpus/mod.rs"]
mod cpus;
mod described;
mod deviations;
#[path = "../support/emulator.rs"]
mod emulator;
#[path = "../support/frame_changes.rs"]
mod frame_changes;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod pkru;

use emulator::{
    Deviation, LAST_X87_INSTRUCTION, cases_here, keeps_x87_pointers, report_rare_components,
    report_x87_pointers,
};
use fpuswitch::{
    Component, ComponentSet, FrameChange, Pkru, Rfbm, Value,
    check::{programs, values},
    registers::{Fault, Frame, HostRegs, Image, Program, RegisterFile, SoftRegs, UserFrames, XsaveImage},
    xstate::{Area, LegacyRegion, SaveInstruction},
};
use frame_changes::FRAME_CHANGES;
use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestCaseResult, TestRunner},
};
use std::cell::Cell;

/// Images that a sequence saves to and restores from.
const SLOTS: usize = 3;
const STEPS: usize = 50;
/// For each instruction that saves; without optimisation, for all together.
const SEQUENCES: u32 = if cfg!(debug_assertions) { 2_500 } else { 10_000 };

#[derive(Clone, Debug)]
enum Step {
    Run(Program),
    Save(usize, Rfbm),
    Restore(usize, Rfbm),
    RestoreInitial(Rfbm),
    Edit(usize, Component, Value),
    ResetImage(usize),
    SpoilImage(usize),
    SaveFrame(Rfbm),
    RestoreFrame(Rfbm),
    RestoreLegacyFrame,
    CopyFrame(usize),
    ChangeFrame(FrameChange),
}

/// The host's registers, if there are any; says on which kinds of them a test ran.
fn host(test: &str) -> Option<HostRegs> {
    match HostRegs::new() {
        Ok(regs) => Some(regs),
        Err(error) => {
            println!("HARDWARE {test}: SKIPPED: {error}");
            None
        }
    }
}

/// Both, with an instruction that this CPU has.
fn both(host: &HostRegs, instruction: SaveInstruction) -> Option<(SoftRegs, HostRegs)> {
    let soft = SoftRegs::new(host.layout()).with_save_instruction(instruction).ok()?;
    Some((soft, host.clone().with_save_instruction(instruction).ok()?))
}

fn cases(cases: u32) -> TestRunner {
    let seeded = Config { cases, rng_seed: RngSeed::Fixed(0x13_0810), ..Config::default() };
    TestRunner::new(Config { failure_persistence: None, max_shrink_iters: 2000, ..seeded })
}

/// Mostly all, as the protocol asks; and parts: none with AVX and without SSE where those move no MXCSR.
fn rfbm() -> impl Strategy<Value = Rfbm> {
    let avx_brings_mxcsr = !Deviation::AvxWithoutMxcsr.is_here();
    let part = (0..0x100_u64).prop_map(move |bits| {
        let bits = if avx_brings_mxcsr || bits & 6 != 4 { bits } else { bits | 2 };
        Rfbm::new(ComponentSet::from_bits(bits))
    });
    prop_oneof![2 => Just(Rfbm::ALL), 1 => part]
}

fn step(enabled: ComponentSet) -> impl Strategy<Value = Step> {
    let slot = || 0..SLOTS;
    let component = proptest::sample::select(enabled.without(Component::PKRU).iter().collect::<Vec<_>>());
    prop_oneof![
        5 => programs(enabled).prop_map(Step::Run),
        1 => any_lane().prop_map(Step::Run),
        3 => (slot(), rfbm()).prop_map(|(slot, rfbm)| Step::Save(slot, rfbm)),
        3 => (slot(), rfbm()).prop_map(|(slot, rfbm)| Step::Restore(slot, rfbm)),
        1 => rfbm().prop_map(Step::RestoreInitial),
        1 => (slot(), component, values()).prop_map(|(slot, component, value)| Step::Edit(slot, component, value)),
        1 => slot().prop_map(Step::ResetImage),
        1 => slot().prop_map(Step::SpoilImage),
        1 => rfbm().prop_map(Step::SaveFrame),
        1 => rfbm().prop_map(Step::RestoreFrame),
        1 => Just(Step::RestoreLegacyFrame),
        1 => slot().prop_map(Step::CopyFrame),
        1 => change().prop_map(Step::ChangeFrame),
    ]
}

/// Of registers, too, that no CPU has.
fn any_lane() -> impl Strategy<Value = Program> {
    any::<(u8, u8, u32)>().prop_map(|(register, lane, value)| Program::ChangeLane { register, lane, value })
}

/// Changes to the bytes: pages have a test of their own.
fn change() -> impl Strategy<Value = FrameChange> {
    use FrameChange::{Absent, RestAbsent, Unmapped};
    let of_bytes = |change: &FrameChange| !matches!(change, Absent | RestAbsent | Unmapped);
    proptest::sample::select(FRAME_CHANGES.into_iter().filter(of_bytes).collect::<Vec<_>>())
}

/// One register file, its images and its frame.
struct Side<R: UserFrames> {
    regs: R,
    images: [R::Image; SLOTS],
    frame: R::Frame,
}

impl<R: UserFrames<Image = XsaveImage>> Side<R> {
    fn new(regs: R) -> Self {
        Self { images: std::array::from_fn(|_| regs.new_image()), frame: regs.new_frame(), regs }
    }

    fn take(&mut self, step: &Step) -> Result<(), Fault> {
        let Self { regs, images, frame } = self;
        match step {
            Step::Run(program) => regs.run(*program),
            Step::Save(slot, rfbm) => regs.save(*rfbm, &mut images[*slot]),
            Step::Restore(slot, rfbm) => return regs.restore(*rfbm, &images[*slot]),
            Step::RestoreInitial(rfbm) => regs.restore_initial(*rfbm),
            Step::Edit(slot, component, value) => {
                images[*slot].set(*component, *value).expect("an enabled one")
            }
            Step::ResetImage(slot) => images[*slot].reset(),
            Step::SpoilImage(slot) => spoil(images[*slot].area_mut()),
            Step::SaveFrame(rfbm) => return regs.save_user(*rfbm, frame),
            Step::RestoreFrame(rfbm) => return regs.restore_user(*rfbm, frame),
            Step::RestoreLegacyFrame => return regs.restore_user_legacy(frame),
            Step::CopyFrame(slot) => {
                let contents = frame.contents(regs.enabled())?;
                return frame.copy_to(contents, &mut images[*slot]);
            }
            // What this CPU's frames do not have is left out, on both sides.
            Step::ChangeFrame(change) => _ = frame.change(*change),
        }
        Ok(())
    }
}

/// Makes every restore refuse the image: by its header, or by MXCSR where there is none.
fn spoil(area: &mut Area<impl AsRef<[u8]> + AsMut<[u8]>>) {
    match area.reserved_header_bytes_mut().first_mut() {
        Some(byte) => *byte = 0xff,
        None => area.legacy_mut().set_mxcsr(u32::MAX),
    }
}

/// Bytes that begin with x87's, with zeros for what this CPU does not keep.
fn kept(mut bytes: Vec<u8>) -> Vec<u8> {
    if !keeps_x87_pointers() {
        bytes[LAST_X87_INSTRUCTION].fill(0);
    }
    bytes
}

fn same_values<B: AsRef<[u8]>, C: AsRef<[u8]>>(ours: &Area<B>, theirs: &Area<C>) -> bool {
    let ours = Area::over(kept(ours.bytes().to_vec()), ours.layout()).expect("an area");
    let theirs = Area::over(kept(theirs.bytes().to_vec()), theirs.layout()).expect("an area");
    ours.same_values(&theirs)
}

fn same_registers(soft: &SoftRegs, host: &HostRegs) -> TestCaseResult {
    for component in host.layout().enabled().without(Component::PKRU).iter() {
        let (mut soft, mut host) = (soft.read_back(component), host.read_back(component));
        if component == Component::X87 {
            (soft, host) = (soft.map(kept), host.map(kept));
        }
        prop_assert!(soft == host, "{component}: software\n{soft:02x?}, host\n{host:02x?}");
    }
    if let Ok(host_in_use) = host.in_use() {
        let not_initial = host
            .layout()
            .enabled()
            .without(Component::PKRU)
            .iter()
            .filter(|c| host.get(*c) != Value::INITIAL);
        for component in not_initial {
            prop_assert!(host_in_use.contains(component), "{component} is not initial and not in use");
            prop_assert!(
                soft.in_use().is_ok_and(|in_use| in_use.contains(component)),
                "{component}, software"
            );
        }
    }
    Ok(())
}

#[test]
fn hardware_and_software_do_the_same() {
    let Some(host) = host("differential") else { return };
    let mut ran = Vec::new();
    for instruction in SaveInstruction::ALL {
        let Some((soft, host)) = both(&host, instruction) else {
            println!("HARDWARE differential-{instruction}: SKIPPED: the CPU lacks it");
            continue;
        };
        let sequences = proptest::collection::vec(step(host.layout().enabled()), 1..=STEPS);
        // Without a header, an image is bad by its MXCSR.
        let takes_mxcsr = Deviation::ReservedMxcsr.is_here();
        let can_spoil = host.layout().has_xsave() || !takes_mxcsr;
        let refused = Cell::new(0);
        let same = cases(cases_here(SEQUENCES, 200)).run(&sequences, |steps| {
            let (mut soft, mut host) = (Side::new(soft.clone()), Side::new(host.clone()));
            for step in steps {
                if !can_spoil && matches!(step, Step::SpoilImage(_))
                    || takes_mxcsr && matches!(step, Step::ChangeFrame(FrameChange::BadMxcsr))
                {
                    continue;
                }
                let done = soft.take(&step);
                prop_assert_eq!(done, host.take(&step), "{:?}", step);
                if done.is_err() {
                    // What is in the registers now is up to the CPU.
                    soft.regs.reset();
                    host.regs.reset();
                    refused.set(refused.get() + 1);
                }
                if let Step::Save(slot, _) = step {
                    let refusals = (soft.images[slot].refusal(), host.images[slot].refusal());
                    prop_assert_eq!(refusals, (None, None), "{:?}", step);
                }
                same_registers(&soft.regs, &host.regs)?;
            }
            for (ours, theirs) in soft.images.iter().zip(&host.images) {
                prop_assert!(same_values(ours.area(), theirs.area()));
            }
            prop_assert!(same_values(soft.frame.image(), &host.frame.image()));
            let says = (soft.frame.contents(ComponentSet::LEGACY), host.frame.contents(ComponentSet::LEGACY));
            prop_assert_eq!(says.0, says.1);
            prop_assert_eq!(
                soft.frame.contents(soft.regs.enabled()),
                host.frame.contents(host.regs.enabled())
            );
            Ok(())
        });
        same.unwrap_or_else(|failed| panic!("{instruction}: {failed}"));
        assert_eq!(refused.get() > 0, can_spoil, "{} restores were refused", refused.get());
        ran.push(instruction);
    }
    assert!(!ran.is_empty());
    ran.iter().for_each(|instruction| println!("HARDWARE differential-{instruction}: ran"));
    println!("HARDWARE differential: ran");
    report_rare_components("differential", host.enabled().bits());
    Deviation::ReservedMxcsr.report("differential-bad-mxcsr");
    report_x87_pointers("differential-x87-pointers");
    if host.enabled().contains(Component::AVX) {
        Deviation::AvxWithoutMxcsr.report("differential-mxcsr-with-avx");
    } else {
        println!("HARDWARE differential-mxcsr-with-avx: SKIPPED: this CPU has no AVX");
    }
}

/// Any value, those too that deny the key of the pages that the test itself is in.
#[test]
fn hardware_takes_any_pkru() {
    let Some(mut host) = host("any-pkru") else { return };
    if host.pkru().is_none() {
        println!("HARDWARE any-pkru: SKIPPED: no RDPKRU here (CPUID.7.0:ECX.OSPKE is clear)");
        return;
    }
    let single = (0..32).map(|bit| 1 << bit);
    for pkru in single.chain([u32::MAX, 3, 0x5555_5555, 0xaaaa_aaaa, 0x5555_5554, 0]) {
        let before = host.clone();
        host.set_pkru(Pkru(pkru));
        assert_eq!(host.pkru(), Some(Pkru(pkru)));
        assert_eq!(host == before, host.pkru() == before.pkru());
        // It is in no other register file, and no restore touches it that does not name it.
        assert_eq!(before.clone().pkru(), before.pkru());
        let mut image = before.new_image();
        image.set_pkru(Pkru(8));
        let others = Rfbm::new(host.enabled().without(Component::PKRU));
        host.save(others, &mut image);
        assert_eq!(host.restore(others, &image), Ok(()));
        host.restore_initial(others);
        assert_eq!(host.pkru(), Some(Pkru(pkru)));
        let has_room = image.has_room_for(Component::PKRU);
        assert_eq!(image.pkru(), if has_room { Pkru(8) } else { Pkru(0) });
        // One that does takes it from the image, where 0 is a clear bit.
        host.save(Rfbm::ALL, &mut image);
        host.set_pkru(Pkru(8));
        assert_eq!(host.restore(Rfbm::ALL, &image), Ok(()));
        let loaded = if has_room { Pkru(pkru) } else { Pkru(0) };
        assert_eq!((host.pkru(), image.pkru()), (Some(loaded), loaded));
        assert!(image.is_restorable());
        // A frame has it where the kernel has written it, and no load takes it from there.
        let mut frame = host.new_frame();
        assert_eq!(host.save_user(Rfbm::ALL, &mut frame), Ok(()));
        assert_eq!(frame.contents(host.enabled()).map(|contents| contents.pkru), Ok(Pkru(0)));
        assert_eq!(frame.set_pkru(Pkru(pkru)), Ok(()));
        assert_eq!(frame.contents(host.enabled()).map(|contents| contents.pkru), Ok(loaded));
        host.set_pkru(Pkru(8));
        assert_eq!(host.restore_user(Rfbm::ALL, &frame), Ok(()));
        assert_eq!(host.pkru(), Some(Pkru(8)));
    }
    host.reset();
    assert_eq!(host.pkru(), Some(Pkru(0)));
    println!("HARDWARE any-pkru: ran");
}

/// An area that was used before makes the next restore fault, unless its header is cleared. The register
/// files do that.
#[test]
fn hardware_saves_to_a_used_image_can_be_restored() {
    let Some(host) = host("used-images") else { return };
    for instruction in SaveInstruction::ALL {
        let Some((mut soft, mut host)) = both(&host, instruction) else { continue };
        let garbage = |image: &mut XsaveImage| {
            image.area_mut().bytes_mut().fill(0xa5);
            // BNDCFGU and BNDSTATUS take 16 bytes; a CPU may leave the others as they are.
            if let Some(place) = host.layout().place(Component::BNDCSR) {
                let (start, end) = (place.offset_bytes as usize, place.offset_bytes + place.size_bytes);
                image.area_mut().bytes_mut()[start + 16..end as usize].fill(0);
            }
        };
        let (mut ours, mut theirs) = (soft.new_image(), host.new_image());
        garbage(&mut ours);
        garbage(&mut theirs);
        soft.run(Program::Fill(Component::SSE, Value::KERNEL));
        host.run(Program::Fill(Component::SSE, Value::KERNEL));
        soft.save(Rfbm::ALL, &mut ours);
        host.save(Rfbm::ALL, &mut theirs);
        assert!(same_values(ours.area(), theirs.area()), "{instruction}");
        assert_eq!((soft.restore(Rfbm::ALL, &ours), host.restore(Rfbm::ALL, &theirs)), (Ok(()), Ok(())));
        same_registers(&soft, &host).expect("the same");
        let legacy = LegacyRegion::over(theirs.area().bytes()).expect("512 bytes");
        assert_eq!(legacy.mxcsr_mask(), host.layout().mxcsr_mask());
    }
    println!("HARDWARE used-images: ran");
}
