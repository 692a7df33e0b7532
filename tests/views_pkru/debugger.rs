//! A debugger reads and writes the PKRU of a task that has stopped, by NT_X86_XSTATE.

use crate::{
    PKRU_BIT, T0, VALUES,
    pkeys::{missing_in_images, rdpkru, wrpkru},
    pkru_of, place_of_pkru, set_pkru, set_xstate_bv, simulated_pkru,
    support::{Checked, events},
    tracee::{NT_X86_XSTATE, Tracee},
    u32_at, xstate_bv,
};
use fpuswitch::{
    Pkru,
    fpu::{Policy, policy::Builtin},
    machine::Machine,
    registers::HostRegs,
};
use std::{arch::asm, io};

type ImageChange = (&'static str, fn(&mut [u8], usize), &'static str);

/// What a debugger does to an image, and the same as an event.
const IMAGE_CHANGES: [ImageChange; 7] = [
    ("nothing", |_, _| (), ""),
    ("another value", |image, place| set_pkru(image, place, 0x5555_5558), "write-pkru T0 0x55555558"),
    ("everything denied", |image, place| set_pkru(image, place, 0xffff_fffc), "write-pkru T0 0xfffffffc"),
    ("0", |image, place| set_pkru(image, place, 0), "write-pkru T0 0x0"),
    (
        "a clear bit, and a value behind it",
        |image, place| {
            set_pkru(image, place, 0x5555_5558);
            set_xstate_bv(image, xstate_bv(image) & !PKRU_BIT);
        },
        "write-pkru T0 none",
    ),
    ("x87 and SSE alone", |image, _| set_xstate_bv(image, 3), "write-pkru T0 none"),
    ("nothing but initial values", |image, _| set_xstate_bv(image, 0), "write-pkru T0 none"),
];

/// PKRU of the bystander, who is not written.
const BYSTANDERS: u32 = 0x5555_5550;

/// A child that has `pkru`. Wherever it stops, RAX is what it has found in PKRU since it went on.
fn child_with(pkru: u32) -> io::Result<Tracee> {
    let program = || {
        // SAFETY: key 0, which all of the child's memory has, is allowed in all of `VALUES`.
        unsafe { wrpkru(pkru) };
        for _ in 0..2 {
            // SAFETY: the CPU has RDPKRU, and INT3 stops the child for its parent, which changes PKRU alone.
            unsafe { asm!("rdpkru", "int3", in("ecx") 0, out("eax") _, out("edx") _) };
        }
        0
    };
    // SAFETY: the program calls nothing of the system's.
    unsafe { Tracee::stopped(program) }
}

/// What a debugger reads before it writes and behind, and what the program has when it goes on.
#[derive(Debug, PartialEq)]
struct Debugged {
    before: u32,
    written: u32,
    behind: u32,
    bystanders: u32,
}

#[test]
fn hardware_a_debugger_sees_and_writes_pkru_as_in_the_machine() {
    if let Some(why) = missing_in_images() {
        return println!("HARDWARE ptrace-pkru: SKIPPED: {why}");
    }
    if let Err(why) = child_with(0) {
        return println!("HARDWARE ptrace-pkru: SKIPPED: {why}");
    }
    let (place, regs) = (place_of_pkru(), HostRegs::new().expect("the host's registers"));
    for pkru in VALUES {
        for change in IMAGE_CHANGES {
            let (real, image) = really_debugged(pkru, change, place).expect("a child under ptrace");
            for policy in Builtin::ALL {
                let what = format!("{pkru:#x}, {} under {}", change.0, policy.name());
                let simulated = debugged_in_machine(&regs, policy, pkru, &image, place);
                assert_eq!(real, simulated, "{what}");
                assert_eq!(real, debugged_by_events(&regs, policy, pkru, change.2), "by events, {what}");
            }
        }
    }
    println!("HARDWARE ptrace-pkru: ran");
}

/// Returns the image that was written, too, if one was.
fn really_debugged(
    pkru: u32,
    (what, change, _): ImageChange,
    place: usize,
) -> io::Result<(Debugged, Vec<u8>)> {
    let own = rdpkru();
    let (child, bystander) = (child_with(pkru)?, child_with(BYSTANDERS)?);
    assert_eq!((child.rax()?, bystander.rax()?), (pkru.into(), BYSTANDERS.into()));
    let mut image = child.get(NT_X86_XSTATE)?;
    let before = pkru_of(&image, place);
    assert_eq!(u32_at(&image, place), before, "{what}: zeros are behind a clear bit");
    change(&mut image, place);
    child.set(NT_X86_XSTATE, &image)?;
    let written = pkru_of(&child.get(NT_X86_XSTATE)?, place);
    let others = pkru_of(&bystander.get(NT_X86_XSTATE)?, place);
    let (child, bystander) = (child.go_on()?, bystander.go_on()?);
    let bystanders = bystander.rax()? as u32;
    assert_eq!((others, rdpkru()), (bystanders, own), "{what}: nobody else is written");
    Ok((Debugged { before, written, behind: child.rax()? as u32, bystanders }, image))
}

/// T0 has stopped with that PKRU, and T1 with the bystander's; neither is on a CPU.
fn stopped(regs: &HostRegs, policy: Builtin, pkru: u32) -> Checked<Builtin, HostRegs> {
    let mut checked = Checked::on(regs, policy, 1);
    checked.run("spawn T0; spawn T1");
    for (task, pkru) in [pkru, BYSTANDERS].into_iter().enumerate() {
        checked.run(&format!(
            "in c0 T{task}; return c0 T{task}; user-pkru c0 {pkru:#x}; entry c0 exception; out c0; idle c0"
        ));
    }
    checked
}

/// Each goes on: what is in PKRU then. The reference model has no register sets, so that this goes without it.
fn go_on(machine: &mut Machine<HostRegs, Builtin>) -> [u32; 2] {
    let apply = |machine: &mut Machine<HostRegs, Builtin>, text: &str| {
        events(text).into_iter().for_each(|event| machine.apply(event).map(drop).expect("it can"));
    };
    [0, 1].map(|task| {
        apply(machine, &format!("in c0 T{task}; return c0 T{task}"));
        let pkru = simulated_pkru(machine);
        apply(machine, "entry c0 exception; out c0; idle c0");
        pkru
    })
}

fn debugged_in_machine(regs: &HostRegs, policy: Builtin, pkru: u32, image: &[u8], place: usize) -> Debugged {
    let mut machine = stopped(regs, policy, pkru).machine;
    let read = |machine: &mut Machine<HostRegs, Builtin>| {
        let (image, outcome) = machine.regset(T0).expect("T0 is a user task");
        assert_eq!(outcome.pkru, Some(Pkru(pkru_of(&image, place))));
        pkru_of(&image, place)
    };
    let before = read(&mut machine);
    let _ = machine.set_regset(T0, image).expect("a good image");
    let written = read(&mut machine);
    let [behind, bystanders] = go_on(&mut machine);
    Debugged { before, written, behind, bystanders }
}

fn debugged_by_events(regs: &HostRegs, policy: Builtin, pkru: u32, write: &str) -> Debugged {
    let mut checked = stopped(regs, policy, pkru);
    let read = |checked: &mut Checked<Builtin, HostRegs>| {
        let read = "read-pkru T0".parse().expect("an event");
        checked.apply(read).ok().and_then(|outcome| outcome.pkru).expect("T0 is a user task").0
    };
    let before = read(&mut checked);
    checked.run(write);
    let written = read(&mut checked);
    let [behind, bystanders] = go_on(&mut checked.machine);
    Debugged { before, written, behind, bystanders }
}
