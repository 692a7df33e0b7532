//! The kernel path of a machine's CPU: what is run between a thread's entry and the next one's return.
//!
//! Words and pointers only: no lock, no thread-local, no allocation, no panic, nothing of 16 bytes moved in one piece.
//! `audit` decodes what the compiler made of it. All that needs more is behind a *door* (`door.rs`).

use super::{
    door,
    shared::{PerCpu, Shared},
    thread::{Body, Inner, KernelBody},
};
use crate::{
    CpuId,
    fpu::Policy,
    live::{
        cpu::{Cpu, Entered, Flush},
        fiber::Fiber,
        sync::{inbox::Inbox, local::Local, request::Request, token::Park},
    },
};
use core::{
    ptr::{self, NonNull},
    sync::atomic::Ordering::Relaxed,
};

/// What threads of a machine call for.
pub(in crate::live) mod call {
    pub(crate) const NULL: u64 = 0;
    pub(crate) const YIELD: u64 = 1;
    pub(crate) const PARK: u64 = 2;
    pub(crate) const EXIT: u64 = 3;
    pub(crate) const JOIN: u64 = 4;
}

/// What a step of a kernel thread says.
pub(super) mod step {
    pub(crate) const AGAIN: u64 = 0;
    pub(crate) const PARK: u64 = 1;
    pub(crate) const DONE: u64 = 2;
}

/// One CPU of a machine.
pub(super) struct Core<P> {
    pub(super) cpu: Cpu<P>,
    /// Threads that are ready to run here.
    queue: Local<Inner>,
    /// Of this CPU, in `shared`.
    inbox: *const Inbox<Inner>,
    pub(super) shared: *const Shared,
    /// Counts choices, so that new threads get their turn even if there is always one that is ready.
    choices: u32,
}

/// One choice in so many takes a new thread first.
const FRESH_FIRST: u32 = 32;

impl<P: Policy> Core<P> {
    pub(super) fn new(cpu: Cpu<P>, shared: &Shared, own: &PerCpu) -> Self {
        Self { cpu, queue: Local::new(), inbox: &raw const own.inbox, shared, choices: 0 }
    }

    #[inline]
    fn shared(&self) -> &Shared {
        // SAFETY: the machine's threads and CPUs keep it.
        unsafe { &*self.shared }
    }

    /// Takes in what others handed over.
    #[inline]
    fn receive(&mut self) {
        // SAFETY: a part of `shared`.
        let inbox = unsafe { &*self.inbox };
        if inbox.is_empty() {
            return;
        }
        let mut taken = inbox.take_all();
        while let Some(thread) = taken.pop_front() {
            // SAFETY: whoever takes a thread out of a list has it, and it is alive.
            match unsafe { thread.as_ref() }.request.get() {
                Request::Run => self.enqueue(thread),
                Request::HandOver(cpu) => {
                    // SAFETY: (a) the kernel path of this CPU. (b) It is ours, and runs nowhere. (c) Who asks found that
                    // this CPU holds its state (`held_by`), so that no other has run it since.
                    unsafe { self.cpu.flush(fiber_of(thread)) };
                    self.hand_over(thread, Request::Run, cpu);
                }
            }
        }
    }

    #[inline]
    fn enqueue(&mut self, thread: NonNull<Inner>) {
        // SAFETY: A, B: it is alive, and ours: in no list.
        unsafe { self.queue.push_back(thread) };
    }

    #[inline]
    fn hand_over(&mut self, thread: NonNull<Inner>, request: Request, to: CpuId) {
        // SAFETY: it is ours.
        unsafe { thread.as_ref() }.request.set(request);
        // SAFETY: likewise.
        unsafe { self.shared().hand_over(thread, to) };
    }

    /// A thread that is ready to run goes to its CPU's list.
    #[inline]
    fn requeue(&mut self, thread: NonNull<Inner>) {
        // SAFETY: it is ours.
        let inner = unsafe { thread.as_ref() };
        if inner.may_migrate {
            let here = self.cpu.id().0;
            let mut home = inner.home.load(Relaxed);
            if home == here && !self.queue.is_empty() {
                // Somebody has nothing to do.
                if let Some(idle) = self.shared().idle_cpu() {
                    home = inner.move_home(here, idle.0);
                }
            }
            if home != here {
                // Its newest state is here, if it is not in memory.
                // SAFETY: (a), (b) as in `receive`. (c) It ran here last: this is behind its switch-out.
                unsafe { self.cpu.flush(fiber_of(thread)) };
                return self.hand_over(thread, Request::Run, CpuId(home));
            }
        }
        self.enqueue(thread);
    }

    /// The next thread to run, if there is one.
    #[inline]
    fn choose(&mut self) -> Option<NonNull<Inner>> {
        self.receive();
        self.choices = self.choices.wrapping_add(1);
        let is_turn = self.queue.is_empty() || self.choices.is_multiple_of(FRESH_FIRST);
        if is_turn && self.shared().has_fresh() {
            // SAFETY: (a) the kernel path of this CPU. (b) Nobody is current. (c) No door is open: they are opened and closed
            // in one place each. `take_fresh`: (a) it is the machine's.
            let found = unsafe {
                self.cpu.kernel_fpu_begin(ptr::null_mut());
                let found = door::take_fresh(self.shared, self.cpu.id().0);
                self.cpu.kernel_fpu_end(ptr::null_mut());
                found
            };
            if let Some(thread) = NonNull::new(found) {
                return Some(thread);
            }
        }
        self.queue.pop_front()
    }

    /// Whether somebody else could run here instead of the thread that does.
    #[inline]
    fn has_others(&mut self) -> bool {
        self.receive();
        !self.queue.is_empty() || self.shared().has_fresh()
    }

    /// Sleeps until there is work, registers and all: they stay their owner's. False when there will be none.
    #[inline]
    fn idle(&mut self) -> bool {
        if self.shared().is_over() {
            return false;
        }
        self.shared().sleep(self.cpu.id());
        true
    }

    /// Runs a thread until it gives up the CPU, and does with it what it asked for.
    #[inline]
    fn dispatch(&mut self, thread: NonNull<Inner>) {
        let fiber = fiber_of(thread);
        // SAFETY: (a) the kernel path of this CPU. (b) `choose` gave the thread to us, out of a list or an inbox, which
        // acquires. (c) It is in an `Arc`, of which the scheduler has a handle until `door::end`, behind its exit.
        if let Err(Flush { cpu }) = unsafe { self.cpu.switch_in(fiber) } {
            return self.hand_over(thread, Request::HandOver(self.cpu.id()), cpu);
        }
        // SAFETY: it is ours.
        let next = match unsafe { &thread.as_ref().body } {
            Body::User(_) => self.run(thread),
            Body::Kernel(body) => self.step(body),
        };
        if next == Next::End {
            // SAFETY: (a) as above. (b) It was switched in above.
            unsafe { self.cpu.exit(fiber) };
        }
        // SAFETY: (a) as above. (b) It was switched in above.
        unsafe { self.cpu.switch_out(fiber) };
        match next {
            Next::Ready => self.requeue(thread),
            Next::Park => {
                // SAFETY: it is ours, until it is parked.
                if unsafe { thread.as_ref() }.token.park() == Park::Notified {
                    self.requeue(thread);
                }
            }
            Next::Join => {
                // SAFETY: likewise.
                if unsafe { thread.as_ref() }.join_token.park() == Park::Notified {
                    self.requeue(thread);
                }
            }
            // SAFETY: (a) the kernel path of this CPU. (b) Nobody is current. (c) No door is open. `end`: (a) it has exited and
            // was switched out, this is the OS thread's stack, and it is ours.
            Next::End => unsafe {
                self.cpu.kernel_fpu_begin(ptr::null_mut());
                door::end(thread.as_ptr());
                self.cpu.kernel_fpu_end(ptr::null_mut());
            },
        }
    }

    /// User code, until it gives up the CPU.
    #[inline]
    fn run(&mut self, thread: NonNull<Inner>) -> Next {
        loop {
            // SAFETY: (a), (b) `dispatch` has switched it in. (c) It is run by its first CPU alone, or was made by who answers
            // for its migration (`spawn_migratable`); no call of a machine's has a value.
            let Entered { call, .. } = unsafe { self.cpu.run(fiber_of(thread), 0) };
            match call {
                call::NULL if !self.cpu.is_resched_needed() => {}
                call::PARK => return Next::Park,
                call::JOIN => return Next::Join,
                call::EXIT => return Next::End,
                // A yield, a preemption, or one that could not be made.
                _ => {
                    self.cpu.clear_need_resched();
                    if self.has_others() || self.must_leave(thread) {
                        return Next::Ready;
                    }
                }
            }
        }
    }

    /// Whether the thread belongs to another CPU by now.
    #[inline]
    fn must_leave(&self, thread: NonNull<Inner>) -> bool {
        // SAFETY: it is ours.
        let inner = unsafe { thread.as_ref() };
        inner.may_migrate && inner.home.load(Relaxed) != self.cpu.id().0
    }

    /// One step of a kernel thread, which uses no registers or is behind a door.
    #[inline]
    fn step(&mut self, body: &KernelBody) -> Next {
        let KernelBody { step, argument, is_fpu_free, .. } = *body;
        // SAFETY: (a) the kernel path of this CPU. (b) No fiber is current that has a state. (c) No door is open. `call_step`:
        // (a) the pair is what
        // `spawn_kernel` made, and the audit has seen those that are called without a door.
        let said = unsafe {
            if is_fpu_free {
                door::call_step(argument, step)
            } else {
                self.cpu.kernel_fpu_begin(ptr::null_mut());
                let said = door::call_step(argument, step);
                self.cpu.kernel_fpu_end(ptr::null_mut());
                said
            }
        };
        match said {
            step::AGAIN => Next::Ready,
            step::PARK => Next::Park,
            _ => Next::End,
        }
    }
}

/// What becomes of a thread that gave up the CPU.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Ready,
    Park,
    Join,
    End,
}

#[inline]
fn fiber_of(thread: NonNull<Inner>) -> *mut Fiber {
    // The fiber is its first field, in a cell.
    thread.as_ptr().cast()
}

/// Runs threads on this CPU until there will be no more.
///
/// # Safety
/// (a) `core` is this OS thread's. (b) The function is called by the address that was audited, if the gate is bare.
#[inline(never)]
pub(super) unsafe extern "C" fn kernel<P: Policy>(core: *mut Core<P>) {
    // SAFETY: by (a).
    let core = unsafe { &mut *core };
    loop {
        match core.choose() {
            Some(thread) => core.dispatch(thread),
            None if core.idle() => {}
            None => return,
        }
    }
}
