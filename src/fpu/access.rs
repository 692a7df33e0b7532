//! Moving a state between its two homes: the four verbs, and what the rest of the protocol builds on them.

use super::{Before, Defect, Fpstate, Load, PkruMode, PreemptOff, Save, TaskKind, pkru};
use crate::{
    Component, Pkru, Value,
    registers::{Image, RegisterFile, Unsupported},
};

/// Makes the image hold the task's state; the registers stay valid (to 2a, or 2b if they were not).
///
/// # Errors
/// [`Before::Flush`] when the newest state is in another CPU's registers; [`Before::Interrupt`] when the
/// task runs user code, so that its registers may change at any moment.
#[inline]
pub fn copy_to_memory<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
) -> Result<Save, Before> {
    if !has_state(cpu, task) {
        return Ok(Save::NotUser);
    }
    // User code on another CPU cannot change what is only here: the first-use trap stops it there.
    let is_frozen_here = !task.need_fpu_load && task.last_cpu == Some(cpu.cpu());
    match task.user_on {
        Some(user_on) if user_on == cpu.cpu() || !is_frozen_here => {
            return Err(Before::Interrupt { cpu: user_on });
        }
        _ => {}
    }
    if task.need_fpu_load {
        return Ok(Save::AlreadyInMemory);
    }
    on_this_cpu(cpu, task)?;
    cpu.save_to(task);
    task.need_fpu_load = true;
    cpu.slot.only_copy = false;
    if cpu.has(Defect::SaveWritesLastCpu) {
        task.last_cpu = Some(cpu.cpu());
    }
    Ok(if task.given_up { Save::SavedKept } else { Save::Saved })
}

/// Makes the image the only valid copy, so that it may be written (to 2b).
///
/// # Errors
/// As [`copy_to_memory`].
pub fn move_to_memory<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
) -> Result<Save, Before> {
    let save = copy_to_memory(cpu, task)?;
    task.invalidate();
    Ok(save)
}

/// Makes this CPU's registers hold the task's state; the image stays the truth if it was (to 1 or 2a).
///
/// # Errors
/// [`Before::Flush`] when the newest state is in another CPU's registers, [`Before::Evict`] when this CPU's
/// registers hold another task's only copy.
#[inline]
pub fn copy_to_cpu<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
) -> Result<Load, Before> {
    let validity = cpu.validity(task);
    if has_state(cpu, task) && cpu.trust(validity) {
        return Ok(if task.need_fpu_load { Load::Skipped } else { Load::AlreadyLive });
    }
    load(cpu, task)
}

/// Makes this CPU's registers the only valid copy, so that user code may write them (to 1).
///
/// # Errors
/// As [`copy_to_cpu`].
#[inline]
pub fn move_to_cpu<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
) -> Result<Load, Before> {
    let load = copy_to_cpu(cpu, task)?;
    registers_are_truth(cpu, task, load);
    Ok(load)
}

/// [`move_to_cpu`] for a policy that never reads the owner: loads even what is there already.
pub(super) fn load_always<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
) -> Result<Load, Before> {
    let load = load(cpu, task)?;
    registers_are_truth(cpu, task, load);
    Ok(load)
}

/// Whether the task has a state to switch (invariant I6).
pub(super) fn has_state<R: RegisterFile>(cpu: &PreemptOff<'_, R>, task: &Fpstate<R::Image>) -> bool {
    let borrows_memory = || task.kind() == TaskKind::KernelThread && cpu.slot.owner.is_some();
    task.is_user() || cpu.has(Defect::KernelThreadIsUser) && borrows_memory()
}

/// Loads the image, whatever the registers hold, unless they are the only copy of the task's state.
///
/// A function of its own, so that a return that loads nothing is short enough to be inlined.
#[inline(never)]
fn load<R: RegisterFile>(cpu: &mut PreemptOff<'_, R>, task: &mut Fpstate<R::Image>) -> Result<Load, Before> {
    if !has_state(cpu, task) {
        return Ok(Load::NotUser);
    }
    if !task.need_fpu_load {
        on_this_cpu(cpu, task)?;
        return Ok(Load::AlreadyLive);
    }
    registers_are_free(cpu, task)?;
    cpu.update_xfd(task);
    if cpu.has(Defect::GuestXfdCrossesSave) && task.has_guest_loaded() {
        cpu.reset_xfd(cpu.regs.dynamic());
    }
    let load = match cpu.restore_from(task) {
        Ok(()) if task.given_up => Load::RestoredKept,
        Ok(()) => Load::Restored,
        Err(_) if cpu.has(Defect::WriteNotChecked) || cpu.has(Defect::FrameNotChecked) => Load::Restored,
        // I9 was broken by whoever wrote the image. The registers are unspecified, and the previous
        // owner's claim with them; the task goes on in the initial configuration (Linux:
        // fpu_reset_from_exception_fixup).
        Err(_) => {
            initialise(cpu, task);
            Load::Initialised
        }
    };
    claim(cpu, task);
    Ok(load)
}

/// Registers and image take the initial configuration.
fn initialise<R: RegisterFile>(cpu: &mut PreemptOff<'_, R>, task: &mut Fpstate<R::Image>) {
    task.reset_image(cpu.regs);
    task.invalidate();
    cpu.update_xfd(task);
    load_initial(cpu);
    pkru::set_default_in_image(cpu, task);
    if cpu.slot.pkru_mode == PkruMode::InXsave {
        // It is a part of what was loaded.
        cpu.regs.set_pkru(Pkru::DEFAULT);
    }
}

/// Loads a state that the task has not used yet.
pub(super) fn load_unused<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
) -> Load {
    initialise(cpu, task);
    claim(cpu, task);
    registers_are_truth(cpu, task, Load::Initialised);
    Load::Initialised
}

/// Loads the initial configuration into the registers.
pub(super) fn load_initial<R: RegisterFile>(cpu: &mut PreemptOff<'_, R>) {
    let rfbm = cpu.rfbm();
    cpu.regs.restore_initial(rfbm);
}

/// The registers hold the task's state from here on.
pub(super) fn claim<R: RegisterFile>(cpu: &mut PreemptOff<'_, R>, task: &mut Fpstate<R::Image>) {
    cpu.slot.owner = Some(task.id());
    cpu.slot.only_copy = !task.need_fpu_load;
    task.last_cpu = Some(cpu.cpu());
}

/// Clears need_fpu_load behind a load: the registers may be written now.
pub(super) fn registers_are_truth<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
    load: Load,
) {
    if load != Load::NotUser {
        task.need_fpu_load = false;
        cpu.slot.only_copy = true;
        cpu.slot.trap_armed = false;
    }
}

/// Asks for a flush unless the newest state of a task with need_fpu_load clear is in these registers.
pub(super) fn on_this_cpu<R: RegisterFile>(
    cpu: &PreemptOff<'_, R>,
    task: &Fpstate<R::Image>,
) -> Result<(), Before> {
    match task.last_cpu {
        Some(other) if other != cpu.cpu() && !task.need_fpu_load => {
            Err(Before::Flush { cpu: other, task: task.id() })
        }
        _ => Ok(()),
    }
}

/// Asks for an eviction if the registers hold another task's only copy.
pub(super) fn registers_are_free<R: RegisterFile>(
    cpu: &PreemptOff<'_, R>,
    task: &Fpstate<R::Image>,
) -> Result<(), Before> {
    match cpu.slot.owner {
        Some(owner) if cpu.slot.only_copy && owner != task.id() => Err(Before::Evict(owner)),
        _ => Ok(()),
    }
}

/// Reads a component of a task that may be anywhere (ptrace, core dump), from the image.
///
/// # Errors
/// As [`copy_to_memory`].
pub fn read<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
    component: Component,
) -> Result<(Save, Value), Before> {
    let save = copy_to_memory(cpu, task)?;
    Ok((save, task.image.get(component)))
}

/// Gives a task that may be anywhere a whole new image (ptrace). It has been checked (invariant I9).
///
/// # Errors
/// As [`copy_to_memory`].
pub fn write_image<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
    image: &R::Image,
) -> Result<Save, Before> {
    let save = write_to_image(cpu, task)?;
    task.image.clone_from(image);
    task.given_up = false;
    Ok(save)
}

/// Writes a component of a task that may be anywhere (ptrace), in the image.
///
/// The inner result says whether the image has room for the component; it is unchanged if not.
///
/// # Errors
/// As [`copy_to_memory`].
pub fn write<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
    component: Component,
    value: Value,
) -> Result<(Save, Result<(), Unsupported>), Before> {
    let save = write_to_image(cpu, task)?;
    let written = task.image.set(component, value);
    if written.is_ok() {
        // The component is specified now, so that the image is loaded as a whole.
        task.given_up = false;
    }
    #[cfg(feature = "explore")]
    if cpu.has(Defect::WriteNotChecked) {
        task.image.spoil();
    }
    Ok((save, written))
}

/// [`move_to_memory`], for what is about to be written from outside.
fn write_to_image<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
) -> Result<Save, Before> {
    if !task.need_fpu_load && cpu.has(Defect::WriteWithoutSave) {
        pkru::in_kernel(task)?;
        return Ok(Save::AlreadyInMemory);
    }
    let save = copy_to_memory(cpu, task)?;
    if !cpu.has(Defect::WriteKeepsLastCpu) {
        task.invalidate();
    }
    Ok(save)
}
