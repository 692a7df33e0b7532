//! The invariants of the protocol, checked on a whole machine against the reference model.
//!
//! The numbers are those of `docs/protocol.md`. S(t) is what t's program must see (the reference model), M(t)
//! its image, R(c) the registers of c, N(t) need_fpu_load.

use super::Spec;
use crate::{
    Component, ComponentSet, CpuId, TaskId, Value,
    fpu::{
        PkruMode, Policy, TaskKind,
        policy::{Calls, InKernel, InUser, NotRunning},
    },
    machine::{Current, Machine, Task},
    registers::{Image, RegisterFile, UserFrames},
};
use alloc::{format, string::String};
use core::fmt;

/// An invariant of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Invariant {
    /// t in user mode on c ⇒ not N(t) and valid(t, c); or the first-use trap is armed on c.
    I1,
    /// Not N(t) ⇒ exactly one CPU has valid(t, c), and R(c) = S(t), every component.
    I2,
    /// t not running ⇒ N(t), in the policy's form.
    I3,
    /// N(t) ⇒ M(t) = S(t).
    I4,
    /// N(t) and valid(t, c) ⇒ R(c) = M(t).
    I5,
    /// Kernel threads and the idle task own nothing.
    I6,
    /// PKRU of c is that of its current task; memory holds it while the task is out.
    I7,
    /// XFD of c fits the task that c claims, before any restore and in user mode; no image has a component that XFD
    /// disables for its task.
    I8,
    /// An image to be restored cannot fault.
    I9,
    /// The image has room for every component that may be saved into it.
    I10,
    /// Kernel FPU sections do not nest, and not on an offline CPU; nobody owns the registers meanwhile.
    I11,
    /// Nothing read in one preemption-off section is used in another.
    I12,
    /// A dead task is named by no slot that could still match.
    I13,
    /// Behind a fault-in that lets an access be tried again, the frame is present: retries end.
    I14,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::I1,
        Self::I2,
        Self::I3,
        Self::I4,
        Self::I5,
        Self::I6,
        Self::I7,
        Self::I8,
        Self::I9,
        Self::I10,
        Self::I11,
        Self::I12,
        Self::I13,
        Self::I14,
    ];
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant} is broken: {what}")]
pub struct Breach {
    /// Which one.
    pub invariant: Invariant,
    /// Who, where, what is there and what ought to be.
    pub what: String,
}

pub(super) type Checked = Result<(), Breach>;

pub(super) fn holds(invariant: Invariant, condition: bool, what: impl FnOnce() -> String) -> Checked {
    if condition { Ok(()) } else { Err(Breach { invariant, what: what() }) }
}

/// Checks every invariant on every CPU and task of a machine. `spec` has been told the same events.
///
/// A task inside a signal return has given its old state up and has no new one yet: what its registers and its
/// image hold is not compared (I2, I4, I5), and it need not be loaded (I3). A task that has exited has no state.
///
/// # Errors
/// The first invariant that does not hold.
pub fn check<R: UserFrames, P: Policy>(machine: &Machine<R, P>, spec: &Spec) -> Checked {
    for task in machine.tasks() {
        check_task(machine, spec, task)?;
    }
    for cpu in machine.cpus() {
        check_cpu(machine, spec, cpu.slot().cpu())?;
    }
    Ok(())
}

/// Whether a program may see `is` where the reference model says `ought`.
pub(super) fn fits<R: UserFrames, P: Policy>(
    machine: &Machine<R, P>,
    is: Value,
    ought: Option<Value>,
) -> bool {
    ought.is_some_and(|ought| is == ought || gives_up(machine) && ought == Value::UNSPECIFIED)
}

/// Whether an unspecified value in the model is what a system call has given up; otherwise it is one that
/// somebody wrote.
fn gives_up<R: UserFrames, P: Policy>(machine: &Machine<R, P>) -> bool {
    machine.policy().form().calls != Calls::KeepAll
}

fn components<R: RegisterFile>(regs: &R) -> impl Iterator<Item = Component> + use<R> {
    regs.enabled().without(Component::PKRU).iter()
}

fn check_task<R: UserFrames, P: Policy>(machine: &Machine<R, P>, spec: &Spec, task: &Task<R>) -> Checked {
    let fpstate = task.fpstate();
    let id = fpstate.id();
    let no_claim = match fpstate.kind() {
        TaskKind::User => None,
        TaskKind::KernelThread => Some((Invariant::I6, "a kernel thread")),
        TaskKind::UserWorker => Some((Invariant::I6, "a user worker")),
        TaskKind::Exited => Some((Invariant::I13, "dead")),
    };
    if let Some((invariant, kind)) = no_claim {
        holds(invariant, fpstate.last_cpu().is_none(), || {
            format!("{id} is {kind}, and claims {:?}", fpstate.last_cpu())
        })?;
        return check_pkru_in_memory(machine, spec, task);
    }
    let valid_on = || machine.cpus().iter().filter(|cpu| fpstate.is_valid_on(cpu.slot()));

    if let Some(cpu) = fpstate.user_on() {
        let slot = machine.cpu(cpu).map(|cpu| cpu.slot());
        let valid = slot.is_some_and(|slot| fpstate.is_valid_on(slot));
        let live = valid && !fpstate.need_fpu_load();
        let armed = slot.is_some_and(|slot| slot.trap_armed());
        holds(Invariant::I1, live || armed, || {
            format!("{id} runs user code on {cpu} and its registers are not there")
        })?;
        let keeps_form = match machine.policy().form().in_user {
            InUser::Loaded => !armed,
            InUser::LoadedOrTrap => true,
            InUser::TrapUnlessValid => armed != valid,
            InUser::TrapIfFpuFree => armed == fpstate.is_fpu_free(),
        };
        holds(Invariant::I1, keeps_form, || {
            let trap = if armed { "armed" } else { "not armed" };
            format!("{id} runs user code on {cpu} with the trap {trap}, which this policy rules out")
        })?;
    }
    form(machine, task)?;
    check_dynamic(machine, task)?;

    let Some(state) = spec.state(id) else {
        return holds(Invariant::I2, false, || format!("the reference model does not know {id}"));
    };
    if fpstate.need_fpu_load() {
        holds(Invariant::I9, fpstate.image().is_restorable(), || {
            format!("a restore would refuse the image of {id}")
        })?;
        if !fpstate.signal().is_returning() {
            let image = fpstate.image();
            for component in components(machine_regs(machine)) {
                let (is, ought) = (image.get(component), state.value(component));
                holds(Invariant::I4, fits(machine, is, ought), || {
                    format!("the image of {id} holds {component} = {is}, expected {}", Shown(ought))
                })?;
            }
            for cpu in valid_on() {
                let specified = |component: &Component| !gives_up(machine) || state.is_specified(*component);
                for component in components(cpu.regs()).filter(specified) {
                    let (is, ought) = (cpu.regs().get(component), image.get(component));
                    holds(Invariant::I5, is == ought, || {
                        let cpu = cpu.slot().cpu();
                        format!("{cpu} claims {id} with {component} = {is}, its image holds {ought}")
                    })?;
                }
            }
        }
    } else {
        let owners = valid_on().count();
        holds(Invariant::I2, owners == 1, || {
            format!("{id} has need_fpu_load clear and is valid on {owners} CPUs, expected 1")
        })?;
        for cpu in valid_on() {
            let name = cpu.slot().cpu();
            holds(Invariant::I2, cpu.slot().holds_only_copy(), || {
                format!("{name} does not know that it holds the only copy of {id}")
            })?;
            for component in components(cpu.regs()).filter(|_| !fpstate.signal().is_returning()) {
                let (is, ought) = (cpu.regs().get(component), state.value(component));
                holds(Invariant::I2, fits(machine, is, ought), || {
                    format!("{name} holds {component} = {is} for {id}, expected {}", Shown(ought))
                })?;
            }
        }
    }
    check_pkru_in_memory(machine, spec, task)
}

/// I7 for a task that is out, and, with PKRU in images, wherever its newest copy is.
fn check_pkru_in_memory<R: UserFrames, P: Policy>(
    machine: &Machine<R, P>,
    spec: &Spec,
    task: &Task<R>,
) -> Checked {
    let fpstate = task.fpstate();
    let id = fpstate.id();
    let ought = spec.pkru(id).filter(|_| machine_regs(machine).pkru().is_some());
    let Some(ought) = ought else { return Ok(()) };
    let is = match machine.pkru_mode() {
        PkruMode::Eager => task.on().is_none().then_some(fpstate.pkru()),
        // Of its guest's, the program's PKRU says nothing before it runs.
        PkruMode::InXsave if !fpstate.is_user() || fpstate.has_guest_loaded() => None,
        PkruMode::InXsave if fpstate.signal().is_returning() => None,
        PkruMode::InXsave if fpstate.need_fpu_load() => Some(fpstate.image().pkru()),
        PkruMode::InXsave => machine
            .cpus()
            .iter()
            .find(|cpu| fpstate.is_valid_on(cpu.slot()))
            .and_then(|cpu| cpu.regs().pkru()),
    };
    holds(Invariant::I7, is.is_none_or(|is| is == ought), || {
        format!("{id} has PKRU {is:?} where its state is, expected {ought}")
    })?;
    if machine.pkru_mode() == PkruMode::Eager || !fpstate.need_fpu_load() {
        return Ok(());
    }
    for cpu in machine.cpus().iter().filter(|cpu| fpstate.is_valid_on(cpu.slot())) {
        let (live, held) = (cpu.regs().pkru(), fpstate.image().pkru());
        holds(Invariant::I5, live == Some(held), || {
            format!("{} claims {id} with PKRU {live:?}, its image holds {held}", cpu.slot().cpu())
        })?;
    }
    Ok(())
}

/// I8 and I10: on a CPU that claims the task, XFD lets user code use what its image has room for, and no more.
fn check_dynamic<R: UserFrames, P: Policy>(machine: &Machine<R, P>, task: &Task<R>) -> Checked {
    let fpstate = task.fpstate();
    let (id, room) = (fpstate.id(), fpstate.image().room());
    let ought = fpstate.xfd(machine_regs(machine).dynamic());
    for component in ought.iter() {
        holds(Invariant::I8, fpstate.image().get(component) == Value::INITIAL, || {
            format!("the image of {id} holds {component}, which XFD disables for it")
        })?;
    }
    for cpu in machine.cpus().iter().filter(|cpu| fpstate.is_valid_on(cpu.slot())) {
        let (name, is) = (cpu.slot().cpu(), cpu.regs().xfd().unwrap_or_default());
        let saved = cpu.regs().enabled().without(Component::PKRU) - is;
        holds(Invariant::I10, saved - room == ComponentSet::EMPTY, || {
            format!("{name} may save {saved:?} to the image of {id}, which has room for {room:?}")
        })?;
        holds(Invariant::I8, is == ought, || {
            format!("{name} claims {id} with XFD {is:?}, expected {ought:?}")
        })?;
    }
    Ok(())
}

/// The forms that the policy declares.
fn form<R: UserFrames, P: Policy>(machine: &Machine<R, P>, task: &Task<R>) -> Checked {
    let (fpstate, form) = (task.fpstate(), machine.policy().form());
    let (id, need_fpu_load) = (fpstate.id(), fpstate.need_fpu_load());
    let Some(cpu) = task.on() else {
        let in_memory = need_fpu_load || form.not_running == NotRunning::Anywhere;
        return holds(Invariant::I3, in_memory, || {
            format!("{id} is not running and has need_fpu_load clear")
        });
    };
    let in_kernel_fpu = machine.cpu(cpu).is_some_and(|cpu| cpu.slot().kernel_fpu().is_some());
    let loaded = !need_fpu_load || in_kernel_fpu || form.in_kernel != InKernel::Loaded;
    holds(Invariant::I3, loaded || fpstate.signal().is_returning(), || {
        format!("{id} is current on {cpu} and not loaded, which this policy promises")
    })
}

fn check_cpu<R: UserFrames, P: Policy>(machine: &Machine<R, P>, spec: &Spec, id: CpuId) -> Checked {
    let Some(cpu) = machine.cpu(id) else { return Ok(()) };
    let slot = cpu.slot();
    if let Some(owner) = slot.owner() {
        check_owner(machine, id, owner, slot.holds_only_copy())?;
    }
    if let Some(open) = slot.kernel_fpu() {
        holds(Invariant::I11, cpu.is_online(), || {
            format!("{open:?} uses the FPU of {id}, which is offline")
        })?;
        holds(Invariant::I11, slot.owner().is_none(), || {
            format!("{open:?} uses the FPU of {id}, which claims {:?}", slot.owner())
        })?;
    }
    #[cfg(feature = "explore")]
    holds(Invariant::I11, !slot.is_nested(), || {
        format!("a section on {id} was opened inside another, now {:?}", slot.kernel_fpu())
    })?;
    // Who runs user code where is the program's business, too: not only the machine's word counts.
    let (is, ought) = (cpu.current(), spec.current(id));
    let current = if let Current::Task(task) = is { Some(task) } else { None };
    holds(Invariant::I1, current == ought, || format!("{id} runs {current:?}, expected {ought:?}"))?;
    let user_on = current.and_then(|task| machine.task(task)).and_then(|task| task.fpstate().user_on());
    let expected = spec.in_user_mode(id).then_some(id);
    holds(Invariant::I1, user_on == expected, || {
        format!("the task on {id} runs user code on {user_on:?}, expected {expected:?}")
    })?;
    holds(Invariant::I12, !slot.saw_stale_use(), || {
        format!("a validity read in another section was used on {id}")
    })?;
    let xfd = cpu.regs().xfd().unwrap_or_default();
    holds(Invariant::I8, slot.xfd() == xfd, || {
        format!("XFD of {id} is {xfd:?}, and remembered as {:?}", slot.xfd())
    })?;
    // In images, PKRU is with the registers when user code runs, and promised no earlier.
    let promised = machine.pkru_mode() == PkruMode::Eager || spec.in_user_mode(id);
    if let Current::Task(task) = cpu.current()
        && let (Some(ought), Some(live)) = (spec.pkru(task).filter(|_| promised), cpu.regs().pkru())
    {
        holds(Invariant::I7, live == ought, || {
            format!("{id} runs {task} with PKRU {live}, expected {ought}")
        })?;
    }
    Ok(())
}

/// A slot names a user task, and an only copy is of one that is alive and says so too.
fn check_owner<R: UserFrames, P: Policy>(
    machine: &Machine<R, P>,
    cpu: CpuId,
    owner: TaskId,
    only_copy: bool,
) -> Checked {
    let task = machine.task(owner);
    let has_state =
        |task: &Task<R>| !matches!(task.fpstate().kind(), TaskKind::KernelThread | TaskKind::UserWorker);
    holds(Invariant::I6, task.is_none_or(has_state), || {
        format!("{cpu} claims {owner}, which has no user state")
    })?;
    let alive = task.filter(|task| !task.has_exited());
    holds(Invariant::I13, !only_copy || alive.is_some(), || {
        format!("{cpu} holds the only copy of {owner}, which is dead")
    })?;
    let agrees = alive.is_none_or(|task| {
        let fpstate = task.fpstate();
        !only_copy || (!fpstate.need_fpu_load() && fpstate.last_cpu() == Some(cpu))
    });
    holds(Invariant::I2, agrees, || {
        format!("{cpu} holds the only copy of {owner}, whose fpstate says otherwise")
    })
}

/// Any register file of the machine: all have the same components.
fn machine_regs<R: UserFrames, P: Policy>(machine: &Machine<R, P>) -> &R {
    machine.cpus()[0].regs()
}

/// A value of the reference model, which may not know the component.
pub(super) struct Shown(pub(super) Option<crate::Value>);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(f, "{value}"),
            None => f.write_str("no such component"),
        }
    }
}
