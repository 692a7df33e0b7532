//! What an event did, and what it says that it did.

use super::{
    Invariant, Spec,
    invariants::{Checked, Shown, fits, holds},
};
use crate::{
    CpuId, Event, PageAccess, TaskId,
    fpu::{Policy, UserAccess, policy::InKernel},
    machine::{Current, Machine, Outcome},
    registers::RegisterFile,
};
use alloc::format;

/// Checks what an event did: a read gives what the program of the task must see, and behind an entry the state is
/// where the policy promises it.
///
/// # Errors
/// I4 or I3, when it does not.
pub fn check_outcome<R: RegisterFile, P: Policy>(
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

/// Directly behind an entry nothing has loaded the task yet.
fn check_entry<R: RegisterFile, P: Policy>(machine: &Machine<R, P>, id: CpuId) -> Checked {
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
