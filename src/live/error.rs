//! Why green threads cannot run here, or not like that.

use crate::{CpuId, arch::NotAvailable};

/// Why a machine, a CPU or a thread could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LiveError {
    /// The real registers cannot be used here.
    #[error(transparent)]
    Registers(#[from] NotAvailable),
    /// The policy needs the first-use trap.
    #[error("{name} needs the first-use trap (#NM), which user space cannot have; take another policy")]
    Policy {
        /// Its name.
        name: &'static str,
    },
    /// There is no such CPU.
    #[error("there is no CPU {cpu}: the machine has {cpus}")]
    NoSuchCpu {
        /// The one that was named.
        cpu: CpuId,
        /// How many there are.
        cpus: u32,
    },
    /// The thread stays on the CPU that started it.
    #[error(
        "the thread was not made to migrate: thread-locals and the like tie it to its CPU; see `spawn_migratable`"
    )]
    Pinned,
    /// A machine has to have a CPU.
    #[error("a machine needs 1 to {most} CPUs, not {cpus}")]
    Cpus {
        /// How many were asked for.
        cpus: u32,
        /// How many there can be.
        most: u32,
    },
    /// The calling OS thread is a CPU: each is one at most.
    #[error("this OS thread is a CPU already: drop that first, or use another OS thread")]
    AlreadyCpu,
    /// A stack that is too small.
    #[error("a stack of {found_bytes} bytes is too small: at least {needed_bytes} are needed")]
    Stack {
        /// What there is.
        found_bytes: usize,
        /// What is needed.
        needed_bytes: usize,
    },
    /// The system has no more memory mappings for stacks, of which each takes two.
    #[error(
        "no memory for a stack, most likely because of vm.max_map_count ({limit}), of which a stack takes two; see sysctl(8)"
    )]
    Mappings {
        /// The limit, if it could be read; 0 if not.
        limit: u64,
    },
    /// The kernel path was to be bare, and is not free of FPU instructions.
    #[error("the kernel path uses the registers: {0}")]
    NotFpuFree(#[from] super::audit::NotFpuFree),
    /// The process may use tiles (AMX), which green threads cannot have.
    #[error("the process has the permission to use tiles (AMX), which are not switched; do not ask for it")]
    Tiles,
    /// A signal that cannot preempt.
    #[error(
        "signal {signal} cannot be taken for preemption (error {error}); take one that can be caught and reports no fault"
    )]
    Signal {
        /// Its number.
        signal: i32,
        /// errno.
        error: i32,
    },
    /// A system call failed.
    #[error("{what} failed: the system's error is {error}")]
    System {
        /// The call.
        what: &'static str,
        /// errno.
        error: i32,
    },
}
