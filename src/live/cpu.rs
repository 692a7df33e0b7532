//! One CPU: an OS thread's registers, who owns them, and the policy that decides.
//!
//! Every function here is kernel code between two gates. What a scheduler calls at a switch is words and pointers only,
//! so that the audit ([`audit`](super::audit)) can show that no FPU instruction is among them; whatever else has to be
//! done goes through [`Cpu::kernel_fpu`].

use super::{
    GateMode, LiveError,
    audit::KernelPath,
    counters::Counters,
    fiber::Fiber,
    form::Form,
    fpregs::{self, Fpregs},
    gate::{self, Gate},
    image, instructions, system,
};
use crate::{
    CpuId, EntryKind, KernelContext,
    fpu::{self, Before, Load, OwnerSlot, Policy, PreemptOff},
    xstate::AlignedBytes,
};
use alloc::{boxed::Box, sync::Arc};
use core::{
    ptr::{self, NonNull},
    sync::atomic::Ordering::Relaxed,
};

/// The newest copy of a fiber's state is in the registers of another CPU, which has to save it first
/// ([`Cpu::flush`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Flush {
    /// The CPU that holds it.
    pub cpu: CpuId,
}

/// Why a fiber is in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// What was asked for ([`syscall`](super::syscall)), or that nothing was ([`PREEMPTED`](Self::PREEMPTED)).
    pub call: u64,
    /// The call's argument.
    pub argument: u64,
}

impl Entered {
    /// A signal stopped the fiber: it asked for nothing.
    pub const PREEMPTED: u64 = gate::call::PREEMPTED;
}

/// One CPU of a runtime: the registers of the OS thread that made it.
///
/// Neither `Send` nor `Sync`: it is of use on that OS thread only, whose GS points to its gate.
#[derive(Debug)]
pub struct Cpu<P> {
    slot: OwnerSlot,
    regs: Fpregs,
    policy: P,
    /// Who the owner slot names, if anybody.
    holder: *mut Fiber,
    counters: Arc<Counters>,
    gate: *mut Gate,
    /// What the gate points to: the parked image, and x87 and SSE put aside.
    _areas: [AlignedBytes; 2],
    previous_gs: usize,
}

impl<P: Policy> Cpu<P> {
    /// Makes the calling OS thread a CPU: its registers are the fpregs from here on, and are nobody's.
    ///
    /// # Errors
    /// [`LiveError::Policy`] for a policy under which user code runs behind a first-use trap; [`LiveError::Registers`];
    /// [`LiveError::System`].
    ///
    /// # Safety
    /// (a) The thread is no CPU yet, and uses GS for nothing else. (b) With [`GateMode::Bare`], the proof is of all code
    /// that runs between two calls of [`run`](Self::run), but for what is between
    /// [`kernel_fpu_begin`](Self::kernel_fpu_begin) and its end.
    pub unsafe fn new(id: CpuId, policy: P, mode: GateMode) -> Result<Self, LiveError> {
        if policy.form().lets_foreign_registers_into_user_mode() {
            return Err(LiveError::Policy { name: policy.name() });
        }
        let form = Form::of_this_cpu()?;
        let mut parked = AlignedBytes::zeroed(form.parked().len());
        parked.as_mut().copy_from_slice(form.parked());
        let mut aside = AlignedBytes::zeroed(512);
        let gate = Box::into_raw(Box::new(Gate::new(
            form.components().bits(),
            form.gate_form(),
            parked.as_mut().as_mut_ptr(),
            aside.as_mut().as_mut_ptr(),
            matches!(mode, GateMode::Parked),
        )));
        // SAFETY: (a) it is one.
        unsafe { Gate::settle(gate) };
        let previous_gs = system::replace_gs(gate as usize).inspect_err(|_| {
            // SAFETY: made above, and GS does not point to it.
            drop(unsafe { Box::from_raw(gate) });
        })?;
        Ok(Self {
            slot: OwnerSlot::new(id),
            regs: Fpregs { gate, form },
            policy,
            holder: ptr::null_mut(),
            counters: Arc::default(),
            gate,
            _areas: [parked, aside],
            previous_gs,
        })
    }

    /// The same under a mechanism with that error.
    #[cfg(feature = "explore")]
    #[must_use]
    pub fn with_defect(self, defect: Option<fpu::Defect>) -> Self {
        let slot = OwnerSlot::new(self.slot.cpu()).with_defect(defect);
        let mut this = self;
        this.slot = slot;
        this
    }

    /// The CPU.
    pub fn id(&self) -> CpuId {
        self.slot.cpu()
    }

    /// What was saved, restored and skipped here, to be read by others too.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Does what a protocol function wants first. Only a flush is another CPU's business.
    #[inline]
    fn first(&mut self, before: Before) -> Result<(), Flush> {
        match before {
            Before::Evict(_) => {
                self.save_holder();
                Ok(())
            }
            Before::Flush { cpu, .. } => Err(Flush { cpu }),
            // User code runs nowhere but where its fiber is current.
            Before::Interrupt { .. } => impossible(),
        }
    }

    /// Saves the owner of the registers, who is not current.
    #[inline]
    fn save_holder(&mut self) {
        let Some(holder) = NonNull::new(self.holder) else { impossible() };
        // SAFETY: whoever the slot names with its only copy here is alive: `exit` ends claims. No other CPU touches its
        // fpstate meanwhile.
        let fpstate = unsafe { &mut (*holder.as_ptr()).fpstate };
        match fpu::copy_to_memory(&mut PreemptOff::begin(&mut self.slot, &mut self.regs), fpstate) {
            Ok(save) => self.counters.save(save),
            Err(_) => impossible(),
        }
    }

    /// A fiber becomes current.
    ///
    /// # Errors
    /// [`Flush`], and nothing has happened.
    ///
    /// # Safety
    /// (a) This is the kernel of this CPU's OS thread. (b) The fiber is alive and in the kernel, current on no CPU, and
    /// nobody else touches it until it is switched out.
    #[inline]
    pub unsafe fn switch_in(&mut self, fiber: *mut Fiber) -> Result<(), Flush> {
        // SAFETY: by (b).
        let Fiber { fpstate, is_promised, .. } = unsafe { &mut *fiber };
        self.regs.set_promised(*is_promised);
        // SAFETY: the gate lives as long as this. `Context` is what a fiber begins with.
        unsafe { (*self.gate).context = fiber.cast() };
        loop {
            let mut section = PreemptOff::begin(&mut self.slot, &mut self.regs);
            match fpu::switch_in(&mut section, &self.policy, fpstate) {
                Ok(load) => {
                    self.counters.load(load);
                    self.hold(fiber);
                    return Ok(());
                }
                Err(before) => self.first(before)?,
            }
        }
    }

    /// Remembers where the owner is, if it is this fiber.
    #[inline]
    fn hold(&mut self, fiber: *mut Fiber) {
        // SAFETY: the fiber is current.
        if self.slot.owner() == Some(unsafe { (*fiber).fpstate.id() }) {
            self.holder = fiber;
        }
    }

    /// Returns to the user code of the current fiber, to which its call gives `value`, until it enters the kernel again.
    ///
    /// # Errors
    /// [`Flush`], and nothing has happened.
    ///
    /// # Safety
    /// (a) As for [`switch_in`](Self::switch_in). (b) The fiber is the one that was switched in last, and its stack is as
    /// its user code left it.
    #[inline]
    pub unsafe fn run(&mut self, fiber: *mut Fiber, value: u64) -> Result<Entered, Flush> {
        loop {
            // SAFETY: by (b) nobody else touches it.
            let fpstate = unsafe { &mut (*fiber).fpstate };
            let mut section = PreemptOff::begin(&mut self.slot, &mut self.regs);
            match fpu::return_to_user(&mut section, &self.policy, fpstate) {
                // Nothing was claimed, so that the holder is the same.
                Ok(Load::AlreadyLive) => break,
                Ok(load) => {
                    self.counters.load(load);
                    self.hold(fiber);
                    break;
                }
                Err(before) => self.first(before)?,
            }
        }
        // SAFETY: (a) by ours. (b) The fiber's stack is such a one. (c) I1, by the return just made.
        let (call, argument) = unsafe { Gate::exit(value) };
        self.counters.entries.up();
        let kind = match call {
            call if call & gate::call::PREEMPTED != 0 => {
                self.counters.preemptions.up();
                EntryKind::Interrupt
            }
            call if call & gate::call::KEEP != 0 => EntryKind::Exception,
            _ => EntryKind::SystemCall,
        };
        // SAFETY: as above; user code has no reference to it.
        let fpstate = unsafe { &mut (*fiber).fpstate };
        let mut section = PreemptOff::begin(&mut self.slot, &mut self.regs);
        match fpu::entry(&mut section, &self.policy, fpstate, kind) {
            Ok(save) => self.counters.save(save),
            // The state is in this CPU's registers, and user code ran here.
            Err(_) => impossible(),
        }
        Ok(Entered { call: call & !gate::call::KEEP, argument })
    }

    /// The current fiber, in the kernel, is switched out.
    ///
    /// # Safety
    /// (a) As for [`switch_in`](Self::switch_in). (b) As for [`run`](Self::run).
    #[inline]
    pub unsafe fn switch_out(&mut self, fiber: *mut Fiber) {
        // SAFETY: by (b).
        let fpstate = unsafe { &mut (*fiber).fpstate };
        let mut section = PreemptOff::begin(&mut self.slot, &mut self.regs);
        match fpu::switch_out(&mut section, &self.policy, fpstate) {
            Ok(save) => self.counters.save(save),
            // It is current here.
            Err(_) => impossible(),
        }
    }

    /// The current fiber is dead: behind this nobody claims its state, and once it is switched out it may be freed.
    ///
    /// # Safety
    /// (a) As for [`switch_in`](Self::switch_in). (b) As for [`run`](Self::run).
    #[inline]
    pub unsafe fn exit(&mut self, fiber: *mut Fiber) {
        // SAFETY: by (b).
        let fpstate = unsafe { &mut (*fiber).fpstate };
        let mut section = PreemptOff::begin(&mut self.slot, &mut self.regs);
        if fpu::exit(&mut section, &self.policy, fpstate).is_err() {
            impossible();
        }
    }

    /// Saves a fiber whose newest state is in this CPU's registers, so that another CPU may run it.
    ///
    /// # Safety
    /// (a) As for [`switch_in`](Self::switch_in). (b) The fiber is alive, in the kernel and current nowhere, and nobody
    /// else touches it meanwhile.
    #[inline]
    pub unsafe fn flush(&mut self, fiber: *mut Fiber) {
        // SAFETY: by (b).
        let fpstate = unsafe { &mut (*fiber).fpstate };
        match fpu::copy_to_memory(&mut PreemptOff::begin(&mut self.slot, &mut self.regs), fpstate) {
            Ok(save) => self.counters.save(save),
            Err(_) => impossible(),
        }
    }

    /// Kernel code is about to use the registers, as all Rust code may that was not audited: a *door*. Their owner is
    /// saved if they hold its only copy. `current` is the current fiber, or null.
    ///
    /// # Safety
    /// (a) As for [`switch_in`](Self::switch_in). (b) `current` is the current fiber.
    #[inline]
    pub unsafe fn kernel_fpu_begin(&mut self, current: *mut Fiber) {
        loop {
            // SAFETY: by (b).
            let current = unsafe { current.as_mut() }.map(|fiber| &mut fiber.fpstate);
            let mut section = PreemptOff::begin(&mut self.slot, &mut self.regs);
            match fpu::kernel_fpu_begin(&mut section, &self.policy, current, KernelContext::Task) {
                Ok(save) => {
                    self.counters.save(save);
                    break;
                }
                Err(Before::Evict(_)) => self.save_holder(),
                Err(_) => impossible(),
            }
        }
        self.counters.doors.up();
        self.regs.take_for_kernel();
    }

    /// Kernel code is done with the registers.
    ///
    /// # Safety
    /// (a) and (b) as for [`kernel_fpu_begin`](Self::kernel_fpu_begin).
    #[inline]
    pub unsafe fn kernel_fpu_end(&mut self, current: *mut Fiber) {
        // SAFETY: by (b).
        let fpstate = unsafe { current.as_mut() }.map(|fiber| &mut fiber.fpstate);
        let mut section = PreemptOff::begin(&mut self.slot, &mut self.regs);
        match fpu::kernel_fpu_end(&mut section, &self.policy, fpstate) {
            Ok(load) => self.counters.load(load),
            // The owner was saved at the begin, and the current fiber was run here.
            Err(_) => impossible(),
        }
        if !current.is_null() {
            self.hold(current);
        }
    }

    /// Whether somebody wants the current fiber to give up the CPU, and could not stop it.
    #[inline]
    pub fn is_resched_needed(&self) -> bool {
        // SAFETY: the gate lives as long as this.
        unsafe { &(*self.gate).need_resched }.load(Relaxed) != 0
    }

    /// Whoever wanted it is heard. No read-modify-write: who wants it in between is answered by this very switch.
    #[inline]
    pub fn clear_need_resched(&mut self) {
        // SAFETY: the gate lives as long as this.
        unsafe { &(*self.gate).need_resched }.store(0, Relaxed);
    }
}

impl<P> Drop for Cpu<P> {
    fn drop(&mut self) {
        let _ = system::replace_gs(self.previous_gs);
        // SAFETY: made by `new`, and GS points elsewhere by now.
        drop(unsafe { Box::from_raw(self.gate) });
    }
}

/// The path of a kernel that begins at the function `entry` and uses a [`Cpu`]: what that calls is known. Doors of its own
/// are the caller's to add.
pub fn kernel_path(entry: *const ()) -> KernelPath {
    KernelPath::new(entry)
        .site(gate::exit_stub as *const ())
        .site(instructions::save as *const ())
        .site(instructions::restore as *const ())
        .site(instructions::take_for_kernel as *const ())
        .door(image::free as *const ())
        .door(fpregs::run as *const ())
        .diverging(impossible as *const ())
}

/// What the protocol rules out: to go on would corrupt somebody's registers.
#[cold]
#[inline(never)]
pub(super) extern "C" fn impossible() -> ! {
    std::process::abort()
}
