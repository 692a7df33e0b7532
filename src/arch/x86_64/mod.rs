//! x86-64 Linux: parked CPUs, real instructions on them, and the faults of those.
//!
//! # Safety of this folder
//! Everything exported is safe.
//!
//! - [`Features`] exists only where CPUID and XCR0 were looked at; what they do not show is refused as
//!   [`OpError::Missing`](crate::arch::OpError::Missing), never executed.
//! - Rust's view of the registers never changes. A window (`window.rs`) saves the host's before it loads others and
//!   restores them last, on every path: an instruction that faults goes on in the window (`fault.rs`).
//! - No instruction touches memory that it was not given. Lengths are checked against what the instruction could
//!   touch, of XRSTOR by the header it is to read; a [`Mapping`] always has that much. A wrong alignment or a page
//!   without access is a fault, which is a result here.
//!
//! docs/safety.md lists every routine with its contract.
//!
//! # Limits
//! - SIGSEGV must not be blocked in the calling thread, and a handler that the program installs later must pass
//!   on what it does not know. A page of a file that was truncated raises SIGBUS, which nobody catches here.
//! - Components 0 to 7 only. PKRU has [`through_pkru`]; tiles, and what is yet to come, are left alone.
//! - On AMD CPUs without CPUID 80000008H:EBX bit 2, XRSTOR leaves FIP, FDP and FOP alone while no x87 exception is
//!   pending: these three may be the host's in a window.
#![allow(unsafe_code)]

mod fault;
mod features;
mod instructions;
mod mapping;
mod parked;
mod pkru;
mod program;
pub(crate) mod signals;
#[cfg(test)]
mod tests;
mod window;

#[cfg(feature = "live")]
pub(crate) use fault::is_op;
pub(crate) use features::{Features, Host};
pub(crate) use instructions::Measurement;
pub(crate) use mapping::Mapping;
pub(crate) use parked::ParkedRegs;
pub(crate) use pkru::through_pkru;
