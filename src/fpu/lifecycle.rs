//! Fork, exec, exit, and CPUs that come, go or lose power.
//!
//! One release for each, the same for every policy: behind it nothing can claim the old state.

use super::{
    Before, Defect, Fpstate, Load, LoadRule, Policy, PreemptOff, Save, SignalStep, TaskKind, access, pkru,
    policy::{Facts, Release},
    switch,
};
use crate::{
    ComponentSet, Pkru,
    registers::{Image, RegisterFile},
};

/// The current task makes a child: `child`, a new fpstate, takes a copy of its state.
///
/// The parent's state stays where it is. No CPU claims the child's: the registers may hold the same values,
/// but they are the parent's. Dynamic components are not inherited, the permission to use them is. A user worker
/// takes nothing but PKRU.
///
/// # Errors
/// [`Before::Flush`] when the parent's newest state is in another CPU's registers.
///
/// # Reference
/// Linux: fpu_clone, arch/x86/kernel/fpu/core.c, and copy_thread, arch/x86/kernel/process.c.
pub fn fork<R: RegisterFile, P: Policy>(
    cpu: &mut PreemptOff<'_, R>,
    policy: &P,
    parent: &Fpstate<R::Image>,
    child: &mut Fpstate<R::Image>,
) -> Result<Save, Before> {
    access::on_this_cpu(cpu, parent)?;
    child.reset_image(cpu.regs);
    child.invalidate();
    // The child's image is new: nothing of it can be loaded now, whatever the policy answers.
    let _ = policy.release(Release::Fork, switch::facts(cpu, child));
    if !parent.is_user() {
        pkru::set_default_in_image(cpu, child);
        return Ok(Save::NotUser);
    }
    // PKRU is in the register while the parent runs; its copy in memory is stale.
    let live = cpu.regs.pkru().filter(|_| !cpu.has(Defect::ForkReadsStalePkru));
    child.pkru = live.unwrap_or(parent.pkru);
    if !child.is_user() {
        return Ok(Save::NotUser);
    }
    (child.fpu_free, child.given_up) = (parent.fpu_free, parent.given_up);
    child.permitted = parent.permitted;
    if cpu.has(Defect::DeadOwnerMatches) {
        child.last_cpu = parent.last_cpu;
    }
    if parent.need_fpu_load {
        child.image.copy_from(&parent.image);
        #[cfg(feature = "explore")]
        if cpu.has(Defect::InitialCopiedAsZero) {
            child.image.zero_initial();
        }
        Ok(Save::AlreadyInMemory)
    } else {
        cpu.save_to(child);
        Ok(if parent.given_up { Save::SavedKept } else { Save::Saved })
    }
}

/// The current task starts a new program: the image takes the initial configuration, and no CPU may claim
/// the old one.
///
/// # Errors
/// [`Before::Flush`] when the newest state is in another CPU's registers, which could not be told otherwise
/// that nobody needs it any more; [`Before::Evict`] for a policy that loads here.
pub fn exec<R: RegisterFile, P: Policy>(
    cpu: &mut PreemptOff<'_, R>,
    policy: &P,
    task: &mut Fpstate<R::Image>,
) -> Result<Load, Before> {
    access::on_this_cpu(cpu, task)?;
    // What is known of the old program does not hold for the new one, whose state is in memory.
    let fresh = Facts { valid: false, need_fpu_load: true, uses: 0, fpu_free: false };
    let rule = policy.release(Release::Exec, fresh);
    if matches!(rule, LoadRule::UnlessValid | LoadRule::Always) {
        access::registers_are_free(cpu, task)?;
    }
    discard(cpu, task);
    if cpu.has(Defect::ExecClearsOwner) {
        cpu.slot.invalidate();
    } else if !cpu.has(Defect::ExecKeepsClaim) {
        task.invalidate();
    }
    task.fpu_free = false;
    task.permitted = ComponentSet::EMPTY;
    pkru::set_current(cpu, task, Pkru::DEFAULT);
    switch::load_by(rule, cpu, task)
}

/// The current task dies. It runs on in the kernel until it is switched out, but has no state any more.
///
/// # Errors
/// [`Before::Flush`] as for [`exec`].
pub fn exit<R: RegisterFile, P: Policy>(
    cpu: &mut PreemptOff<'_, R>,
    policy: &P,
    task: &mut Fpstate<R::Image>,
) -> Result<(), Before> {
    access::on_this_cpu(cpu, task)?;
    let _ = policy.release(Release::Exit, switch::facts(cpu, task));
    discard(cpu, task);
    if !cpu.has(Defect::ExitKeepsClaim) && !cpu.has(Defect::ChildInheritsLastCpu) {
        task.invalidate();
    }
    let keeps_owner = [Defect::ExitKeepsClaim, Defect::ExitKeepsOwner, Defect::DeadOwnerMatches];
    if cpu.slot.owner == Some(task.id()) && !keeps_owner.iter().any(|defect| cpu.has(*defect)) {
        cpu.slot.invalidate();
    }
    task.kind = TaskKind::Exited;
    Ok(())
}

/// The state of the current task is nothing any more; the image is the initial configuration. The caller ends the claims.
fn discard<R: RegisterFile>(cpu: &mut PreemptOff<'_, R>, task: &mut Fpstate<R::Image>) {
    task.reset_image(cpu.regs);
    #[cfg(feature = "explore")]
    if cpu.has(Defect::ResetIsZero) {
        task.image.zero_initial();
    }
    task.signal = SignalStep::Idle;
    task.guest = None;
    if cpu.slot.owner == Some(task.id()) {
        cpu.slot.only_copy = false;
    }
}

/// Kernel code says that this CPU's registers are nobody's any more.
///
/// # Errors
/// [`Before::Evict`] when they hold a task's only copy.
pub fn invalidate_registers<R: RegisterFile>(cpu: &mut PreemptOff<'_, R>) -> Result<(), Before> {
    hold_no_only_copy(cpu)?;
    cpu.slot.invalidate();
    Ok(())
}

/// Asks for an eviction if the registers hold any task's only copy.
fn hold_no_only_copy<R: RegisterFile>(cpu: &PreemptOff<'_, R>) -> Result<(), Before> {
    match cpu.slot.owner {
        Some(owner) if cpu.slot.only_copy => Err(Before::Evict(owner)),
        _ => Ok(()),
    }
}

/// The CPU goes offline; nothing runs on it.
///
/// # Errors
/// [`Before::Evict`] when its registers hold a task's only copy.
pub fn offline<R: RegisterFile>(cpu: &mut PreemptOff<'_, R>) -> Result<(), Before> {
    power_loss(cpu)
}

/// The CPU comes back.
pub fn online<R: RegisterFile>(cpu: &mut PreemptOff<'_, R>) {
    reset(cpu);
    if !cpu.has(Defect::OnlineKeepsXfd) {
        cpu.reset_xfd(cpu.regs.dynamic());
    }
}

/// The CPU loses power and wakes up; no user task is current on it.
///
/// # Errors
/// [`Before::Evict`] when its registers hold a task's only copy.
pub fn power_loss<R: RegisterFile>(cpu: &mut PreemptOff<'_, R>) -> Result<(), Before> {
    hold_no_only_copy(cpu)?;
    reset(cpu);
    cpu.reset_xfd(cpu.regs.dynamic());
    Ok(())
}

/// Registers as after reset, but for PKRU, which are nobody's: the suspend bug of 2012, 644c15418638, kept the owner. The
/// caller writes IA32_XFD, which is not what it is remembered to be: the bug of 2024, 10e4b5166df9.
fn reset<R: RegisterFile>(cpu: &mut PreemptOff<'_, R>) {
    cpu.regs.reset();
    // What a CPU is brought up with (Linux: setup_pku, arch/x86/kernel/cpu/common.c).
    cpu.regs.set_pkru(Pkru::DEFAULT);
    if !cpu.has(Defect::PowerLossKeepsOwner) {
        cpu.slot.invalidate();
    }
    cpu.slot.trap_armed = false;
}
