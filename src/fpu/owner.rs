//! The CPU's side: the owner slot, and the section in which it may change.

use super::{Defect, Fpstate, PkruMode};
use crate::{
    Component, ComponentSet, CpuId, KernelContext, Rfbm, TaskId, Value,
    registers::{Fault, Image, Program, RegisterFile},
};
use core::hash::{Hash, Hasher};

/// Per CPU: whose state the registers last held, and what else the protocol keeps there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnerSlot {
    cpu: CpuId,
    pub(super) owner: Option<TaskId>,
    /// The owner's newest state is nowhere but in these registers: its need_fpu_load is clear. Kept here
    /// because a CPU that wants the registers knows the owner's name only.
    pub(super) only_copy: bool,
    pub(super) kernel_fpu: Option<KernelContext>,
    pub(super) softirq: bool,
    pub(super) trap_armed: bool,
    /// What IA32_XFD holds, so that it is written only where it differs.
    pub(super) xfd: ComponentSet,
    pub(super) pkru_mode: PkruMode,
    epoch: Epoch,
    stale_use: bool,
    /// A kernel FPU section was opened inside another.
    #[cfg(feature = "explore")]
    pub(super) nested: bool,
    #[cfg(feature = "explore")]
    defect: Option<Defect>,
}

/// Counts the preemption-off sections of a CPU. No part of the machine's state: two machines that differ
/// only in how many sections there were behave alike.
#[derive(Clone, Copy, Debug, Default)]
struct Epoch(u32);

impl PartialEq for Epoch {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Epoch {}

impl Hash for Epoch {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl OwnerSlot {
    /// The slot of a CPU whose registers are as after reset, and nobody's.
    pub fn new(cpu: CpuId) -> Self {
        Self::with_pkru(cpu, PkruMode::Eager)
    }

    /// The same on a machine that switches PKRU in another way.
    pub fn with_pkru(cpu: CpuId, pkru_mode: PkruMode) -> Self {
        Self {
            cpu,
            owner: None,
            only_copy: false,
            kernel_fpu: None,
            softirq: false,
            trap_armed: false,
            xfd: ComponentSet::EMPTY,
            pkru_mode,
            epoch: Epoch(0),
            stale_use: false,
            #[cfg(feature = "explore")]
            nested: false,
            #[cfg(feature = "explore")]
            defect: None,
        }
    }

    /// The same under a mechanism with that error.
    #[cfg(feature = "explore")]
    #[must_use]
    pub fn with_defect(self, defect: Option<Defect>) -> Self {
        Self { defect, ..self }
    }

    /// Whether the mechanism has that error. Without the feature `explore` it has none, and the question costs nothing.
    #[inline]
    pub(crate) fn has(&self, _defect: Defect) -> bool {
        #[cfg(feature = "explore")]
        return self.defect == Some(_defect);
        #[cfg(not(feature = "explore"))]
        false
    }

    /// The CPU.
    pub fn cpu(&self) -> CpuId {
        self.cpu
    }

    /// The task whose state the registers last held, if they were not clobbered since.
    pub fn owner(&self) -> Option<TaskId> {
        self.owner
    }

    /// Whether the owner is `task`.
    #[inline]
    pub(super) fn names(&self, task: TaskId) -> bool {
        let by_slot = self.has(Defect::DeadOwnerMatches) || self.has(Defect::ChildInheritsLastCpu);
        self.owner.is_some_and(|owner| owner == task || by_slot && owner.slot() == task.slot())
    }

    /// Whether the owner's newest state is only in these registers.
    pub fn holds_only_copy(&self) -> bool {
        self.only_copy
    }

    /// The kernel FPU section that is open on this CPU.
    pub fn kernel_fpu(&self) -> Option<KernelContext> {
        self.kernel_fpu
    }

    /// Whether a softirq is being served on this CPU.
    pub fn in_softirq(&self) -> bool {
        self.softirq
    }

    /// What IA32_XFD holds, as the kernel remembers it.
    pub fn xfd(&self) -> ComponentSet {
        self.xfd
    }

    /// How PKRU is switched.
    pub fn pkru_mode(&self) -> PkruMode {
        self.pkru_mode
    }

    /// Whether the first FPU instruction of user code traps on this CPU.
    pub fn trap_armed(&self) -> bool {
        self.trap_armed
    }

    /// Whether a validity read in one preemption-off section was used in another (invariant I12).
    pub fn saw_stale_use(&self) -> bool {
        self.stale_use
    }

    /// Shows what of it changes while a machine runs.
    #[cfg(feature = "explore")]
    pub(crate) fn walk(&mut self, walk: &mut impl crate::walk::Walk) {
        let Self {
            cpu: _,
            owner,
            only_copy,
            kernel_fpu,
            softirq,
            trap_armed,
            xfd,
            pkru_mode: _,
            epoch: _,
            stale_use,
            nested,
            defect: _,
        } = self;
        walk.task(owner);
        walk.choice(
            kernel_fpu,
            &[None, Some(KernelContext::Task), Some(KernelContext::SoftIrq), Some(KernelContext::HardIrq)],
        );
        walk.flags([only_copy, softirq, stale_use, nested]);
        walk.trap(trap_armed);
        walk.xfd(xfd);
    }

    /// Whether a kernel FPU section was opened inside the one that is open (invariant I11).
    #[cfg(feature = "explore")]
    pub fn is_nested(&self) -> bool {
        self.nested
    }

    /// The invalidation for whoever clobbers *registers*: no task may claim this CPU any more.
    #[inline]
    pub(super) fn invalidate(&mut self) {
        self.owner = None;
        self.only_copy = false;
    }
}

/// What [`PreemptOff::validity`] found, good for the section in which it was read.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Validity {
    cpu: CpuId,
    epoch: u32,
    valid: bool,
}

/// One preemption-off section of a CPU: its slot and its registers, for the length of one protocol function.
///
/// Owner, last_cpu, need_fpu_load and the registers change only inside such a section (invariant I12).
#[derive(Debug)]
pub struct PreemptOff<'a, R> {
    pub(super) slot: &'a mut OwnerSlot,
    pub(super) regs: &'a mut R,
}

impl<'a, R: RegisterFile> PreemptOff<'a, R> {
    /// Begins a section; whatever was read in an earlier one is stale from here on.
    #[inline]
    pub fn begin(slot: &'a mut OwnerSlot, regs: &'a mut R) -> Self {
        slot.epoch.0 = slot.epoch.0.wrapping_add(1);
        Self { slot, regs }
    }

    /// The CPU.
    #[inline]
    pub fn cpu(&self) -> CpuId {
        self.slot.cpu
    }

    /// Whether the mechanism has that error.
    #[inline]
    pub(super) fn has(&self, defect: Defect) -> bool {
        self.slot.has(defect)
    }

    /// Reads the validity predicate.
    #[inline]
    pub fn validity(&self, task: &Fpstate<R::Image>) -> Validity {
        Validity { cpu: self.slot.cpu, epoch: self.slot.epoch.0, valid: task.is_valid_on(self.slot) }
    }

    /// A validity as an earlier section found it.
    #[cfg(feature = "explore")]
    #[inline]
    pub(super) fn earlier(&self, valid: bool) -> Validity {
        Validity { cpu: self.slot.cpu, epoch: self.slot.epoch.0.wrapping_sub(1), valid }
    }

    /// Uses a validity. One that was read in another section is taken at its word, as a kernel would that
    /// kept it in a variable, and the slot remembers it: [`OwnerSlot::saw_stale_use`].
    #[inline]
    pub fn trust(&mut self, validity: Validity) -> bool {
        if (validity.cpu, validity.epoch) != (self.slot.cpu, self.slot.epoch.0) {
            self.slot.stale_use = true;
        }
        validity.valid
    }

    /// The components of a task that are moved: all, unless the task gave some up.
    #[inline]
    fn moved(&self, task: &Fpstate<R::Image>) -> ComponentSet {
        let all = self.rfbm().of(self.regs.enabled());
        match task.given_up {
            false => all,
            true if self.has(Defect::CallKeepsNothing) => all & ComponentSet::EMPTY.with(Component::PKRU),
            true => all & super::CALL_KEEPS.with(Component::PKRU),
        }
    }

    /// The components of a task that are restored.
    #[inline]
    fn restored(&self, task: &Fpstate<R::Image>) -> Rfbm {
        let moved = self.moved(task);
        Rfbm::new(if self.has(Defect::RestoreWhatWasInUse) { moved & task.image.in_use() } else { moved })
    }

    /// The components of a task that are saved to its image: those that it has room for (invariant I10).
    #[inline]
    fn saved(&self, task: &Fpstate<R::Image>) -> Rfbm {
        let saved = self.moved(task) & task.image.room();
        Rfbm::new(if self.has(Defect::SaveLegacyOnly) { saved & ComponentSet::LEGACY } else { saved })
    }

    /// Saves the registers, which keep their content, to the image of their task, or of a child that it makes.
    #[inline]
    pub(super) fn save_to(&mut self, task: &mut Fpstate<R::Image>) {
        let saved = self.saved(task);
        if task.given_up {
            self.regs.save_control(saved, &mut task.image);
        } else {
            self.regs.save(saved, &mut task.image);
        }
        if self.has(Defect::SaveClobbers) {
            self.regs.run(Program::Fill(Component::SSE, Value::KERNEL));
        }
    }

    /// Restores the registers from the image of a task.
    #[inline]
    pub(super) fn restore_from(&mut self, task: &Fpstate<R::Image>) -> Result<(), Fault> {
        let restored = self.restored(task);
        if task.given_up {
            self.regs.restore_control(restored, &task.image)
        } else {
            self.regs.restore(restored, &task.image)
        }
    }

    /// The components that the protocol saves and restores: all that are enabled, but for PKRU where it is switched
    /// eagerly beside them.
    #[inline]
    pub(super) fn rfbm(&self) -> Rfbm {
        let enabled = self.regs.enabled();
        Rfbm::new(match self.slot.pkru_mode {
            PkruMode::Eager => enabled.without(Component::PKRU),
            PkruMode::InXsave => enabled,
        })
    }

    /// Gives user code of a task the dynamic components that its image has room for, and no others. Before the
    /// registers are loaded: a restore of what XFD disables is a #NM (invariant I8).
    ///
    /// # Reference
    /// Linux: xfd_update_state, arch/x86/kernel/fpu/xstate.h.
    #[inline]
    pub(super) fn update_xfd(&mut self, task: &Fpstate<R::Image>) {
        self.write_xfd(task.xfd(self.regs.dynamic()));
    }

    #[inline]
    fn write_xfd(&mut self, xfd: ComponentSet) {
        if self.slot.xfd != xfd {
            self.reset_xfd(xfd);
        }
    }

    /// Writes IA32_XFD whatever it is remembered to hold.
    #[inline]
    pub(super) fn reset_xfd(&mut self, xfd: ComponentSet) {
        // Where XFD cannot be reached nothing is dynamic, and this writes nothing.
        self.slot.xfd = if self.regs.set_xfd(xfd).is_ok() { xfd } else { ComponentSet::EMPTY };
    }
}
