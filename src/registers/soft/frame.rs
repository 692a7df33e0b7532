//! A signal frame of the software registers.

use super::MemoryOperand;
use crate::{
    ComponentSet, FrameChange, Pkru,
    registers::{
        Fault, Frame, FrameContents, Unsupported, XsaveImage,
        frame::{FrameForm, HEADER},
        image,
    },
    xstate::{AlignedBytes, Layout, OwnedArea},
};
use core::{
    hash::{Hash, Hasher},
    ops::Range,
};

/// Where frames are: on a stack, out of the way of areas that somebody uses with the instructions.
const ADDRESS: u64 = 0x7fff_0000_0000;

/// A signal frame of [`SoftRegs`](super::SoftRegs): an image in user memory as Linux writes it, of which a part may be
/// absent.
///
/// It is in the standard format, or in FXSAVE's where there is no XSAVE. A save to it clears the header first, as
/// Linux does: XSAVE writes neither XCOMP_BV nor the reserved bytes, and the next restore would fault on what user
/// code left there. Behind the header a page ends.
///
/// Two frames are equal when they hold the same values, the same bytes are present, and a load makes the same of both.
///
/// # Reference
/// Linux: copy_fpregs_to_sigframe and __restore_fpregs_from_user, arch/x86/kernel/fpu/signal.c.
#[derive(Clone, Debug)]
pub struct SoftFrame {
    form: FrameForm,
    area: OwnedArea,
    operand: MemoryOperand,
    is_unmapped: bool,
}

impl SoftFrame {
    /// A frame of the initial configuration, present.
    pub(super) fn new(layout: &Layout, components: ComponentSet) -> Self {
        let form = FrameForm::new(layout, components);
        let mut area = form.area(AlignedBytes::zeroed(form.len()));
        form.reset(&mut area);
        Self { form, area, operand: MemoryOperand::at(ADDRESS), is_unmapped: false }
    }

    /// The image, and behind it FP_XSTATE_MAGIC2 where there is XSAVE.
    pub fn image(&self) -> &OwnedArea {
        &self.area
    }

    /// The image, to change as user code can.
    pub fn image_mut(&mut self) -> &mut OwnedArea {
        &mut self.area
    }

    /// Makes all bytes absent but those in `present`.
    pub fn set_present(&mut self, present: Range<usize>) {
        self.operand.present = present;
    }

    pub(super) fn form(&self) -> &FrameForm {
        &self.form
    }

    pub(super) fn operand(&self) -> &MemoryOperand {
        &self.operand
    }

    /// Writes what a kernel does behind a save.
    pub(super) fn finish(&mut self) {
        self.form.finish(&mut self.area);
    }

    /// Makes it a frame of another CPU, of the initial configuration and as absent as before.
    pub(super) fn become_one_of(&mut self, layout: &Layout, components: ComponentSet) {
        let Self { form, area, .. } = Self::new(layout, components);
        (self.form, self.area) = (form, area);
    }

    /// Accesses bytes.
    pub(super) fn require(&self, bytes: impl IntoIterator<Item = Range<usize>>) -> Result<(), Fault> {
        let mut bytes = bytes.into_iter();
        Ok(bytes.try_for_each(|range| self.operand.require(&range, self.form.len()))?)
    }
}

impl Frame for SoftFrame {
    type Image = XsaveImage;

    fn fault_in(&mut self) -> Result<(), Fault> {
        if self.is_unmapped {
            return Err(Fault::Page);
        }
        self.operand = MemoryOperand::at(ADDRESS);
        Ok(())
    }

    fn change(&mut self, change: FrameChange) -> Result<(), Unsupported> {
        self.form.change(&mut self.area, change)?;
        let present = &mut self.operand.present;
        match change {
            FrameChange::Absent => *present = 0..0,
            FrameChange::RestAbsent => present.end = present.end.min(HEADER.end),
            FrameChange::Unmapped => (*present, self.is_unmapped) = (0..0, true),
            _ => {}
        }
        Ok(())
    }

    fn contents(&self, allowed: ComponentSet) -> Result<FrameContents, Fault> {
        if self.is_unmapped { Err(Fault::Page) } else { self.form.contents(&self.area, allowed) }
    }

    fn set_pkru(&mut self, pkru: Pkru) -> Result<(), Fault> {
        if let Some(written) = self.form.pkru() {
            self.require(written)?;
            self.area.put_pkru(pkru);
        }
        Ok(())
    }

    fn copy_to(&self, contents: FrameContents, image: &mut XsaveImage) -> Result<(), Fault> {
        self.require([self.form.copied(contents)])?;
        FrameForm::copy(&self.area, contents, image)
    }
}

impl PartialEq for SoftFrame {
    fn eq(&self, other: &Self) -> bool {
        self.operand == other.operand
            && self.is_unmapped == other.is_unmapped
            && self.form.is_same(&self.area, &other.form, &other.area)
    }
}

impl Eq for SoftFrame {}

impl Hash for SoftFrame {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.operand, self.is_unmapped).hash(state);
        image::hash_values(&self.area, state);
    }
}
