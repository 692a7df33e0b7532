//! The kernel's decisions against the machine's.

use std::{collections::BTreeMap, fmt, vec::Vec};

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Decision {
    /// A switch away from a user task: saved or not.
    SwitchOut,
    /// A return to user with need_fpu_load set: loaded or not.
    Return,
    /// Fork with need_fpu_load set: the parent loaded or not.
    Fork,
    /// Signal delivery with need_fpu_load set: loaded or not.
    SignalFrame,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SwitchOut => "switch-out",
            Self::Return => "return",
            Self::Fork => "fork",
            Self::SignalFrame => "signal-frame",
        })
    }
}

/// Where the kernel does more than it must. Each is right, costs something, and is followed by the machine that
/// is held against the kernel; the machines that are compared do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Quirk {
    /// `fpu_clone` loads the parent's state before it copies it, though memory holds it (from 5.16 on, when
    /// AMX made a copy of the image invalid). Counted: restores.
    ForkLoadsParent,
    /// A task that died with its state in the registers is saved at its last switch: `fpu__drop` clears the
    /// owner but does not set TIF_NEED_FPU_LOAD (from 5.2 on). Counted: saves.
    ExitSavesDeadTask,
    /// Kernel code uses the registers while such a task is still current, in an interrupt or in its own exit (a thread's
    /// `release_task` feeds the random generator): `kernel_fpu_begin_mask` saves it and sets TIF_NEED_FPU_LOAD, so that
    /// its last switch does not (from 5.2 on). Counted: saves.
    KernelFpuSavesDeadTask,
    /// `fpu__drop` clears the owner slot even when it names another task, which then has to be restored
    /// (5.2 to 6.15; from 6.16 on it returns early when TIF_NEED_FPU_LOAD is set). Counted: restores.
    ExitClearsOwner,
    /// `fpu_sync_fpstate` saves a dying task for its own core dump and leaves TIF_NEED_FPU_LOAD clear, so that
    /// the next read, kernel FPU section or switch saves it again (from 5.14 on). Counted: those further saves.
    CoreDumpSavesTwice,
}

impl Quirk {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::ForkLoadsParent,
        Self::ExitSavesDeadTask,
        Self::KernelFpuSavesDeadTask,
        Self::ExitClearsOwner,
        Self::CoreDumpSavesTwice,
    ];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::ForkLoadsParent => "fork_loads_parent",
            Self::ExitSavesDeadTask => "exit_saves_dead_task",
            Self::KernelFpuSavesDeadTask => "kernel_fpu_saves_dead_task",
            Self::ExitClearsOwner => "exit_clears_owner",
            Self::CoreDumpSavesTwice => "core_dump_saves_twice",
        }
    }

    /// The kernel function that does it, and the versions of Linux in which it does.
    pub fn origin(self) -> &'static str {
        match self {
            Self::ForkLoadsParent => "fpu_clone, from 5.16",
            Self::ExitSavesDeadTask => "fpu__drop, from 5.2",
            Self::KernelFpuSavesDeadTask => "kernel_fpu_begin_mask, from 5.2",
            Self::ExitClearsOwner => "fpu__drop, 5.2 to 6.15",
            Self::CoreDumpSavesTwice => "fpu_sync_fpstate, from 5.14",
        }
    }

    /// What is counted: the operations that it cost the kernel.
    pub fn costs(self) -> &'static str {
        match self {
            Self::ExitSavesDeadTask | Self::KernelFpuSavesDeadTask | Self::CoreDumpSavesTwice => "saves",
            Self::ForkLoadsParent | Self::ExitClearsOwner => "restores",
        }
    }
}

/// A decision on which the kernel and the machine differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// The line of the recording, from 1.
    pub line: u64,
    /// The CPU.
    pub cpu: u32,
    /// The task.
    pub pid: u32,
    /// What was decided.
    pub decision: Decision,
    /// Whether the machine saves or loads.
    pub expected: bool,
    /// Whether the kernel did.
    pub found: bool,
}

/// Counts of an [`Agreement`] at some line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    decisions: u64,
    disagreements: u64,
    inferred_returns: u64,
    inferred_kernel_fpu: u64,
}

impl Mark {
    /// The earlier of two marks, of which the counts of one are none above those of the other.
    pub(super) fn earlier(self, other: Self) -> Self {
        Self {
            decisions: self.decisions.min(other.decisions),
            disagreements: self.disagreements.min(other.disagreements),
            inferred_returns: self.inferred_returns.min(other.inferred_returns),
            inferred_kernel_fpu: self.inferred_kernel_fpu.min(other.inferred_kernel_fpu),
        }
    }
}

/// How far the kernel and the machine agree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Decisions compared.
    pub decisions: u64,
    /// Those on which they differ.
    pub disagreements: u64,
    /// Returns to user known only from the save that the kernel did afterwards.
    pub inferred_returns: u64,
    /// Kernel FPU sections known only from a load, or a missing last save, impossible without one.
    pub inferred_kernel_fpu: u64,
    /// Decisions that cannot be told: the task's state is not known, or the order of lines leaves both open.
    pub undecidable: u64,
    /// What the kernel did beyond what it must.
    pub quirks: BTreeMap<Quirk, u64>,
    /// The first disagreements, [`Agreement::MOST_SHOWN`] at most.
    pub first: Vec<Disagreement>,
}

impl Agreement {
    /// How many disagreements are kept.
    pub const MOST_SHOWN: usize = 10;

    /// Everything inferred, which counts as no agreement.
    pub fn inferred(&self) -> u64 {
        self.inferred_returns + self.inferred_kernel_fpu
    }

    /// Whether so much was inferred that agreement says little: more than 5 % of the decisions.
    pub fn infers_too_much(&self) -> bool {
        self.inferred() * 20 > self.decisions
    }

    /// Where the counts stand.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            decisions: self.decisions,
            disagreements: self.disagreements,
            inferred_returns: self.inferred_returns,
            inferred_kernel_fpu: self.inferred_kernel_fpu,
        }
    }

    /// What was decided since could not be told after all.
    pub(super) fn retract(&mut self, since: Mark) {
        let decided_before = since.decisions + since.inferred_returns + since.inferred_kernel_fpu;
        self.undecidable += self.decisions + self.inferred() - decided_before;
        self.decisions = since.decisions;
        self.disagreements = since.disagreements;
        self.inferred_returns = since.inferred_returns;
        self.inferred_kernel_fpu = since.inferred_kernel_fpu;
        self.first.truncate(usize::try_from(since.disagreements).unwrap_or(usize::MAX));
    }

    pub(super) fn compare(&mut self, found: Disagreement) {
        self.decisions += 1;
        if found.expected != found.found {
            self.disagreements += 1;
            if self.first.len() < Self::MOST_SHOWN {
                self.first.push(found);
            }
        }
    }

    pub(super) fn quirk(&mut self, quirk: Quirk) {
        *self.quirks.entry(quirk).or_default() += 1;
    }
}
