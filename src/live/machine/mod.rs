//! A scheduler for green threads: one OS thread a CPU, a queue each.

mod door;
mod join;
mod kernel;
mod shared;
mod spawn;
mod thread;

pub use join::JoinHandle;
pub use spawn::{Spawn, Step};
pub use thread::{Call, Thread, current, park, preempt_self, syscall, yield_now};
pub(super) use thread::{refuse_others, thread_name};

use super::{
    Config, Counts, Gate, GateMode, LiveError,
    audit::{self, FpuFree, KernelPath, NotFpuFree},
    config::MOST_CPUS,
    cpu::Cpu,
    fault, kernel_path,
    preempt::{Signal, SignalStack, Target, Tick},
    sync, user,
};
use crate::{CpuId, fpu::Policy};
use alloc::{format, sync::Arc, vec::Vec};
use core::{fmt, hint::black_box, time::Duration};
use kernel::{Core, kernel};
use shared::Shared;
use std::{sync::mpsc, thread as os};

/// Why the registers are where the kernel finds them.
#[derive(Clone, Debug)]
pub enum GateReport {
    /// In the registers: the kernel path does not touch them, and this is the proof.
    Bare(FpuFree),
    /// In the parked image, because the kernel path does; this is the first place where.
    Parked(NotFpuFree),
    /// In the parked image, as was asked for.
    ParkedAsked,
}

impl fmt::Display for GateReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bare(proof) => write!(f, "bare: {proof}"),
            Self::Parked(reason) => write!(f, "parked, because of {reason}"),
            Self::ParkedAsked => f.write_str("parked, as asked for"),
        }
    }
}

/// Green threads on the registers of some OS threads, under one policy.
#[derive(Debug)]
pub struct Machine {
    shared: Arc<Shared>,
    os_threads: Vec<os::JoinHandle<()>>,
    gate: GateReport,
    policy: &'static str,
}

impl Machine {
    /// Makes the CPUs, which wait for threads.
    ///
    /// # Errors
    /// [`LiveError::Policy`] for a policy that needs the first-use trap; [`LiveError::Cpus`]; [`LiveError::NotFpuFree`]
    /// if the gate has to be bare and cannot; [`LiveError::Signal`] for a signal that cannot preempt; [`LiveError::Tiles`],
    /// [`LiveError::Registers`] and [`LiveError::System`], for a tick of 0 too.
    pub fn start<P: Policy + Send + 'static>(policy: P, config: Config) -> Result<Self, LiveError> {
        Self::launch(policy, config, |cpu| cpu)
    }

    /// The same under a mechanism with that error, for checks that have to find it.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Safety
    /// (a) No thread of the machine relies on registers that the error may change: it fills them and looks at them in asm,
    /// and goes on with none of what it finds.
    #[cfg(feature = "explore")]
    pub unsafe fn start_with_defect<P: Policy + Send + 'static>(
        policy: P,
        config: Config,
        defect: crate::fpu::Defect,
    ) -> Result<Self, LiveError> {
        // SAFETY: (a) by ours.
        Self::launch(policy, config, move |cpu| unsafe { cpu.with_defect(defect) })
    }

    fn launch<P, F>(policy: P, config: Config, prepare: F) -> Result<Self, LiveError>
    where
        P: Policy + Send + 'static,
        F: Fn(Cpu<P>) -> Cpu<P> + Clone + Send + 'static,
    {
        if config.cpus == 0 || config.cpus > MOST_CPUS {
            return Err(LiveError::Cpus { cpus: config.cpus, most: MOST_CPUS });
        }
        if policy.form().lets_foreign_registers_into_user_mode() {
            return Err(LiveError::Policy { name: policy.name() });
        }
        let signal = Signal::install(config.signal)?;
        fault::report_faults()?;
        let proof = || audit::assert_fpu_free(&Self::kernel_path::<P>());
        let gate = match config.gate {
            Gate::Auto => proof().map_or_else(GateReport::Parked, GateReport::Bare),
            Gate::Bare => GateReport::Bare(proof()?),
            Gate::Parked => GateReport::ParkedAsked,
        };
        let mode = match gate {
            GateReport::Bare(proof) => GateMode::Bare(proof),
            GateReport::Parked(_) | GateReport::ParkedAsked => GateMode::Parked,
        };
        let is_bare = matches!(gate, GateReport::Bare(_));
        let shared = Arc::new(Shared::new(config.cpus, config.stack_bytes, is_bare));
        let mut machine = Self { shared, os_threads: Vec::new(), gate, policy: policy.name() };
        for cpu in (0..config.cpus).map(CpuId) {
            let (said, says) = mpsc::channel();
            let (shared, policy, prepare) = (Arc::clone(&machine.shared), policy.clone(), prepare.clone());
            // SAFETY: (a) a new OS thread of ours. (b) The proof is of `kernel_path`, which is what `cpu_main` calls;
            // kernel threads are audited when they are made. (c) One CPU an id, and no fiber leaves its machine.
            let make = move || unsafe { Cpu::new(cpu, policy, mode) }.map(prepare);
            let main = move || cpu_main(make, config.tick, signal, &shared, &said);
            let os_thread = os::Builder::new().name(format!("fpuswitch-{cpu}")).spawn(main);
            let os_thread = os_thread.map_err(|error| LiveError::System {
                what: "making an OS thread",
                error: error.raw_os_error().unwrap_or(0),
            })?;
            machine.os_threads.push(os_thread);
            // A sender that is gone has panicked.
            says.recv().unwrap_or(Err(LiveError::System { what: "starting a CPU", error: 0 }))?;
        }
        Ok(machine)
    }

    /// The machine code that runs between user code and user code, for the [audit].
    pub fn kernel_path<P: Policy>() -> KernelPath {
        kernel_path(kernel::<P> as *const ())
            .site(door::call_step as *const ())
            .site(sync::futex_call as *const ())
            .door(door::take_fresh as *const ())
            .door(door::end as *const ())
    }

    /// Whether the gate is bare, and why not.
    pub fn gate(&self) -> &GateReport {
        &self.gate
    }

    /// The policy's name.
    pub fn policy(&self) -> &'static str {
        self.policy
    }

    /// Makes a thread that runs `f`.
    ///
    /// # Errors
    /// As [`Spawn::spawn`].
    pub fn spawn<F, T>(&self, f: F) -> Result<JoinHandle<T>, LiveError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.build().spawn(f)
    }

    /// How a thread is to be made.
    pub fn build(&self) -> Spawn {
        Spawn::of(&self.shared)
    }

    /// What was saved, restored and skipped so far, on all CPUs.
    pub fn counts(&self) -> Counts {
        self.shared.cpus.iter().filter_map(|cpu| cpu.counters.get()).map(|counters| counters.read()).sum()
    }

    /// Asks a CPU to let another thread run, as soon as the one that runs may be preempted.
    ///
    /// # Errors
    /// [`LiveError::NoSuchCpu`], [`LiveError::System`].
    pub fn preempt(&self, cpu: CpuId) -> Result<(), LiveError> {
        self.shared.preempt(cpu)
    }

    /// How many threads have not ended.
    pub fn alive(&self) -> usize {
        self.shared.alive()
    }

    /// Waits until all threads have ended, and stops the CPUs. Threads that wait for nobody are waited for all the same.
    ///
    /// # Panics
    /// In one of its own threads, which would wait for its own end; and in the kernel of a CPU, such as in a kernel thread,
    /// which cannot wait.
    pub fn shutdown(mut self) -> Counts {
        let is_own = current().is_some_and(|thread| Arc::ptr_eq(&thread.inner.shared, &self.shared));
        assert!(
            !is_own,
            "a machine cannot be shut down by its own thread, which would wait for itself; drop it"
        );
        user::refuse_in_kernel();
        self.shared.close();
        for os_thread in self.os_threads.drain(..) {
            // A CPU does not panic: it aborts.
            let _ = os_thread.join();
        }
        self.counts()
    }
}

/// Dropped, a machine goes on until its last thread has ended, and then stops.
impl Drop for Machine {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// The OS thread of a CPU.
fn cpu_main<P: Policy>(
    make: impl FnOnce() -> Result<Cpu<P>, LiveError>,
    tick: Option<Duration>,
    signal: Signal,
    shared: &Shared,
    said: &mpsc::Sender<Result<(), LiveError>>,
) {
    // What is dropped last is what others need first.
    let started = || {
        let signal_stack = SignalStack::new()?;
        let cpu = make()?;
        let target = Target::this(signal)?;
        let tick = tick.map(|period| Tick::new(target, period)).transpose()?;
        let own = shared.check_cpu(cpu.id())?;
        let _ = own.counters.set(Arc::clone(cpu.counters()));
        let _ = own.target.set(target);
        let core = Core::new(cpu, shared, own);
        Ok((signal_stack, core, tick))
    };
    let (_signal_stack, mut core, _tick) = match started() {
        Ok(started) => started,
        Err(error) => return drop(said.send(Err(error))),
    };
    let _ = said.send(Ok(()));
    // By its address, so that what runs is what was audited, and no copy of it that the compiler made for this call.
    let kernel: unsafe extern "C" fn(*mut Core<P>) = black_box(kernel::<P>);
    // SAFETY: (a) it is ours. (b) Just so.
    unsafe { kernel(&raw mut core) };
}
