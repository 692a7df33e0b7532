//! NT_X86_XSTATE: the whole image, and XCR0.

use super::ViewError;
use crate::{
    ComponentSet, Pkru,
    xstate::{Area, Format, OwnedArea},
};

pub(super) const FORM: &str = "a register set (NT_X86_XSTATE)";

impl<B: AsRef<[u8]>> Area<B> {
    /// The image as the register set NT_X86_XSTATE (type 202H) of a thread whose PKRU is `pkru`: the standard format
    /// with room for every enabled component, XCR0 in bytes 464 to 471.
    ///
    /// XSTATE_BV has the bits that it has here, without supervisor components; what has none is zero, or FCW 037FH and
    /// MXCSR 1F80H. Two bits can be added: SSE's where MXCSR alone is not 1F80H, as XSAVEC does; and PKRU's where
    /// `pkru` is not 0, its initial value. What the image itself holds as PKRU does not matter, and `pkru` does not
    /// where the layout has no such component.
    ///
    /// Linux has shown the thread's PKRU instead of the image's since 5.14. It takes the bit as the last XSAVE wrote
    /// it; the CPU may set that for 0 too. Where the bit is clear, newer kernels leave the component zero.
    ///
    /// # Errors
    /// [`ViewError::NoXsave`] without XSAVE; [`ViewError::Refused`] if the image is not valid on its CPU;
    /// [`ViewError::Area`] for a value without a place, of an FXSAVE image where SSE is not enabled.
    ///
    /// # Reference
    /// Linux, arch/x86/kernel/fpu/xstate.c: copy_xstate_to_uabi_buf; regset.c: xstateregs_get; ptrace.c:
    /// update_regset_xstate_info, which calls XCR0 what the kernel has enabled for user space.
    ///
    /// ```
    /// use fpuswitch::{Pkru, xstate::{Area, CpuidDump, Format, Layout}};
    /// let cpu: CpuidDump = include_str!("../../../cpus/zen4.txt").parse()?;
    /// let layout = Layout::from_cpuid(&cpu)?;
    /// let mut thread = Area::initial(&layout, Format::Compacted);
    /// thread.set_register("k1".parse()?, &[1; 8])?;
    ///
    /// let regset = thread.regset(Pkru::DEFAULT)?;
    /// assert_eq!(regset.bytes().len(), 2440);
    /// assert_eq!(regset.register("pkru".parse()?)?.to_string(), "55555554");
    ///
    /// let mut other = Area::initial(&layout, Format::Compacted);
    /// assert_eq!(other.set_regset(regset.bytes(), layout.enabled())?, Pkru::DEFAULT);
    /// assert!(other.same_values(&thread), "PKRU is not in the image");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn regset(&self, pkru: Pkru) -> Result<OwnedArea, ViewError> {
        self.standard(FORM, pkru)
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Area<B> {
    /// Takes the values of a register set NT_X86_XSTATE from a user who may change `allowed`, and returns the thread's
    /// new PKRU: 0, its initial value, where the header's bit is clear, as XRSTOR would have it.
    ///
    /// Each component has the value of the register set afterwards, the initial one where its bit is clear. PKRU is
    /// left initial in the image. MXCSR is looked at where XSTATE_BV has x87, SSE or AVX, and taken where it has one
    /// of the last two; else it is 1F80H. Supervisor components, and bytes that belong to no component, stay.
    ///
    /// `allowed` is what the thread may use, and can be less than the layout has: tiles need permission.
    ///
    /// # Errors
    /// [`ViewError::NoXsave`]; [`ViewError::Length`] if it is not as long as the layout's standard format is;
    /// [`ViewError::Refused`] for a header or MXCSR that a kernel refuses; [`ViewError::Area`] for a component that has
    /// no place here. Nothing is changed.
    ///
    /// # Reference
    /// Linux, arch/x86/kernel/fpu/regset.c: xstateregs_set, which wants the exact length (of more bytes, the system
    /// call passes on as many); xstate.c: validate_user_xstate_header, copy_uabi_to_xstate. From 5.14 to 6.1, PKRU
    /// was not taken at all; later stable kernels of that time take it again.
    pub fn set_regset(&mut self, regset: &[u8], allowed: ComponentSet) -> Result<Pkru, ViewError> {
        if !self.layout().has_xsave() {
            return Err(ViewError::NoXsave(FORM));
        }
        let (expected_bytes, found_bytes) = (self.layout().size_bytes(Format::Standard), regset.len());
        if expected_bytes != found_bytes {
            return Err(ViewError::Length { form: FORM, expected_bytes, found_bytes });
        }
        let form = Area::over(regset, self.layout())?;
        form.check_form(allowed)?;
        self.take(&form)?;
        Ok(form.pkru_component().unwrap_or(Pkru(0)))
    }
}
