//! The seam between mechanism and hardware: what the protocol needs of a CPU's registers.
//!
//! The protocol in [`fpu`](crate::fpu) and the simulated [`machine`](crate::machine) know these traits and
//! no implementation. There are three: [`AbstractRegs`] keeps a small number a component, [`SoftRegs`] is the
//! manual in software, with all the bytes, and `HostRegs` (feature `host`) runs the real instructions.

mod r#abstract;
#[cfg(feature = "host")]
mod host;
mod image;
pub(crate) mod pattern;
mod soft;

pub use r#abstract::{AbstractFrame, AbstractImage, AbstractRegs};
#[cfg(feature = "host")]
pub use host::{HostCpu, HostError, HostFrame, HostRegs};
pub use image::XsaveImage;
pub use soft::{MemoryOperand, SoftFault, SoftFrame, SoftRegs};

use crate::{Component, ComponentSet, FrameChange, Pkru, Rfbm, Value, xstate::Rounding};
use core::{fmt::Debug, hash::Hash};

/// An architectural fault of a load or a save. Part of the semantics, not an input error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// #PF: a page of the user buffer is not present.
    #[error("#PF: the user buffer is not present")]
    Page,
    /// #GP: the image holds what the instruction refuses.
    #[error("#GP: the image is refused")]
    GeneralProtection,
    /// #NM: the image holds a component that XFD disables.
    #[error("#NM: the image holds a component that XFD disables")]
    DeviceNotAvailable,
    /// #UD: the CPU lacks the instruction.
    #[error("#UD: the CPU lacks the instruction")]
    InvalidOpcode,
}

/// A feature that this register file does not offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{0} is not available on this register file")]
pub struct Unsupported(pub &'static str);

/// A register program: what code does to the registers between two protocol operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Program {
    /// Fill one component with the pattern of a value.
    Fill(Component, Value),
    /// Fill every enabled component: what kernel code that uses the registers leaves behind.
    FillAll(Value),
    /// Put one component into its initial configuration, as FNINIT or VZEROUPPER do.
    Clear(Component),
    /// Change 32 bits of a vector register. What was a pattern is none afterwards:
    /// [`Value::UNSPECIFIED`], unless the bits were the same.
    ChangeLane {
        /// Which register, 0 to 31.
        register: u8,
        /// Which 32 bits: 0 to 3 are in SSE, 4 to 7 in AVX, 8 to 15 in ZMM_Hi256; of registers from 16 on, all
        /// are in Hi16_ZMM.
        lane: u8,
        /// The new value.
        value: u32,
    },
    /// Change the rounding control in MXCSR and in the x87 control word.
    Round(Rounding),
}

/// The live registers of one CPU (the *fpregs*).
///
/// The protocol always restores with the full enabled mask: a component left out would keep another task's
/// value. PKRU is no part of any image here; it has its own operations.
pub trait RegisterFile {
    /// A task's image in memory.
    type Image: Image;
    /// A signal frame in user memory, which can fault.
    type Frame: Frame;

    /// The components that this CPU has enabled (XCR0).
    fn enabled(&self) -> ComponentSet;

    /// An image of the initial configuration, in this CPU's layout, with room for all enabled components.
    fn new_image(&self) -> Self::Image;

    /// A signal frame of the initial configuration, present, in this CPU's layout.
    fn new_frame(&self) -> Self::Frame;

    /// Puts every register, PKRU too, into the state after reset.
    fn reset(&mut self);

    /// Saves the components in `rfbm`; the registers keep their content.
    fn save(&self, rfbm: Rfbm, image: &mut Self::Image);

    /// Restores the components in `rfbm`.
    ///
    /// # Errors
    /// The fault that a refused image raises. The registers are unspecified afterwards.
    fn restore(&mut self, rfbm: Rfbm, image: &Self::Image) -> Result<(), Fault>;

    /// Puts the components in `rfbm` into their initial configuration.
    fn restore_initial(&mut self, rfbm: Rfbm);

    /// Saves the components in `rfbm` straight to user memory; the registers keep their content.
    ///
    /// # Errors
    /// A page fault; the frame's content is unspecified afterwards.
    fn save_user(&self, rfbm: Rfbm, frame: &mut Self::Frame) -> Result<(), Fault>;

    /// Restores the components in `rfbm` straight from user memory.
    ///
    /// # Errors
    /// A page fault, or the fault that a refused image raises. The registers are unspecified afterwards.
    fn restore_user(&mut self, rfbm: Rfbm, frame: &Self::Frame) -> Result<(), Fault>;

    /// The components not in their initial configuration (XINUSE), where the CPU can tell.
    ///
    /// # Errors
    /// [`Unsupported`] without XGETBV(1).
    fn in_use(&self) -> Result<ComponentSet, Unsupported>;

    /// Reads one component, as user code would.
    fn get(&self, component: Component) -> Value;

    /// Reads PKRU; `None` where the CPU has none (RDPKRU would be #UD).
    fn pkru(&self) -> Option<Pkru>;

    /// Writes PKRU; does nothing where the CPU has none.
    fn set_pkru(&mut self, pkru: Pkru);

    /// The components that IA32_XFD disables.
    ///
    /// # Errors
    /// [`Unsupported`] where the register cannot be reached.
    fn xfd(&self) -> Result<ComponentSet, Unsupported>;

    /// Sets the components that IA32_XFD disables.
    ///
    /// # Errors
    /// [`Unsupported`] where the register cannot be reached.
    fn set_xfd(&mut self, _disabled: ComponentSet) -> Result<(), Unsupported> {
        Err(Unsupported("XFD"))
    }

    /// Runs a register program. Components that are not enabled are left out.
    fn run(&mut self, program: Program);
}

/// A task's image in memory.
pub trait Image: Clone + Eq + Hash + Debug {
    /// Takes the initial configuration, in place.
    fn reset(&mut self);

    /// Makes room for `components` as well; what is there stays.
    ///
    /// # Errors
    /// [`Unsupported`] when there can be no room for one of them; the image is unchanged.
    fn grow(&mut self, components: ComponentSet) -> Result<(), Unsupported>;

    /// Whether the image has room for a component.
    fn has_room_for(&self, component: Component) -> bool;

    /// The value of a component; the initial one for a component that the image has no room for.
    fn get(&self, component: Component) -> Value;

    /// Changes a component.
    ///
    /// # Errors
    /// [`Unsupported`] when the image has no room for it; the image is unchanged.
    fn set(&mut self, component: Component, value: Value) -> Result<(), Unsupported>;
}

/// A signal frame in user memory: outside the kernel's control between two accesses.
pub trait Frame: Clone + Eq + Hash + Debug {
    /// Makes the frame's pages present.
    fn fault_in(&mut self);

    /// Changes the frame as user code or the pager would.
    fn change(&mut self, change: FrameChange);
}
