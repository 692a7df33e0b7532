//! The software registers against the real ones: the same sequences on both, equal by component and value.
//!
//! What may differ is what the manual leaves to the CPU: which components count as in use, and with that the
//! bits of XSTATE_BV; what is in the registers after a fault; whether an absent byte is touched that need not
//! be.

#[path = "support/emulator.rs"]
mod emulator;

use emulator::{LAST_X87_INSTRUCTION, is_qemu_tcg, keeps_x87_pointers};
use fpuswitch::{
    Component, ComponentSet, FrameChange, Pkru, Rfbm, Value,
    registers::{
        Fault, Frame, HostFrame, HostRegs, Image, MemoryOperand, Program, RegisterFile, SoftFault, SoftFrame,
        SoftRegs, XsaveImage,
    },
    xstate::{Area, Format, LegacyRegion, Refusal, Rounding, SaveInstruction, XcompBv, XstateBv},
};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, RngSeed, TestCaseResult, TestRunner},
};
use std::{cell::Cell, sync::LazyLock};

/// Images that a sequence saves to and restores from.
const SLOTS: usize = 3;
const STEPS: usize = 50;
/// For each instruction that saves; without optimisation, for all together.
const SEQUENCES: u32 = if cfg!(debug_assertions) { 2_500 } else { 10_000 };
/// Of which more than 1 000 are refused, where there is XSAVE.
const BROKEN_IMAGES: u32 = 4_000;

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
    SpoilFrame,
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

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![Just(Value::INITIAL), (1..=253_u8).prop_map(|n| Value::new(n).unwrap())]
}

/// Mostly all, as the protocol asks; and parts: on QEMU's CPU none with AVX and without SSE, which moves MXCSR.
fn rfbm() -> impl Strategy<Value = Rfbm> {
    let avx_brings_mxcsr = !is_qemu_tcg();
    let part = (0..0x100_u64).prop_map(move |bits| {
        let bits = if avx_brings_mxcsr || bits & 6 != 4 { bits } else { bits | 2 };
        Rfbm::new(ComponentSet::from_bits(bits))
    });
    prop_oneof![2 => Just(Rfbm::ALL), 1 => part]
}

fn program(enabled: Vec<Component>) -> impl Strategy<Value = Program> {
    let component = proptest::sample::select(enabled);
    let rounding =
        prop_oneof![Just(Rounding::Nearest), Just(Rounding::Down), Just(Rounding::Up), Just(Rounding::Zero)];
    prop_oneof![
        4 => (component.clone(), value()).prop_map(|(component, value)| Program::Fill(component, value)),
        1 => component.prop_map(Program::Clear),
        1 => value().prop_map(Program::FillAll),
        3 => (0..33_u8, 0..17_u8, any::<u32>())
            .prop_map(|(register, lane, value)| Program::ChangeLane { register, lane, value }),
        2 => rounding.prop_map(Program::Round),
    ]
}

fn step(enabled: Vec<Component>) -> impl Strategy<Value = Step> {
    let slot = || 0..SLOTS;
    let component = proptest::sample::select(enabled.clone());
    prop_oneof![
        5 => program(enabled).prop_map(Step::Run),
        3 => (slot(), rfbm()).prop_map(|(slot, rfbm)| Step::Save(slot, rfbm)),
        3 => (slot(), rfbm()).prop_map(|(slot, rfbm)| Step::Restore(slot, rfbm)),
        1 => rfbm().prop_map(Step::RestoreInitial),
        1 => (slot(), component, value()).prop_map(|(slot, component, value)| Step::Edit(slot, component, value)),
        1 => slot().prop_map(Step::ResetImage),
        1 => slot().prop_map(Step::SpoilImage),
        1 => rfbm().prop_map(Step::SaveFrame),
        1 => rfbm().prop_map(Step::RestoreFrame),
        1 => Just(Step::SpoilFrame),
    ]
}

/// One register file, its images and its frame.
struct Side<R: RegisterFile> {
    regs: R,
    images: [R::Image; SLOTS],
    frame: R::Frame,
}

impl<R: RegisterFile<Image = XsaveImage>> Side<R> {
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
            Step::SpoilFrame => frame.change(FrameChange::BadHeader),
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

fn keeps_pointers() -> bool {
    static KEEPS: LazyLock<bool> = LazyLock::new(keeps_x87_pointers);
    *KEEPS
}

/// Bytes that begin with x87's, with zeros for what this CPU does not keep.
fn kept(mut bytes: Vec<u8>) -> Vec<u8> {
    if !keeps_pointers() {
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
        let enabled: Vec<_> = host.layout().enabled().without(Component::PKRU).iter().collect();
        let sequences = proptest::collection::vec(step(enabled), 1..=STEPS);
        // Without a header, an image is bad by its MXCSR, which QEMU's CPU takes.
        let can_spoil = host.layout().has_xsave() || !is_qemu_tcg();
        let refused = Cell::new(0);
        let same = cases(SEQUENCES).run(&sequences, |steps| {
            let (mut soft, mut host) = (Side::new(soft.clone()), Side::new(host.clone()));
            for step in steps {
                if !can_spoil && matches!(step, Step::SpoilImage(_) | Step::SpoilFrame) {
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
            prop_assert!(same_values(soft.frame.image().area(), &host.frame.image()));
            Ok(())
        });
        same.unwrap_or_else(|failed| panic!("{instruction}: {failed}"));
        assert_eq!(refused.get() > 0, can_spoil, "{} restores were refused", refused.get());
        ran.push(instruction);
    }
    assert!(!ran.is_empty());
    ran.iter().for_each(|instruction| println!("HARDWARE differential-{instruction}: ran"));
    println!("HARDWARE differential: ran");
    if keeps_pointers() {
        println!("HARDWARE differential-x87-pointers: ran");
    } else {
        println!("HARDWARE differential-x87-pointers: SKIPPED: this CPU does not keep them");
    }
    if is_qemu_tcg() {
        println!("HARDWARE differential-mxcsr-with-avx: SKIPPED: QEMU's CPU moves MXCSR with SSE only");
    } else {
        println!("HARDWARE differential-mxcsr-with-avx: ran");
    }
}

/// Damage to an image, or to what it claims.
#[derive(Clone, Debug)]
enum Damage {
    XstateBv(u64),
    XcompBv(u64),
    Compacted(u64),
    Reserved(Index, u8),
    Mxcsr(u32),
    Fcw(u16),
    Fsw(u16),
    None,
}

impl Damage {
    fn apply(&self, area: &mut Area<impl AsRef<[u8]> + AsMut<[u8]>>) {
        match self {
            Self::XstateBv(bits) => area.set_xstate_bv(XstateBv(area.xstate_bv().0 ^ bits)),
            Self::XcompBv(bits) => area.set_xcomp_bv(XcompBv(area.xcomp_bv().0 ^ bits)),
            Self::Compacted(bits) => area.set_xcomp_bv(XcompBv(1 << 63 | bits)),
            Self::Reserved(at, value) => {
                let bytes = area.reserved_header_bytes_mut();
                if !bytes.is_empty() {
                    *at.get_mut(bytes) = *value;
                }
            }
            Self::Mxcsr(bits) => {
                let mxcsr = area.legacy().mxcsr();
                area.legacy_mut().set_mxcsr(mxcsr ^ bits);
            }
            // Unmasked, and pending: nothing that a restore looks at.
            Self::Fcw(fcw) => area.legacy_mut().set_fcw(*fcw),
            Self::Fsw(fsw) => area.legacy_mut().set_fsw(*fsw),
            Self::None => {}
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let bit = || prop_oneof![(0..8_u32), (0..64_u32)].prop_map(|bit| 1_u64 << bit);
    prop_oneof![
        3 => bit().prop_map(Damage::XstateBv),
        1 => bit().prop_map(Damage::XcompBv),
        1 => prop_oneof![0..0x100_u64, any::<u64>()].prop_map(Damage::Compacted),
        1 => (any::<Index>(), 1..=u8::MAX).prop_map(|(at, value)| Damage::Reserved(at, value)),
        2 => (0..32_u32).prop_map(|bit| Damage::Mxcsr(1 << bit)),
        1 => any::<u16>().prop_map(Damage::Fcw),
        1 => any::<u16>().prop_map(Damage::Fsw),
        1 => Just(Damage::None),
    ]
}

/// Gives reserved bits of FCW, and ES and B of FSW, the values that a CPU gives them.
fn settle_x87(area: &mut Area<impl AsRef<[u8]> + AsMut<[u8]>>) {
    const EXCEPTIONS: u16 = 0x3f;
    const ES_AND_BUSY: u16 = 0x8080;
    let fcw = area.legacy().fcw() & 0x1f3f | 0x40;
    let fsw = area.legacy().fsw() & !ES_AND_BUSY;
    let is_pending = fsw & !fcw & EXCEPTIONS != 0;
    area.legacy_mut().set_fcw(fcw);
    area.legacy_mut().set_fsw(if is_pending { fsw | ES_AND_BUSY } else { fsw });
}

#[test]
fn hardware_refuses_what_the_check_refuses() {
    let Some(host) = host("broken-images") else { return };
    let is_qemu_tcg = is_qemu_tcg();
    if is_qemu_tcg && !host.layout().has_xsave() {
        println!(
            "HARDWARE broken-images: SKIPPED: QEMU's CPU takes reserved bits of MXCSR, and has no XSAVE"
        );
        return;
    }
    let enabled: Vec<_> = host.layout().enabled().without(Component::PKRU).iter().collect();
    let instructions: Vec<_> =
        SaveInstruction::ALL.into_iter().filter(|instruction| both(&host, *instruction).is_some()).collect();
    let broken = (
        proptest::sample::select(instructions),
        proptest::collection::vec(program(enabled), 0..4),
        proptest::collection::vec(damage(), 1..=3),
        rfbm(),
    );
    let refused = Cell::new(0);
    let same = cases(BROKEN_IMAGES).run(&broken, |(instruction, programs, damages, rfbm)| {
        let (mut soft, mut host) = both(&host, instruction).expect("one of those that are there");
        programs.iter().for_each(|program| soft.run(*program));
        let mut image = soft.new_image();
        soft.save(Rfbm::ALL, &mut image);
        damages.iter().for_each(|damage| damage.apply(image.area_mut()));
        if is_qemu_tcg {
            settle_x87(image.area_mut());
        }

        soft.reset();
        let format = image.area().format();
        let reason = image.area().check(format, rfbm).err();
        let restored = match format {
            Format::Fxsave => soft.fxrstor(&MemoryOperand::default(), image.area()),
            Format::Standard | Format::Compacted => {
                soft.xrstor(rfbm, &MemoryOperand::default(), image.area())
            }
        };
        prop_assert_eq!(restored.err(), reason.map(SoftFault::Refused));
        let real = host.restore(rfbm, &image);
        if is_qemu_tcg && matches!(reason, Some(Refusal::Mxcsr { .. })) {
            return Ok(());
        }
        // An image that lacks bytes is no #GP: it is refused without a try.
        let ought = reason.map_or(Ok(()), |_| Err(Fault::GeneralProtection));
        prop_assert_eq!(real, ought, "{:?}", reason);
        if reason.is_none() && format != Format::Fxsave {
            same_registers(&soft, &host)?;
        }
        if let Some(reason) = reason {
            refused.set(refused.get() + u32::from(!matches!(reason, Refusal::BeyondEnd { .. })));
        }
        // Whatever is pending in the parked registers, the program that runs here has its own.
        prop_assert_eq!(1.0 / std::hint::black_box(3.0), 1.0 / 3.0);
        Ok(())
    });
    same.unwrap_or_else(|failed| panic!("{failed}"));
    let refused = refused.get();
    // Of an image without a header, MXCSR is all that is looked at.
    let least = if host.layout().has_xsave() { 1_000 } else { 100 };
    assert!((least..BROKEN_IMAGES).contains(&refused), "{refused} images were refused");
    println!("HARDWARE broken-images: ran");
    for (what, quirk) in [
        ("broken-images-mxcsr", "QEMU's CPU takes reserved bits of MXCSR"),
        ("broken-images-x87", "QEMU's CPU keeps reserved bits of FCW, and ES and B of FSW"),
    ] {
        if is_qemu_tcg {
            println!("HARDWARE {what}: SKIPPED: {quirk}");
        } else {
            println!("HARDWARE {what}: ran");
        }
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
        // It is in no other register file, and no restore touches it.
        assert_eq!(before.clone().pkru(), before.pkru());
        let image = before.new_image();
        assert_eq!(host.restore(Rfbm::ALL, &image), Ok(()));
        assert_eq!(host.pkru(), Some(Pkru(pkru)));
    }
    host.reset();
    assert_eq!(host.pkru(), Some(Pkru(0)));
    println!("HARDWARE any-pkru: ran");
}

/// Registers with something in every component, or in the legacy ones alone.
fn filled(regs: &mut impl RegisterFile, components: &[Component]) {
    for (n, component) in (1..).zip(components) {
        regs.run(Program::Fill(*component, Value::new(n).expect("few components")));
    }
}

/// Saves to and restores from a frame of which one page is absent, with the boundary between the pages at every
/// 64 bytes: the software registers fault only where the real ones do, and those only if something that the
/// instruction may access is absent.
#[test]
fn hardware_faults_where_software_does() {
    let Some(host) = host("faulting-areas") else { return };
    let (soft, mut host) = both(&host, SaveInstruction::best(host.layout())).expect("the best one is there");
    let mut soft = soft;
    let all: Vec<_> = host.layout().enabled().without(Component::PKRU).iter().collect();
    let size = soft.new_frame().image().area().bytes().len();
    let mut faults = 0;
    for components in [&all[..], &all[..2]] {
        soft.reset();
        host.reset();
        filled(&mut soft, components);
        filled(&mut host, components);
        for boundary in (0..=size).step_by(64) {
            for absent in 0..2 {
                let present = if absent == 0 { boundary..usize::MAX } else { 0..boundary };
                let absent_bytes = if absent == 0 { 0..boundary } else { boundary..size };

                let mut soft_frame = soft.new_frame();
                let mut host_frame = HostFrame::new(&host, boundary);
                // With nothing before the boundary, the area begins on the page behind it.
                let page = if boundary == 0 { absent.max(1) - 1 } else { absent };
                let nothing_absent = absent_bytes.is_empty();
                let take_away = |soft_frame: &mut SoftFrame, host_frame: &mut HostFrame| {
                    soft_frame.set_present(present.clone());
                    host_frame.set_absent(if nothing_absent { 0..0 } else { page..page + 1 });
                };

                take_away(&mut soft_frame, &mut host_frame);
                let saved =
                    (soft.save_user(Rfbm::ALL, &mut soft_frame), host.save_user(Rfbm::ALL, &mut host_frame));
                faults += agree("save", saved, nothing_absent, boundary);

                let mut soft_frame = soft.new_frame();
                let mut host_frame = HostFrame::new(&host, boundary);
                soft.save_user(Rfbm::ALL, &mut soft_frame).expect("all present");
                host.save_user(Rfbm::ALL, &mut host_frame).expect("all present");
                take_away(&mut soft_frame, &mut host_frame);
                let (mut soft_after, mut host_after) = (soft.clone(), host.clone());
                let loaded = (
                    soft_after.restore_user(Rfbm::ALL, &soft_frame),
                    host_after.restore_user(Rfbm::ALL, &host_frame),
                );
                faults += agree("restore", loaded, nothing_absent, boundary);
                if loaded == (Ok(()), Ok(())) {
                    same_registers(&soft_after, &host_after).expect("the same");
                }
            }
        }
    }
    assert!(faults > size / 64, "{faults} faults");
    println!("HARDWARE faulting-areas: ran");
}

/// Checks one outcome; 1 if both faulted.
fn agree(
    what: &str,
    outcome: (Result<(), Fault>, Result<(), Fault>),
    nothing_absent: bool,
    boundary: usize,
) -> usize {
    match outcome {
        (Err(Fault::Page), Err(Fault::Page)) => 1,
        (Ok(()), Ok(())) => 0,
        // An access that the manual allows and does not ask for.
        (Ok(()), Err(Fault::Page)) if !nothing_absent => 0,
        (soft, host) => panic!("{what}, boundary at {boundary}: software {soft:?}, host {host:?}"),
    }
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
