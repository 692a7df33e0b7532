//! Green threads on the real registers.
//!
//! A *CPU* is an OS thread, and its registers are the fpregs. A green thread is *user code* on a stack of its own; what the CPU
//! runs between two of them is its *kernel*, and between the two lies the *gate*, some asm. The protocol of [`fpu`](crate::fpu), with
//! any policy that needs no first-use trap, decides when registers are saved and loaded. So a restore that a policy skips is an
//! instruction that this machine's CPU does not execute.
//!
//! # Bare and parked
//! That holds if the kernel leaves the registers alone, which no Rust code promises. The gate is *bare* where the
//! [`audit`] has read from the kernel path's machine code that it does. Otherwise, as in debug builds, it is *parked*: it
//! saves all registers before the kernel runs, loads them last, and the protocol takes what is in memory for the fpregs. The
//! results are the same; [`Machine::gate`] says which one it is, and why.
//!
//! # Two layers
//! - [`Machine`] has a scheduler, stacks, and handles like those of `std::thread`. Threads give up the CPU by calls ([`yield_now`], [`park`],
//!   [`syscall`]), or where they allow it ([`preemptible`]) by a signal at any instruction, each [`Config::tick`].
//! - [`Cpu`], [`Fiber`], [`enter`] and [`preempt`] are what it is made of, for runtimes with a scheduler and stacks of their own:
//!   docs/runtime.md, and the example `runtime`.
//!
//! # Examples
//! ```
//! use fpuswitch::{fpu::policy::OwnerSlot, live::{Config, Machine, yield_now}};
//! # if !cfg!(all(target_arch = "x86_64", target_os = "linux")) { return Ok(()) }
//!
//! let machine = Machine::start(OwnerSlot, Config { cpus: 1, ..Config::default() })?;
//! let halves = [1.0, 3.0].map(|first| {
//!     machine.spawn(move || {
//!         (0..1000).fold(0.0, |sum, n| {
//!             yield_now();
//!             sum + 1.0 / (first + 4.0 * f64::from(n))
//!         })
//!     })
//! });
//! let [plus, minus] = halves.map(|thread| thread.expect("a stack").join().expect("no panic"));
//! assert!((4.0 * (plus - minus) - std::f64::consts::PI).abs() < 0.001);
//!
//! println!("The gate is {}. {}", machine.gate(), machine.counts());
//! assert!(machine.shutdown().entries >= 2000);
//! # Ok::<(), fpuswitch::live::LiveError>(())
//! ```
#![allow(unsafe_code, reason = "asm, and what asm and several CPUs share")]

pub mod audit;
mod config;
mod counters;
mod cpu;
mod error;
mod fault;
mod fiber;
mod form;
mod fpregs;
mod gate;
mod image;
mod instructions;
mod machine;
pub mod measure;
mod path;
pub mod preempt;
mod sync;
mod system;
mod user;

pub use config::{Config, Gate};
pub use counters::{Counters, Counts};
pub use cpu::{Cpu, Entered, Flush};
pub use error::LiveError;
pub use fault::report_faults;
pub use fiber::Fiber;
#[doc(hidden)]
pub use form::save_with;
pub use gate::enter_from_asm;
pub use image::LiveImage;

pub use machine::{
    Call, GateReport, JoinHandle, Machine, Spawn, Step, Thread, current, park, preempt_self, syscall,
    yield_now,
};
pub use path::kernel_path;
pub use user::{enter, enter_keeping, is_fiber, preempt_off, preemptible};

/// Where the kernel of a CPU finds the registers.
#[derive(Clone, Copy, Debug)]
pub enum GateMode {
    /// In the registers: this proves that the kernel path does not touch them.
    Bare(audit::FpuFree),
    /// In an image where the gate parks them.
    Parked,
}
