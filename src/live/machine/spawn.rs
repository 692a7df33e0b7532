//! Making threads.

use super::{
    Shared,
    join::{JoinHandle, Packet},
    kernel::step,
    thread::{self, Body, Inner, KernelBody, StepFn, Thread},
};
use crate::{
    CpuId,
    live::{
        LiveError,
        audit::{self, KernelPath},
        fiber::Fiber,
        system,
        user::preempt_off,
    },
};
use alloc::{boxed::Box, sync::Arc};
use core::{cell::Cell, ptr::NonNull};
use corosensei::stack::{DefaultStack, Stack};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread as os,
};

/// How a thread is to be made.
#[derive(Clone, Debug)]
pub struct Spawn {
    shared: Arc<Shared>,
    name: Option<Box<str>>,
    cpu: Option<CpuId>,
    stack_bytes: usize,
    is_promised: bool,
}

impl Spawn {
    pub(super) fn of(shared: &Arc<Shared>) -> Self {
        let stack_bytes = shared.stack_bytes;
        Self { shared: Arc::clone(shared), name: None, cpu: None, stack_bytes, is_promised: false }
    }

    /// As the calling green thread was made, on its machine; `None` elsewhere.
    pub fn here() -> Option<Self> {
        thread::current().map(|thread| Self::of(&thread.inner.shared))
    }

    /// Gives the thread a name, which a report of its fault has.
    #[must_use]
    pub fn name(self, name: &str) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// Runs the thread on this CPU alone.
    ///
    /// # Errors
    /// [`LiveError::NoSuchCpu`].
    pub fn cpu(self, cpu: CpuId) -> Result<Self, LiveError> {
        self.shared.check_cpu(cpu)?;
        Ok(Self { cpu: Some(cpu), ..self })
    }

    /// Gives the thread a stack of that many bytes, in whole pages and at least one, with a guard page below.
    ///
    /// 16 KiB have room for the message of a panic, 64 KiB for its backtrace (`RUST_BACKTRACE=1`).
    #[must_use]
    pub fn stack_bytes(self, stack_bytes: usize) -> Self {
        Self { stack_bytes, ..self }
    }

    /// Promises that the thread never has other control words than the default when it enters the kernel, so that the
    /// gate need not look.
    ///
    /// # Safety
    /// (a) As for [`Fiber::promise_default_control_words`].
    #[must_use]
    pub unsafe fn promise_default_control_words(self) -> Self {
        Self { is_promised: true, ..self }
    }

    /// Makes a thread that runs `f`. Until it has started any CPU may take it; then it stays there.
    ///
    /// The threads of a CPU have one OS thread's thread-locals in common, and code that relies on the order of calls on an
    /// OS thread does not know that they take turns. So no call to the kernel may come inside of the initialiser of a
    /// `thread_local!`, where another thread's value would be dropped while it is borrowed, nor inside of a scope for
    /// which a library keeps a reference in a thread-local (`scoped-tls`). The compiler does not check that.
    ///
    /// # Errors
    /// [`LiveError::Mappings`] when there is no memory for its stack; [`LiveError::Ended`] when the machine has ended.
    pub fn spawn<F, T>(self, f: F) -> Result<JoinHandle<T>, LiveError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.spawn_user(f, false)
    }

    /// The same for a thread that may go on on another CPU, which is another OS thread, at any call to the kernel, and in
    /// a region where it may be [preempted](crate::live::preemptible), at any instruction.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    ///
    /// # Safety
    /// (a) Nothing that `f` has across a call to the kernel depends on the OS thread: no reference to a thread-local, no
    /// lock that has to be released by the thread which took it, no value that is not `Send`. The compiler may keep the
    /// address of a thread-local across calls that it can see through.
    pub unsafe fn spawn_migratable<F, T>(self, f: F) -> Result<JoinHandle<T>, LiveError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.spawn_user(f, true)
    }

    fn spawn_user<F, T>(self, f: F, may_migrate: bool) -> Result<JoinHandle<T>, LiveError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        // Also in a region: nobody else of this OS thread finds the allocator or a queue half done.
        preempt_off(|| self.make_user(f, may_migrate))
    }

    fn make_user<F, T>(self, f: F, may_migrate: bool) -> Result<JoinHandle<T>, LiveError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let stack = new_stack(self.stack_bytes)?;
        let packet = Packet::new();
        let result = Arc::clone(&packet);
        let start = Box::new(move || result.finish(catch_unwind(AssertUnwindSafe(f))));
        // SAFETY: (a) the stack lives until the thread has ended (`door::end`). (b) `main` takes no argument, and ends by a
        // call that ends the thread.
        let mut fiber = unsafe {
            // The limit includes the guard page.
            let limit = stack.limit().get() + system::page_bytes();
            Fiber::new(stack.base().get(), limit, thread::main, core::ptr::null_mut())
        }?;
        if self.is_promised {
            // SAFETY: (a) whoever made `self` answers for it.
            unsafe { fiber.promise_default_control_words() };
        }
        let thread = self.add(fiber, Body::User(Cell::new(Some(start))), may_migrate, Some(stack))?;
        Ok(JoinHandle { packet, thread })
    }

    /// Makes a kernel thread: `step` is called again and again by the kernel of a CPU, as it says, and has no FPU state.
    /// Each step may use the registers: their owner is saved first. It must not wait for green threads. PKRU is what Linux
    /// gives kernel threads (55555554H): memory of other keys than 0 is not accessible.
    ///
    /// # Errors
    /// [`LiveError::Registers`]; [`LiveError::Ended`] when the machine has ended.
    pub fn spawn_kernel<F>(self, step: F) -> Result<JoinHandle<()>, LiveError>
    where
        F: FnMut() -> Step + Send + 'static,
    {
        preempt_off(|| self.spawn_step(step, step_behind_door::<F>, false))
    }

    /// The same for a step that touches no FPU register, so that those may stay their owner's meanwhile. A panic in it
    /// aborts the process.
    ///
    /// # Errors
    /// As [`spawn_kernel`](Self::spawn_kernel), and with the bare gate [`LiveError::NotFpuFree`] if the step's code does not pass the
    /// audit.
    pub fn spawn_kernel_fpu_free<F>(self, step: F) -> Result<JoinHandle<()>, LiveError>
    where
        F: FnMut() -> Step + Send + 'static,
    {
        preempt_off(|| {
            if self.shared.is_bare {
                audit::assert_fpu_free(&KernelPath::new(step_alone::<F> as *const ()))?;
            }
            self.spawn_step(step, step_alone::<F>, true)
        })
    }

    fn spawn_step<F>(self, step: F, call: StepFn, is_fpu_free: bool) -> Result<JoinHandle<()>, LiveError>
    where
        F: FnMut() -> Step + Send + 'static,
    {
        let packet = Packet::new();
        let fiber = Fiber::of_kernel()?;
        let steps = Box::new(Steps { step, packet: Arc::clone(&packet), panic: None });
        let argument = Box::into_raw(steps).cast();
        let body = KernelBody { step: call, argument, is_fpu_free, end: end_steps::<F> };
        let thread = self.add(fiber, Body::Kernel(Box::new(body)), false, None).inspect_err(|_| {
            // SAFETY: just made, and no thread has it.
            drop(unsafe { Box::from_raw(argument.cast::<Steps<F>>()) });
        })?;
        Ok(JoinHandle { packet, thread })
    }

    fn add(
        self,
        mut fiber: Fiber,
        body: Body,
        may_migrate: bool,
        stack: Option<DefaultStack>,
    ) -> Result<Thread, LiveError> {
        fiber.is_of_machine = true;
        let Self { shared, name, cpu, .. } = self;
        shared.thread_begins()?;
        let home = cpu.unwrap_or_else(|| shared.next_cpu());
        let inner = Inner::new(fiber, body, name, home, may_migrate, Arc::clone(&shared), stack);
        let inner = Arc::new(inner);
        // The scheduler's handle, until `door::end`.
        let scheduled = Arc::clone(&inner);
        match cpu {
            Some(_) => {
                let scheduled = Arc::into_raw(scheduled).cast_mut();
                // SAFETY: (a) it is new. `Arc` pointers are not null.
                unsafe { shared.hand_over(NonNull::new_unchecked(scheduled), home) };
            }
            None => shared.add_fresh(scheduled, home),
        }
        Ok(Thread { inner })
    }
}

/// The addresses of user space, without five-level paging.
const MOST_STACK_BYTES: usize = 1 << 47;

/// A stack with a guard page.
fn new_stack(bytes: usize) -> Result<DefaultStack, LiveError> {
    // More than any system has, and less than what overflows in there.
    if bytes > MOST_STACK_BYTES {
        return Err(LiveError::StackTooLarge { bytes, most_bytes: MOST_STACK_BYTES });
    }
    DefaultStack::new(bytes).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOMEM) => LiveError::Mappings { limit: system::max_map_count() },
        error => LiveError::System { what: "mmap", error: error.unwrap_or(0) },
    })
}

/// What a step of a kernel thread asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// To be called again when others had their turn.
    Again,
    /// To be called again when somebody [unparks](Thread::unpark) the thread.
    Park,
    /// Nothing: the thread has ended.
    Done,
}

impl Step {
    #[inline]
    fn number(self) -> u64 {
        match self {
            Self::Again => step::AGAIN,
            Self::Park => step::PARK,
            Self::Done => step::DONE,
        }
    }
}

struct Steps<F> {
    step: F,
    packet: Arc<Packet<()>>,
    panic: Option<Box<dyn core::any::Any + Send>>,
}

/// # Safety
/// (a) `steps` is a `Steps<F>` that nobody else uses meanwhile.
#[inline(never)]
unsafe extern "C" fn step_alone<F: FnMut() -> Step>(steps: *mut ()) -> u64 {
    // SAFETY: by (a).
    let steps = unsafe { &mut *steps.cast::<Steps<F>>() };
    (steps.step)().number()
}

/// # Safety
/// (a) As for [`step_alone`].
#[inline(never)]
unsafe extern "C" fn step_behind_door<F: FnMut() -> Step>(steps: *mut ()) -> u64 {
    // SAFETY: by (a).
    let steps = unsafe { &mut *steps.cast::<Steps<F>>() };
    match catch_unwind(AssertUnwindSafe(&mut steps.step)) {
        Ok(step) => step.number(),
        Err(panic) => {
            steps.panic = Some(panic);
            step::DONE
        }
    }
}

/// # Safety
/// (a) As for [`step_alone`], for the last time.
unsafe fn end_steps<F>(steps: *mut ()) {
    // SAFETY: by (a); `spawn_step` made the box.
    let Steps { packet, panic, step } = *unsafe { Box::from_raw(steps.cast::<Steps<F>>()) };
    // What the step owns is dropped before anybody hears of its end.
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(step)));
    let result: os::Result<()> = match panic {
        Some(panic) => Err(panic),
        None => dropped,
    };
    packet.finish(result);
}
