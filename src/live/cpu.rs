//! One CPU: an OS thread's registers, who owns them, and the policy that decides.
//!
//! Every function here is kernel code between two gates. What a scheduler calls at a switch is words and pointers only,
//! so that the audit ([`audit`](super::audit)) can show that no FPU instruction is among them; whatever else has to be
//! done goes between [`Cpu::kernel_fpu_begin`] and [`Cpu::kernel_fpu_end`].

use super::{
    GateMode, LiveError,
    counters::Counters,
    fiber::{Fiber, NOBODY},
    form::Form,
    fpregs::Fpregs,
    gate::{self, Gate},
    system, user,
};
use crate::{
    CpuId, EntryKind, KernelContext,
    fpu::{self, Before, Load, OwnerSlot, Policy, PreemptOff, Save},
    xstate::{AlignedBytes, LEGACY_BYTES},
};
use alloc::{boxed::Box, sync::Arc};
use core::{
    ptr::{self, NonNull},
    sync::atomic::Ordering::Relaxed,
};

/// The newest copy of a fiber's state is in the registers of another CPU, or was when that CPU had the fiber last. It has
/// to [flush](Cpu::flush) the fiber first: the caller hands it over, gets it back, and tries again.
///
/// It does not come up for fibers that are flushed by the CPU that ran them, before any other has them; nor under
/// policies that save at the switch, which are all but [`LazySave`](crate::fpu::policy::LazySave).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Flush {
    /// The CPU that holds it.
    pub cpu: CpuId,
}

/// Why a fiber is in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// What was asked for, the 32 bits that [`enter`](super::enter) was given; or [`PREEMPTED`](Self::PREEMPTED), which
    /// is none of them.
    pub call: u64,
    /// The call's argument; of no meaning if there was no call.
    pub argument: u64,
}

impl Entered {
    /// The fiber asked for nothing: a signal stopped it, or somebody [wanted](Cpu::is_resched_needed) it to give up the
    /// CPU where a section of [`preempt_off`](super::preempt_off) ended.
    pub const PREEMPTED: u64 = gate::call::PREEMPTED;

    /// Whether the call is [`PREEMPTED`](Self::PREEMPTED). The value that the fiber is run with next is dropped.
    #[inline]
    pub fn is_preemption(self) -> bool {
        self.call == Self::PREEMPTED
    }
}

/// One CPU of a runtime: the registers of the OS thread that made it.
///
/// A kernel calls, for each slice of a fiber, [`switch_in`](Self::switch_in), [`run`](Self::run) once or more often, if the fiber
/// is to end [`exit`](Self::exit), and [`switch_out`](Self::switch_out). Besides there are doors
/// ([`kernel_fpu_begin`](Self::kernel_fpu_begin)) and, for another CPU's sake, [`flush`](Self::flush). None of these allocates, locks,
/// panics or unwinds; what the protocol rules out aborts the process. `examples/runtime.rs` is a runtime in one page.
///
/// Neither `Send` nor `Sync`: it is of use on that OS thread only, whose GS points to its gate. Dropped, it is a CPU no
/// longer, and GS is what it was; fibers whose only copy was in its registers are lost, so [`flush`](Self::flush) those
/// before which are to go on elsewhere.
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
    /// From here on [`is_fiber`](super::is_fiber) and signals of [`preempt`](super::preempt) know it. For those, the
    /// OS thread should have a [`SignalStack`](super::preempt::SignalStack).
    ///
    /// # Errors
    /// [`LiveError::AlreadyCpu`] on an OS thread that is one; [`LiveError::Policy`] for a policy under which user code
    /// runs behind a first-use trap; [`LiveError::Registers`], [`LiveError::Tiles`]; [`LiveError::System`] if the system
    /// lets GS not be set.
    ///
    /// # Safety
    /// (a) The OS thread uses GS for nothing else as long as the CPU is there. (b) With [`GateMode::Bare`], the proof is
    /// of all code that runs between one call of [`run`](Self::run) and the next, at the address that it is called by, but
    /// for what is between [`kernel_fpu_begin`](Self::kernel_fpu_begin) and its end. (c) No other CPU with this `id`, living
    /// or gone, has run or will run a fiber that this one runs; and `id` is not `u32::MAX`, which names none.
    pub unsafe fn new(id: CpuId, policy: P, mode: GateMode) -> Result<Self, LiveError> {
        if user::is_cpu() {
            return Err(LiveError::AlreadyCpu);
        }
        if policy.form().lets_foreign_registers_into_user_mode() {
            return Err(LiveError::Policy { name: policy.name() });
        }
        if system::permits_tiles() {
            return Err(LiveError::Tiles);
        }
        let form = Form::of_this_cpu()?;
        let mut parked = AlignedBytes::zeroed(form.parked().len());
        parked.as_mut().copy_from_slice(form.parked());
        let mut aside = AlignedBytes::zeroed(LEGACY_BYTES);
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
        user::set_is_cpu(true);
        Ok(Self {
            slot: OwnerSlot::new(id),
            regs: Fpregs { gate, form, is_x87_in_use: false },
            policy,
            holder: ptr::null_mut(),
            counters: Arc::default(),
            gate,
            _areas: [parked, aside],
            previous_gs,
        })
    }

    /// The same under a mechanism with that error, for checks that have to find it.
    ///
    /// # Safety
    /// (a) No fiber that it runs relies on registers that the error may change.
    #[cfg(feature = "explore")]
    #[must_use]
    pub unsafe fn with_defect(mut self, defect: fpu::Defect) -> Self {
        self.slot = OwnerSlot::new(self.slot.cpu()).with_defect(Some(defect));
        self
    }

    /// The CPU.
    pub fn id(&self) -> CpuId {
        self.slot.cpu()
    }

    /// What was saved, restored and skipped here, to be read by others too.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Does what a protocol function wants first.
    #[inline]
    fn first(&mut self, before: Before) {
        match before {
            Before::Evict(_) => self.save_holder(),
            // `switch_in` has looked who holds the state, and user code runs nowhere but where its fiber is current.
            Before::Flush { .. } | Before::Interrupt { .. } => impossible(),
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

    /// A fiber becomes current. No other is: the one before was switched out.
    ///
    /// # Errors
    /// [`Flush`], and nothing has happened.
    ///
    /// # Safety
    /// (a) This is the kernel of this CPU: its OS thread, and no user code. (b) The fiber is current on no CPU, and the
    /// caller alone has it, until it is switched out: whoever had it before handed it over, with a release that the caller
    /// has acquired. (c) From here on it stays alive and where it is, until it is either switched out behind
    /// [`exit`](Self::exit), or [flushed](Self::flush) and not switched in again: the CPU keeps its address while it has
    /// its only copy.
    #[inline]
    pub unsafe fn switch_in(&mut self, fiber: *mut Fiber) -> Result<(), Flush> {
        // SAFETY: by (b). The fpstate is not looked at before this: while another CPU holds the state it belongs to that.
        let held_by = unsafe { (*fiber).held_by.load(Relaxed) };
        if held_by != NOBODY && held_by != self.slot.cpu().0 {
            return Err(Flush { cpu: CpuId(held_by) });
        }
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
                    self.counters.switches.up();
                    return Ok(());
                }
                Err(before) => self.first(before),
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

    /// Returns to the user code of the current fiber, until it enters the kernel again. `value` is what its last call
    /// gives it; a fiber that begins, or was preempted, drops it.
    ///
    /// Aborts the process if the policy, against its [form](Policy::form), arms the first-use trap.
    ///
    /// # Safety
    /// (a) As (a) for [`switch_in`](Self::switch_in). (b) The fiber is current: it was switched in last, was not switched
    /// out since, nor did it [exit](Self::exit). (c) Its user code may go on on this OS thread, see
    /// [`Fiber`](Fiber#on-which-os-thread), and with `value`.
    #[inline]
    pub unsafe fn run(&mut self, fiber: *mut Fiber, value: u64) -> Entered {
        loop {
            // SAFETY: by (b) nobody else touches it.
            let fpstate = unsafe { &mut (*fiber).fpstate };
            let mut section = PreemptOff::begin(&mut self.slot, &mut self.regs);
            match fpu::return_to_user(&mut section, &self.policy, fpstate) {
                // Nothing here traps.
                Ok(Load::TrapArmed) => impossible(),
                // Nothing was claimed, so that the holder is the same.
                Ok(Load::AlreadyLive) => break,
                Ok(load) => {
                    self.counters.load(load);
                    self.hold(fiber);
                    break;
                }
                Err(before) => self.first(before),
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
        // Behind a call the x87 stack is empty; where code was stopped otherwise, nobody knows.
        self.regs.is_x87_in_use = kind != EntryKind::SystemCall;
        // SAFETY: as above; user code has no reference to it.
        let fpstate = unsafe { &mut (*fiber).fpstate };
        let mut section = PreemptOff::begin(&mut self.slot, &mut self.regs);
        match fpu::entry(&mut section, &self.policy, fpstate, kind) {
            Ok(save) => self.counters.save(save),
            // The state is in this CPU's registers, and user code ran here.
            Err(_) => impossible(),
        }
        Entered { call: call & !gate::call::KEEP, argument }
    }

    /// The current fiber, in the kernel, is switched out: nobody is current. From here on others may have it.
    ///
    /// # Safety
    /// (a) As for [`switch_in`](Self::switch_in). (b) The fiber is current.
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
        let held_by = if fpstate.need_fpu_load() { NOBODY } else { self.slot.cpu().0 };
        // SAFETY: by (b).
        unsafe { (*fiber).held_by.store(held_by, Relaxed) };
    }

    /// The current fiber is dead, and has no state any more. It is still current: what follows is
    /// [`switch_out`](Self::switch_out), behind which fiber and stack may be freed.
    ///
    /// What its user code has on the stack is not dropped. A fiber that has not begun, or that was stopped anywhere, may
    /// be ended like that.
    ///
    /// # Safety
    /// (a) As for [`switch_in`](Self::switch_in). (b) The fiber is current.
    #[inline]
    pub unsafe fn exit(&mut self, fiber: *mut Fiber) {
        // SAFETY: by (b).
        let fpstate = unsafe { &mut (*fiber).fpstate };
        let mut section = PreemptOff::begin(&mut self.slot, &mut self.regs);
        if fpu::exit(&mut section, &self.policy, fpstate).is_err() {
            impossible();
        }
    }

    /// Sees to it that the image has the state of a fiber that this CPU ran last, so that another CPU may run it. Does
    /// nothing where it has already.
    ///
    /// # Safety
    /// (a) As for [`switch_in`](Self::switch_in). (b) The fiber is alive and current nowhere, and the caller alone has it. (c) It
    /// has not run on another CPU since it ran on this one.
    #[inline]
    pub unsafe fn flush(&mut self, fiber: *mut Fiber) {
        // SAFETY: by (b).
        let fpstate = unsafe { &mut (*fiber).fpstate };
        match fpu::copy_to_memory(&mut PreemptOff::begin(&mut self.slot, &mut self.regs), fpstate) {
            Ok(save) => self.counters.save(save),
            Err(_) => impossible(),
        }
        // SAFETY: by (b).
        unsafe { (*fiber).held_by.store(NOBODY, Relaxed) };
    }

    /// Kernel code is about to use the registers, as all Rust code may that was not audited: a *door*. Their owner is
    /// saved if they hold its only copy. `current` is the current fiber, or null.
    ///
    /// What follows is a call of a function that the audit knows as a [door](super::audit::KernelPath::door): `#[inline(never)]`, so that none of
    /// its code moves out in front of this, and `extern "C"`, so that nothing unwinds into the kernel path. Then comes
    /// [`kernel_fpu_end`](Self::kernel_fpu_end). Doors do not nest.
    ///
    /// Aborts the process if the policy keeps the owner's only copy in the registers.
    ///
    /// # Safety
    /// (a) As for [`switch_in`](Self::switch_in). (b) `current` is the current fiber, or null if nobody is current. (c) No
    /// door is open.
    #[inline]
    pub unsafe fn kernel_fpu_begin(&mut self, current: *mut Fiber) {
        loop {
            // SAFETY: by (b).
            let current = unsafe { current.as_mut() }.map(|fiber| &mut fiber.fpstate);
            let mut section = PreemptOff::begin(&mut self.slot, &mut self.regs);
            match fpu::kernel_fpu_begin(&mut section, &self.policy, current, KernelContext::Task) {
                // The only copy would be lost.
                Ok(Save::Kept) => impossible(),
                Ok(save) => {
                    self.counters.save(save);
                    break;
                }
                Err(before) => self.first(before),
            }
        }
        self.counters.doors.up();
        self.regs.take_for_kernel();
    }

    /// Kernel code is done with the registers: the door is closed.
    ///
    /// # Safety
    /// (a) As for [`switch_in`](Self::switch_in). (b) A door is open, and `current` is as at its begin.
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

    /// Whether a signal of [`preempt`](super::preempt) came that could not stop a fiber: it was outside of a region, or the
    /// kernel ran. A kernel looks at each entry that need not switch, and switches if it is set.
    ///
    /// A fiber that could not be stopped inside a section of [`preempt_off`](super::preempt_off) asks itself, where the
    /// section ends, and enters with [`Entered::PREEMPTED`].
    #[inline]
    pub fn is_resched_needed(&self) -> bool {
        // SAFETY: the gate lives as long as this.
        unsafe { &(*self.gate).need_resched }.load(Relaxed) != 0
    }

    /// Whoever wanted it is heard: for a kernel that is about to choose who runs next, also behind a preemption. As long
    /// as it is set, fibers are preempted at each begin of a region.
    #[inline]
    pub fn clear_need_resched(&mut self) {
        // No read-modify-write: who wants it in between is answered by this very switch.
        // SAFETY: the gate lives as long as this.
        unsafe { &(*self.gate).need_resched }.store(0, Relaxed);
    }
}

impl<P> Drop for Cpu<P> {
    fn drop(&mut self) {
        // What is in the registers is nobody's who can still be here, and Rust code expects the x87 stack to be empty.
        self.regs.take_for_kernel();
        // From here on no signal handler looks at the gate.
        user::set_is_cpu(false);
        let _ = system::replace_gs(self.previous_gs);
        // SAFETY: made by `new`, and GS points elsewhere by now.
        drop(unsafe { Box::from_raw(self.gate) });
    }
}

/// What the protocol rules out: to go on would corrupt somebody's registers.
#[cold]
#[inline(never)]
pub(super) extern "C" fn impossible() -> ! {
    std::process::abort()
}
