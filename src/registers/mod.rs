//! The seam between mechanism and hardware: what the protocol needs of a CPU's registers.
//!
//! The protocol in [`fpu`](crate::fpu) and the simulated [`machine`](crate::machine) know these traits and
//! no implementation. There are three: [`AbstractRegs`] keeps a small number a component, [`SoftRegs`] is the
//! manual in software, with all the bytes, and `HostRegs` (feature `host`) runs the real instructions.

mod r#abstract;
mod frame;
#[cfg(feature = "host")]
mod host;
mod image;
pub(crate) mod pattern;
mod soft;

pub use r#abstract::{AbstractFrame, AbstractImage, AbstractRegs};
#[cfg(feature = "host")]
pub use host::{HostCpu, HostError, HostFrame, HostRegs};
pub use image::XsaveImage;
#[cfg(all(feature = "live", target_arch = "x86_64", target_os = "linux"))]
pub(crate) use image::hash_values;
pub use soft::{MemoryOperand, SoftFault, SoftFrame, SoftRegs};

use crate::{
    Component, ComponentSet, FrameChange, Pkru, Rfbm, Value,
    xstate::{Rounding, ViewError},
};
use alloc::vec::Vec;
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
/// value. PKRU is restored and saved with an image only where the mask names it; in a signal frame it has
/// operations of its own.
pub trait RegisterFile {
    /// A task's image in memory.
    type Image: Image;

    /// The components that this CPU has enabled (XCR0).
    fn enabled(&self) -> ComponentSet;

    /// The dynamic components: those enabled that IA32_XFD can disable here, so that an area may be without room for
    /// them.
    fn dynamic(&self) -> ComponentSet {
        ComponentSet::EMPTY
    }

    /// An image of the initial configuration, in this CPU's layout, with room for all enabled components but the
    /// [dynamic](Self::dynamic) ones.
    fn new_image(&self) -> Self::Image;

    /// Puts every register, PKRU and IA32_XFD too, into the state after reset.
    fn reset(&mut self);

    /// Saves the components in `rfbm`; the registers keep their content. A component that the image has no room for
    /// is left out.
    fn save(&self, rfbm: Rfbm, image: &mut Self::Image);

    /// Restores the components in `rfbm`. What the image has no room for takes its initial configuration.
    ///
    /// # Errors
    /// The fault that a refused image raises. The registers are unspecified afterwards.
    fn restore(&mut self, rfbm: Rfbm, image: &Self::Image) -> Result<(), Fault>;

    /// Saves what a system call keeps of a task that gave up the rest: the control words, FCW and the control bits of MXCSR.
    ///
    /// `rfbm` names the components that hold them. Of x87 and SSE nothing else need be saved, and is unspecified in the image
    /// then; any other component that `rfbm` names is saved whole, and what it does not name is left out. By default all of it
    /// is [saved](Self::save).
    fn save_control(&self, rfbm: Rfbm, image: &mut Self::Image) {
        self.save(rfbm, image);
    }

    /// Restores what a system call keeps of a task that gave up the rest, as [`save_control`](Self::save_control) saves it:
    /// of x87 and SSE nothing but the control words need be restored, and is unspecified in the registers then. By default all
    /// of it is [restored](Self::restore).
    ///
    /// # Errors
    /// As [`restore`](Self::restore).
    fn restore_control(&mut self, rfbm: Rfbm, image: &Self::Image) -> Result<(), Fault> {
        self.restore(rfbm, image)
    }

    /// Puts the components in `rfbm` into their initial configuration.
    fn restore_initial(&mut self, rfbm: Rfbm);

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

    /// Runs a register program. Components that are not enabled, or disabled by XFD, are left out.
    fn run(&mut self, program: Program);
}

/// A register file that signal frames are made of: what a kernel does between the registers and user memory, where every
/// access can fault.
///
/// Apart from [`RegisterFile`], because there are registers of which no signal frame is made: a runtime in user space, say,
/// switches them between its own tasks, and leaves frames to the kernel below it. Of the protocol, the attempts of a delivery
/// and of a return that access the frame ([`signal_save`](crate::fpu::signal_save) and its like) need this trait, and nothing
/// else does.
pub trait UserFrames: RegisterFile {
    /// A signal frame in user memory, which can fault.
    type Frame: Frame<Image = <Self as RegisterFile>::Image>;

    /// A signal frame of the initial configuration, present, in this CPU's layout, with room for `components`.
    fn frame_with_room(&self, components: ComponentSet) -> Self::Frame;

    /// The same with room for what a [new image](RegisterFile::new_image) has room for.
    fn new_frame(&self) -> Self::Frame {
        self.frame_with_room(self.enabled() - self.dynamic())
    }

    /// Saves the components in `rfbm`, but for PKRU, straight to user memory, with the software bytes that say what is
    /// there; the registers keep their content.
    ///
    /// # Errors
    /// A page fault; the frame's content is unspecified afterwards.
    fn save_user(&self, rfbm: Rfbm, frame: &mut Self::Frame) -> Result<(), Fault>;

    /// Restores the components in `rfbm`, but for PKRU, straight from user memory (XRSTOR, or FXRSTOR on a CPU without
    /// it). What the frame's software bytes say has to be looked at [before](Frame::contents).
    ///
    /// # Errors
    /// A page fault, or the fault that a refused image raises. The registers are unspecified afterwards.
    fn restore_user(&mut self, rfbm: Rfbm, frame: &Self::Frame) -> Result<(), Fault>;

    /// Restores x87 and SSE straight from user memory, without a look at the header (FXRSTOR).
    ///
    /// # Errors
    /// As [`restore_user`](Self::restore_user).
    fn restore_user_legacy(&mut self, frame: &Self::Frame) -> Result<(), Fault>;
}

/// A task's image in memory.
pub trait Image: Clone + Eq + Hash + Debug {
    /// Takes the initial configuration, in place. It has room for the same components as before.
    fn reset(&mut self);

    /// The components that the image has room for.
    fn room(&self) -> ComponentSet;

    /// Makes room for `components` as well; what is there stays.
    ///
    /// # Errors
    /// [`Unsupported`] when there can be no room for one of them; the image is unchanged.
    fn grow(&mut self, components: ComponentSet) -> Result<(), Unsupported>;

    /// Whether the image has room for a component.
    fn has_room_for(&self, component: Component) -> bool {
        self.room().contains(component)
    }

    /// Takes over the values of another image, PKRU too. What this one has no room for is left out.
    fn copy_from(&mut self, other: &Self);

    /// Whether a restore would take the image: it cannot fault (invariant I9).
    fn is_restorable(&self) -> bool;

    /// The value of a component; the initial one for a component that the image has no room for.
    fn get(&self, component: Component) -> Value;

    /// The components that the image holds a value of other than the initial one, of those that it has room for.
    fn in_use(&self) -> ComponentSet {
        let in_use = |component: &Component| self.get(*component) != Value::INITIAL;
        self.room().iter().filter(in_use).fold(ComponentSet::EMPTY, ComponentSet::with)
    }

    /// Changes a component.
    ///
    /// # Errors
    /// [`Unsupported`] when the image has no room for it; the image is unchanged.
    fn set(&mut self, component: Component, value: Value) -> Result<(), Unsupported>;

    /// PKRU as the image holds it: 0, its initial value, where its bit in the header is clear, and where the image has
    /// no room for it.
    fn pkru(&self) -> Pkru;

    /// Changes PKRU, where the image has room for it.
    fn set_pkru(&mut self, pkru: Pkru);

    /// Makes it an image that a restore refuses, as one copied without a look can be.
    #[cfg(feature = "explore")]
    fn spoil(&mut self) {}

    /// Makes the components that are in their initial configuration zeros, which it is not for x87 and SSE.
    #[cfg(feature = "explore")]
    fn zero_initial(&mut self) {}

    /// The image as a debugger gets it (NT_X86_XSTATE), for a thread with that PKRU.
    ///
    /// # Errors
    /// As [`Area::regset`](crate::xstate::Area::regset); [`ViewError::NoXsave`] for images that are no bytes.
    fn regset(&self, _pkru: Pkru) -> Result<Vec<u8>, ViewError> {
        Err(ViewError::NoXsave("a register set"))
    }

    /// Takes what a debugger writes (NT_X86_XSTATE), and returns the thread's new PKRU.
    ///
    /// # Errors
    /// As [`Area::set_regset`](crate::xstate::Area::set_regset), and the image is unchanged; [`ViewError::NoXsave`] for
    /// images that are no bytes.
    fn set_regset(&mut self, _regset: &[u8]) -> Result<Pkru, ViewError> {
        Err(ViewError::NoXsave("a register set"))
    }
}

/// What a signal frame says that it holds, checked as a kernel does before it loads any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameContents {
    /// The components to load, without PKRU; all others take their initial configuration.
    pub components: ComponentSet,
    /// Nothing says that there is more than the legacy region: the load is one by FXRSTOR, and the header is not
    /// looked at.
    pub legacy_only: bool,
    /// PKRU; 0 where the frame does not hold it.
    pub pkru: Pkru,
}

/// A signal frame in user memory: outside the kernel's control between two accesses.
pub trait Frame: Clone + Eq + Hash + Debug {
    /// What a copy of it becomes.
    type Image: Image;

    /// Makes all of the frame's pages present. How many these are the kernel knows: what the frame says of its size
    /// makes no difference (CVE-2024-26603 believed it).
    ///
    /// # Errors
    /// [`Fault::Page`] when one is not mapped: it will never be present.
    fn fault_in(&mut self) -> Result<(), Fault>;

    /// Changes the frame as user code or the pager would.
    ///
    /// # Errors
    /// [`Unsupported`] for a field that this CPU's frames do not have; nothing is changed.
    fn change(&mut self, change: FrameChange) -> Result<(), Unsupported>;

    /// Reads what the frame says that it holds, of the components `allowed`. Page faults are allowed here, so that an
    /// absent page makes no difference. It may be gone again at the next access.
    ///
    /// # Errors
    /// [`Fault::Page`] when a page is not mapped.
    ///
    /// # Reference
    /// Linux: check_xstate_in_sigframe, arch/x86/kernel/fpu/signal.c.
    fn contents(&self, allowed: ComponentSet) -> Result<FrameContents, Fault>;

    /// Writes PKRU to where the frame holds it, if it has room for it.
    ///
    /// # Errors
    /// [`Fault::Page`] when that page is absent.
    ///
    /// # Reference
    /// Linux: update_pkru_in_sigframe, arch/x86/kernel/fpu/xstate.h.
    fn set_pkru(&mut self, pkru: Pkru) -> Result<(), Fault>;

    /// Copies to `image` what [`contents`](Self::contents) says, and makes the rest of it initial: the slow path, by
    /// the way of a kernel buffer. PKRU is left alone.
    ///
    /// # Errors
    /// [`Fault::Page`] when a page is absent, [`Fault::GeneralProtection`] for an image that would be refused. `image`
    /// is unchanged.
    ///
    /// # Reference
    /// Linux: copy_sigframe_from_user_to_xstate, and what __fpu_restore_sig does for a 32-bit frame.
    fn copy_to(&self, contents: FrameContents, image: &mut Self::Image) -> Result<(), Fault>;
}
