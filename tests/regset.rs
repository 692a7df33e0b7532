//! A debugger that reads and writes the whole image of a task (NT_X86_XSTATE), wherever its state is.

mod support;

use fpuswitch::{
    Component, EventError, Pkru, TaskId, Value,
    fpu::{Policy, policy::Builtin},
    machine::RegsetError,
    registers::{Image, RegisterFile, SoftRegs, XsaveImage},
    xstate::{Area, CpuidDump, Format, Layout, Refusal, ViewError, XcompBv, XstateBv},
};
use support::{
    Checked,
    register_files::software_cpus,
    story::{T0_OUT, T0_RAN},
};

const T0: TaskId = TaskId::first(0);

/// Where T0 can be when the debugger comes: in user mode, in the kernel, out on either CPU, with its registers lost.
const PLACES: [&str; 6] = [
    "return c0 T0",
    "",
    "out c0; idle c0",
    "out c0; in c0 T1; return c0 T1; user-write c0 AVX 9",
    "out c0; idle c0; in c1 T0; move-to-cpu c1; out c1; idle c1",
    "kernel-fpu-begin c0 softirq; kernel-fpu-end c0",
];

fn area<'a>(bytes: &'a mut [u8], regs: &SoftRegs) -> Area<&'a mut [u8]> {
    Area::over(bytes, regs.layout()).expect("a register set")
}

/// Lets T0 run on, and says what it sees in AVX, and its PKRU.
fn seen(checked: &mut Checked<Builtin, SoftRegs>) -> (Value, Option<Pkru>) {
    let task = checked.machine.task(T0).expect("T0");
    if let (None, Some(cpu)) = (task.fpstate().user_on(), task.on()) {
        checked.run(&format!("return {cpu} T0"));
    } else if task.on().is_none() {
        checked.run("offline c1; online c1; in c1 T0; return c1 T0");
    }
    let task = checked.machine.task(T0).expect("T0");
    let cpu = task.fpstate().user_on().expect("in user mode");
    if checked.machine.cpu(cpu).is_some_and(|cpu| cpu.slot().trap_armed()) {
        checked.run(&format!("first-use {cpu}"));
    }
    let regs = checked.machine.cpu(cpu).expect("a CPU").regs();
    (regs.get(Component::AVX), regs.pkru())
}

#[test]
fn what_is_written_is_what_the_task_sees() {
    for regs in software_cpus() {
        for (policy, place) in Builtin::ALL.into_iter().flat_map(|policy| PLACES.map(|place| (policy, place)))
        {
            let mut checked = Checked::on(&regs, policy, 2);
            checked.run(T0_RAN).run(place);
            let (mut regset, outcome) = checked.machine.regset(T0).expect("a register set");
            checked.spec.apply(fpuswitch::Event::ReadPkru(T0));
            assert_eq!(outcome.pkru, Some(Pkru::DEFAULT), "{place}");
            let mut view = area(&mut regset, &regs);
            let bytes = view.component(Component::AVX).expect("AVX").into_owned();
            let mut image = regs.new_image();
            image.set(Component::AVX, Value::new(7).expect("a pattern")).expect("room");
            assert_eq!(bytes, &*image.area().component(Component::AVX).expect("AVX"), "{place}");

            image.set(Component::AVX, Value::new(8).expect("a pattern")).expect("room");
            let bytes = image.area().component(Component::AVX).expect("AVX").into_owned();
            view.set_component(Component::AVX, &bytes).expect("room");
            if regs.pkru().is_some() {
                let size = view.size_of(Component::PKRU).expect("PKRU");
                let mut pkru = vec![0; size];
                pkru[..4].copy_from_slice(&0x5555_5550_u32.to_le_bytes());
                view.set_component(Component::PKRU, &pkru).expect("room");
            }
            let outcome = checked.machine.set_regset(T0, &regset).expect("a good register set");
            assert!(outcome.saves() <= 1, "{}: {place}: {outcome}", policy.name());
            checked.spec.apply("write T0 AVX 8".parse().expect("an event"));
            if regs.pkru().is_some() {
                checked.spec.apply("write-pkru T0 0x55555550".parse().expect("an event"));
            }
            let pkru = regs.pkru().map(|_| Pkru(0x5555_5550));
            assert_eq!(
                seen(&mut checked),
                (Value::new(8).expect("a pattern"), pkru),
                "{}: {place}",
                policy.name()
            );
        }
    }
}

/// A clear bit in the header means 0, not what was there before (d7e5aceace51).
#[test]
fn a_register_set_without_pkru_denies_nothing() {
    for regs in software_cpus().iter().filter(|regs| regs.pkru().is_some()) {
        let mut checked = Checked::on(regs, Builtin::OwnerSlot, 2);
        checked.run(T0_RAN).run("kernel-pkru c0 0xffffffff; out c0; idle c0");
        let (mut regset, outcome) = checked.machine.regset(T0).expect("a register set");
        assert_eq!(outcome.pkru, Some(Pkru(u32::MAX)));
        area(&mut regset, regs).set_initial(Component::PKRU).expect("room");
        checked.machine.set_regset(T0, &regset).map(drop).expect("a good register set");
        checked.spec.apply("write-pkru T0 none".parse().expect("an event"));
        assert_eq!(seen(&mut checked).1, Some(Pkru(0)));
    }
}

/// What is refused, and why, and that the machine is as before.
#[test]
fn a_bad_register_set_is_refused_whole() {
    let dump: CpuidDump = include_str!("../cpus/sapphire-rapids.txt").parse().expect("a description");
    let regs = SoftRegs::new(&Layout::from_cpuid(&dump).expect("no contradiction"));
    type Spoil = fn(&mut Area<&mut [u8]>);
    type IsExpected = fn(&ViewError) -> bool;
    let rows: [(Spoil, IsExpected); 5] = [
        (
            |area| area.set_xcomp_bv(XcompBv(1 << 63)),
            |e| matches!(e, ViewError::Refused(Refusal::XcompBv(_))),
        ),
        (
            |area| area.reserved_header_bytes_mut()[40] = 1,
            |e| matches!(e, ViewError::Refused(Refusal::Reserved { .. })),
        ),
        (
            |area| {
                area.set_xstate_bv(XstateBv(area.xstate_bv().0 | 2));
                area.legacy_mut().set_mxcsr(u32::MAX);
            },
            |e| matches!(e, ViewError::Refused(Refusal::Mxcsr { .. })),
        ),
        (
            |area| area.set_xstate_bv(XstateBv(1 << 62)),
            |e| matches!(e, ViewError::Refused(Refusal::NotAllowed { .. })),
        ),
        // T0 has no room for tiles.
        (
            |area| area.set_xstate_bv(XstateBv(area.xstate_bv().0 | 1 << 18)),
            |e| matches!(e, ViewError::Refused(Refusal::NotAllowed { .. })),
        ),
    ];
    for policy in Builtin::ALL {
        for (spoil, is_expected) in rows {
            let mut checked = Checked::on(&regs, policy, 2);
            checked.run(T0_OUT);
            let (good, _) = checked.machine.regset(T0).expect("a register set");
            let before = checked.machine.clone();
            let mut bad = good.clone();
            spoil(&mut area(&mut bad, &regs));
            match checked.machine.set_regset(T0, &bad) {
                Err(RegsetError::View(error)) if is_expected(&error) => {}
                other => panic!("{}: {other:?}", policy.name()),
            }
            let short = checked.machine.set_regset(T0, &good[..good.len() - 1]);
            assert!(matches!(short, Err(RegsetError::View(ViewError::Length { .. }))), "{short:?}");
            assert_eq!(checked.machine, before, "{}", policy.name());
            assert_eq!(seen(&mut checked).0.number(), 7, "{}", policy.name());
        }
    }
}

#[test]
fn who_has_no_register_set_is_refused_by_name() {
    let mut checked = Checked::new(Builtin::OwnerSlot, 1);
    checked.run("spawn T0; kernel-thread T1; spawn T2; in c0 T2; guest-load c0");
    let before = checked.machine.clone();
    let [t1, t2, t9] = [1, 2, 9].map(TaskId::first);
    for (task, error) in
        [(t9, EventError::UnknownTask(t9)), (t1, EventError::NotUser(t1)), (t2, EventError::GuestLoaded(t2))]
    {
        assert_eq!(checked.machine.regset(task).map(drop), Err(RegsetError::Event(error)));
        assert_eq!(checked.machine.set_regset(task, &[]).map(drop), Err(RegsetError::Event(error)));
    }
    assert!(matches!(checked.machine.set_regset(T0, &[]), Err(RegsetError::View(ViewError::NoXsave(_)))));
    assert!(matches!(checked.machine.regset(T0), Err(RegsetError::View(ViewError::NoXsave(_)))));
    assert_eq!(checked.machine, before);

    // Nobody is interrupted for what there is not.
    let mut checked = Checked::new(Builtin::OwnerSlot, 1);
    checked.run("spawn T0; in c0 T0; return c0 T0");
    let before = checked.machine.clone();
    assert!(matches!(checked.machine.regset(T0), Err(RegsetError::View(ViewError::NoXsave(_)))));
    assert_eq!(checked.machine, before);

    let image = XsaveImage::new(&Layout::fxsave_only(), Format::Fxsave);
    assert!(matches!(image.regset(Pkru(0)), Err(ViewError::NoXsave(_))));
}
