//! Instructions of the host's CPU, safe to call. The only folder with unsafe code besides `live`.
//!
//! What there is, on x86-64 Linux: [`Features`] says what the CPU has, [`ParkedRegs`] is a CPU's registers
//! that every real instruction can be run on, [`Mapping`] is memory that can fault, [`Measurement`] is a
//! loop to be timed. Elsewhere the types have no values.
#![cfg_attr(
    not(all(target_arch = "x86_64", target_os = "linux")),
    allow(dead_code, reason = "nothing of this comes to life elsewhere")
)]

mod result;
pub use result::NotAvailable;
pub(crate) use result::{Absent, HardwareFault, OpError, RestoreOp, Source, Target, TimedOp};

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod x86_64;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use x86_64::{Features, Host, Mapping, Measurement, ParkedRegs, through_pkru};
#[cfg(all(target_arch = "x86_64", target_os = "linux", feature = "live"))]
pub(crate) use x86_64::{is_op, signals::Chain};

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod unsupported;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub(crate) use unsupported::{Features, Host, Mapping, Measurement, ParkedRegs, through_pkru};
