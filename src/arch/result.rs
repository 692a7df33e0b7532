//! What is asked of the hardware, where its operands are, and what comes of it, on every target.

use super::Mapping;
use crate::xstate::LayoutError;

/// Why the real registers cannot be used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAvailable {
    /// Another CPU or another system.
    #[error("real registers need Linux on x86-64")]
    Target,
    /// What CPUID says contradicts itself, or there is no FXSAVE.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The CPU's layout is larger than any that is known.
    #[error("an area takes {bytes} bytes, expected {most} at most")]
    AreaTooLarge {
        /// What the CPU asks for.
        bytes: usize,
        /// What there is room for.
        most: usize,
    },
    /// The system refused the SIGSEGV handler.
    #[error("no handler for SIGSEGV: the system's error is {0}")]
    SignalHandler(i32),
}

/// The fault that a real instruction raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub(crate) enum HardwareFault {
    /// #PF.
    #[error("#PF at {address:#x}")]
    Page {
        /// CR2: the address that could not be accessed.
        address: u64,
    },
    /// #GP.
    #[error("#GP")]
    GeneralProtection,
    /// Any other that the system turns into SIGSEGV, by its vector.
    #[error("exception {0}")]
    Other(u64),
}

/// Why an operation was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub(crate) enum OpError {
    /// The instruction, or the component, is not there. Nothing was executed.
    #[error("{0} is not available on this CPU")]
    Missing(&'static str),
    /// The instruction could touch memory behind the bytes it was given. Nothing was executed.
    #[error("the instruction could touch {needed_bytes} bytes, there are {found_bytes}")]
    TooShort {
        /// How many bytes have to be there.
        needed_bytes: usize,
        /// How many there are.
        found_bytes: usize,
    },
    /// The instruction was executed and faulted.
    #[error(transparent)]
    Fault(#[from] HardwareFault),
}

/// Bytes of a mapping that cannot be reached, because one of its pages is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a page of the mapping is absent")]
pub(crate) struct Absent;

/// Instructions that restore registers from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the manual's names")]
pub(crate) enum RestoreOp {
    Xrstor,
    Fxrstor,
}

/// What a [`Measurement`](super::Measurement) repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the manual's names")]
pub(crate) enum TimedOp {
    /// The loop alone: what to subtract from the others.
    Nothing,
    Xsave,
    Xsavec,
    Xsaveopt,
    Fxsave,
    Xrstor,
    /// XSAVEC and then XRSTOR of the same area.
    XsavecXrstor,
    Xgetbv1,
    Rdtsc,
}

/// Where a restore reads from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    /// Ordinary memory, at any alignment: #GP is safe.
    Bytes(&'a [u8]),
    /// Memory that may fault.
    Mapping(&'a Mapping),
}

impl<'a> From<&'a [u8]> for Source<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a Mapping> for Source<'a> {
    fn from(mapping: &'a Mapping) -> Self {
        Self::Mapping(mapping)
    }
}

/// Where a save writes to.
#[derive(Debug)]
pub(crate) enum Target<'a> {
    /// Ordinary memory, at any alignment: #GP is safe.
    Bytes(&'a mut [u8]),
    /// Memory that may fault.
    Mapping(&'a mut Mapping),
}

impl<'a> From<&'a mut [u8]> for Target<'a> {
    fn from(bytes: &'a mut [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a mut Mapping> for Target<'a> {
    fn from(mapping: &'a mut Mapping) -> Self {
        Self::Mapping(mapping)
    }
}
