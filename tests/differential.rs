//! The software registers against the real ones: the same sequences on both, equal by component and value.
//!
//! What may differ is what the manual leaves to the CPU: which components count as in use, and with that the
//! bits of XSTATE_BV; what is in the registers after a fault; whether an absent byte is touched that need not
//! be.

use fpuswitch::{
    Component, ComponentSet, Rfbm, Value,
    registers::{
        Fault, HostFrame, HostRegs, Image, MemoryOperand, Program, RegisterFile, SoftFault, SoftFrame,
        SoftRegs, XsaveImage,
    },
    xstate::{Area, Format, LegacyRegion, Refusal, Rounding, SaveInstruction, XcompBv, XstateBv},
};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, RngSeed, TestCaseResult, TestRunner},
};

/// Images that a sequence saves to and restores from.
const SLOTS: usize = 3;
const STEPS: usize = 50;
const SEQUENCES: u32 = 10_000;
/// Of which more than 1 000 are refused.
const BROKEN_IMAGES: u32 = 2_500;

#[derive(Clone, Debug)]
enum Step {
    Run(Program),
    Save(usize, Rfbm),
    Restore(usize, Rfbm),
    RestoreInitial(Rfbm),
    Edit(usize, Component, Value),
    ResetImage(usize),
    SaveFrame(Rfbm),
    RestoreFrame(Rfbm),
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

/// Mostly all, as the protocol asks; and parts.
fn rfbm() -> impl Strategy<Value = Rfbm> {
    let part = (0..0x100_u64).prop_map(|bits| Rfbm::new(ComponentSet::from_bits(bits)));
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
        1 => rfbm().prop_map(Step::SaveFrame),
        1 => rfbm().prop_map(Step::RestoreFrame),
    ]
}

/// One register file, its images and its frame.
struct Side<R: RegisterFile> {
    regs: R,
    images: [R::Image; SLOTS],
    frame: R::Frame,
}

impl<R: RegisterFile> Side<R> {
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
            Step::SaveFrame(rfbm) => return regs.save_user(*rfbm, frame),
            Step::RestoreFrame(rfbm) => return regs.restore_user(*rfbm, frame),
        }
        Ok(())
    }
}

fn same_registers(soft: &SoftRegs, host: &HostRegs) -> TestCaseResult {
    for component in host.layout().enabled().without(Component::PKRU).iter() {
        let (soft, host) = (soft.read_back(component), host.read_back(component));
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
        let same = cases(SEQUENCES / 4).run(&sequences, |steps| {
            let (mut soft, mut host) = (Side::new(soft.clone()), Side::new(host.clone()));
            for step in steps {
                prop_assert_eq!(soft.take(&step), host.take(&step), "{:?}", step);
                same_registers(&soft.regs, &host.regs)?;
            }
            for (ours, theirs) in soft.images.iter().zip(&host.images) {
                prop_assert!(ours.area().same_values(theirs.area()));
            }
            prop_assert!(soft.frame.image().area().same_values(&host.frame.image()));
            Ok(())
        });
        same.unwrap_or_else(|failed| panic!("{instruction}: {failed}"));
        ran.push(instruction);
    }
    assert!(!ran.is_empty());
    ran.iter().for_each(|instruction| println!("HARDWARE differential-{instruction}: ran"));
    println!("HARDWARE differential: ran");
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

#[test]
fn hardware_refuses_what_the_check_refuses() {
    let Some(host) = host("broken-images") else { return };
    let enabled: Vec<_> = host.layout().enabled().without(Component::PKRU).iter().collect();
    let instructions: Vec<_> =
        SaveInstruction::ALL.into_iter().filter(|instruction| both(&host, *instruction).is_some()).collect();
    let broken = (
        proptest::sample::select(instructions),
        proptest::collection::vec(program(enabled), 0..4),
        proptest::collection::vec(damage(), 1..=3),
        rfbm(),
    );
    let refused = std::cell::Cell::new(0);
    let same = cases(BROKEN_IMAGES).run(&broken, |(instruction, programs, damages, rfbm)| {
        let (mut soft, mut host) = both(&host, instruction).expect("one of those that are there");
        programs.iter().for_each(|program| soft.run(*program));
        let mut image = soft.new_image();
        soft.save(Rfbm::ALL, &mut image);
        damages.iter().for_each(|damage| damage.apply(image.area_mut()));

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
    assert!((1_000..BROKEN_IMAGES).contains(&refused), "{refused} images were refused");
    println!("HARDWARE broken-images: ran");
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

/// DESIGN: an area that was used before makes the next restore fault, unless its header is cleared. The register
/// files do that.
#[test]
fn hardware_saves_to_a_used_image_can_be_restored() {
    let Some(host) = host("used-images") else { return };
    for instruction in SaveInstruction::ALL {
        let Some((mut soft, mut host)) = both(&host, instruction) else { continue };
        let garbage = |image: &mut XsaveImage| image.area_mut().bytes_mut().fill(0xa5);
        let (mut ours, mut theirs) = (soft.new_image(), host.new_image());
        garbage(&mut ours);
        garbage(&mut theirs);
        soft.run(Program::Fill(Component::SSE, Value::KERNEL));
        host.run(Program::Fill(Component::SSE, Value::KERNEL));
        soft.save(Rfbm::ALL, &mut ours);
        host.save(Rfbm::ALL, &mut theirs);
        assert!(ours.area().same_values(theirs.area()), "{instruction}");
        assert_eq!((soft.restore(Rfbm::ALL, &ours), host.restore(Rfbm::ALL, &theirs)), (Ok(()), Ok(())));
        same_registers(&soft, &host).expect("the same");
        let legacy = LegacyRegion::over(theirs.area().bytes()).expect("512 bytes");
        assert_eq!(legacy.mxcsr_mask(), host.layout().mxcsr_mask());
    }
    println!("HARDWARE used-images: ran");
}
