//! What the CPUs of a machine share.

use super::thread::Inner;
use crate::{
    CpuId,
    live::{
        Counters, LiveError,
        preempt::Target,
        sync::{
            idle::{Idle, Wake},
            inbox::Inbox,
        },
    },
};
use alloc::{boxed::Box, sync::Arc};
use core::{
    fmt,
    ptr::NonNull,
    sync::atomic::{
        AtomicU32, AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};
use crossbeam_deque::Injector;
use std::sync::OnceLock;

/// In [`Shared::alive`]: the machine ends with its last thread.
const CLOSING: usize = 1 << (usize::BITS - 1);

/// One CPU, as the others see it.
pub(super) struct PerCpu {
    pub(super) inbox: Inbox<Inner>,
    idle: Idle,
    /// Threads that have not run yet: any CPU may take them.
    pub(super) fresh: Injector<Arc<Inner>>,
    pub(super) counters: OnceLock<Arc<Counters>>,
    /// Its OS thread, once it runs.
    pub(super) target: OnceLock<Target>,
}

/// The machine, as its CPUs and threads see it.
pub(in crate::live) struct Shared {
    pub(super) cpus: Box<[PerCpu]>,
    /// How many are in all `fresh` together, or about to be.
    fresh: AtomicUsize,
    /// Which CPUs sleep, or are about to.
    sleeping: AtomicU64,
    /// Threads that have not ended, and [`CLOSING`]. With that alone it never changes any more.
    alive: AtomicUsize,
    /// Where the next thread goes that nobody placed.
    turn: AtomicU32,
    pub(super) stack_bytes: usize,
    pub(super) is_bare: bool,
}

impl Shared {
    pub(super) fn new(cpus: u32, stack_bytes: usize, is_bare: bool) -> Self {
        let cpu = || PerCpu {
            inbox: Inbox::new(),
            idle: Idle::new(),
            fresh: Injector::new(),
            counters: OnceLock::new(),
            target: OnceLock::new(),
        };
        Self {
            cpus: (0..cpus).map(|_| cpu()).collect(),
            fresh: AtomicUsize::new(0),
            sleeping: AtomicU64::new(0),
            alive: AtomicUsize::new(0),
            turn: AtomicU32::new(0),
            stack_bytes,
            is_bare,
        }
    }

    #[inline]
    pub(super) fn cpu(&self, cpu: CpuId) -> Option<&PerCpu> {
        self.cpus.get(cpu.0 as usize)
    }

    pub(super) fn check_cpu(&self, cpu: CpuId) -> Result<&PerCpu, LiveError> {
        self.cpu(cpu).ok_or(LiveError::NoSuchCpu { cpu, cpus: self.cpus.len() as u32 })
    }

    /// Gives a thread to a CPU, which is there.
    ///
    /// # Safety
    /// (a) The caller has the thread: it is alive, and in no list.
    #[inline]
    pub(super) unsafe fn hand_over(&self, thread: NonNull<Inner>, to: CpuId) {
        let Some(cpu) = self.cpu(to) else { crate::live::cpu::impossible() };
        // SAFETY: A, B, C: by (a); the CPU's kernel does with it what it does with all.
        unsafe { cpu.inbox.push(thread) };
        let _ = cpu.idle.wake();
    }

    /// Gives a thread that has not run yet to a CPU, or to whoever has nothing to do.
    pub(super) fn add_fresh(&self, thread: Arc<Inner>, to: CpuId) {
        let Some(to) = self.cpu(to) else { crate::live::cpu::impossible() };
        self.fresh.fetch_add(1, Relaxed);
        to.fresh.push(thread);
        if to.idle.wake() == Wake::NotNeeded {
            let _ = self.cpus.iter().any(|cpu| cpu.idle.wake() == Wake::Sent);
        }
    }

    #[inline]
    pub(super) fn has_fresh(&self) -> bool {
        self.fresh.load(Relaxed) != 0
    }

    pub(super) fn fresh_taken(&self) {
        self.fresh.fetch_sub(1, Relaxed);
    }

    /// Where a thread begins that nobody placed.
    pub(super) fn next_cpu(&self) -> CpuId {
        CpuId(self.turn.fetch_add(1, Relaxed) % self.cpus.len() as u32)
    }

    /// Asks a CPU to let another thread run.
    pub(super) fn preempt(&self, cpu: CpuId) -> Result<(), LiveError> {
        self.check_cpu(cpu)?.target.get().map_or(Ok(()), Target::preempt)
    }

    /// Asks the calling OS thread, a CPU. A migratable thread may be elsewhere by the time: then that CPU's thread is asked,
    /// as by any other request.
    pub(super) fn preempt_self(&self) -> Result<(), LiveError> {
        let target = self.cpus.first().and_then(|cpu| cpu.target.get());
        target.map_or(Ok(()), |target| target.here().preempt())
    }

    /// Counts a thread that is about to be made.
    pub(super) fn thread_begins(&self) -> Result<(), LiveError> {
        let count = |alive| (alive != CLOSING).then_some(alive + 1);
        self.alive.fetch_update(Relaxed, Relaxed, count).map(drop).map_err(|_| LiveError::Ended)
    }

    /// Counts one that has ended.
    pub(super) fn thread_ended(&self) {
        if self.alive.fetch_sub(1, Release) == CLOSING + 1 {
            self.wake_all();
        }
    }

    /// CPUs stop when there is no thread left.
    pub(super) fn close(&self) {
        self.alive.fetch_or(CLOSING, Release);
        self.wake_all();
    }

    fn wake_all(&self) {
        for cpu in &self.cpus {
            let _ = cpu.idle.wake();
        }
    }

    /// How many threads have not ended.
    pub(super) fn alive(&self) -> usize {
        self.alive.load(Acquire) & !CLOSING
    }

    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.alive.load(Acquire) == CLOSING
    }

    /// A CPU sleeps until it is woken.
    #[inline]
    pub(super) fn sleep(&self, cpu: CpuId) {
        let Some(own) = self.cpu(cpu) else { crate::live::cpu::impossible() };
        let bit = 1_u64 << (cpu.0 & 63);
        self.sleeping.fetch_or(bit, Relaxed);
        own.idle.sleep(|| !own.inbox.is_empty() || self.has_fresh() || self.is_over());
        self.sleeping.fetch_and(!bit, Relaxed);
    }

    /// Some CPU that sleeps, most likely.
    #[inline]
    pub(super) fn idle_cpu(&self) -> Option<CpuId> {
        match self.sleeping.load(Relaxed) {
            0 => None,
            sleeping => Some(CpuId(sleeping.trailing_zeros())),
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} CPUs, {} threads", self.cpus.len(), self.alive())
    }
}
