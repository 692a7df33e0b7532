//! The same events on different registers: what happens, what is refused, and what programs see is the same.

mod support;

use fpuswitch::{
    Component, ComponentSet, Event, EventError, FrameChange, KernelContext, Pkru, TaskId, Value,
    check::{RandomEvents, random_events},
    fpu::Policy,
    machine::{Cpu, Outcome},
    registers::{AbstractRegs, RegisterFile, UserFrames},
};
use proptest::prelude::*;
use support::{
    Broken, Checked, STEPS, Stopped, Wrong, any_event, cases, choices, is_taken,
    policies::{answers, builtins},
    random_on,
    register_files::on_every_register_file,
};

proptest! {
    #![proptest_config(cases(128))]

    /// And every invariant holds on each, with what programs see.
    #[test]
    fn what_happens_does_not_depend_on_the_register_file(
        builtin in builtins(), answers in answers(), list in random_events(STEPS),
    ) {
        on_every_register_file!(|regs| {
            compare_with_abstract(regs, builtin, &list, any)?;
            compare_with_abstract(regs, answers, &list, any)?;
        });
    }

    /// With the events that are legal there: what only some register files have is used, too.
    #[test]
    fn every_register_file_keeps_every_invariant(answers in answers(), list in random_events(STEPS)) {
        on_every_register_file!(|regs| {
            random_on(regs, answers, &list)?;
        });
    }
}

/// No event is left out.
fn any(_: Event) -> bool {
    true
}

/// Lets the same events happen on abstract registers and on registers like `regs`, those left out about a
/// component that only one has, and those that are not `wanted`. Returns the first difference in what happens, is
/// refused or can be seen.
fn compare_with_abstract<R: UserFrames + Clone>(
    regs: &R,
    policy: impl Policy,
    list: &RandomEvents,
    wanted: fn(Event) -> bool,
) -> Result<(), Broken> {
    let mut first = Checked::new(policy.clone(), list.cpus);
    let mut other = Checked::on(regs, policy, list.cpus);
    let both = AbstractRegs::default().enabled() & regs.enabled();
    for raw in &list.choices {
        for choice in choices(*raw) {
            let event = any_event(&first.machine, choice);
            let is_missing = component(event).is_some_and(|component| !both.contains(component));
            if is_missing || is_taken::<R>(event) || !wanted(event) {
                continue;
            }
            let (expected, found) = (result(&mut first, event)?, result(&mut other, event)?);
            if found != expected {
                let what = format!("{event}: {found:?}, and on abstract registers {expected:?}");
                return Err(other.broken(Wrong::Seen(what)));
            }
            if found.is_ok() {
                let (seen, ought) = (visible(&other, both), visible(&first, both));
                if seen != ought {
                    let what = format!("{event} leaves {seen:?}, and on abstract registers {ought:?}");
                    return Err(other.broken(Wrong::Seen(what)));
                }
                break;
            }
        }
    }
    Ok(())
}

/// The component that an event is about.
fn component(event: Event) -> Option<Component> {
    match event {
        Event::Read(_, component) | Event::Write(_, component, _) | Event::UserWrite(_, component, _) => {
            Some(component)
        }
        Event::UserPkru(..)
        | Event::KernelPkru(..)
        | Event::ReadPkru(_)
        | Event::WritePkru(..)
        | Event::UserMemory(..)
        | Event::Frame(_, FrameChange::Pkru(_)) => Some(Component::PKRU),
        Event::Permit(_, component) | Event::DynamicUse(_, component) => Some(component),
        _ => None,
    }
}

/// What became of an event. Values that may be anything are left out: a failed load leaves them behind.
fn result<R: UserFrames + Clone>(
    checked: &mut Checked<impl Policy, R>,
    event: Event,
) -> Result<Result<Outcome, EventError>, Broken> {
    match checked.apply(event) {
        Ok(outcome) => match event {
            Event::Read(task, _) if checked.is_returning(task) => Ok(Ok(Outcome { value: None, ..outcome })),
            _ => Ok(Ok(outcome)),
        },
        Err(Stopped::Refused(error)) => Ok(Err(error)),
        Err(Stopped::Broken(broken)) => Err(broken),
    }
}

/// Whose the registers are, whether nobody else has that, the section that is open, and whether the trap is armed.
type Claim = (Option<TaskId>, bool, Option<KernelContext>, bool);

/// What each CPU claims, and of `components` what the program sees that runs user code there.
fn visible<R: UserFrames + Clone>(
    checked: &Checked<impl Policy, R>,
    components: ComponentSet,
) -> Vec<(Claim, Vec<Value>, Option<Pkru>)> {
    let of = |cpu: &Cpu<R>| {
        let task = checked.spec.current(cpu.slot().cpu()).filter(|task| checked.in_user_mode(*task));
        let seen = if task.is_some() && !cpu.slot().trap_armed() { components } else { ComponentSet::EMPTY };
        let values = seen.without(Component::PKRU).iter().map(|component| cpu.regs().get(component));
        let pkru = cpu.regs().pkru().filter(|_| components.contains(Component::PKRU));
        let slot = cpu.slot();
        // What XFD disables depends on what there is to disable.
        let claim = (slot.owner(), slot.holds_only_copy(), slot.kernel_fpu(), slot.trap_armed());
        (claim, values.collect(), pkru)
    };
    checked.machine.cpus().iter().map(of).collect()
}

/// The events that must do the same on the real registers: without XSAVE, a frame has no header to be changed, and no PKRU.
#[cfg(feature = "host")]
fn wanted(host: &fpuswitch::registers::HostRegs) -> fn(Event) -> bool {
    use FrameChange::{BadHeader, BadMagic, BadSize, Pkru, RestAbsent, Short};
    if host.layout().has_xsave() {
        any
    } else {
        |event| {
            !matches!(event, Event::Frame(_, RestAbsent | BadHeader | BadMagic | BadSize | Short | Pkru(_)))
        }
    }
}

/// A task is switched out, another one has the CPU, and the first one finds what it left.
#[cfg(feature = "host")]
const THERE_AND_BACK: &str = "out c0; in c0 T1; return c0 T1; user-write c0 AVX 9; entry c0 interrupt
    out c0; in c0 T0; return c0 T0; user-write c0 AVX 8; entry c0 interrupt
    out c0; in c0 T1; return c0 T1";

/// Longer lists than the ones above, the same every time.
#[test]
fn hardware_does_what_abstract_registers_do() {
    #[cfg(feature = "host")]
    match fpuswitch::registers::HostRegs::new() {
        Ok(regs) => {
            let (wanted, seeds) = (wanted(&regs), support::emulator::cases_here(40, 20));
            for (seed, policy) in
                (0..seeds).flat_map(|seed| fpuswitch::fpu::policy::Builtin::ALL.map(|policy| (seed, policy)))
            {
                let compared = compare_with_abstract(&regs, policy, &RandomEvents::seeded(seed, 200), wanted);
                compared.unwrap_or_else(|broken| panic!("{}: {broken}", policy.name()));
            }
            println!("HARDWARE protocol-on-host: ran");
            support::emulator::Deviation::ReservedMxcsr.report("bad-frames-on-host");
            match support::register_files::host() {
                Some(host) => {
                    for (column, policy) in support::story::COLUMNS.into_iter().enumerate() {
                        let mut checked = Checked::on(&host, policy, 2);
                        checked.run(support::story::T0_RAN);
                        support::story::tell(&mut checked, Some(column), THERE_AND_BACK);
                    }
                    println!("HARDWARE stories-on-host: ran");
                }
                None => println!("HARDWARE stories-on-host: SKIPPED: this CPU has no AVX, which they write"),
            }
        }
        Err(why) => println!("HARDWARE protocol-on-host: SKIPPED: {why}"),
    }
    #[cfg(not(feature = "host"))]
    println!("HARDWARE protocol-on-host: SKIPPED: built without the feature host");
}
