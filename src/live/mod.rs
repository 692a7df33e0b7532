//! Green threads on the CPU's own registers, which the kernel path leaves alone from entry to exit.
//!
//! So far there is the [`audit`], the proof that it does.

pub mod audit;
