//! Whose state each CPU's registers hold, from moment to moment, under one policy.
//!
//! What pictures are drawn from. A recorder takes it down behind each event of one machine; [`Window`] says of which
//! seconds. Memory grows with what happens in the window, and a little with each task of the recording, which keeps its
//! number.

mod recorder;

pub(super) use recorder::Recorder;

use crate::CpuId;
use std::{string::String, vec::Vec};

/// Whose state a CPU's registers hold. Tasks are numbers of [`Timeline::tasks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// Nobody's.
    Nobody,
    /// Kernel code uses them.
    KernelFpu,
    /// This task's newest state.
    Task(u32),
    /// This task's, as it was once: its state has changed elsewhere since.
    Outdated(u32),
}

/// What was done at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// Registers were saved to memory.
    Saved,
    /// A task was restored from memory.
    Restored,
    /// A restore was skipped because the registers still held the state.
    Skipped,
    /// A kernel FPU section began: in the recording's µs, many end at once.
    KernelFpu,
}

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// On a CPU, in user mode or in the kernel.
    Running(CpuId),
    /// Not running; its state is nowhere but in a CPU's registers.
    Registers(CpuId),
    /// Not running; its state is in memory, and a CPU's registers hold it still.
    Both(CpuId),
    /// Not running; its state is in memory alone.
    Memory,
    /// It has exited.
    Gone,
}

/// One CPU. Each entry holds from its time, in µs as recorded, to that of the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lane {
    /// Whether the recording has a line of the CPU.
    pub seen: bool,
    /// Whose state the registers hold.
    pub holders: Vec<(u64, Holder)>,
    /// What was done, and when.
    pub marks: Vec<(u64, Mark)>,
}

/// One task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskLane {
    /// Its name, as [`TaskRestores::name`](super::TaskRestores::name).
    pub name: String,
    /// Its pid.
    pub pid: u32,
    /// Where it is, as in [`Lane`].
    pub places: Vec<(u64, Place)>,
}

/// What a policy had done by a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The policy, by its number in [`Timeline::policies`].
    pub policy: usize,
    /// When, in µs as recorded.
    pub at_us: u64,
    /// Saves since the recording began.
    pub saves: u64,
    /// Restores since then.
    pub restores: u64,
}

/// A part of a recording under one policy, moment by moment. Times are µs as recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeline {
    /// The policy.
    pub policy: &'static str,
    /// When the recording begins.
    pub start_us: u64,
    /// When the part begins.
    pub from_us: u64,
    /// When it ends.
    pub to_us: u64,
    /// By CPU.
    pub lanes: Vec<Lane>,
    /// The tasks, in the order in which they were first seen.
    pub tasks: Vec<TaskLane>,
    /// The policies that were compared.
    pub policies: Vec<&'static str>,
    /// What each policy had done by then, in the order of time, 4096 at most for each policy.
    pub samples: Vec<Sample>,
}

impl Timeline {
    /// The entries of a list as spans: from, to, and what holds in between. Empty ones are left out.
    pub fn spans<'a, T: Copy>(
        &self,
        list: &'a [(u64, T)],
    ) -> impl Iterator<Item = (u64, u64, T)> + use<'a, T> {
        let end = self.to_us;
        let ends = list.iter().skip(1).map(|(at, _)| *at).chain([end]);
        list.iter().zip(ends).map(|((from, what), to)| (*from, to, *what)).filter(|(from, to, _)| from < to)
    }
}

/// A part of a recording, in seconds since its first event: from its beginning to before its end. What happens as it
/// ends is the next part's, unless the recording ends there too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    from_us: u64,
    to_us: u64,
}

/// A window that is none.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WindowError {
    /// A bound is negative, not a number, or too large.
    #[error("{0} is no time: expected seconds since the recording's first event, from 0 on")]
    NotSeconds(f64),
    /// There is nothing between the bounds.
    #[error("from {from} s to {to} s is nothing: expected a start before the end")]
    Empty {
        /// The start.
        from: f64,
        /// The end.
        to: f64,
    },
    /// The recording is over before the window begins.
    #[error("the recording is over after {seconds} s: expected a start before that, not {from} s")]
    Outside {
        /// The start.
        from: f64,
        /// How long the recording is.
        seconds: f64,
    },
}

impl Window {
    /// The whole recording.
    pub const ALL: Self = Self { from_us: 0, to_us: u64::MAX };

    /// From and to in seconds since the recording's first event; without one, from its beginning or to its end.
    ///
    /// # Errors
    /// [`WindowError`] for bounds that are no times, or between which there is nothing.
    pub fn new(from: Option<f64>, to: Option<f64>) -> Result<Self, WindowError> {
        let micros = |seconds: f64| match seconds * 1e6 {
            us if (0.0..1e18).contains(&us) => Ok(us.round() as u64),
            _ => Err(WindowError::NotSeconds(seconds)),
        };
        let window =
            Self { from_us: from.map_or(Ok(0), micros)?, to_us: to.map_or(Ok(Self::ALL.to_us), micros)? };
        if window.from_us >= window.to_us {
            return Err(WindowError::Empty { from: from.unwrap_or(0.0), to: to.unwrap_or(f64::INFINITY) });
        }
        Ok(window)
    }
}
