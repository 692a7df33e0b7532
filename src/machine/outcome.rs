//! What an event did.

use crate::{
    Pkru, Value,
    fpu::{Before, DynamicUse, FrameLoad, FrameSave, Load, Save, UserAccess},
};
use core::fmt;

/// What an event did, and what had to be done before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Outcome {
    /// What was asked for and done first, in order.
    pub before: [Option<Done>; Outcome::MOST_BEFORE],
    /// What became of the save, where the event has one.
    pub save: Option<Save>,
    /// What became of the load, where the event has one.
    pub load: Option<Load>,
    /// What became of a signal frame that was to be written.
    pub frame_save: Option<FrameSave>,
    /// What became of a signal frame that was to be read.
    pub frame_load: Option<FrameLoad>,
    /// The value that was read.
    pub value: Option<Value>,
    /// The PKRU that was read.
    pub pkru: Option<Pkru>,
    /// What became of an access to user memory.
    pub user_memory: Option<UserAccess>,
    /// What became of the use of a dynamic component.
    pub dynamic: Option<DynamicUse>,
}

/// Something that had to be done first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// What was asked for.
    pub asked: Before,
    /// What became of the save that it needed.
    pub save: Save,
}

impl Outcome {
    /// One event asks for three things at most: an interrupt, a flush and an eviction.
    pub const MOST_BEFORE: usize = 3;

    /// How often registers were saved as a whole, to an image or to a signal frame.
    pub fn saves(&self) -> u32 {
        let before = self.before.iter().flatten().map(|done| done.save);
        let images = before.chain(self.save).filter(|save| *save == Save::Saved).count() as u32;
        images + u32::from(self.frame_save == Some(FrameSave::Saved))
    }

    /// How often only what a system call keeps was saved or loaded.
    pub fn kept_by_calls(&self) -> u32 {
        let before = self.before.iter().flatten().map(|done| done.save);
        let saves = before.chain(self.save).filter(|save| *save == Save::SavedKept).count() as u32;
        saves + u32::from(self.load == Some(Load::RestoredKept))
    }

    /// How often registers were loaded as a whole from an image.
    pub fn restores(&self) -> u32 {
        matches!(self.load, Some(Load::Restored | Load::Initialised)) as u32
    }

    /// How often another CPU had to save a task's only copy first.
    pub fn flushes(&self) -> u32 {
        let flush = |done: &&Done| matches!(done.asked, Before::Flush { .. });
        self.before.iter().flatten().filter(flush).count() as u32
    }

    /// How often a restore was skipped because the registers still held the state.
    pub fn restores_skipped(&self) -> u32 {
        (self.load == Some(Load::Skipped)) as u32
    }

    pub(super) fn note(&mut self, asked: Before, save: Save) {
        let free = self.before.iter_mut().find(|entry| entry.is_none());
        let entry = free.expect("one event asks for three things at most");
        *entry = Some(Done { asked, save });
    }
}

impl fmt::Display for Outcome {
    /// One line: `evicted T0, restored`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut part = |f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>| {
            let written = write!(f, "{separator}{text}");
            separator = ", ";
            written
        };
        for done in self.before.iter().flatten() {
            match done.asked {
                Before::Evict(task) => part(f, format_args!("evicted {task}"))?,
                Before::Flush { cpu, task } => part(f, format_args!("flushed {task} on {cpu}"))?,
                Before::Interrupt { cpu } => part(f, format_args!("interrupted {cpu}"))?,
            }
        }
        match self.save {
            Some(Save::Saved) => part(f, format_args!("saved"))?,
            Some(Save::SavedKept) => part(f, format_args!("saved what a call keeps"))?,
            Some(Save::AlreadyInMemory) => part(f, format_args!("already in memory"))?,
            Some(Save::Kept) => part(f, format_args!("kept"))?,
            Some(Save::NotUser) | None => {}
        }
        match self.load {
            Some(Load::Restored) => part(f, format_args!("restored"))?,
            Some(Load::RestoredKept) => part(f, format_args!("restored what a call keeps"))?,
            Some(Load::Skipped) => part(f, format_args!("restore skipped"))?,
            Some(Load::AlreadyLive) => part(f, format_args!("already live"))?,
            Some(Load::Deferred) => part(f, format_args!("load deferred"))?,
            Some(Load::TrapArmed) => part(f, format_args!("trap armed"))?,
            Some(Load::Initialised) => part(f, format_args!("image refused, initialised"))?,
            Some(Load::NotUser) | None => {}
        }
        match self.frame_save {
            Some(FrameSave::Saved) => part(f, format_args!("frame written"))?,
            Some(FrameSave::Faulted) => part(f, format_args!("frame faulted"))?,
            Some(FrameSave::Failed) => part(f, format_args!("frame not mapped"))?,
            None => {}
        }
        match self.frame_load {
            Some(FrameLoad::Loaded) => part(f, format_args!("frame loaded"))?,
            Some(FrameLoad::Copied) => part(f, format_args!("frame copied"))?,
            Some(FrameLoad::Faulted) => part(f, format_args!("frame faulted"))?,
            Some(FrameLoad::Refused) => part(f, format_args!("frame refused, initialised"))?,
            None => {}
        }
        if let Some(value) = self.value {
            part(f, format_args!("read {value}"))?;
        }
        if let Some(pkru) = self.pkru {
            part(f, format_args!("read {pkru}"))?;
        }
        match self.user_memory {
            Some(UserAccess::Allowed) => part(f, format_args!("access allowed"))?,
            Some(UserAccess::Denied) => part(f, format_args!("access denied"))?,
            None => {}
        }
        match self.dynamic {
            Some(DynamicUse::Asked) => part(f, format_args!("asked for room"))?,
            Some(DynamicUse::NotPermitted) => part(f, format_args!("not permitted"))?,
            Some(DynamicUse::Grown) => part(f, format_args!("grown"))?,
            Some(DynamicUse::NoRoom) => part(f, format_args!("no room"))?,
            None => {}
        }
        if separator.is_empty() {
            f.write_str("–")?;
        }
        Ok(())
    }
}
