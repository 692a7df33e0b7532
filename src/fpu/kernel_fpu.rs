//! Kernel code that uses the registers.

use super::{Before, Defect, Fpstate, Load, OwnerSlot, Policy, PreemptOff, Save, SaveRule, access, switch};
use crate::{KernelContext, registers::RegisterFile};

/// Why kernel code may not use the FPU now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotUsable {
    /// A section is open: they do not nest (invariant I11).
    Section(KernelContext),
    /// A softirq is being served: a task does not run meanwhile, and a hard interrupt may have hit it anywhere.
    SoftIrq,
}

/// Whether kernel code of that context may use the FPU on a CPU.
///
/// A hard interrupt may where softirqs are enabled, so that it hit no section of this protocol.
///
/// # Errors
/// Why not.
///
/// # Reference
/// Linux: irq_fpu_usable, arch/x86/kernel/fpu/core.c.
pub fn kernel_fpu_usable(slot: &OwnerSlot, context: KernelContext) -> Result<(), NotUsable> {
    match (slot.kernel_fpu, context) {
        (Some(open), _) if !slot.has(Defect::UsableInSection) => Err(NotUsable::Section(open)),
        (_, KernelContext::Task | KernelContext::HardIrq) if slot.softirq => Err(NotUsable::SoftIrq),
        _ => Ok(()),
    }
}

/// A softirq begins to be served on a CPU.
pub fn softirq_begin(slot: &mut OwnerSlot) {
    slot.softirq = true;
}

/// The softirq is served.
pub fn softirq_end(slot: &mut OwnerSlot) {
    slot.softirq = false;
}

/// Kernel code begins to use the registers: whoever owns them is saved, and owns them no more.
///
/// `current` is the current task, in the kernel. A second section in a row finds nothing to save: that is
/// what the patch series gains for a run of them.
///
/// # Errors
/// [`Before::Evict`] when the registers hold the only copy of a task that is not current.
///
/// # Panics
/// In debug builds, where the FPU is not [usable](kernel_fpu_usable): the caller has to refuse that before it gets
/// here.
#[inline]
pub fn kernel_fpu_begin<R: RegisterFile, P: Policy>(
    cpu: &mut PreemptOff<'_, R>,
    policy: &P,
    mut current: Option<&mut Fpstate<R::Image>>,
    context: KernelContext,
) -> Result<Save, Before> {
    debug_assert_eq!(kernel_fpu_usable(cpu.slot, context), Ok(()));
    if let Some(task) = current.as_mut().filter(|task| task.is_user() && task.need_fpu_load)
        && cpu.has(Defect::KernelFpuSavesAgain)
    {
        cpu.save_to(task);
    }
    let save = match (cpu.slot.owner, policy.kernel_fpu_begin()) {
        _ if !cpu.slot.only_copy => Save::AlreadyInMemory,
        (None, _) => Save::AlreadyInMemory,
        (Some(_), SaveRule::Keep | SaveRule::GiveUp) => Save::Kept,
        (Some(owner), SaveRule::Save) => match current {
            Some(task) if task.id() == owner => access::copy_to_memory(cpu, task)?,
            _ => return Err(Before::Evict(owner)),
        },
    };
    if !cpu.has(Defect::KernelFpuKeepsOwner) {
        cpu.slot.invalidate();
    }
    #[cfg(feature = "explore")]
    {
        cpu.slot.nested |= cpu.slot.kernel_fpu.is_some();
    }
    cpu.slot.kernel_fpu = Some(context);
    Ok(save)
}

/// Kernel code is done with the registers; the policy may give them back to the current task at once.
///
/// # Errors
/// As [`copy_to_cpu`](super::copy_to_cpu), for a policy that loads here.
#[inline]
pub fn kernel_fpu_end<R: RegisterFile, P: Policy>(
    cpu: &mut PreemptOff<'_, R>,
    policy: &P,
    current: Option<&mut Fpstate<R::Image>>,
) -> Result<Load, Before> {
    let load = match current {
        Some(task) => switch::resume(cpu, policy, task)?,
        None => Load::NotUser,
    };
    cpu.slot.kernel_fpu = None;
    #[cfg(feature = "explore")]
    {
        cpu.slot.nested = false;
    }
    Ok(load)
}
