//! Taking the CPU from user code at any instruction, by a signal.
//!
//! A signal finds user code in a [region](super::preemptible) that allows it. Its handler does not switch: it pushes the
//! address of the interrupted instruction to the fiber's stack, below the red zone, and lets the signal return to
//! `PREEMPTED` in the gate, where the fiber stands with all its registers live and enters the kernel as if by an
//! interrupt. So no signal frame is ever held across a switch, and the system does what it always does.
//!
//! - The handler runs on a stack of its own ([`SignalStack`]). The system puts the signal frame right below the red zone
//!   otherwise, with the XSAVE image at its top end, and what the handler pushes would destroy that. On an OS thread
//!   without such a stack nothing is preempted.
//! - It does nothing while the kernel runs (`in_user` is clear), in the two stubs of the gate where user code is said to
//!   run and does not, outside of regions, in sections of [`preempt_off`](super::preempt_off), while a panic unwinds, and
//!   where the stack pointer is not on the fiber's stack, or that has no room. Then the request is remembered
//!   ([`Cpu::is_resched_needed`](super::Cpu::is_resched_needed)), and heard at the next entry or the end of the section.
//! - Signals of the same number that are not from here are passed on to the handler that was there before.
//! - System calls that it interrupts are restarted (SA_RESTART); those that never are fail with EINTR, see signal(7).
//!
//! Who may ask: the code itself ([`preempt_self`](super::preempt_self)), another thread ([`Target::preempt`]), a timer
//! ([`Tick`]).
//!
//! A runtime of one's own calls [`Signal::install`] once, and on the OS thread of each CPU makes a [`SignalStack`], a
//! [`Target::this`] that others use, and a [`Tick`], which it drops in the opposite order.

use super::{LiveError, fiber::Fiber, gate, system, user};
use crate::arch::Chain;
use alloc::vec::Vec;
use core::{
    ffi::{c_int, c_void},
    mem, ptr,
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

/// What the fiber's stack has to have below the red zone, besides what is pushed: the gate's own frames.
const SPARE_BYTES: usize = 64;

/// The signals that can be taken, and what they did before.
static CHAINS: [Chain; 65] = [const { Chain::new() }; 65];

/// What a signal of ours carries: the address of this.
static MARK: u8 = 0;

/// A signal that preempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(c_int);

impl Signal {
    /// The number that a machine takes if nobody says otherwise: SIGURG.
    pub const DEFAULT: c_int = super::config::SIGURG;

    /// Installs the handler for a signal, once for the process. The handler that was there gets those that are not ours.
    ///
    /// # Errors
    /// [`LiveError::Signal`] for a number that is none, or that cannot be caught, or that reports faults, or whose default
    /// is to stop the process: one from elsewhere would do that.
    pub fn install(signal: c_int) -> Result<Self, LiveError> {
        let is_fault =
            [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP].contains(&signal);
        let stops = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal);
        let chain = usize::try_from(signal).ok().filter(|signal| *signal > 0 && !is_fault && !stops);
        let chain = chain
            .and_then(|signal| CHAINS.get(signal))
            .ok_or(LiveError::Signal { signal, error: libc::EINVAL })?;
        // SAFETY: (a) the handler reads and writes words of this OS thread's gate, and calls nothing that locks or
        // allocates.
        unsafe { chain.install(signal, on_signal, libc::SA_RESTART) }
            .map_err(|error| LiveError::Signal { signal, error })?;
        Ok(Self(signal))
    }
}

/// An OS thread that can be asked to preempt what it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    os_thread: i32,
    signal: Signal,
}

impl Target {
    /// The calling OS thread, which lets the signal through from here on.
    ///
    /// # Errors
    /// [`LiveError::System`].
    pub fn this(signal: Signal) -> Result<Self, LiveError> {
        // SAFETY: a set of signals is filled before it is read (sigsetops(3), pthread_sigmask(3)).
        let error = unsafe {
            let mut set = mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, signal.0);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, ptr::null_mut())
        };
        match error {
            0 => Ok(Self { os_thread: system::os_thread(), signal }),
            error => Err(LiveError::System { what: "pthread_sigmask", error }),
        }
    }

    /// The calling OS thread with the same signal, which it lets through already.
    pub(super) fn here(self) -> Self {
        Self { os_thread: system::os_thread(), ..self }
    }

    /// Asks it to let another fiber run as soon as it may. On the calling OS thread, the fiber is preempted before this
    /// returns, if it is in a region.
    ///
    /// # Errors
    /// [`LiveError::System`], also when the OS thread has ended.
    pub fn preempt(&self) -> Result<(), LiveError> {
        // SAFETY: zeros are a `siginfo_t`.
        let mut info: SignalInfo = unsafe { mem::zeroed() };
        info.signal = self.signal.0;
        info.code = libc::SI_QUEUE;
        // SAFETY: getpid and getuid take nothing and cannot fail.
        unsafe { (info.pid, info.uid) = (libc::getpid(), libc::getuid()) };
        info.value = (&raw const MARK) as usize;
        // SAFETY: the system reads one `siginfo_t` (rt_tgsigqueueinfo(2)).
        let sent = unsafe {
            let (process, thread) = (info.pid, self.os_thread);
            libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, self.signal.0, &raw const info)
        };
        if sent == 0 { Ok(()) } else { Err(system::last_error("rt_tgsigqueueinfo")) }
    }
}

/// The beginning of `siginfo_t` for queued signals (Linux, include/uapi/asm-generic/siginfo.h), with its full length.
#[repr(C)]
struct SignalInfo {
    signal: c_int,
    error: c_int,
    code: c_int,
    _padding: c_int,
    pid: libc::pid_t,
    uid: libc::uid_t,
    value: usize,
    _rest: [usize; 12],
}

const _: () = assert!(size_of::<SignalInfo>() == size_of::<libc::siginfo_t>());

/// A POSIX timer that preempts an OS thread again and again; dropped, it stops. Ticks that come while one is pending are
/// dropped by the system (timer_getoverrun(2)).
#[derive(Debug)]
pub struct Tick(libc::timer_t);

// SAFETY: the name of a timer of the process, which any thread may delete (timer_delete(2)).
unsafe impl Send for Tick {}

impl Tick {
    /// A tick every `period` of the monotonic clock.
    ///
    /// # Errors
    /// [`LiveError::System`], for a period of 0 too.
    pub fn new(target: Target, period: Duration) -> Result<Self, LiveError> {
        if period.is_zero() {
            return Err(LiveError::System { what: "a tick without a period", error: libc::EINVAL });
        }
        // SAFETY: zeros are a `sigevent`.
        let mut event: libc::sigevent = unsafe { mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = target.signal.0;
        event.sigev_notify_thread_id = target.os_thread;
        event.sigev_value.sival_ptr = (&raw const MARK).cast_mut().cast();
        let mut timer = ptr::null_mut();
        // SAFETY: both pointers are to values of ours (timer_create(2)).
        if unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) } != 0 {
            return Err(system::last_error("timer_create"));
        }
        let tick = Self(timer);
        let every = libc::timespec {
            tv_sec: period.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: period.subsec_nanos().into(),
        };
        let times = libc::itimerspec { it_interval: every, it_value: every };
        // SAFETY: the timer was just made; the new times are read, the old ones not asked for.
        if unsafe { libc::timer_settime(timer, 0, &times, ptr::null_mut()) } != 0 {
            return Err(system::last_error("timer_settime"));
        }
        Ok(tick)
    }
}

impl Drop for Tick {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and deleted once.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// A stack for signal handlers of the calling OS thread; dropped there, the one before is in force again.
///
/// If another is in force when it is dropped, that one stays, and the memory of this one is never freed: the other may
/// put it in force again.
#[derive(Debug)]
pub struct SignalStack {
    /// Never grown or shrunk while the system knows it.
    bytes: Vec<u8>,
    previous: libc::stack_t,
    /// It is of the OS thread that made it.
    _not_send: core::marker::PhantomData<*const ()>,
}

impl SignalStack {
    /// A stack with room for the frame that this CPU's registers take (AT_MINSIGSTKSZ), and 64 KiB for handlers.
    ///
    /// # Errors
    /// [`LiveError::System`].
    pub fn new() -> Result<Self, LiveError> {
        // SAFETY: it takes a number (getauxval(3)); 0 if the system does not say.
        let frame_bytes = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize;
        let mut bytes = alloc::vec![0_u8; frame_bytes.max(libc::MINSIGSTKSZ) + 64 * 1024];
        let stack = libc::stack_t { ss_sp: bytes.as_mut_ptr().cast(), ss_flags: 0, ss_size: bytes.len() };
        // SAFETY: zeros are a `stack_t`.
        let mut previous: libc::stack_t = unsafe { mem::zeroed() };
        // SAFETY: the bytes live until `drop` takes them from the system (sigaltstack(2)).
        match unsafe { libc::sigaltstack(&stack, &mut previous) } {
            0 => Ok(Self { bytes, previous, _not_send: core::marker::PhantomData }),
            _ => Err(system::last_error("sigaltstack")),
        }
    }
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        // SAFETY: zeros are a `stack_t`.
        let mut in_force: libc::stack_t = unsafe { mem::zeroed() };
        // SAFETY: no new stack, and room for the one in force.
        let known = unsafe { libc::sigaltstack(ptr::null(), &mut in_force) };
        let is_ours = known == 0 && in_force.ss_sp == self.bytes.as_mut_ptr().cast();
        // SAFETY: what was in force before `new`, on the same OS thread: not ours, or not freed while it is to come back.
        if !is_ours || unsafe { libc::sigaltstack(&self.previous, ptr::null_mut()) } != 0 {
            mem::forget(mem::take(&mut self.bytes));
        }
    }
}

/// Why the calling code was not preempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotPreemptible {
    /// It is no green thread.
    #[error("only a green thread can be preempted, and this is none")]
    NoFiber,
    /// It is not in a region, or in a section that may not be preempted.
    #[error("preemption is off: it is on inside of `preemptible`, outside of `preempt_off`")]
    Off,
}

/// Whether the calling code may be preempted.
///
/// # Errors
/// Why not.
pub fn check_preemptible() -> Result<(), NotPreemptible> {
    let fiber = user::current().ok_or(NotPreemptible::NoFiber)?;
    if user::may_be_preempted(fiber) { Ok(()) } else { Err(NotPreemptible::Off) }
}

extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system gives both to a handler with SA_SIGINFO, for as long as it runs (sigaction(2)).
    let is_ours = unsafe {
        let code = (*info).si_code;
        matches!(code, libc::SI_QUEUE | libc::SI_TIMER)
            && (*info).si_value().sival_ptr == (&raw const MARK).cast_mut().cast()
    };
    if !is_ours {
        // SAFETY: (a) they are this signal's. Its number is one of those that were installed.
        return unsafe { CHAINS[signal as usize].pass_on(false, signal, info, context) };
    }
    if user::is_cpu() {
        // SAFETY: (a) a CPU's GS points to its gate. (b) The context is the system's.
        unsafe { divert(&mut *context.cast::<libc::ucontext_t>()) };
    }
}

/// Has the interrupted code go on in PREEMPTED, if it may.
///
/// # Safety
/// (a) GS points to a gate. (b) `context` is what the handler returns to, in its signal frame.
unsafe fn divert(context: &mut libc::ucontext_t) {
    let frame = (&raw const *context).addr();
    let registers = &mut context.uc_mcontext.gregs;
    // SAFETY: by (a). Its words are this OS thread's; of those that the kernel may be at, atomics alone are looked at.
    let gate = unsafe { &*gate::this() };
    let rip = registers[libc::REG_RIP as usize] as usize;
    let rsp = registers[libc::REG_RSP as usize] as usize;
    // SAFETY: the context of a gate whose user code runs is a fiber.
    let may_be = gate.in_user.load(Relaxed) != 0
        && !gate::is_stub(rip)
        && user::may_be_preempted(unsafe { ptr::NonNull::new_unchecked(gate.context.cast()) })
        && !std::thread::panicking();
    // SAFETY: likewise.
    if !may_be || !unsafe { has_room(&*gate.context.cast::<Fiber>(), rsp, frame) } {
        gate.need_resched.store(1, Relaxed);
        return;
    }
    let at = rsp - gate::RED_ZONE_BYTES - size_of::<usize>();
    // SAFETY: the fiber's stack has room there, and the code that was interrupted keeps nothing below its red zone.
    unsafe { ptr::with_exposed_provenance_mut::<usize>(at).write(rip) };
    registers[libc::REG_RSP as usize] = at as libc::greg_t;
    registers[libc::REG_RIP as usize] = gate::preempted as *const () as libc::greg_t;
}

/// Whether the stack pointer is on the fiber's stack, with enough of it below, and the signal frame is not.
fn has_room(fiber: &Fiber, rsp: usize, frame: usize) -> bool {
    let needed = gate::RED_ZONE_BYTES + size_of::<usize>() + gate::PREEMPTED_BYTES + SPARE_BYTES;
    let stack = fiber.stack_limit..=fiber.stack_base;
    stack.contains(&rsp) && rsp - fiber.stack_limit >= needed && !stack.contains(&frame)
}
