//! `struct kvm_xsave`: a virtual CPU's image between KVM and a monitor.

use super::ViewError;
use crate::{
    ComponentSet, Pkru,
    xstate::{Area, Component, Refusal, XstateBv, layout::LEGACY_BYTES},
};
use alloc::{vec, vec::Vec};

const FORM: &str = "struct kvm_xsave";
/// Its fixed part, all there was before tiles.
const LEAST_BYTES: usize = 4096;
const LEGACY: ComponentSet = ComponentSet::EMPTY.with(Component::X87).with(Component::SSE);

impl<B: AsRef<[u8]>> Area<B> {
    /// The image as KVM_GET_XSAVE gives it, in 4096 bytes, or KVM_GET_XSAVE2, in `size_bytes`: the standard format as in
    /// [`regset`](Self::regset), zeros behind it. Without XSAVE, it is the legacy region and a header that says so.
    ///
    /// A component that ends behind `size_bytes` is left out if it has its initial value, and then it has no bit
    /// either. (KVM_GET_XSAVE itself fails wherever one could be too long.)
    ///
    /// # Errors
    /// [`ViewError::DoesNotFit`] for a component that would be lost; [`ViewError::Length`] for less than 4096 bytes;
    /// [`ViewError::Refused`] and [`ViewError::Area`] as there.
    ///
    /// # Reference
    /// Linux, Documentation/virt/kvm/api.rst: KVM_GET_XSAVE, KVM_GET_XSAVE2; arch/x86/kernel/fpu/core.c:
    /// fpu_copy_guest_fpstate_to_uabi.
    pub fn kvm_xsave(&self, size_bytes: usize, pkru: Pkru) -> Result<Vec<u8>, ViewError> {
        check_length(size_bytes)?;
        let mut bytes = vec![0; size_bytes];
        if !self.layout().has_xsave() {
            bytes[..LEGACY_BYTES].copy_from_slice(&self.user_fpregs()?);
            bytes[LEGACY_BYTES] = LEGACY.bits() as u8;
            return Ok(bytes);
        }
        let mut view = self.standard(FORM, pkru)?;
        for place in self.layout().places() {
            let component = place.component;
            let end_bytes = place.offset_bytes as usize + place.size_bytes as usize;
            if end_bytes > size_bytes && view.xstate_bv().contains(component) {
                if view.component(component)?.iter().any(|byte| *byte != 0) {
                    return Err(ViewError::DoesNotFit { component, end_bytes, form: FORM, size_bytes });
                }
                view.set_initial(component)?;
            }
        }
        let len = view.bytes().len().min(size_bytes);
        bytes[..len].copy_from_slice(&view.bytes()[..len]);
        Ok(bytes)
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Area<B> {
    /// Takes the values of a `struct kvm_xsave` for a guest that may have `allowed`, as KVM_SET_XSAVE does, and returns
    /// the virtual CPU's new PKRU: `None`, which leaves the old one, where the header's bit is clear. That is KVM's own
    /// rule, and differs from [`set_regset`](Self::set_regset), as which it is otherwise.
    ///
    /// Without XSAVE, x87 and SSE are taken whatever the header says.
    ///
    /// # Errors
    /// [`ViewError::Length`] for less than 4096 bytes; [`ViewError::Refused`] for a header or MXCSR that KVM refuses, or
    /// a component that lies behind the end; [`ViewError::Area`] for one that has no place here. Nothing is changed.
    ///
    /// # Reference
    /// Linux, arch/x86/kernel/fpu/core.c: fpu_copy_uabi_to_guest_fpstate.
    pub fn set_kvm_xsave(&mut self, xsave: &[u8], allowed: ComponentSet) -> Result<Option<Pkru>, ViewError> {
        check_length(xsave.len())?;
        if !self.layout().has_xsave() {
            let xstate_bv = xsave[LEGACY_BYTES..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
            if xstate_bv & !LEGACY.bits() != 0 {
                let xstate_bv = XstateBv(xstate_bv);
                return Err(Refusal::NotAllowed { xstate_bv, allowed: LEGACY }.into());
            }
            self.set_user_fpregs(&xsave[..LEGACY_BYTES])?;
            return Ok(None);
        }
        let form = Area::over(xsave, self.layout())?;
        form.check_form(allowed)?;
        self.take(&form)?;
        Ok(form.pkru_component())
    }
}

fn check_length(found_bytes: usize) -> Result<(), ViewError> {
    if found_bytes < LEAST_BYTES {
        return Err(ViewError::Length { form: FORM, expected_bytes: LEAST_BYTES, found_bytes });
    }
    Ok(())
}
