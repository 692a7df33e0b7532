//! The corpus: bugs that kernels and runtimes had, each as a [`Defect`] and a list of events that shows it.
//!
//! A list is a file in the folder `corpus`. The invariant is broken behind its last event, under the policy that the bug
//! names, [as it is explored](super::Explored), on a mechanism with the defect, and under the right mechanism nothing is. Of the
//! lists that show it on abstract registers it is a shortest one, which [`find`] finds; `docs/corpus.md` has all of them.
//! They begin [alike](super::beginning): T0 in user mode on c0 with values of its own in SSE and AVX, the kernel thread T2
//! on c1, and another, T1, for c0.
//!
//! ```
//! use fpuswitch::{EventFile, machine::Machine, registers::AbstractRegs};
//! use fpuswitch::check::{Explored, Planted, Violation, corpus::bugs};
//!
//! let bug = bugs().iter().find(|bug| bug.id == "exec-clears-owner").unwrap();
//! let events: Vec<_> = bug.events.parse::<EventFile>()?.events.into_iter().map(|(_, event)| event).collect();
//!
//! let policy = Explored::from(bug.policy);
//! let planted = Planted { policy, defect: bug.defect };
//! let found = Violation::behind(Machine::<AbstractRegs, _>::new(planted, 2), &events).unwrap();
//! assert_eq!(found.breach().invariant, bug.invariant);
//! assert_eq!(found.events(), events);
//! assert!(Violation::behind(Machine::<AbstractRegs, _>::new(policy, 2), &events).is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bugs;
mod registers;
mod search;

pub use registers::Defective;
pub use search::{Finding, corpus, find, find_under, length, scope};

use super::{Group, Invariant};
use crate::fpu::{Defect, policy::Builtin};

/// On which registers a bug shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// The abstract ones, which an exploration uses, and all others that have the components.
    Explorer,
    /// Only where there are bytes: [`Defective`] software registers.
    Software,
    /// [`Defective`] software registers, and [`Defective`] real ones.
    Host,
}

/// A bug, and how to show it.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    /// The name, of its file of events too.
    pub id: &'static str,
    /// The number in the catalogue; `pattern` for an error that several of them have in common, `harmless` for what is none.
    pub number: &'static str,
    /// When it was found or mended; 0 where there is no such year.
    pub year: u16,
    /// Whose bug it was.
    pub system: &'static str,
    /// A commit or a CVE, or where to look.
    pub source: &'static str,
    /// What goes wrong.
    pub what: &'static str,
    /// What is broken behind the last event.
    pub invariant: Invariant,
    /// On which registers it shows.
    pub tier: Tier,
    /// The policy under which the list shows it, in the form in which it is [explored](super::Explored).
    pub policy: Builtin,
    /// What is wrong in the mechanism.
    pub defect: Defect,
    /// The groups of events that the list needs.
    pub groups: &'static [Group],
    /// Whether it needs a machine that keeps PKRU in images.
    pub pkru_in_xsave: bool,
    /// Whether it is none: the list breaks nothing, and neither does any other.
    pub harmless: bool,
    /// The list, as a [file of events](crate::EventFile).
    pub events: &'static str,
}

impl Bug {
    const fn harmless(self) -> Self {
        Self { harmless: true, ..self }
    }
}

/// All bugs, in the order of the catalogue; those without a number stand by their like.
pub fn bugs() -> &'static [Bug] {
    bugs::BUGS
}

/// What of the catalogue is no bug here: number, what it was, and why.
pub const OUT_OF_SCOPE: &[(&str, &str, &str)] = &[
    (
        "15",
        "io-worker threads marked for a load (Linux, cb3ea4b7671b, 2023)",
        "the mark had no effect: need_fpu_load of a thread without a state is not looked at",
    ),
    (
        "17",
        "the current task read in the middle of the switch (Linux, 24b8a23638cb, 2023)",
        "what was read was always the right task: there is no state in which it shows",
    ),
    (
        "19",
        "softirqs off in kernel FPU sections, and a page fault that looked at that (Linux, 2025 and 2026)",
        "no FPU state was wrong: other code misread the lock",
    ),
    (
        "27",
        "FOP, FIP and FDP of the task before (AMD, CVE-2006-1056)",
        "which x87 instruction was the last is no part of a value here, as CPUs differ in whether they keep it",
    ),
    (
        "28b",
        "a checkpointed state of another process (powerpc Linux, CVE-2019-15030, 8205d5d98ef7)",
        "the second copy of a state that a hardware transaction needs is not modelled",
    ),
    (
        "31b",
        "the allocation of keys not copied at fork (Linux, a31e184e4f69, 2019): PKRU itself is in the corpus",
        "which keys are allocated is the memory manager's, and no FPU state",
    ),
    (
        "32c",
        "a guest's XCR0 left loaded over a switch (Linux KVM, 1811d979c716, 2019)",
        "XCR0 of a register file never changes; with IA32_XFD in its place it is 32b",
    ),
];
