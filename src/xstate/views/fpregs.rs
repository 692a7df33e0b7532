//! NT_PRFPREG: the legacy region alone.

use super::ViewError;
use crate::ComponentSet;
use crate::xstate::{Area, Component, Format, Layout, OwnedArea, layout::LEGACY_BYTES};

const FORM: &str = "struct user_fpregs_struct";

impl<B: AsRef<[u8]>> Area<B> {
    /// The image as `struct user_fpregs_struct`, which PTRACE_GETFPREGS and NT_PRFPREG have on x86-64: 512 bytes as
    /// FXSAVE writes them. x87 and SSE have their initial values where their bits are clear, MXCSR_MASK is the
    /// [layout's](Layout::mxcsr_mask), and bytes 416 to 511 are zero.
    ///
    /// # Errors
    /// [`ViewError::Refused`] if the image is not valid on its CPU.
    ///
    /// # Reference
    /// Linux, arch/x86/kernel/fpu/regset.c: xfpregs_get; arch/x86/include/asm/user_64.h: struct user_i387_struct.
    ///
    /// ```
    /// use fpuswitch::xstate::{Area, Format, Layout, LegacyRegion};
    /// let mut area = Area::initial(&Layout::fxsave_only(), Format::Fxsave);
    /// area.legacy_mut().set_fcw(0x0f7f);
    /// let fpregs = area.user_fpregs()?;
    /// assert_eq!(LegacyRegion::over(&fpregs)?.fcw(), 0x0f7f);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn user_fpregs(&self) -> Result<[u8; LEGACY_BYTES], ViewError> {
        self.check_source()?;
        let mut view = OwnedArea::initial(self.layout(), Format::Fxsave);
        self.carry_all(ComponentSet::EMPTY.with(Component::X87), &mut view)?;
        let mut fpregs = [0; LEGACY_BYTES];
        fpregs.copy_from_slice(view.bytes());
        Ok(fpregs)
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Area<B> {
    /// Writes x87 and SSE from a `struct user_fpregs_struct`, and sets both bits. Everything else stays, MXCSR_MASK and
    /// the software bytes too.
    ///
    /// # Errors
    /// [`ViewError::Length`] if it has not 512 bytes, [`ViewError::Refused`] for bits of MXCSR that the CPU lacks,
    /// [`ViewError::Area`] where SSE has no place. Nothing is changed.
    ///
    /// # Reference
    /// Linux, arch/x86/kernel/fpu/regset.c: xfpregs_set.
    pub fn set_user_fpregs(&mut self, fpregs: &[u8]) -> Result<(), ViewError> {
        let (expected_bytes, found_bytes) = (LEGACY_BYTES, fpregs.len());
        if expected_bytes != found_bytes {
            return Err(ViewError::Length { form: FORM, expected_bytes, found_bytes });
        }
        let form = Area::over(fpregs, &Layout::fxsave_only().with_mxcsr_mask(self.layout().mxcsr_mask()))?;
        form.check_mxcsr()?;
        let (x87, sse) = (form.component(Component::X87)?, form.component(Component::SSE)?);
        self.set_component(Component::SSE, &sse)?;
        // x87 has its place in every image.
        self.set_component(Component::X87, &x87)?;
        Ok(())
    }
}
