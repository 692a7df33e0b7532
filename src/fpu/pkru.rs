//! PKRU: switched eagerly beside the rest, or, to see what is wrong with that, inside XSAVE images.
//!
//! Kernel access to user memory checks it. With a deferred restore, a PKRU that comes with the image would be the
//! previous task's until the return.

use super::{Before, Defect, Fpstate, Policy, PreemptOff, Save, access};
use crate::{
    Pkru,
    registers::{Image, RegisterFile},
};

/// How a machine switches PKRU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PkruMode {
    /// In a home of its own, at every switch: Linux from 5.14.
    #[default]
    Eager,
    /// In images, with all the rest. Between a switch and the load the register is the previous task's, and the kernel
    /// accesses the user memory of the current task with it.
    InXsave,
}

/// A policy under which PKRU cannot be in images: user code runs before its registers are loaded, and a memory access
/// raises no #NM that would load them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "PKRU cannot be switched inside XSAVE under {policy}: a memory access raises no first-use trap that would load it"
)]
pub struct PkruNeedsEager {
    /// The policy.
    pub policy: &'static str,
}

impl PkruMode {
    /// Whether a machine under `policy` can switch PKRU in this way.
    ///
    /// # Errors
    /// [`PkruNeedsEager`] names the policy that cannot.
    pub fn check(self, policy: &impl Policy) -> Result<(), PkruNeedsEager> {
        match self {
            Self::InXsave if policy.form().lets_foreign_registers_into_user_mode() => {
                Err(PkruNeedsEager { policy: policy.name() })
            }
            Self::Eager | Self::InXsave => Ok(()),
        }
    }
}

/// Takes the PKRU of a task that is switched out to memory.
#[inline]
pub(super) fn save<R: RegisterFile>(cpu: &PreemptOff<'_, R>, task: &mut Fpstate<R::Image>) {
    if let (PkruMode::Eager, Some(pkru)) = (cpu.slot.pkru_mode, cpu.regs.pkru()) {
        task.pkru = pkru;
    }
}

/// Loads the PKRU of a task that is switched in. WRPKRU serialises loads, hence the comparison.
#[inline]
pub(super) fn load<R: RegisterFile>(cpu: &mut PreemptOff<'_, R>, task: &Fpstate<R::Image>) {
    if cpu.slot.pkru_mode != PkruMode::Eager || cpu.has(Defect::SwitchKeepsPkru) {
        return;
    }
    let pkru = match task.pkru {
        Pkru(0) if cpu.has(Defect::InitialPkruIsDefault) => Pkru::DEFAULT,
        pkru => pkru,
    };
    if cpu.regs.pkru().is_some_and(|live| live != pkru) {
        cpu.regs.set_pkru(pkru);
    }
}

/// Gives the current task, whose image was just written, a new PKRU.
pub(super) fn set_current<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
    pkru: Pkru,
) {
    match cpu.slot.pkru_mode {
        PkruMode::Eager => {
            task.pkru = pkru;
            cpu.regs.set_pkru(pkru);
        }
        PkruMode::InXsave => task.image.set_pkru(pkru),
    }
}

/// An image that was reset gets the PKRU of a new program, on a machine that keeps it there.
pub(super) fn set_default_in_image<R: RegisterFile>(cpu: &PreemptOff<'_, R>, task: &mut Fpstate<R::Image>) {
    if cpu.slot.pkru_mode == PkruMode::InXsave {
        task.image.set_pkru(Pkru::DEFAULT);
    }
}

/// Reads the PKRU of a task that may be anywhere (ptrace). `is_current` says that it runs on this CPU.
///
/// # Errors
/// [`Before::Interrupt`] when the task runs user code, and, with PKRU in images, as
/// [`copy_to_memory`](super::copy_to_memory).
pub fn read_pkru<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
    is_current: bool,
) -> Result<(Save, Pkru), Before> {
    in_kernel(task)?;
    match cpu.slot.pkru_mode {
        PkruMode::Eager => {
            let live = cpu.regs.pkru().filter(|_| is_current);
            Ok((Save::AlreadyInMemory, live.unwrap_or(task.pkru)))
        }
        PkruMode::InXsave => Ok((access::copy_to_memory(cpu, task)?, task.image.pkru())),
    }
}

/// Writes the PKRU of a task that may be anywhere: for the current task the kernel itself, for others ptrace.
/// `is_current` says that it runs on this CPU.
///
/// # Errors
/// As [`read_pkru`].
pub fn write_pkru<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
    is_current: bool,
    pkru: Pkru,
) -> Result<Save, Before> {
    in_kernel(task)?;
    match cpu.slot.pkru_mode {
        PkruMode::Eager => {
            if is_current {
                cpu.regs.set_pkru(pkru);
            }
            if !is_current && cpu.has(Defect::PkruWriteToImage) {
                task.image.set_pkru(pkru);
            } else {
                task.pkru = pkru;
            }
            Ok(Save::AlreadyInMemory)
        }
        PkruMode::InXsave => {
            let save = access::move_to_memory(cpu, task)?;
            task.image.set_pkru(pkru);
            Ok(save)
        }
    }
}

pub(super) fn in_kernel<I: Image>(task: &Fpstate<I>) -> Result<(), Before> {
    match task.user_on {
        Some(cpu) => Err(Before::Interrupt { cpu }),
        None => Ok(()),
    }
}

/// What becomes of a kernel access to user memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum UserAccess {
    /// The access is made.
    Allowed,
    /// The register denies it: a page fault, and in the end EFAULT.
    Denied,
}

/// The kernel accesses a page of user memory: of the address space that the current task runs on (`is_local`), which the
/// register guards; or of another, through the kernel's own mapping, where no key counts.
///
/// # Reference
/// Linux: arch_vma_access_permitted, arch/x86/include/asm/mmu_context.h: of a foreign address space keys are not
/// enforced.
pub fn user_memory<R: RegisterFile>(
    cpu: &PreemptOff<'_, R>,
    is_local: bool,
    access: crate::PageAccess,
) -> UserAccess {
    let denied = is_local && cpu.regs.pkru().is_some_and(|pkru| !pkru.allows(access));
    if denied { UserAccess::Denied } else { UserAccess::Allowed }
}
