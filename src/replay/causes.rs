//! Why the machine that is held against the kernel had to restore.

use crate::{
    TaskId,
    fpu::{Fpstate, OwnerSlot},
    registers::Image,
};
use std::vec::Vec;

/// Why the registers did not hold a task's state where it was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Another task's state was loaded on this CPU since.
    OtherTask,
    /// A kernel FPU section clobbered the registers, or the CPU was reset.
    KernelFpu,
    /// The task was last loaded on another CPU.
    Migration,
    /// The image was changed in memory: ptrace, or another program (exec).
    ImageChanged,
    /// Nothing was loaded before: a fork's child, or the first return that the recording shows of a task.
    FirstLoad,
    /// The exit of another task cleared the owner slot: [`Quirk::ExitClearsOwner`](super::Quirk::ExitClearsOwner).
    ExitClearedOwner,
    /// The registers were valid, and nobody looked: a reference other than the kernel's own policy.
    NotLooked,
}

impl Cause {
    /// All of them, in the order of the variants.
    pub const ALL: [Self; 7] = [
        Self::OtherTask,
        Self::KernelFpu,
        Self::Migration,
        Self::ImageChanged,
        Self::FirstLoad,
        Self::ExitClearedOwner,
        Self::NotLooked,
    ];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::OtherTask => "other_task",
            Self::KernelFpu => "kernel_fpu",
            Self::Migration => "migration",
            Self::ImageChanged => "image_changed",
            Self::FirstLoad => "first_load",
            Self::ExitClearedOwner => "exit_cleared_owner",
            Self::NotLooked => "not_looked",
        }
    }

    /// The name for people.
    pub fn short(self) -> &'static str {
        match self {
            Self::OtherTask => "another task",
            Self::KernelFpu => "a kernel FPU section",
            Self::Migration => "another CPU",
            Self::ImageChanged => "a changed image",
            Self::FirstLoad => "its first load",
            Self::ExitClearedOwner => "another's exit",
            Self::NotLooked => "nobody looked",
        }
    }

    /// What it means, in a few words.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::OtherTask => "another task was loaded on this CPU",
            Self::KernelFpu => "a kernel FPU section used the registers",
            Self::Migration => "the task was last loaded on another CPU",
            Self::ImageChanged => "the image was changed (exec, ptrace)",
            Self::FirstLoad => "first load of a child, or of a task first seen",
            Self::ExitClearedOwner => "another task's exit cleared the owner slot",
            Self::NotLooked => "the registers were valid, nobody looked",
        }
    }
}

/// Restores by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CauseCounts([u64; Cause::ALL.len()]);

impl CauseCounts {
    /// Those with this cause.
    pub fn of(&self, cause: Cause) -> u64 {
        self.0[cause as usize]
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The causes that there are, most frequent first.
    pub fn sorted(&self) -> Vec<(Cause, u64)> {
        let counts = Cause::ALL.into_iter().map(|cause| (cause, self.of(cause)));
        let mut counts: Vec<_> = counts.filter(|(_, count)| *count > 0).collect();
        counts.sort_by_key(|(_, count)| core::cmp::Reverse(*count));
        counts
    }

    pub(super) fn add(&mut self, cause: Cause, restores: u64) {
        self.0[cause as usize] += restores;
    }
}

/// Who or what took a CPU's registers away without a load of its own: the causes of a restore on its own account.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cleared {
    /// Whose state they held.
    pub(super) from: TaskId,
    pub(super) by: Cause,
}

/// Why a restore of the task on the CPU of `slot` is due, before it happens. A first load looks like a changed image.
///
/// The first of these that holds: the image changed, another CPU loaded the task last, another task was loaded here, kernel
/// code used the registers, an exit cleared the slot. So the last two answer only for restores that there would not have
/// been without them.
pub(super) fn why<I: Image>(task: &Fpstate<I>, slot: &OwnerSlot, cleared: Option<Cleared>) -> Cause {
    match (task.last_cpu(), slot.owner(), cleared) {
        (None, ..) => Cause::ImageChanged,
        (Some(cpu), ..) if cpu != slot.cpu() => Cause::Migration,
        (_, Some(owner), _) if owner == task.id() => Cause::NotLooked,
        (_, None, Some(Cleared { from, by })) if from == task.id() => by,
        _ => Cause::OtherTask,
    }
}
