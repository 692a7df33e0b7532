//! The image in a signal frame, and what surrounds it.

use super::{SOFTWARE, ViewError};
use crate::{
    ComponentSet, Pkru,
    xstate::{
        Area, AreaError, Component, Format, Layout, OwnedArea, Rfbm, XstateBv,
        layout::{EXTENDED_OFFSET, LEGACY_BYTES},
        legacy::INITIAL_MXCSR,
    },
};
use alloc::vec::Vec;
use core::ops::Range;

const FORM: &str = "a signal frame's image";

/// FP_XSTATE_MAGIC1, in the software bytes: there is more than the legacy region.
const MAGIC1: u32 = 0x4650_5853;
/// FP_XSTATE_MAGIC2, behind the image: there still is.
const MAGIC2: u32 = 0x4650_5845;
pub(crate) const MAGIC2_BYTES: usize = 4;

/// `struct _fpx_sw_bytes`, in the legacy region. The rest is zero.
pub(crate) const MAGIC1_AT: Range<usize> = 464..468;
const EXTENDED_SIZE_AT: Range<usize> = 468..472;
const XFEATURES_AT: Range<usize> = 472..480;
pub(crate) const XSTATE_SIZE_AT: Range<usize> = 480..484;

impl<B: AsRef<[u8]>> Area<B> {
    /// The image as Linux puts it into a signal frame of a thread whose PKRU is `pkru`: the standard format, sizes and
    /// components in the software bytes, and a second magic number behind it. Without XSAVE it is the legacy region.
    ///
    /// The bits of x87 and SSE are always set, for handlers that change them and know no XSTATE_BV, and so is that
    /// of PKRU, which a signal return loads from here. The [layout](Layout::restricted_to) has to be what the thread
    /// may use: without permission for tiles, they have no room in the frame.
    ///
    /// # Errors
    /// As [`regset`](Self::regset), but that XSAVE is not needed.
    ///
    /// # Reference
    /// Linux, arch/x86/kernel/fpu/signal.c: copy_fpstate_to_sigframe, save_xstate_epilog;
    /// arch/x86/kernel/fpu/xstate.h: update_pkru_in_sigframe (6.12; since 6.13 it sets the bit);
    /// arch/x86/include/uapi/asm/sigcontext.h: struct _fpx_sw_bytes.
    ///
    /// ```
    /// use fpuswitch::{Pkru, xstate::{Area, CpuidDump, FrameKind, Format, Layout, SignalFrame}};
    /// let cpu: CpuidDump = include_str!("../../../cpus/zen4.txt").parse()?;
    /// let layout = Layout::from_cpuid(&cpu)?;
    /// let mut thread = Area::initial(&layout, Format::Compacted);
    /// thread.set_register("k1".parse()?, &[1; 8])?;
    ///
    /// let bytes = thread.signal_frame(Pkru::DEFAULT)?;
    /// let frame = SignalFrame::over(&bytes, &layout)?;
    /// assert_eq!(frame.kind(), FrameKind::Extended(layout.enabled()));
    /// let (image, pkru) = frame.image()?;
    /// assert!(image.same_values(&thread) && pkru == Pkru::DEFAULT);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn signal_frame(&self, pkru: Pkru) -> Result<Vec<u8>, ViewError> {
        if !self.layout().has_xsave() {
            return Ok(self.user_fpregs()?.into());
        }
        let mut view = self.standard(FORM, pkru)?;
        view.put_pkru(pkru);
        let mut bytes = Vec::with_capacity(view.bytes().len() + MAGIC2_BYTES);
        bytes.extend(view.bytes());
        bytes.extend([0; MAGIC2_BYTES]);
        let mut frame = Area::over(bytes, self.layout())?;
        frame.finish_signal_frame(self.layout().enabled());
        Ok(frame.into_inner())
    }
}

impl Layout {
    /// How many bytes a signal frame's image takes with all that is enabled, and the second magic number behind it.
    pub(crate) fn signal_frame_bytes(&self) -> usize {
        let behind = if self.has_xsave() { MAGIC2_BYTES } else { 0 };
        self.size_bytes(Format::Standard) + behind
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Area<B> {
    /// Makes a signal frame of a saved image, whose bytes end with room for the second magic number: says that it has
    /// `components`, and sets the bits of x87 and SSE. Without XSAVE, the software bytes are zero.
    ///
    /// # Reference
    /// Linux, arch/x86/kernel/fpu/signal.c: save_xstate_epilog.
    pub(crate) fn finish_signal_frame(&mut self, components: ComponentSet) {
        let (has_xsave, xstate_bv) = (self.layout().has_xsave(), self.xstate_bv().0);
        let legacy = components & ComponentSet::LEGACY;
        self.set_xstate_bv(XstateBv(xstate_bv | legacy.bits()));
        let bytes = self.bytes_mut();
        bytes[SOFTWARE].fill(0);
        if !has_xsave {
            return;
        }
        let magic2_at = bytes.len() - MAGIC2_BYTES;
        // A layout has at most 1 MiB.
        let [xstate_size, extended_size] = [magic2_at as u32, bytes.len() as u32];
        bytes[MAGIC1_AT].copy_from_slice(&MAGIC1.to_le_bytes());
        bytes[EXTENDED_SIZE_AT].copy_from_slice(&extended_size.to_le_bytes());
        bytes[XFEATURES_AT].copy_from_slice(&components.bits().to_le_bytes());
        bytes[XSTATE_SIZE_AT].copy_from_slice(&xstate_size.to_le_bytes());
        bytes[magic2_at..].copy_from_slice(&MAGIC2.to_le_bytes());
    }

    /// Takes the values of `components` from a signal frame's image by the way of a kernel's buffer, from a user who
    /// may use `allowed`; the initial ones for all others, and for PKRU.
    ///
    /// # Errors
    /// As [`set_regset`](Self::set_regset), but for the length. Nothing is changed.
    ///
    /// # Reference
    /// Linux, arch/x86/kernel/fpu/xstate.c: copy_sigframe_from_user_to_xstate, and what __fpu_restore_sig does with
    /// XSTATE_BV behind it.
    pub(crate) fn take_signal_frame(
        &mut self,
        frame: &Area<impl AsRef<[u8]>>,
        components: ComponentSet,
        allowed: ComponentSet,
    ) -> Result<(), ViewError> {
        frame.check_form(allowed)?;
        let mut form = Area::over(frame.bytes().to_vec(), frame.layout())?;
        form.set_xstate_bv(XstateBv(frame.xstate_bv().0 & components.bits()));
        self.take(&form)
    }
}

/// What a signal return loads from a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// XRSTOR with these components; all others become initial.
    Extended(ComponentSet),
    /// FXRSTOR: x87 and SSE; all others become initial, PKRU too.
    Legacy(LegacyOnly),
}

/// Why a frame is taken for its legacy region alone. That is no error: old programs make such frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LegacyOnly {
    /// The CPU has no XSAVE.
    #[error("the CPU has no XSAVE")]
    NoXsave,
    /// No FP_XSTATE_MAGIC1 at byte 464.
    #[error("magic1 is {0:#x}, expected {MAGIC1:#x}")]
    Magic1(u32),
    /// An image that is longer than all there is.
    #[error("xstate_size is {xstate_size}, extended_size {extended_size}")]
    BeyondExtended {
        /// Size of the image.
        xstate_size: u32,
        /// Size of all.
        extended_size: u32,
    },
    /// An image too short for its components, or longer than the thread's can be.
    #[error("xstate_size is {xstate_size}, expected {least} to {most} for components {components:?}")]
    Size {
        /// Size of the image.
        xstate_size: u32,
        /// The components it claims to have, of those the thread may use.
        components: ComponentSet,
        /// Where the last of them ends.
        least: usize,
        /// What all of the thread's take.
        most: usize,
    },
    /// No FP_XSTATE_MAGIC2 behind the image: somebody has copied the legacy region and not the rest.
    #[error("magic2 is {0:#x}, expected {MAGIC2:#x}")]
    Magic2(u32),
}

/// A signal frame's image as a signal return takes it.
///
/// Nothing in it is trusted: the bytes are the user's. Whether a frame counts as [extended](FrameKind::Extended) is
/// decided by Linux's rule, in this order: magic1; `xstate_size` at most `extended_size`, and between the end of
/// the last component of `xfeatures` and the size of all that the thread may use; magic2 at `xstate_size`.
///
/// Kernels differ in the middle part. From 6.16 to a revert of 2026 they look at no sizes, and for magic2 behind the
/// thread's own size: a smaller frame, of another machine, is a legacy one to them. Before and after, magic2 is where
/// `xstate_size` says; some ask for 576 bytes only, where others ask for what the components take.
///
/// # Reference
/// Linux, arch/x86/kernel/fpu/signal.c: check_xstate_in_sigframe, __fpu_restore_sig (the 64-bit frame);
/// arch/x86/include/uapi/asm/sigcontext.h: struct _fpx_sw_bytes.
#[derive(Clone, Debug)]
pub struct SignalFrame<'a> {
    bytes: &'a [u8],
    layout: Layout,
    kind: FrameKind,
}

impl<'a> SignalFrame<'a> {
    /// The frame in `bytes` (what `uc_mcontext.fpregs` points to, as far as it can be read) for a thread that may use
    /// what `layout` has enabled.
    ///
    /// # Errors
    /// [`ViewError::Area`] with [`AreaError::TooShort`] where the kernel would read beyond the bytes: a legacy region,
    /// or magic2.
    pub fn over(bytes: &'a [u8], layout: &Layout) -> Result<Self, ViewError> {
        let kind = match kind(bytes, layout)? {
            Ok(components) => FrameKind::Extended(components),
            Err(why) => FrameKind::Legacy(why),
        };
        Ok(Self { bytes, layout: layout.clone(), kind })
    }

    /// What a signal return loads.
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// The thread's image and PKRU after the signal return: the values that it loads, initial ones for the rest. The
    /// image is in the standard format, or FXSAVE's without XSAVE, and PKRU in it is initial. PKRU is 0 where the frame
    /// does not load it.
    ///
    /// # Errors
    /// [`ViewError::Refused`] for what XRSTOR or FXRSTOR would refuse; the kernel then ends the thread with SIGSEGV.
    /// Every enabled component counts as one that the frame may have, whatever XCR0 has beyond the layout. An
    /// extended image may be compacted: XRSTOR takes it, and so does Linux. [`ViewError::Area`] for a legacy one where
    /// SSE is not enabled.
    pub fn image(&self) -> Result<(OwnedArea, Pkru), ViewError> {
        let mut image = OwnedArea::initial(&self.layout, Format::Standard);
        match self.kind {
            FrameKind::Extended(components) => self.extended(components, &mut image)?,
            FrameKind::Legacy(_) => image.set_user_fpregs(&self.bytes[..LEGACY_BYTES])?,
        }
        Ok((image, self.pkru()))
    }

    /// PKRU after the signal return: 0 where the frame does not load it.
    pub(crate) fn pkru(&self) -> Pkru {
        let is_loaded = matches!(self.kind, FrameKind::Extended(all) if all.contains(Component::PKRU));
        let area = Area::over(self.bytes, &self.layout).ok().filter(|_| is_loaded);
        area.and_then(|area| area.pkru_component()).unwrap_or(Pkru(0))
    }

    fn extended(&self, components: ComponentSet, image: &mut OwnedArea) -> Result<(), ViewError> {
        let area = Area::over(self.bytes, &self.layout)?;
        area.check(area.format(), Rfbm::new(components))?;
        let mut loaded = area.xstate_bv().components() & components.without(Component::PKRU);
        if components.contains(Component::SSE) && area.mxcsr() != INITIAL_MXCSR {
            loaded = loaded.with(Component::SSE);
        }
        for component in loaded.iter() {
            image.set_component(component, &area.component(component)?)?;
        }
        Ok(())
    }
}

/// The components to load; or why it is the legacy region alone.
fn kind(bytes: &[u8], layout: &Layout) -> Result<Result<ComponentSet, LegacyOnly>, ViewError> {
    let found_bytes = bytes.len();
    let legacy =
        bytes.get(..LEGACY_BYTES).ok_or(AreaError::TooShort { needed_bytes: LEGACY_BYTES, found_bytes })?;
    let word =
        |at: Range<usize>| legacy[at.start..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
    if !layout.has_xsave() {
        return Ok(Err(LegacyOnly::NoXsave));
    }
    if word(MAGIC1_AT) != MAGIC1 {
        return Ok(Err(LegacyOnly::Magic1(word(MAGIC1_AT))));
    }
    let (extended_size, xstate_size) = (word(EXTENDED_SIZE_AT), word(XSTATE_SIZE_AT));
    if xstate_size > extended_size {
        return Ok(Err(LegacyOnly::BeyondExtended { xstate_size, extended_size }));
    }
    let xfeatures = legacy[XFEATURES_AT].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    let components = ComponentSet::from_bits(xfeatures) & layout.enabled();
    let least = layout.standard_size_bytes(components).unwrap_or(EXTENDED_OFFSET as usize);
    let most = layout.size_bytes(Format::Standard);
    let end = xstate_size as usize;
    if end < least || end > most {
        return Ok(Err(LegacyOnly::Size { xstate_size, components, least, most }));
    }
    let magic2 = bytes[end.min(found_bytes)..].first_chunk().map(|word| u32::from_le_bytes(*word));
    match magic2.ok_or(AreaError::TooShort { needed_bytes: end + MAGIC2_BYTES, found_bytes })? {
        MAGIC2 => Ok(Ok(components)),
        other => Ok(Err(LegacyOnly::Magic2(other))),
    }
}
