//! A task's image in memory and its bookkeeping.

use super::{Facts, OwnerSlot, guest::Guest, signal::SignalStep};
use crate::{
    Component, ComponentSet, CpuId, Pkru, TaskId,
    registers::{Image, RegisterFile},
};

/// What kind of task it is: only user tasks have a state to switch (invariant I6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskKind {
    /// Runs user code; its state is saved and loaded.
    User,
    /// Runs in the kernel only; owns nothing, is never saved and never loaded.
    KernelThread,
    /// The same on the memory of a program, whose PKRU it was made with (io_uring's and vhost's workers).
    UserWorker,
    /// Has exited. It runs in the kernel until it is switched out for the last time, and owns nothing either.
    Exited,
}

/// A task's image in memory and what is known of it.
///
/// While the newest state sits only in the registers of a CPU, the fpstate belongs to that CPU: nobody else
/// changes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fpstate<I> {
    id: TaskId,
    pub(super) kind: TaskKind,
    pub(super) image: I,
    pub(super) last_cpu: Option<CpuId>,
    pub(super) need_fpu_load: bool,
    pub(super) pkru: Pkru,
    pub(super) user_on: Option<CpuId>,
    pub(super) signal: SignalStep,
    /// Consecutive slices with a use, for a policy that counts them.
    pub(super) uses: u8,
    pub(super) fpu_free: bool,
    /// The program asked for a system call and gave up what its convention does not keep: only the components of
    /// [`CALL_KEEPS`](super::CALL_KEEPS) are saved and loaded, until its registers have a whole state again.
    pub(super) given_up: bool,
    /// Dynamic components that the program may use.
    pub(super) permitted: ComponentSet,
    /// The dynamic component that user code came to, and that there is no room for yet.
    pub(super) wants: Option<Component>,
    pub(super) guest: Option<Guest<I>>,
    /// What an attempt to save to a signal frame, which faulted, has found in the owner slot: its own name.
    #[cfg(feature = "explore")]
    pub(super) kept_owner: bool,
}

impl<I: Image> Fpstate<I> {
    /// The fpstate of a new task: `image` holds its state, and no CPU claims it.
    ///
    /// The image must have room for what the register file may save into it (invariant I10): take it from
    /// [`RegisterFile::new_image`].
    pub fn new(id: TaskId, kind: TaskKind, image: I) -> Self {
        Self {
            id,
            kind,
            image,
            last_cpu: None,
            need_fpu_load: true,
            // Linux gives kernel threads the same (copy_thread, arch/x86/kernel/process.c).
            pkru: Pkru::DEFAULT,
            user_on: None,
            signal: SignalStep::Idle,
            uses: 0,
            fpu_free: false,
            given_up: false,
            permitted: ComponentSet::EMPTY,
            wants: None,
            guest: None,
            #[cfg(feature = "explore")]
            kept_owner: false,
        }
    }

    /// The same with that PKRU in memory, as a child has it from its parent.
    #[must_use]
    pub fn with_pkru(self, pkru: Pkru) -> Self {
        Self { pkru, ..self }
    }

    /// The same on a machine that keeps PKRU in images ([`PkruMode::InXsave`](super::PkruMode)).
    #[must_use]
    pub fn with_pkru_in_image(mut self) -> Self {
        self.image.set_pkru(self.pkru);
        self
    }

    /// The task.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// What kind of task it is.
    pub fn kind(&self) -> TaskKind {
        self.kind
    }

    /// Whether the task has a state to switch.
    pub fn is_user(&self) -> bool {
        self.kind == TaskKind::User
    }

    /// The image in memory. It is the truth only while [`need_fpu_load`](Self::need_fpu_load) is set.
    pub fn image(&self) -> &I {
        &self.image
    }

    /// The CPU whose registers last held this state, unless the image was changed since.
    pub fn last_cpu(&self) -> Option<CpuId> {
        self.last_cpu
    }

    /// Whether the image is the truth and has to be loaded before user code runs (N in the docs).
    pub fn need_fpu_load(&self) -> bool {
        self.need_fpu_load
    }

    /// PKRU as memory holds it: the truth while the task is not running.
    pub fn pkru(&self) -> Pkru {
        self.pkru
    }

    /// The CPU on which the task runs user code right now, or its guest runs.
    pub fn user_on(&self) -> Option<CpuId> {
        self.user_on
    }

    /// Where the task is in a signal delivery or return.
    pub fn signal(&self) -> SignalStep {
        self.signal
    }

    /// In how many consecutive slices the task has used the FPU, under a policy that
    /// [counts](super::Policy::counts_uses) them.
    pub fn uses(&self) -> u8 {
        self.uses
    }

    /// Whether the task's program has no FPU instruction, and faults at one that it comes to all the same.
    pub fn is_fpu_free(&self) -> bool {
        self.fpu_free
    }

    /// Says that the task's program has no FPU instruction. It is not in user mode.
    pub fn set_fpu_free(&mut self) {
        self.fpu_free = true;
    }

    /// The dynamic components that the task's program is permitted to use.
    pub fn permitted(&self) -> ComponentSet {
        self.permitted
    }

    /// The dynamic component that user code came to and that the kernel has not given it yet.
    pub fn wants(&self) -> Option<Component> {
        self.wants
    }

    /// What IA32_XFD has to disable while the task has the registers: those of `dynamic` that its image has no room for.
    pub fn xfd(&self, dynamic: ComponentSet) -> ComponentSet {
        dynamic - self.image.room()
    }

    /// The task's vCPU, if it has one.
    pub fn guest(&self) -> Option<&Guest<I>> {
        self.guest.as_ref()
    }

    /// Whether the image and the registers are those of the task's vCPU.
    pub fn has_guest_loaded(&self) -> bool {
        self.guest.as_ref().is_some_and(Guest::is_loaded)
    }

    /// Whether the code that runs on [`user_on`](Self::user_on) is the guest's.
    pub fn is_in_guest(&self) -> bool {
        self.guest.as_ref().is_some_and(Guest::is_inside)
    }

    /// Whether only what a system call keeps is still specified: the rest of image and registers may be anything.
    pub fn has_given_up(&self) -> bool {
        self.given_up
    }

    /// What a policy is told, given whether the registers in question are valid for the task.
    #[inline]
    pub(crate) fn facts(&self, valid: bool) -> Facts {
        Facts { valid, need_fpu_load: self.need_fpu_load, uses: self.uses, fpu_free: self.fpu_free }
    }

    /// The predicate of the whole protocol: `slot`'s registers hold this task's state.
    ///
    /// Inside a protocol function use [`PreemptOff::validity`](super::PreemptOff::validity), whose result
    /// cannot outlive the section.
    #[inline]
    pub fn is_valid_on(&self, slot: &OwnerSlot) -> bool {
        slot.names(self.id) && self.last_cpu == Some(slot.cpu())
    }

    /// The invalidation for whoever changes the *image*: no CPU may claim this state any more.
    ///
    /// Linux's exec cleared an owner slot here instead until 2023 (1f69383b203e); arm64's SVE trap did neither
    /// until 2024 (751ecf6afd65).
    pub(super) fn invalidate(&mut self) {
        self.last_cpu = None;
    }

    /// Whether nothing has happened to a kernel thread that it or others could see.
    #[cfg(feature = "explore")]
    pub(crate) fn is_as_made(&self) -> bool {
        self.kind == TaskKind::KernelThread
            && self.last_cpu.is_none()
            && self.need_fpu_load
            && self.user_on.is_none()
            && self.pkru == Pkru::DEFAULT
    }

    /// What a walk says of the last CPU of a task that is no more.
    #[cfg(feature = "explore")]
    pub(crate) fn set_last_cpu(&mut self, last_cpu: Option<CpuId>) {
        self.last_cpu = last_cpu;
    }

    /// Shows all of it, images by `of_image`. `blank` is an image that a vCPU can begin with.
    #[cfg(feature = "explore")]
    pub(crate) fn walk<W: crate::walk::Walk>(
        &mut self,
        walk: &mut W,
        blank: &I,
        of_image: impl Fn(&mut I, &mut W),
    ) {
        use TaskKind::{Exited, KernelThread, User, UserWorker};
        let Self {
            id,
            kind,
            image,
            last_cpu,
            need_fpu_load,
            pkru,
            user_on,
            signal,
            uses,
            fpu_free,
            given_up,
            permitted,
            wants,
            guest,
            kept_owner,
        } = self;
        let mut named = Some(*id);
        walk.task(&mut named);
        *id = named.unwrap_or(*id);
        walk.choice(kind, &[User, KernelThread, UserWorker, Exited]);
        of_image(image, walk);
        walk.cpu(last_cpu);
        walk.flags([need_fpu_load, fpu_free, given_up, kept_owner]);
        walk.pkru(pkru);
        walk.cpu(user_on);
        walk.choice(signal, &SignalStep::ALL);
        walk.uses(uses);
        walk.set(permitted);
        walk.component(wants);
        if walk.is_there(guest.is_some()) {
            guest.get_or_insert_with(|| Guest::new(blank.clone())).walk(walk, of_image);
        } else {
            *guest = None;
        }
    }

    /// The image becomes the initial configuration and the truth, without room for dynamic components. The caller ends
    /// the claims.
    pub(super) fn reset_image<R: RegisterFile<Image = I>>(&mut self, regs: &R) {
        if self.image.room() & regs.dynamic() == ComponentSet::EMPTY {
            self.image.reset();
        } else {
            self.image = regs.new_image();
        }
        self.wants = None;
        self.need_fpu_load = true;
        self.uses = 0;
        self.given_up = false;
    }
}
