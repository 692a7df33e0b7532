//! What is wrong with a description of areas.

use super::{EXTENDED_OFFSET, MOST_BYTES};
use crate::Component;

/// A description of areas that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// CPUID.1:EDX bit 24 is clear.
    #[error("the CPU has no FXSAVE")]
    NoFxsave,
    /// XCR0 without x87, which no CPU has.
    #[error("XCR0 is {0:#x}, bit 0 (x87) is always set")]
    NoX87(u64),
    /// XCR0 with a bit that no CPU can have.
    #[error("XCR0 is {0:#x}, bit 63 names no component")]
    Xcr0(u64),
    /// A component that XCR0 enables, and that CPUID says nothing of.
    #[error("XCR0 = {xcr0:#x} enables {component}, whose size and offset are not described")]
    NotDescribed {
        /// Which one.
        component: Component,
        /// XCR0.
        xcr0: u64,
    },
    /// A component of XCR0 that CPUID calls a supervisor component.
    #[error("XCR0 = {xcr0:#x} enables {component}, which is a supervisor component")]
    Supervisor {
        /// Which one.
        component: Component,
        /// XCR0.
        xcr0: u64,
    },
    /// A component that is too small for the registers that the manual puts into it.
    #[error("{component} has {found_bytes} bytes, its registers take {needed_bytes}")]
    Size {
        /// Which one.
        component: Component,
        /// What the manual says.
        needed_bytes: u32,
        /// What the description says.
        found_bytes: u32,
    },
    /// A component that lies over the legacy region or the header, or too far out.
    #[error(
        "{component} has offset {offset_bytes} and size {size_bytes}, expected them between {EXTENDED_OFFSET} and {MOST_BYTES}"
    )]
    OutOfBounds {
        /// Which one.
        component: Component,
        /// Where it begins.
        offset_bytes: u32,
        /// How long it is.
        size_bytes: u32,
    },
    /// Two components that share bytes of the standard format.
    #[error("{first} ends at byte {end_bytes}, and {second} begins at byte {offset_bytes}")]
    Overlap {
        /// The one with the lower offset.
        first: Component,
        /// Where it ends.
        end_bytes: u32,
        /// The other.
        second: Component,
        /// Where that begins.
        offset_bytes: u32,
    },
    /// The size that CPUID gives is too small for what it describes.
    #[error("CPUID gives {given_bytes} bytes for the standard format, its components need {needed_bytes}")]
    TooSmall {
        /// CPUID(0DH,0).EBX.
        given_bytes: u32,
        /// Where the last enabled component ends.
        needed_bytes: u32,
    },
    /// The size that CPUID gives is beyond all reason.
    #[error("CPUID gives {given_bytes} bytes for the standard format, expected {MOST_BYTES} at most")]
    TooLarge {
        /// CPUID(0DH,0).EBX.
        given_bytes: u32,
    },
    /// A layout note whose length is no multiple of an entry's.
    #[error("a layout note has entries of 16 bytes, this one has {0} bytes")]
    NoteLength(usize),
    /// An entry of a layout note that names no extended component, or one named before.
    #[error(
        "entry {entry} of the layout note names component {number}, expected each of 2 to 62 once at most"
    )]
    NoteComponent {
        /// Which entry, counted from 0.
        entry: usize,
        /// What it names.
        number: u32,
    },
    /// A register set that is too short to say what is in it.
    #[error("a register set of {0} bytes, expected 512, or 576 and more")]
    RegsetLength(usize),
    /// An image from a signal frame, which has its size and components elsewhere.
    #[error("bytes 464 to 467 are FP_XSTATE_MAGIC1: a signal frame, expected a register set")]
    SignalFrame,
    /// XCR0 and size that fit no published layout.
    #[error("no known CPU has a register set of {size_bytes} bytes with XCR0 = {xcr0:#x}")]
    Unknown {
        /// Bytes 464 to 471.
        xcr0: u64,
        /// The size of the set.
        size_bytes: usize,
    },
}
