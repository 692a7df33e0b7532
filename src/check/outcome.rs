//! What an event did, and what it says that it did.

use super::{
    Invariant, Spec,
    invariants::{Checked, Shown, fits, holds},
};
use crate::{
    CpuId, Event, PageAccess, Rfbm, TaskId,
    fpu::{Policy, SignalStep, UserAccess, policy::InKernel},
    machine::{Current, Machine, Outcome, Task},
    registers::UserFrames,
};
use alloc::format;

/// Checks what an event did: a read gives what the program of the task must see, behind an entry the state is where the
/// policy promises it, and behind a fault-in the frame is there.
///
/// # Errors
/// I4, I3, I7 or I14, when it does not.
pub fn check_outcome<R: UserFrames, P: Policy>(
    machine: &Machine<R, P>,
    spec: &Spec,
    event: Event,
    outcome: &Outcome,
) -> Checked {
    if let Event::Entry(cpu, _) | Event::FpuFault(cpu) | Event::GuestExit(cpu) | Event::DynamicUse(cpu, _) =
        event
    {
        return check_entry(machine, cpu);
    }
    match event {
        Event::SignalFaultIn(cpu) => return check_fault_in(machine, cpu),
        Event::UserMemory(cpu, task, access) => return check_user_memory(spec, cpu, task, access, outcome),
        Event::ReadPkru(task) => {
            let ought = spec.pkru(task);
            return holds(Invariant::I7, outcome.pkru == ought, || {
                format!("{event} gave {:?}, expected {ought:?}", outcome.pkru)
            });
        }
        _ => {}
    }
    let Event::Read(task, component) = event else { return Ok(()) };
    if machine.task(task).is_none_or(|task| task.fpstate().signal().is_returning()) {
        return Ok(());
    }
    let ought = spec.state(task).and_then(|state| state.value(component));
    let given = outcome.value.is_some_and(|value| fits(machine, value, ought));
    holds(Invariant::I4, given, || {
        format!("{event} gave {}, expected {}", Shown(outcome.value), Shown(ought))
    })
}

/// The kernel accesses the memory that the current task runs on with that task's keys, and any other with none.
fn check_user_memory(
    spec: &Spec,
    cpu: CpuId,
    task: TaskId,
    access: PageAccess,
    outcome: &Outcome,
) -> Checked {
    let local = spec.current(cpu).filter(|current| spec.shares_memory(*current, task));
    let pkru = local.and_then(|current| spec.pkru(current));
    let ought =
        if pkru.is_none_or(|pkru| pkru.allows(access)) { UserAccess::Allowed } else { UserAccess::Denied };
    holds(Invariant::I7, outcome.user_memory == Some(ought), || {
        let word = |access| if access == UserAccess::Allowed { "allowed" } else { "denied" };
        let is = outcome.user_memory.map_or("not tried", word);
        format!("{cpu} accesses {task} ({access}), which is {is}, expected {}", word(ought))
    })
}

/// Directly behind a fault-in nothing has taken a page away again: an access that is to be tried again does not fault.
fn check_fault_in<R: UserFrames, P: Policy>(machine: &Machine<R, P>, id: CpuId) -> Checked {
    let Some(cpu) = machine.cpu(id) else { return Ok(()) };
    let Current::Task(task) = cpu.current() else { return Ok(()) };
    let tried_again =
        |task: &&Task<R>| matches!(task.fpstate().signal(), SignalStep::Save | SignalStep::Load);
    let frame = machine.task(task).filter(tried_again).and_then(|task| task.frames().last());
    let present = frame.is_none_or(|frame| cpu.regs().save_user(Rfbm::ALL, &mut frame.clone()).is_ok());
    holds(Invariant::I14, present, || {
        format!("the frame of {task} was faulted in on {id}, and is not present")
    })
}

/// Directly behind an entry nothing has loaded the task yet.
fn check_entry<R: UserFrames, P: Policy>(machine: &Machine<R, P>, id: CpuId) -> Checked {
    let (Some(cpu), InKernel::InMemory) = (machine.cpu(id), machine.policy().form().in_kernel) else {
        return Ok(());
    };
    let Current::Task(task) = cpu.current() else { return Ok(()) };
    let in_memory = machine.task(task).is_some_and(|task| {
        let fpstate = task.fpstate();
        fpstate.need_fpu_load() && !machine.cpus().iter().any(|cpu| fpstate.is_valid_on(cpu.slot()))
    });
    holds(Invariant::I3, in_memory, || {
        format!(
            "{task} has entered the kernel on {id} and is not in memory alone, which this policy promises"
        )
    })
}
