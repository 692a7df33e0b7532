//! What the CPU says of itself.

use super::HostError;
use crate::{
    arch::{Features, Host},
    xstate::{CpuidReader, CpuidResult},
};

/// The CPU that this runs on, to be asked for its [`Layout`](crate::xstate::Layout).
///
/// ```
/// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
/// use fpuswitch::{registers::HostCpu, xstate::{Component, Layout}};
/// let layout = Layout::from_cpuid(&HostCpu::new()?)?;
/// assert!(layout.enabled().contains(Component::SSE));
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HostCpu(Host);

impl HostCpu {
    /// The CPU.
    ///
    /// # Errors
    /// [`HostError`] off x86-64 Linux.
    pub fn new() -> Result<Self, HostError> {
        Features::detect().map(|_| Self(Host))
    }
}

impl CpuidReader for HostCpu {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        self.0.cpuid(leaf, subleaf)
    }

    fn xcr0(&self) -> u64 {
        self.0.xcr0()
    }
}
