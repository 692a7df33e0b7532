//! What a machine is to be like.

use core::time::Duration;

/// At most so many CPUs: a bit each in a word.
pub(super) const MOST_CPUS: u32 = 64;

/// Linux, include/uapi/asm-generic/signal.h.
pub(super) const SIGURG: i32 = 23;

/// How the kernel finds the registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// Bare where the audit finds the kernel path free of FPU instructions, else parked.
    #[default]
    Auto,
    /// Bare, or not at all.
    Bare,
    /// Parked.
    Parked,
}

/// What a machine is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many CPUs, of which each is an OS thread; there may be more than the host has.
    pub cpus: u32,
    /// The stack of a thread that does not ask for another.
    pub stack_bytes: usize,
    /// How the kernel finds the registers.
    pub gate: Gate,
    /// Threads are preempted that often, where they may be; `None` for never.
    pub tick: Option<Duration>,
    /// The signal that preempts: SIGURG if nobody says otherwise, which is ignored by default and of little use to anybody.
    pub signal: i32,
}

impl Default for Config {
    /// A CPU for each of the host's, 64 KiB stacks, no tick.
    fn default() -> Self {
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |count| count.get() as u32).min(MOST_CPUS),
            stack_bytes: 64 * 1024,
            gate: Gate::Auto,
            tick: None,
            signal: SIGURG,
        }
    }
}
