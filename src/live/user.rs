//! What user code asks of the kernel.

use super::{
    cpu::Entered,
    fiber::{self, Fiber},
    gate::{self, Gate},
};
use core::{cell::Cell, ptr::NonNull};
use std::thread;

std::thread_local! {
    /// Whether this OS thread is a CPU. Read by code that may go on elsewhere behind a call: on another CPU, where it is
    /// the same.
    static IS_CPU: Cell<bool> = const { Cell::new(false) };
}

/// The calling OS thread is a CPU from here on, or no longer.
pub(super) fn set_is_cpu(is_cpu: bool) {
    IS_CPU.set(is_cpu);
}

/// Whether the calling OS thread is a CPU.
#[inline]
pub(super) fn is_cpu() -> bool {
    IS_CPU.get()
}

/// Whether user code of a fiber is calling, and not an OS thread of another kind, or a kernel. Any runtime's: a
/// [`Machine`](super::Machine)'s threads are fibers, too.
#[inline]
pub fn is_fiber() -> bool {
    IS_CPU.get() && {
        let in_user: u8;
        // SAFETY: GS points to a gate on a CPU. MOV touches neither stack nor flags; `readonly` is not said, as another
        // CPU's gate may be read next time.
        unsafe {
            core::arch::asm!(
                "mov {in_user}, gs:[{at}]",
                in_user = out(reg_byte) in_user,
                at = const core::mem::offset_of!(Gate, in_user),
                options(nostack, preserves_flags),
            );
        }
        in_user != 0
    }
}

/// The calling fiber.
#[inline]
pub(super) fn current() -> Option<NonNull<Fiber>> {
    // SAFETY: (a) was just looked up.
    is_fiber().then(|| unsafe { fiber::current() })
}

/// The calling fiber.
///
/// # Panics
/// If it is none; aborts while a panic unwinds, which has to stay on its OS thread.
#[inline]
pub(super) fn current_or_panic() -> NonNull<Fiber> {
    refuse_unwinding();
    match current() {
        Some(fiber) => fiber,
        None => no_fiber(),
    }
}

/// Aborts while a panic unwinds.
#[inline]
pub(super) fn refuse_unwinding() {
    if thread::panicking() {
        unwinding();
    }
}

/// # Panics
/// In the kernel of a CPU, which cannot wait for its threads.
pub(super) fn refuse_in_kernel() {
    assert!(!IS_CPU.get() || is_fiber(), "the kernel of a CPU cannot wait for a green thread");
}

#[cold]
#[inline(never)]
pub(super) fn no_fiber() -> ! {
    panic!("only a green thread can call its kernel, and this is none");
}

#[cold]
#[inline(never)]
fn unwinding() -> ! {
    std::eprintln!(
        "fpuswitch: a green thread called its kernel while a panic unwound it; std counts panics by OS thread"
    );
    std::process::abort();
}

/// Enters the kernel like a function that is called: vector, mask and x87 registers may be anything afterwards, but the
/// control words are the same. Returns what the kernel gives.
///
/// The kernel finds a system call ([`EntryKind::SystemCall`](crate::EntryKind)), and `call` and `argument` in
/// [`Entered`]. Under the policy `call-boundary` the control words alone are switched.
///
/// # Panics
/// If the caller is no fiber. Aborts the process while a panic unwinds, which std counts by OS thread.
///
/// # Safety
/// (a) The fiber's kernel, whoever [runs](super::Cpu::run) it, gives `call` and `argument` a meaning that is sound here: it
/// may end the fiber, for one. (b) If the kernel may have another CPU go on with the fiber: see
/// [`Fiber`](super::Fiber#on-which-os-thread).
///
/// # Reference
/// System V ABI, AMD64 supplement, section 3.2.1 "Registers": a function keeps RBX, RBP, R12 to R15 and the control words.
#[inline]
pub unsafe fn enter(call: u32, argument: u64) -> u64 {
    current_or_panic();
    // SAFETY: (a) a fiber, as was just seen.
    unsafe { gate::enter_by_call(u64::from(call), argument) }
}

/// Enters the kernel with every vector, mask and x87 register live: they are the same afterwards, whoever ran meanwhile,
/// as behind the SYSCALL instruction.
///
/// For code whose compiler holds values in registers across it: none is declared to change. To come from asm with
/// particular registers live, call [`enter_from_asm`](super::enter_from_asm): in front of this, Rust code runs.
///
/// The kernel finds an exception ([`EntryKind::Exception`](crate::EntryKind)), where no policy gives up anything.
///
/// # Panics
/// As [`enter`].
///
/// # Safety
/// (a), (b) As for [`enter`].
#[inline(always)]
pub unsafe fn enter_keeping(call: u32, argument: u64) -> u64 {
    current_or_panic();
    // SAFETY: (a) as for `enter`.
    unsafe { gate::enter_keeping(u64::from(call), argument) }
}

/// Runs `region`, in which a signal may stop the calling fiber at any instruction, and another fiber of this CPU go on.
///
/// Regions nest. See [`preempt`](super::preempt) for who may ask for it, and for when it is put off. The kernel finds an
/// interrupt ([`EntryKind::Interrupt`](crate::EntryKind)) and [`Entered::PREEMPTED`].
///
/// # Panics
/// If the caller is no fiber; and with `region`. While a panic unwinds through it, nothing is preempted.
///
/// # Safety
/// (a) Nothing in `region` depends on what other fibers of the same OS thread may change or hold at any moment: it
/// allocates and frees nothing, holds no lock that they take, uses no thread-local that they use, nor code that does
/// (`malloc`, `println!`, most of the C library), but for sections of [`preempt_off`]. (b) If the kernel may have another
/// CPU go on with a preempted fiber: as (b) of [`enter`], at every instruction. (c) The code keeps to the red zone, and
/// signals of other numbers that may come meanwhile are handled on an alternate stack (SA_ONSTACK): a handler on the
/// fiber's own would be preempted with it, and its signal stay blocked for others. They call nothing of this module.
///
/// # Examples
/// ```
/// use fpuswitch::{fpu::policy::OwnerSlot, live::{Config, Machine, preemptible}};
/// # if !cfg!(all(target_arch = "x86_64", target_os = "linux")) { return Ok(()) }
///
/// let tick = Some(std::time::Duration::from_millis(1));
/// let machine = Machine::start(OwnerSlot, Config { tick, ..Config::default() })?;
/// let thread = machine.spawn(|| {
///     // SAFETY: arithmetic on numbers of its own.
///     unsafe { preemptible(|| (1..=1000).map(f64::from).sum::<f64>()) }
/// })?;
/// assert_eq!(thread.join().expect("no panic"), 500_500.0);
/// # Ok::<(), fpuswitch::live::LiveError>(())
/// ```
#[inline]
pub unsafe fn preemptible<T>(region: impl FnOnce() -> T) -> T {
    let fiber = current_or_panic();
    let _region = Region::new(fiber);
    reschedule_if_wanted(fiber);
    region()
}

/// Runs `section` without being preempted, in a region or outside of one. Who wanted to meanwhile gets the CPU behind
/// it. Sections nest. Outside of fibers, it just runs.
#[inline]
pub fn preempt_off<T>(section: impl FnOnce() -> T) -> T {
    let Some(fiber) = current() else { return section() };
    let section = {
        let _off = Off::new(fiber);
        section()
    };
    reschedule_if_wanted(fiber);
    section
}

/// In a region, and not in a section that may not be preempted.
#[inline]
pub(super) fn may_be_preempted(fiber: NonNull<Fiber>) -> bool {
    // SAFETY: the calling fiber is alive, and its cells are its own and a signal handler's of the same OS thread.
    let fiber = unsafe { fiber.as_ref() };
    fiber.regions.get() != 0 && fiber.preempt_off.get() == 0
}

fn reschedule_if_wanted(fiber: NonNull<Fiber>) {
    if may_be_preempted(fiber) && is_wanted() && !thread::panicking() {
        // SAFETY: (a) a fiber. The kernel takes it for one that was preempted here.
        unsafe { gate::enter_by_call(Entered::PREEMPTED, 0) };
    }
}

/// Whether somebody could not stop the calling fiber.
fn is_wanted() -> bool {
    let wanted: u8;
    // SAFETY: this is a fiber, so GS points to a gate. The options are those of `is_fiber`, for the same reasons.
    unsafe {
        core::arch::asm!(
            "mov {wanted}, gs:[{at}]",
            wanted = out(reg_byte) wanted,
            at = const core::mem::offset_of!(Gate, need_resched),
            options(nostack, preserves_flags),
        );
    }
    wanted != 0
}

/// What is in front of a section stays there, what is in it stays in it, and what is behind it behind: the handler, which
/// reads the counts, runs on the same OS thread.
#[inline(always)]
fn here() {
    core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
}

/// A count that goes up, and down again when dropped: also when a panic unwinds.
macro_rules! counted {
    ($name:ident, $cell:ident) => {
        struct $name(NonNull<Fiber>);

        impl $name {
            #[inline]
            fn new(fiber: NonNull<Fiber>) -> Self {
                // SAFETY: the calling fiber is alive as long as its own code runs.
                let count = unsafe { &fiber.as_ref().$cell };
                here();
                count.set(count.get() + 1);
                here();
                Self(fiber)
            }
        }

        impl Drop for $name {
            #[inline]
            fn drop(&mut self) {
                // SAFETY: as above.
                let count = unsafe { &self.0.as_ref().$cell };
                here();
                count.set(count.get() - 1);
                here();
            }
        }
    };
}

counted!(Region, regions);
counted!(Off, preempt_off);
