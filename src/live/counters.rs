//! What each CPU did and did not have to do, counted.

use crate::fpu::{Load, Save};
use core::{
    fmt,
    iter::Sum,
    ops::{Add, Sub},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// What was done on one CPU so far: counted by its kernel alone, read by anybody.
        #[derive(Debug, Default)]
        pub struct Counters { $(pub(super) $name: Counter,)+ }

        impl Counters {
            /// The counts at this moment. Those of a CPU that runs meanwhile may be of different moments.
            pub fn read(&self) -> Counts {
                Counts { $($name: self.$name.0.load(Relaxed),)+ }
            }
        }

        /// How often what was done; differences and sums can be taken of them.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counts { $($(#[$doc])* pub $name: u64,)+ }

        impl Add for Counts {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self { $($name: self.$name.wrapping_add(other.$name),)+ }
            }
        }

        impl Sub for Counts {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                Self { $($name: self.$name.wrapping_sub(other.$name),)+ }
            }
        }
    };
}

counters! {
    /// Entries to the kernel.
    entries,
    /// Entries that a signal made.
    preemptions,
    /// Switches from one thread to another.
    switches,
    /// Saves of all registers.
    saves,
    /// Saves of the control words alone, which a system call keeps.
    control_saves,
    /// Restores of all registers.
    restores,
    /// Restores of the control words alone.
    control_restores,
    /// Restores that were skipped: the registers still held the state.
    skips,
    /// Doors: kernel code that may use the registers.
    doors,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entries, preemptions, switches, saves, restores, skips, doors, .. } = self;
        write!(
            f,
            "{entries} entries, {preemptions} of them preemptions, {switches} switches, {saves} saves, {restores} restores, \
             {skips} skipped, {doors} doors"
        )
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), Add::add)
    }
}

/// One count: written by one thread.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// A load and a store: nobody else writes.
    #[inline(always)]
    pub(super) fn up(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

impl Counters {
    #[inline]
    pub(super) fn save(&self, save: Save) {
        match save {
            Save::Saved => self.saves.up(),
            Save::SavedKept => self.control_saves.up(),
            Save::AlreadyInMemory | Save::Kept | Save::NotUser => {}
        }
    }

    #[inline]
    pub(super) fn load(&self, load: Load) {
        match load {
            Load::Restored | Load::Initialised => self.restores.up(),
            Load::RestoredKept => self.control_restores.up(),
            Load::Skipped => self.skips.up(),
            Load::AlreadyLive | Load::Deferred | Load::TrapArmed | Load::NotUser => {}
        }
    }
}
