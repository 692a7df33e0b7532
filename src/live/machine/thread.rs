//! A thread of a machine: a fiber, and what the scheduler knows of it.

use super::{Shared, kernel::call};
use crate::live::{
    LiveError,
    cpu::impossible,
    fiber::Fiber,
    gate,
    preempt::{self, NotPreemptible},
    sync::{
        local::Linked,
        request::RequestWord,
        token::{Token, Unpark},
    },
    user,
};
use crate::{CpuId, TaskId};
use alloc::{boxed::Box, sync::Arc};
use core::{
    cell::{Cell, UnsafeCell},
    fmt,
    ptr::{self, NonNull},
    sync::atomic::{AtomicPtr, AtomicU32, Ordering::Relaxed},
};
use corosensei::stack::DefaultStack;

/// One step of a kernel thread: what it says is one of [`Step`](super::Step)'s numbers.
pub(super) type StepFn = unsafe extern "C" fn(*mut ()) -> u64;

/// What a thread runs.
pub(super) enum Body {
    /// User code: begins with this, once.
    User(Cell<Option<Box<dyn FnOnce() + Send>>>),
    /// Kernel code. In a box, as most threads have none.
    Kernel(Box<KernelBody>),
}

/// What a kernel thread runs.
pub(super) struct KernelBody {
    pub(super) step: StepFn,
    pub(super) argument: *mut (),
    /// The step touches no FPU register.
    pub(super) is_fpu_free: bool,
    /// Drops the argument.
    pub(super) end: unsafe fn(*mut ()),
}

/// A thread. Its CPU's kernel has it, or a list, or an unparker: see `sync`.
#[repr(C)]
pub(super) struct Inner {
    /// First: the fiber that runs is known by its address.
    pub(super) fiber: UnsafeCell<Fiber>,
    /// The fiber's: others may not look into that while its CPU writes it.
    id: TaskId,
    link: AtomicPtr<Inner>,
    pub(super) token: Token,
    /// Of a wait for another thread's end: apart, so that neither wait takes the other's notification.
    pub(super) join_token: Token,
    pub(super) request: RequestWord,
    /// The CPU whose kernel is to run it.
    pub(super) home: AtomicU32,
    pub(super) may_migrate: bool,
    pub(super) body: Body,
    pub(super) name: Option<Box<str>>,
    pub(super) shared: Arc<Shared>,
    pub(super) stack: Cell<Option<DefaultStack>>,
}

// SAFETY: what is not atomic is touched by whoever has the thread alone (`sync`): its CPU's kernel, its own code, or who
// drops the last handle of one that has ended. A body is `Send`.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

// SAFETY: L: a field, and nobody else uses it.
unsafe impl Linked for Inner {
    #[inline]
    fn link(&self) -> &AtomicPtr<Self> {
        &self.link
    }
}

impl Inner {
    pub(super) fn new(
        fiber: Fiber,
        body: Body,
        name: Option<Box<str>>,
        home: CpuId,
        may_migrate: bool,
        shared: Arc<Shared>,
        stack: Option<DefaultStack>,
    ) -> Self {
        Self {
            id: fiber.id(),
            fiber: UnsafeCell::new(fiber),
            link: AtomicPtr::default(),
            token: Token::new(),
            join_token: Token::new(),
            request: RequestWord::new(),
            home: AtomicU32::new(home.0),
            may_migrate,
            body,
            name,
            shared,
            stack: Cell::new(stack),
        }
    }
}

impl Inner {
    /// The scheduler moves the thread from one CPU to another, unless it was told meanwhile where to go. Returns where it
    /// belongs.
    #[inline]
    pub(super) fn move_home(&self, from: u32, to: u32) -> u32 {
        match self.home.compare_exchange(from, to, Relaxed, Relaxed) {
            Ok(_) => to,
            Err(told) => told,
        }
    }
}

/// A handle to a thread, by which it can be woken.
#[derive(Clone)]
pub struct Thread {
    pub(super) inner: Arc<Inner>,
}

impl Thread {
    /// The task that the protocol knows it as.
    pub fn id(&self) -> TaskId {
        self.inner.id
    }

    /// The name that it was given.
    pub fn name(&self) -> Option<&str> {
        self.inner.name.as_deref()
    }

    /// Wakes the thread if it [parks](park); otherwise its next park returns at once.
    pub fn unpark(&self) {
        self.notify(&self.inner.token);
    }

    /// Wakes the thread if it [waits for a thread's end](wait_for_end): what that was is over.
    pub(super) fn end_wait(&self) {
        self.notify(&self.inner.join_token);
    }

    fn notify(&self, token: &Token) {
        if token.unpark() == Unpark::MustWake {
            let home = CpuId(self.inner.home.load(Relaxed));
            // The whole `Arc`'s, as `door::end` makes it one again.
            let inner = Arc::as_ptr(&self.inner).cast_mut();
            // SAFETY: `MustWake`: the thread is ours, in no list, and alive while it waits. `Arc` pointers are not null.
            unsafe { self.inner.shared.hand_over(NonNull::new_unchecked(inner), home) };
        }
    }

    /// Has another CPU run the thread from its next switch on. Where it is to run already, nothing changes: like every
    /// migratable thread it may be given to a CPU that has nothing to do.
    ///
    /// # Errors
    /// [`LiveError::NoSuchCpu`]; [`LiveError::Pinned`] for a thread that was not
    /// [spawned](super::Spawn::spawn_migratable) for that.
    pub fn migrate_to(&self, cpu: CpuId) -> Result<(), LiveError> {
        self.inner.shared.check_cpu(cpu)?;
        if !self.inner.may_migrate {
            return Err(LiveError::Pinned);
        }
        self.inner.home.store(cpu.0, Relaxed);
        Ok(())
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").field("id", &self.id()).field("name", &self.name()).finish()
    }
}

/// The calling green thread; `None` elsewhere.
pub fn current() -> Option<Thread> {
    let inner = calling_inner()?.as_ptr().cast_const();
    // SAFETY: a thread is in an `Arc`, and alive while its code runs.
    let inner = unsafe {
        Arc::increment_strong_count(inner);
        Arc::from_raw(inner)
    };
    Some(Thread { inner })
}

/// The thread whose code this is.
#[inline]
fn calling<'a>() -> Option<&'a Inner> {
    // SAFETY: it is alive while its code runs.
    calling_inner().map(|inner| unsafe { inner.as_ref() })
}

/// Where the thread is whose code this is, by the pointer that its `Arc` gave.
#[inline]
fn calling_inner() -> Option<NonNull<Inner>> {
    let fiber = user::current()?;
    // SAFETY: a fiber is alive while its code runs; one of a machine is the first field of an `Inner`.
    unsafe { (*fiber.as_ptr()).is_of_machine }.then(|| fiber.cast())
}

/// # Panics
/// Outside of a green thread. Aborts the process while a panic unwinds.
#[inline]
fn calling_or_panic<'a>() -> &'a Inner {
    user::refuse_unwinding();
    match calling() {
        Some(inner) => inner,
        None => user::no_fiber(),
    }
}

/// # Panics
/// As [`yield_now`].
pub(in crate::live) fn refuse_others() {
    calling_or_panic();
}

/// Lets other threads of this CPU run, if there are any.
///
/// Vector and x87 registers are not kept, as by any function; with the policy `call-boundary` they are not switched
/// either, but the control words alone.
///
/// # Panics
/// Outside of a green thread. Aborts the process while a panic unwinds.
#[inline]
pub fn yield_now() {
    calling_or_panic();
    // SAFETY: (a) a thread of a machine, for which the call is.
    unsafe { gate::enter_by_call(call::YIELD, 0) };
}

/// What [`syscall`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Nothing.
    Null,
    /// To let other threads of this CPU run, if there are any.
    Yield,
}

impl Call {
    #[inline(always)]
    pub(in crate::live) fn number(self) -> u64 {
        match self {
            Self::Null => call::NULL,
            Self::Yield => call::YIELD,
        }
    }
}

/// Calls the kernel with every vector, mask and x87 register live: they are the same afterwards, whoever ran meanwhile,
/// as behind the SYSCALL instruction.
///
/// For code that holds values in registers across it, such as `asm!`; the compiler may do the same, as no register is
/// declared to change.
///
/// # Panics
/// As [`yield_now`].
#[inline(always)]
pub fn syscall(call: Call) {
    calling_or_panic();
    // SAFETY: (a) as for `yield_now`.
    unsafe { gate::enter_keeping(call.number(), 0) };
}

/// Preempts the calling code by a signal to its own OS thread: other threads run before this returns, if there are any.
///
/// # Errors
/// [`NotPreemptible`] outside of a green thread, outside of a region, and where preemption is off.
pub fn preempt_self() -> Result<(), NotPreemptible> {
    preempt::check_preemptible()?;
    let inner = calling().ok_or(NotPreemptible::NoFiber)?;
    let sent = inner.shared.preempt_self();
    debug_assert!(sent.is_ok(), "{sent:?}");
    Ok(())
}

/// Waits until somebody [unparks](Thread::unpark) the calling thread; returns at once if somebody has. May not return
/// for other reasons.
///
/// # Panics
/// As [`yield_now`].
pub fn park() {
    if !calling_or_panic().token.take() {
        // SAFETY: (a) as for `yield_now`.
        unsafe { gate::enter_by_call(call::PARK, 0) };
    }
}

/// Waits for the one [`end_wait`](Thread::end_wait) that belongs to this call.
///
/// # Panics
/// As [`yield_now`].
pub(super) fn wait_for_end() {
    if !calling_or_panic().join_token.take() {
        // SAFETY: (a) as for `yield_now`.
        unsafe { gate::enter_by_call(call::JOIN, 0) };
    }
}

/// Where a green thread begins.
pub(super) unsafe extern "C" fn main(_: *mut ()) -> ! {
    {
        let inner = calling_or_panic();
        if let Body::User(start) = &inner.body
            && let Some(start) = start.take()
        {
            start();
        }
    }
    // SAFETY: (a) a fiber. The kernel does not come back.
    unsafe { gate::enter_by_call(call::EXIT, 0) };
    impossible()
}

/// The name of the thread that a fiber is of.
pub(in crate::live) fn thread_name(fiber: &Fiber) -> Option<&str> {
    // SAFETY: a fiber of a machine is the first field of an `Inner`.
    let inner = fiber.is_of_machine.then(|| unsafe { &*ptr::from_ref(fiber).cast::<Inner>() })?;
    inner.name.as_deref()
}
