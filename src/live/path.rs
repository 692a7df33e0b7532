//! What the audit is told of the code that every kernel path comes to.

use super::{audit::KernelPath, cpu::impossible, fpregs, gate, image, instructions};

/// The path of a kernel that begins at the function `entry` and uses a [`Cpu`](super::Cpu): what that calls is known. Doors of its own,
/// and functions that never return, are the caller's to add.
///
/// `entry` is the function that has every call of [`Cpu::run`](super::Cpu::run) in it or in what it calls. What is audited is its code at
/// this address; a compiler may make a copy of it for a call that it sees through. So it is `#[inline(never)]`, and called
/// through a pointer that went through [`black_box`](core::hint::black_box).
///
/// # Examples
/// ```
/// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
/// use fpuswitch::live::{GateMode, audit::assert_fpu_free, kernel_path};
///
/// # #[inline(never)]
/// extern "C" fn kernel(runnable: u64) -> u64 {
///     if runnable == 0 { steal() } else { runnable.trailing_zeros().into() }
/// }
///
/// # #[inline(never)]
/// extern "C" fn steal() -> u64 {
///     (0.5 + f64::from(std::process::id())) as u64
/// }
///
/// let path = kernel_path(kernel as *const ()).door(steal as *const ());
/// let mode = match assert_fpu_free(&path) {
///     Ok(proof) => GateMode::Bare(proof),
///     Err(reason) => {
///         println!("parked, because of {reason}");
///         GateMode::Parked
///     }
/// };
/// # assert!(matches!(mode, GateMode::Bare(_)));
/// # let _: fn(u64) -> u64 = |runnable| kernel(runnable);
/// # }
/// ```
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
