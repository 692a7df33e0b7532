//! Dynamic components: areas are without room for them until a program that may use them does (AMX's tiles).
//!
//! IA32_XFD disables what the image of the registers' task has no room for. User code that comes to it traps (#NM, with the
//! components in IA32_XFD_ERR) and, if permitted, gets the room; before that the kernel may sleep for memory.
//!
//! A guest's instructions count as the program's here, under the program's permission. KVM has one of its own
//! (ARCH_REQ_XCOMP_GUEST_PERM), makes room when the guest writes XCR0 or IA32_XFD, and leaves its #NM to the guest.

use super::{Before, Defect, EntryKind, Fpstate, Policy, PreemptOff, Save, switch};
use crate::{
    Component,
    registers::{Image, RegisterFile},
};

/// What became of the use of a dynamic component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum DynamicUse {
    /// The program may use it: the kernel is to make room.
    Asked,
    /// The program may not (SIGILL).
    NotPermitted,
    /// There is room, and XFD lets user code use it.
    Grown,
    /// There can be no room (SIGSEGV). The image is as it was.
    NoRoom,
}

/// The program of a task is permitted to use a dynamic component.
///
/// # Reference
/// Linux: xstate_request_perm, arch/x86/kernel/fpu/xstate.c; arch_prctl(ARCH_REQ_XCOMP_PERM).
pub fn permit<I: Image>(task: &mut Fpstate<I>, component: Component) {
    task.permitted = task.permitted.with(component);
}

/// The current task, in user mode on this CPU, came to an instruction that needs `component`, which XFD disables. It enters
/// the kernel.
///
/// # Errors
/// As [`entry`](super::entry).
///
/// # Reference
/// Linux: handle_xfd_event, arch/x86/kernel/traps.c.
pub fn dynamic_use<R: RegisterFile, P: Policy>(
    cpu: &mut PreemptOff<'_, R>,
    policy: &P,
    task: &mut Fpstate<R::Image>,
    component: Component,
) -> Result<(Save, DynamicUse), Before> {
    let save = switch::entry(cpu, policy, task, EntryKind::Exception)?;
    if task.permitted.contains(component) {
        task.wants = Some(component);
        if cpu.has(Defect::XfdBeforeRoom) {
            cpu.reset_xfd(crate::ComponentSet::EMPTY);
        }
        Ok((save, DynamicUse::Asked))
    } else {
        Ok((save, DynamicUse::NotPermitted))
    }
}

/// Gives the current task room for what it [wants](Fpstate::wants). Its other components stay where they are.
///
/// If these registers are the task's, XFD is written here. Otherwise any claim of another CPU ends, whose XFD is the old
/// one: arm64's trap on the first use of SVE kept it until 2024 (751ecf6afd65).
///
/// # Errors
/// [`Before::Flush`] when the newest state is in another CPU's registers.
///
/// # Reference
/// Linux: __xfd_enable_feature and fpstate_realloc, arch/x86/kernel/fpu/xstate.c.
pub fn dynamic_grow<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
) -> Result<DynamicUse, Before> {
    super::access::on_this_cpu(cpu, task)?;
    let Some(component) = task.wants.take() else { return Ok(DynamicUse::NotPermitted) };
    if task.image.grow(crate::ComponentSet::EMPTY.with(component)).is_err() {
        return Ok(DynamicUse::NoRoom);
    }
    let validity = cpu.validity(task);
    if cpu.trust(validity) {
        cpu.update_xfd(task);
    } else if !cpu.has(Defect::GrowKeepsClaim) {
        task.invalidate();
    }
    Ok(DynamicUse::Grown)
}
