//! A signal frame of the software registers.

use super::MemoryOperand;
use crate::{
    FrameChange,
    registers::{Frame, XsaveImage, image},
    xstate::{Format, Layout, XstateBv},
};
use core::ops::Range;

/// A signal frame of [`SoftRegs`](super::SoftRegs): an image in user memory, of which a part may be absent.
///
/// It is in the standard format, or in FXSAVE's where there is no XSAVE, like Linux's. A save to it clears the
/// header first, as Linux does: XSAVE writes neither XCOMP_BV nor the reserved bytes, and the next restore
/// would fault on what user code left there.
///
/// # Reference
/// Linux: copy_fpregs_to_sigframe and __restore_fpregs_from_user, arch/x86/kernel/fpu/signal.c.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SoftFrame {
    image: XsaveImage,
    operand: MemoryOperand,
}

impl SoftFrame {
    /// A frame of the initial configuration, present.
    pub(super) fn new(layout: &Layout) -> Self {
        Self { image: XsaveImage::new(layout, Format::Standard), operand: MemoryOperand::default() }
    }

    /// The image.
    pub fn image(&self) -> &XsaveImage {
        &self.image
    }

    /// The image, to change as user code can.
    pub fn image_mut(&mut self) -> &mut XsaveImage {
        &mut self.image
    }

    /// Makes all bytes absent but those in `present`.
    pub fn set_present(&mut self, present: Range<usize>) {
        self.operand.present = present;
    }

    pub(super) fn operand(&self) -> &MemoryOperand {
        &self.operand
    }
}

impl Frame for SoftFrame {
    fn fault_in(&mut self) {
        self.operand = MemoryOperand::default();
    }

    fn change(&mut self, change: FrameChange) {
        if change == FrameChange::Absent {
            self.operand.present = 0..0;
            return;
        }
        let area = self.image.area_mut();
        match change {
            FrameChange::Absent => {}
            FrameChange::BadHeader => image::spoil(area),
            FrameChange::Short => area.set_xstate_bv(XstateBv(area.xstate_bv().0 & 3)),
        }
    }
}
