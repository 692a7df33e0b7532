//! One image as the outside sees it: to a debugger, in a core file, to a virtual machine monitor, in a signal frame.

mod fpregs;
mod frame;
mod kvm;
mod note;
mod regset;
mod tag_word;

pub use frame::{FrameKind, LegacyOnly, SignalFrame};
pub(crate) use frame::{MAGIC1_AT, MAGIC2_BYTES, XSTATE_SIZE_AT};
pub use note::NoteError;
pub use tag_word::{Tag, TagWord};

use super::{Area, AreaError, Component, ComponentSet, Format, OwnedArea, Refusal, legacy::INITIAL_MXCSR};
use crate::Pkru;
use alloc::vec;

/// The bytes of the legacy region that are left to software, where Linux says what is behind it.
pub(crate) const SOFTWARE: core::ops::Range<usize> = 464..512;

/// Why an image cannot be seen in some form, or a form cannot be taken for an image. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The form has a header, and the layout is of a CPU without XSAVE.
    #[error("the CPU has no XSAVE, so there is no {0}")]
    NoXsave(&'static str),
    /// Another length than the form has.
    #[error("{form} has {expected_bytes} bytes, got {found_bytes}")]
    Length {
        /// Which form.
        form: &'static str,
        /// What it has, or has at least where it may be longer.
        expected_bytes: usize,
        /// What was given.
        found_bytes: usize,
    },
    /// The image, or the form, has what a restore or a kernel refuses.
    #[error("the image is refused: {0}")]
    Refused(#[from] Refusal),
    /// A component has a value, and no place in the target.
    #[error(transparent)]
    Area(#[from] AreaError),
    /// A component has a value, and ends behind the last byte of a form of that length.
    #[error(
        "{component} is not in its initial configuration and ends at byte {end_bytes}, {form} has {size_bytes}"
    )]
    DoesNotFit {
        /// Which component.
        component: Component,
        /// Where it ends.
        end_bytes: usize,
        /// Which form.
        form: &'static str,
        /// How many bytes that has.
        size_bytes: usize,
    },
}

impl<B: AsRef<[u8]>> Area<B> {
    /// The user's components in the standard format, as Linux copies them out (`copy_xstate_to_uabi_buf`): what has no
    /// XSTATE_BV bit is initial, all else that belongs to no component is zero but for MXCSR_MASK, and for XCR0 in the
    /// first of the software bytes.
    fn standard(&self, form: &'static str, pkru: Pkru) -> Result<OwnedArea, ViewError> {
        if !self.layout().has_xsave() {
            return Err(ViewError::NoXsave(form));
        }
        self.check_source()?;
        let mut view = OwnedArea::initial(self.layout(), Format::Standard);
        // Supervisor components are the kernel's own.
        let user = self.xstate_bv().components() & self.layout().enabled();
        self.carry_all(user.without(Component::PKRU).with(Component::X87), &mut view)?;
        if user.contains(Component::PKRU) || pkru != Pkru(0) {
            view.put_pkru(pkru);
        }
        let xcr0 = self.layout().enabled().bits().to_le_bytes();
        view.bytes_mut()[SOFTWARE][..xcr0.len()].copy_from_slice(&xcr0);
        Ok(view)
    }

    /// Gives `view` those components and SSE, and MXCSR_MASK.
    fn carry_all(&self, components: ComponentSet, view: &mut OwnedArea) -> Result<(), ViewError> {
        for component in components.with(Component::SSE).iter() {
            self.carry(component, view).map_err(|_| AreaError::NoPlace(component))?;
        }
        // Without the bit, a kernel that has the compacted format inside does not load what MXCSR is.
        let has_sse = self.layout().enabled().contains(Component::SSE);
        if has_sse && view.mxcsr() != INITIAL_MXCSR {
            view.set_xstate_bv(view.xstate_bv().with(Component::SSE));
        }
        view.legacy_mut().set_mxcsr_mask(self.layout().mxcsr_mask());
        Ok(())
    }

    /// What a kernel checks of an image in the standard format: the header and, where a bit says that it counts, MXCSR.
    fn check_form(&self, allowed: ComponentSet) -> Result<(), Refusal> {
        self.check_user_header(allowed)?;
        let in_form = self.xstate_bv();
        if [Component::X87, Component::SSE, Component::AVX].into_iter().any(|c| in_form.contains(c)) {
            self.check_mxcsr()?;
        }
        self.check_room(in_form.components())
    }

    /// PKRU of an image that has it in XSAVE state; `None` where the bit is clear.
    pub(crate) fn pkru_component(&self) -> Option<Pkru> {
        let in_image = self.xstate_bv().contains(Component::PKRU);
        let value = self.component(Component::PKRU).ok().filter(|_| in_image)?;
        let mut pkru = [0; 4];
        pkru.iter_mut().zip(&*value).for_each(|(to, from)| *to = *from);
        Some(Pkru(u32::from_le_bytes(pkru)))
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Area<B> {
    /// Takes the value of every user component from an image in the standard format that was checked, the initial one
    /// where the bit is clear. PKRU becomes initial: its home is not the image.
    fn take(&mut self, form: &Area<impl AsRef<[u8]>>) -> Result<(), ViewError> {
        let enabled = self.layout().enabled();
        let in_form = form.xstate_bv();
        let mut taken = in_form.components().without(Component::PKRU) & enabled;
        // AVX shares MXCSR with SSE, and every layout with AVX that a kernel enables has SSE.
        if in_form.contains(Component::AVX) && form.mxcsr() != INITIAL_MXCSR {
            taken = taken.with(Component::SSE);
        }
        // Every one has its place, or nothing is written.
        for component in taken.iter() {
            self.size_of(component)?;
            form.component(component)?;
        }
        // An FXSAVE image has SSE whatever is enabled.
        for component in enabled.with(Component::SSE).iter() {
            if taken.contains(component) {
                self.set_component(component, &form.component(component)?)?;
            } else if self.has_room_for(component) {
                self.set_initial(component)?;
            }
        }
        Ok(())
    }

    /// Writes the PKRU component, where there is a place for it, and sets its bit.
    pub(crate) fn put_pkru(&mut self, pkru: Pkru) {
        let Ok(size) = self.size_of(Component::PKRU) else { return };
        let mut value = vec![0; size];
        value.iter_mut().zip(pkru.0.to_le_bytes()).for_each(|(to, from)| *to = from);
        // The length is the component's.
        let _ = self.set_component(Component::PKRU, &value);
    }
}
