//! Green threads on the real registers.
#![allow(unsafe_code, reason = "asm, and what asm and several CPUs share")]

pub mod audit;
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
pub mod preempt;
mod sync;
mod system;
mod user;

pub use counters::{Counters, Counts};
pub use cpu::{Cpu, Entered, Flush, kernel_path};
pub use error::LiveError;
pub use fiber::Fiber;
pub use fpregs::Fpregs;
pub use gate::enter_from_asm;
pub use image::LiveImage;

pub use machine::{
    Call, Config, Gate, GateReport, JoinHandle, Machine, Spawn, Step, Thread, current, park, preempt_self,
    syscall, yield_now,
};
pub use user::{enter, enter_keeping, is_fiber, preempt_off, preemptible};

/// Where the kernel of a CPU finds the registers.
#[derive(Clone, Copy, Debug)]
pub enum GateMode {
    /// In the registers: this proves that the kernel path does not touch them.
    Bare(audit::FpuFree),
    /// In an image where the gate parks them.
    Parked,
}
