//! The CPU's side: the owner slot, and the section in which it may change.

use super::Fpstate;
use crate::{Component, CpuId, KernelContext, Rfbm, TaskId, registers::RegisterFile};
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
    pub(super) trap_armed: bool,
    epoch: Epoch,
    stale_use: bool,
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
    /// The slot of a CPU that has just come online: nobody's registers.
    pub fn new(cpu: CpuId) -> Self {
        Self {
            cpu,
            owner: None,
            only_copy: false,
            kernel_fpu: None,
            trap_armed: false,
            epoch: Epoch(0),
            stale_use: false,
        }
    }

    /// The CPU.
    pub fn cpu(&self) -> CpuId {
        self.cpu
    }

    /// The task whose state the registers last held, if they were not clobbered since.
    pub fn owner(&self) -> Option<TaskId> {
        self.owner
    }

    /// Whether the owner's newest state is only in these registers.
    pub fn holds_only_copy(&self) -> bool {
        self.only_copy
    }

    /// The kernel FPU section that is open on this CPU.
    pub fn kernel_fpu(&self) -> Option<KernelContext> {
        self.kernel_fpu
    }

    /// Whether the first FPU instruction of user code traps on this CPU.
    pub fn trap_armed(&self) -> bool {
        self.trap_armed
    }

    /// Whether a validity read in one preemption-off section was used in another (invariant I12).
    pub fn saw_stale_use(&self) -> bool {
        self.stale_use
    }

    /// The invalidation for whoever clobbers *registers*: no task may claim this CPU any more.
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
    pub fn begin(slot: &'a mut OwnerSlot, regs: &'a mut R) -> Self {
        slot.epoch.0 = slot.epoch.0.wrapping_add(1);
        Self { slot, regs }
    }

    /// The CPU.
    pub fn cpu(&self) -> CpuId {
        self.slot.cpu
    }

    /// Reads the validity predicate.
    pub fn validity(&self, task: &Fpstate<R::Image>) -> Validity {
        Validity { cpu: self.slot.cpu, epoch: self.slot.epoch.0, valid: task.is_valid_on(self.slot) }
    }

    /// Uses a validity. One that was read in another section is taken at its word, as a kernel would that
    /// kept it in a variable, and the slot remembers it: [`OwnerSlot::saw_stale_use`].
    pub fn trust(&mut self, validity: Validity) -> bool {
        if (validity.cpu, validity.epoch) != (self.slot.cpu, self.slot.epoch.0) {
            self.slot.stale_use = true;
        }
        validity.valid
    }

    /// The components of a task that are saved and restored: all, unless the task gave some up.
    pub(super) fn rfbm_for(&self, task: &Fpstate<R::Image>) -> Rfbm {
        if task.given_up { Rfbm::new(super::CALL_KEEPS & self.regs.enabled()) } else { self.rfbm() }
    }

    /// The components that the protocol saves and restores: all that are enabled, but for PKRU, which is
    /// switched eagerly beside them.
    pub(super) fn rfbm(&self) -> Rfbm {
        Rfbm::new(self.regs.enabled().without(Component::PKRU))
    }
}
