//! Instructions of the host's CPU. The only folder with unsafe code.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::SaveRestore;

#[cfg(not(target_arch = "x86_64"))]
mod unsupported;

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use unsupported::SaveRestore;
