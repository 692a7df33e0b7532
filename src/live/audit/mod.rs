//! Proof that a kernel path touches no FPU state: its machine code, decoded at run time.
//!
//! On bare registers the CPU's registers *are* the fpregs, from kernel entry to exit. Whatever the kernel path's code
//! touches of them is lost to the thread, and Rust cannot promise to touch nothing: a compiler may copy sixteen bytes
//! through XMM0 wherever it likes. [`assert_fpu_free`] looks at what it did.
//!
//! # What is walked
//! From each way in: what follows, both sides of a conditional jump, the targets of jumps and of direct calls, and
//! what is behind the calls. Besides:
//!
//! | instruction | goes on at |
//! |---|---|
//! | call or jump through a pointer at `[rip + x]` | where that points, if nothing can write it (the GOT behind RELRO; so the PLT, too) |
//! | call or jump through a register | the same, if on each way here it holds one address, from `lea` or from such a pointer |
//! | jump through a table | each of its targets: entries, as long as they lead into the function, up to where another such table begins |
//! | `lea` of a place inside its own function | there, too: where inline asm resumes |
//! | jump out of the function, or code that runs off its end | there, as a call that does not come back |
//! | call with nothing behind it in its function, or padding only | the called function alone: there is nothing to come back to |
//! | `ret`, `ud2` | nowhere |
//!
//! Any other indirect call or jump fails. Where a function begins and ends is what its unwind entry says; code without
//! one fails, unless it is a PLT's stub. Four kinds of places are known by address, see [`KernelPath`].
//!
//! # What is allowed
//! An instruction whose CPUID features are all of the integer kind, and which names no vector, x87, MMX, mask, bound
//! or tile register, openly or not. By feature, since FLD1, EMMS, LDMXCSR, STMXCSR, FXRSTOR and XSAVE name none. A few
//! instructions that came with SSE and touch memory or general registers alone are let through by name: fences,
//! PREFETCHh, MOVNTI, CRC32. RDPKRU and WRPKRU are allowed: PKRU is switched eagerly, beside all else, by the kernel
//! path itself. Reading FPU state (FNSTCW, STMXCSR) is not: no such read is of use in between. What leaves for the
//! system, or is privileged, fails as well, and so does INT3, since a debugger's breakpoint hides what it is put on.
//!
//! # What the proof rests on
//! - What [`KernelPath`] says of doors, sites and functions that never return is believed.
//! - Code keeps to the ABI: a `ret` goes back behind its call, and RBX, RBP and R12 to R15 survive calls. Compilers'
//!   code does; asm may not. A call into the middle of its own function, which retpolines begin with, fails.
//! - Jump tables are LLVM's: they do not lead to parts of a function that have an unwind entry of their own. GCC's may.
//! - Landing pads are not on the path: the functions are `extern "C"` or do not unwind.
//! - Code and pointers stay what they are. Nobody patches them, and no module that they are in is unloaded. That is no question of
//!   memory safety: all memory is read through `/proc/self`, where a bad address is an error, and this folder has no
//!   unsafe code.
//! - Signal handlers are not on the path. The system saves and restores the registers around them.

mod error;
mod path;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod function;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod process;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod report;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod rules;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod symbols;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod unwind;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod values;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod walk;

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
#[path = "unsupported.rs"]
mod walk;

pub use error::{NotFpuFree, Reason};
pub use path::KernelPath;

/// Proof that a kernel path touches no FPU state. [`assert_fpu_free`] hands it out, and the [module](self) says what
/// it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FpuFree {
    instructions: usize,
    functions: usize,
}

impl FpuFree {
    /// How many instructions were looked at.
    pub fn instructions(&self) -> usize {
        self.instructions
    }

    /// In how many functions, without PLT stubs.
    pub fn functions(&self) -> usize {
        self.functions
    }
}

impl core::fmt::Display for FpuFree {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { instructions, functions } = self;
        let s = if *functions == 1 { "" } else { "s" };
        write!(f, "{instructions} instructions in {functions} function{s} touch no FPU register")
    }
}

/// Walks through the machine code of a kernel path.
///
/// # Errors
/// The first place found at which the path touches FPU state, or might do so for all that the audit can tell.
///
/// # Examples
/// ```
/// use fpuswitch::live::audit::{KernelPath, assert_fpu_free};
///
/// extern "C" fn runnable(waiting: u64, woken: u64) -> u64 {
///     waiting & woken
/// }
///
/// # if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
/// let proof = assert_fpu_free(&KernelPath::new(runnable as *const ()))?;
/// assert_eq!(proof.functions(), 1);
/// # }
/// # Ok::<(), fpuswitch::live::audit::NotFpuFree>(())
/// ```
pub fn assert_fpu_free(path: &KernelPath) -> Result<FpuFree, NotFpuFree> {
    walk::walk(path)
}
