//! A task that runs a guest: two images that change places (KVM).
//!
//! ```text
//! Out ── guest-load ─▶ Loaded ── guest-enter ─▶ Inside
//!     ◀─ guest-put ──         ◀─ guest-exit ───
//! ```
//!
//! While the guest's state is loaded it is what is switched, saved and loaded as the task's own: the kernel may be
//! preempted, and the task moved. Entering the guest is a return to user: it has to look at need_fpu_load, which a softirq
//! that used the FPU sets without any switch (e751732486eb, 2019, had no look).

use super::{Before, Defect, EntryKind, Fpstate, Load, PkruMode, Policy, PreemptOff, Save, access, switch};
use crate::{
    Pkru,
    registers::{Image, RegisterFile},
};

/// A task's vCPU: what of the two states is not in use right now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Guest<I> {
    /// The guest's image, or, while that is loaded, the task's own.
    image: I,
    /// The guest's PKRU, or, while the guest runs, the task's own.
    pkru: Pkru,
    /// Whether the task had given components up ([`Fpstate::has_given_up`]) when the guest was loaded.
    given_up: bool,
    step: GuestStep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum GuestStep {
    Out,
    Loaded,
    Inside,
}

impl<I: Image> Guest<I> {
    /// A vCPU after reset.
    pub(super) fn new(image: I) -> Self {
        Self { image, pkru: Pkru(0), given_up: false, step: GuestStep::Out }
    }

    /// Shows all of it.
    #[cfg(feature = "explore")]
    pub(super) fn walk<W: crate::walk::Walk>(&mut self, walk: &mut W, of_image: impl Fn(&mut I, &mut W)) {
        let Self { image, pkru, given_up, step } = self;
        of_image(image, walk);
        walk.pkru(pkru);
        walk.flags([given_up]);
        walk.choice(step, &[GuestStep::Out, GuestStep::Loaded, GuestStep::Inside]);
    }

    /// The image, and PKRU, that are not in use now.
    #[cfg(feature = "explore")]
    pub(crate) fn not_in_use(&self) -> (&I, Pkru) {
        (&self.image, self.pkru)
    }

    /// Whether the guest's image is the task's.
    pub fn is_loaded(&self) -> bool {
        self.step != GuestStep::Out
    }

    /// Whether the guest runs.
    pub fn is_inside(&self) -> bool {
        self.step == GuestStep::Inside
    }
}

/// The current task, in the kernel, gets the state of its vCPU, which is made if there is none.
///
/// # Errors
/// As [`copy_to_memory`](super::copy_to_memory).
///
/// If it is loaded already, nothing changes but that memory holds its state.
///
/// # Reference
/// Linux: fpu_swap_kvm_fpstate, arch/x86/kernel/fpu/core.c, which also loads at once.
pub fn guest_load<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
) -> Result<Save, Before> {
    let save = to_memory(cpu, task)?;
    let regs = &cpu.regs;
    task.guest.get_or_insert_with(|| Guest::new(regs.new_image()));
    swap(task, GuestStep::Loaded);
    if cpu.has(Defect::GuestEntryLoadsNothing) {
        let _ = access::move_to_cpu(cpu, task)?;
    }
    Ok(save)
}

/// The current task, in the kernel, gets its own state back.
///
/// # Errors
/// As [`copy_to_memory`](super::copy_to_memory).
///
/// If the guest is not loaded, nothing changes but that memory holds the task's state: a put without a load would make it
/// the guest's (f958bd2314d1, 2019).
pub fn guest_put<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
) -> Result<Save, Before> {
    let save = to_memory(cpu, task)?;
    if cpu.has(Defect::PutWithoutLoad) {
        let new = Guest::new(cpu.regs.new_image());
        task.guest.get_or_insert(new).step = GuestStep::Loaded;
    }
    swap(task, GuestStep::Out);
    Ok(save)
}

/// Memory has to be the truth, on whichever CPU the registers are.
fn to_memory<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
) -> Result<Save, Before> {
    access::on_this_cpu(cpu, task)?;
    if task.need_fpu_load && cpu.has(Defect::GuestSwapSavesAnyway) {
        cpu.save_to(task);
    }
    access::copy_to_memory(cpu, task)
}

/// The images change places, unless they have. The image changes, so no CPU may claim the task any more.
fn swap<I: Image>(task: &mut Fpstate<I>, step: GuestStep) {
    let Some(guest) = task.guest.as_mut().filter(|guest| guest.is_loaded() != (step != GuestStep::Out))
    else {
        return;
    };
    core::mem::swap(&mut task.image, &mut guest.image);
    core::mem::swap(&mut task.given_up, &mut guest.given_up);
    guest.step = step;
    task.wants = None;
    task.invalidate();
}

/// The current task, whose guest is loaded, enters it. The policy decides as at a return to user; if the guest is not
/// loaded, it is one.
///
/// # Errors
/// As [`copy_to_cpu`](super::copy_to_cpu).
///
/// # Reference
/// Linux: vcpu_enter_guest, arch/x86/kvm/x86.c, which calls switch_fpu_return if TIF_NEED_FPU_LOAD is set.
pub fn guest_enter<R: RegisterFile, P: Policy>(
    cpu: &mut PreemptOff<'_, R>,
    policy: &P,
    task: &mut Fpstate<R::Image>,
) -> Result<Load, Before> {
    let load = if cpu.has(Defect::GuestEntryLoadsNothing) && task.has_guest_loaded() {
        task.user_on = Some(cpu.cpu());
        Load::AlreadyLive
    } else {
        switch::return_to_user(cpu, policy, task)?
    };
    cross(cpu, task, GuestStep::Inside);
    Ok(load)
}

/// The guest of the current task leaves to the kernel. The policy decides as at the entry by an interrupt: a guest gives
/// nothing up.
///
/// # Errors
/// As [`entry`](super::entry).
pub fn guest_exit<R: RegisterFile, P: Policy>(
    cpu: &mut PreemptOff<'_, R>,
    policy: &P,
    task: &mut Fpstate<R::Image>,
) -> Result<Save, Before> {
    switch::entry(cpu, policy, task, EntryKind::Interrupt)
}

/// The guest leaves with the entry to the kernel that has just happened, if it was inside.
pub(super) fn left<R: RegisterFile>(cpu: &mut PreemptOff<'_, R>, task: &mut Fpstate<R::Image>) {
    if task.is_in_guest() {
        cross(cpu, task, GuestStep::Loaded);
    }
}

/// PKRU is the guest's inside and the task's outside (37486135d3a7, 2020). In images, it has changed with them.
fn cross<R: RegisterFile>(cpu: &mut PreemptOff<'_, R>, task: &mut Fpstate<R::Image>, step: GuestStep) {
    let Some(guest) = task.guest.as_mut().filter(|guest| guest.is_loaded()) else { return };
    guest.step = step;
    if step == GuestStep::Loaded && cpu.has(Defect::GuestPkruStays) {
        return;
    }
    if let (PkruMode::Eager, Some(live)) = (cpu.slot.pkru_mode, cpu.regs.pkru()) {
        cpu.regs.set_pkru(guest.pkru);
        guest.pkru = live;
    }
}
