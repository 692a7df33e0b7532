//! Entry, switch and return: where a policy decides.

use super::{
    Before, Defect, Fpstate, Load, LoadRule, Policy, PreemptOff, Save, SaveRule, SignalStep, access, guest,
    pkru, policy::Facts,
};
use crate::{CpuId, EntryKind, registers::RegisterFile};

#[inline]
pub(super) fn facts<R: RegisterFile>(cpu: &mut PreemptOff<'_, R>, task: &Fpstate<R::Image>) -> Facts {
    let validity = cpu.validity(task);
    task.facts(cpu.trust(validity))
}

/// The current task, in user mode on this CPU, enters the kernel.
///
/// # Errors
/// As [`copy_to_memory`](super::copy_to_memory), for a policy that saves here.
#[inline]
pub fn entry<R: RegisterFile, P: Policy>(
    cpu: &mut PreemptOff<'_, R>,
    policy: &P,
    task: &mut Fpstate<R::Image>,
    kind: EntryKind,
) -> Result<Save, Before> {
    let facts = facts(cpu, task);
    let user_on = task.user_on.take();
    let save = match policy.entry(kind, facts) {
        SaveRule::GiveUp if kind == EntryKind::SystemCall => {
            task.given_up = true;
            Save::Kept
        }
        // No program gives anything up where it did not ask for the kernel.
        SaveRule::Keep | SaveRule::GiveUp => Save::Kept,
        SaveRule::Save => match access::copy_to_memory(cpu, task) {
            Ok(save) => {
                // Behind an armed trap the registers can be another task's only copy.
                if cpu.slot.owner == Some(task.id()) {
                    cpu.slot.invalidate();
                }
                save
            }
            Err(before) => {
                task.user_on = user_on;
                return Err(before);
            }
        },
    };
    guest::left(cpu, task);
    Ok(save)
}

/// The current task, in the kernel, is switched out.
///
/// # Errors
/// As [`copy_to_memory`](super::copy_to_memory).
#[inline]
pub fn switch_out<R: RegisterFile, P: Policy>(
    cpu: &mut PreemptOff<'_, R>,
    policy: &P,
    prev: &mut Fpstate<R::Image>,
) -> Result<Save, Before> {
    let save = if !access::has_state(cpu, prev) {
        Save::NotUser
    } else {
        let used = !prev.need_fpu_load;
        let save = match policy.switch_out(facts(cpu, prev)) {
            SaveRule::Keep | SaveRule::GiveUp => Save::Kept,
            SaveRule::Save => access::copy_to_memory(cpu, prev)?,
        };
        if policy.counts_uses() && !used {
            prev.uses = 0;
        }
        save
    };
    pkru::save(cpu, prev);
    Ok(save)
}

/// A task becomes current, in the kernel.
///
/// # Errors
/// [`Before::Flush`] when the task left its newest state in another CPU's registers, unless the policy arms the
/// trap; otherwise as [`copy_to_cpu`](super::copy_to_cpu), for a policy that loads here.
#[inline]
pub fn switch_in<R: RegisterFile, P: Policy>(
    cpu: &mut PreemptOff<'_, R>,
    policy: &P,
    next: &mut Fpstate<R::Image>,
) -> Result<Load, Before> {
    if cpu.has(Defect::PreloadOfAnother) && next.is_user() && cpu.slot.owner.is_some() {
        access::claim(cpu, next);
    }
    let rule = policy.switch_in(facts(cpu, next));
    if rule != LoadRule::Trap {
        access::on_this_cpu(cpu, next)?;
    }
    let is_saving = matches!(next.signal, SignalStep::Save | SignalStep::SaveFaulted);
    let load = if rule == LoadRule::UnlessValid && is_saving && cpu.has(Defect::PreloadInitialises) {
        access::load_unused(cpu, next)
    } else {
        load_by(rule, cpu, next)?
    };
    if policy.counts_uses() && rule != LoadRule::Trap && !next.need_fpu_load {
        // Nothing will tell whether the slice uses what is there already: it counts as if it did.
        next.uses = next.uses.wrapping_add(1);
    }
    pkru::load(cpu, next);
    Ok(load)
}

/// A task that is not running is moved to the queue of CPU `to`. A policy that leaves the only copy in the
/// registers saves it now.
///
/// # Errors
/// [`Before::Flush`] when the task left its newest state in another CPU's registers.
pub fn migrate<I: crate::registers::Image>(task: &Fpstate<I>, to: CpuId) -> Result<Save, Before> {
    match task.last_cpu {
        _ if !task.is_user() => Ok(Save::NotUser),
        _ if task.need_fpu_load => Ok(Save::AlreadyInMemory),
        Some(cpu) if cpu != to => Err(Before::Flush { cpu, task: task.id() }),
        _ => Ok(Save::Kept),
    }
}

/// The current task is about to run user code. Behind this its registers hold its state, or the first-use
/// trap is armed (invariant I1).
///
/// # Errors
/// As [`copy_to_cpu`](super::copy_to_cpu).
#[inline]
pub fn return_to_user<R: RegisterFile, P: Policy>(
    cpu: &mut PreemptOff<'_, R>,
    policy: &P,
    task: &mut Fpstate<R::Image>,
) -> Result<Load, Before> {
    if !task.is_user() {
        return Ok(Load::NotUser);
    }
    let is_foreign = cpu.slot.owner.is_some_and(|owner| owner != task.id());
    let load = match policy.return_to_user(facts(cpu, task)) {
        _ if cpu.has(Defect::ReturnBehindTrap) && is_foreign => load_by(LoadRule::Trap, cpu, task)?,
        _ if cpu.has(Defect::ReturnTrustsLastCpu) && task.last_cpu == Some(cpu.cpu()) => Load::Skipped,
        LoadRule::Defer if cpu.slot.trap_armed => Load::TrapArmed,
        LoadRule::Defer | LoadRule::UnlessValid => access::move_to_cpu(cpu, task)?,
        rule @ (LoadRule::Always | LoadRule::Trap) => load_by(rule, cpu, task)?,
    };
    if !task.need_fpu_load {
        // User code starts from whatever is in the registers.
        task.given_up = false;
    }
    task.user_on = Some(cpu.cpu());
    // An instruction that was not granted what it wants comes to it again.
    task.wants = None;
    Ok(load)
}

/// The first FPU instruction of the current task trapped.
///
/// # Errors
/// As [`copy_to_cpu`](super::copy_to_cpu).
pub fn first_use<R: RegisterFile, P: Policy>(
    cpu: &mut PreemptOff<'_, R>,
    policy: &P,
    task: &mut Fpstate<R::Image>,
) -> Result<Load, Before> {
    let load = match policy.first_use(facts(cpu, task)) {
        LoadRule::Always => access::load_always(cpu, task),
        // The instruction is about to retire: there is nothing left to put the load off to.
        LoadRule::UnlessValid | LoadRule::Defer | LoadRule::Trap => access::move_to_cpu(cpu, task),
    }?;
    // As at a return without a trap: what user code writes from here on is to be kept.
    task.given_up = false;
    if policy.counts_uses() {
        task.uses = task.uses.wrapping_add(1);
    }
    Ok(load)
}

/// The registers were taken from the current task, in the kernel, and are free again.
///
/// # Errors
/// As [`copy_to_cpu`](super::copy_to_cpu).
pub fn resume<R: RegisterFile, P: Policy>(
    cpu: &mut PreemptOff<'_, R>,
    policy: &P,
    current: &mut Fpstate<R::Image>,
) -> Result<Load, Before> {
    let rule = policy.kernel_fpu_end(facts(cpu, current));
    load_by(rule, cpu, current)
}

/// Does what a policy answered.
#[inline]
pub(super) fn load_by<R: RegisterFile>(
    rule: LoadRule,
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
) -> Result<Load, Before> {
    if !access::has_state(cpu, task) {
        return Ok(Load::NotUser);
    }
    match rule {
        // A policy that left the only copy in the registers finds it there again.
        LoadRule::Defer if !task.need_fpu_load && task.is_valid_on(cpu.slot) => Ok(Load::Skipped),
        LoadRule::Defer => Ok(Load::Deferred),
        LoadRule::UnlessValid => access::move_to_cpu(cpu, task),
        LoadRule::Always => access::load_always(cpu, task),
        LoadRule::Trap => {
            cpu.slot.trap_armed = true;
            Ok(Load::TrapArmed)
        }
    }
}
