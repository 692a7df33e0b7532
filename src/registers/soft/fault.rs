//! The faults of the instructions, and the memory that they access.

use crate::{
    ComponentSet,
    registers::Fault,
    xstate::{ConvertError, Refusal},
};
use core::ops::Range;

/// A fault of an instruction of [`SoftRegs`](super::SoftRegs), with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum SoftFault {
    /// #UD: the CPU lacks the instruction, or the system has not enabled it.
    #[error("#UD: the CPU has no {0}")]
    InvalidOpcode(&'static str),
    /// #UD: components that the instruction needs are not enabled.
    #[error("#UD: {0:?} is not enabled")]
    NotEnabled(ComponentSet),
    /// #NM: XFD disables components that the instruction needs. XFD_ERR has the same.
    #[error("#NM: XFD disables {0:?}")]
    DeviceNotAvailable(ComponentSet),
    /// #GP: the image is refused.
    #[error("#GP: {0}")]
    Refused(Refusal),
    /// #GP: another CPU's image, which this one would refuse.
    #[error("#GP: {0}")]
    NotConverted(#[from] ConvertError),
    /// #GP: the area is not aligned.
    #[error("#GP: the area is at {address:#x}, expected a multiple of {alignment_bytes}")]
    Misaligned {
        /// Where it is.
        address: u64,
        /// What the instruction wants.
        alignment_bytes: u64,
    },
    /// #GP: XGETBV with a number in ECX that names no register.
    #[error("#GP: the CPU has no extended control register {0}")]
    NoExtendedControlRegister(u32),
    /// #PF: a byte that the instruction accesses is not present.
    #[error("#PF: byte {0} of the area is not present")]
    Page(usize),
}

impl From<SoftFault> for Fault {
    fn from(fault: SoftFault) -> Self {
        match fault {
            SoftFault::InvalidOpcode(_) | SoftFault::NotEnabled(_) => Self::InvalidOpcode,
            SoftFault::DeviceNotAvailable(_) => Self::DeviceNotAvailable,
            SoftFault::Refused(_)
            | SoftFault::NotConverted(_)
            | SoftFault::Misaligned { .. }
            | SoftFault::NoExtendedControlRegister(_) => Self::GeneralProtection,
            SoftFault::Page(_) => Self::Page,
        }
    }
}

/// The memory operand of an instruction: where the area lies, and which of its bytes are present.
///
/// The end of an area's bytes is the end of what is present.
///
/// ```
/// use fpuswitch::registers::MemoryOperand;
/// let whole = MemoryOperand::at(0x1000);
/// // The page ends behind the header.
/// let cut_off = MemoryOperand { present: 0..576, ..whole.clone() };
/// assert_ne!(whole, cut_off);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MemoryOperand {
    /// The linear address.
    pub address: u64,
    /// Offsets of the bytes that are present.
    pub present: Range<usize>,
}

impl Default for MemoryOperand {
    /// An area at address 0, all present.
    fn default() -> Self {
        Self::at(0)
    }
}

impl MemoryOperand {
    /// An area at `address`, all present.
    pub const fn at(address: u64) -> Self {
        Self { address, present: 0..usize::MAX }
    }

    pub(super) fn require_aligned(&self, alignment_bytes: u64) -> Result<(), SoftFault> {
        let address = self.address;
        if address.is_multiple_of(alignment_bytes) {
            Ok(())
        } else {
            Err(SoftFault::Misaligned { address, alignment_bytes })
        }
    }

    /// Accesses `bytes` of an area that is `len` long.
    pub(super) fn require(&self, bytes: &Range<usize>, len: usize) -> Result<(), SoftFault> {
        let end = self.present.end.min(len);
        if bytes.is_empty() || self.present.start <= bytes.start && bytes.end <= end {
            Ok(())
        } else if bytes.start < self.present.start || end < bytes.start {
            Err(SoftFault::Page(bytes.start))
        } else {
            Err(SoftFault::Page(end))
        }
    }
}
