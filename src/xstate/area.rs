//! XSAVE areas: owned, or borrowed from somebody's bytes.

use super::{
    AlignedBytes, Component, ComponentSet, Format, Layout, LegacyRegion, Register, XcompBv, XstateBv,
    layout::{EXTENDED_OFFSET, LEGACY_BYTES},
    legacy::{self, INITIAL_MXCSR, SSE_BYTES, X87_BYTES},
};
use alloc::{borrow::Cow, vec, vec::Vec};

/// Offsets in the area of the header's words (Intel SDM volume 1, section 13.4.2 "XSAVE Header").
const XSTATE_BV: usize = 512;
const XCOMP_BV: usize = 520;
pub(super) const RESERVED: core::ops::Range<usize> = 528..576;

/// An area whose bytes this crate has allocated, aligned to 64.
pub type OwnedArea = Area<AlignedBytes>;

/// An XSAVE area: bytes, and the layout of the CPU that they are from. `B` is [`AlignedBytes`], or `&[u8]` or
/// `&mut [u8]` for an image that somebody else holds.
///
/// Nothing in the bytes is trusted. Reading gives what XRSTOR with the full mask would load: a component whose
/// XSTATE_BV bit is clear has its initial value, and MXCSR comes from memory in the standard format even then
/// (section 13.8 "Operation of XRSTOR"). Writing sets the bit.
///
/// # Shapes
/// A component of the extended region is as long as the layout says. x87 is 152 bytes: 0 to 23 and 32 to 159
/// of the legacy region; SSE is 260: MXCSR and XMM0–15. Reserved bytes in them read as zero.
///
/// ```
/// use fpuswitch::xstate::{Area, Component, Format, Layout};
/// let layout = Layout::fxsave_only();
/// let mut area = Area::initial(&layout, Format::Fxsave);
/// assert_eq!(area.legacy().fcw(), 0x037f);
/// assert_eq!(area.component(Component::SSE)?[..4], 0x1f80_u32.to_le_bytes());
/// # Ok::<(), fpuswitch::xstate::AreaError>(())
/// ```
///
/// # Reference
/// Intel SDM volume 1, section 13.4 "XSAVE Area".
#[derive(Clone, Debug)]
pub struct Area<B> {
    bytes: B,
    layout: Layout,
}

/// An access to an area that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AreaError {
    /// Too few bytes for a legacy region, or for that and a header.
    #[error("an area of {found_bytes} bytes, expected {needed_bytes} at least")]
    TooShort {
        /// What is needed.
        needed_bytes: usize,
        /// What is there.
        found_bytes: usize,
    },
    /// A component that the layout has not enabled, or that the image's XCOMP_BV leaves out.
    #[error("{0} has no place in this image")]
    NoPlace(Component),
    /// A component whose place is beyond the end of the bytes.
    #[error("{component} ends at byte {end_bytes}, the area has {found_bytes}")]
    BeyondEnd {
        /// Which one.
        component: Component,
        /// Where it ends.
        end_bytes: usize,
        /// Where the area ends.
        found_bytes: usize,
    },
    /// A value of another length than the component's.
    #[error("{component} takes {needed_bytes} bytes, got {found_bytes}")]
    Length {
        /// Which component.
        component: Component,
        /// What it takes.
        needed_bytes: usize,
        /// What was given.
        found_bytes: usize,
    },
    /// A value of another length than the register's.
    #[error("{register} takes {needed_bytes} bytes, got {found_bytes}")]
    RegisterLength {
        /// Which register.
        register: Register,
        /// What it takes.
        needed_bytes: usize,
        /// What was given.
        found_bytes: usize,
    },
}

impl OwnedArea {
    /// An image of the initial configuration, in `format`, with room for all that `layout` has enabled.
    ///
    /// Without XSAVE there is the FXSAVE form only, and an area in that form has room for no header.
    pub fn initial(layout: &Layout, format: Format) -> Self {
        let format = if layout.has_xsave() { format } else { Format::Fxsave };
        Self::initial_with_room(layout, format, layout.size_bytes(format))
    }

    /// The same in exactly `size_bytes`, but at least 512, or 576 with a header.
    pub(super) fn initial_with_room(layout: &Layout, format: Format, size_bytes: usize) -> Self {
        let least = if format == Format::Fxsave { LEGACY_BYTES } else { EXTENDED_OFFSET as usize };
        let bytes = AlignedBytes::zeroed(size_bytes.max(least));
        let mut area = Self { bytes, layout: layout.clone() };
        if format == Format::Compacted {
            area.set_xcomp_bv(XcompBv::compacted(layout.enabled()));
        }
        area.set_initial_values();
        area
    }
}

impl<B: AsRef<[u8]>> Area<B> {
    /// The image in `bytes`, which a CPU with `layout` has saved, or somebody says so. More bytes than the
    /// layout needs are fine, fewer are found out at the component that lacks them.
    ///
    /// # Errors
    /// [`AreaError::TooShort`] below 512 bytes without XSAVE, and below 576 with it.
    pub fn over(bytes: B, layout: &Layout) -> Result<Self, AreaError> {
        let found_bytes = bytes.as_ref().len();
        let needed_bytes = if layout.has_xsave() { EXTENDED_OFFSET as usize } else { LEGACY_BYTES };
        if found_bytes < needed_bytes {
            return Err(AreaError::TooShort { needed_bytes, found_bytes });
        }
        Ok(Self { bytes, layout: layout.clone() })
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// The bytes, without the layout.
    pub fn into_inner(self) -> B {
        self.bytes
    }

    /// Whether there is a header behind the legacy region.
    pub(super) fn has_header(&self) -> bool {
        self.layout.has_xsave() && self.bytes().len() >= EXTENDED_OFFSET as usize
    }

    /// The form that the header claims.
    pub fn format(&self) -> Format {
        match (self.has_header(), self.xcomp_bv().is_compacted()) {
            (false, _) => Format::Fxsave,
            (true, false) => Format::Standard,
            (true, true) => Format::Compacted,
        }
    }

    /// XSTATE_BV as it is in the header; x87 and SSE where there is no header.
    pub fn xstate_bv(&self) -> XstateBv {
        XstateBv(if self.has_header() { self.word(XSTATE_BV) } else { 3 })
    }

    /// XCOMP_BV as it is in the header.
    pub fn xcomp_bv(&self) -> XcompBv {
        XcompBv(if self.has_header() { self.word(XCOMP_BV) } else { 0 })
    }

    fn word(&self, offset: usize) -> u64 {
        self.bytes()[offset..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
    }

    /// The reserved bytes of the header, 16 to 63, as they are; none where there is no header.
    pub fn reserved_header_bytes(&self) -> &[u8] {
        if self.has_header() { &self.bytes()[RESERVED] } else { &[] }
    }

    /// The legacy region, as it is.
    pub fn legacy(&self) -> LegacyRegion<&[u8]> {
        LegacyRegion::over(self.bytes()).expect("`over` has checked the length")
    }

    /// MXCSR as XRSTOR with the full mask would load it.
    pub fn mxcsr(&self) -> u32 {
        let compacted = self.format() == Format::Compacted;
        if compacted && !self.xstate_bv().contains(Component::SSE) {
            INITIAL_MXCSR
        } else {
            self.legacy().mxcsr()
        }
    }

    /// Whether the image has a place for `component`, enabled and within its bytes.
    pub fn has_room_for(&self, component: Component) -> bool {
        self.size_of(component).is_ok()
    }

    /// How many bytes a component has ([shapes](Area#shapes)).
    ///
    /// # Errors
    /// [`AreaError::NoPlace`] and [`AreaError::BeyondEnd`].
    pub fn size_of(&self, component: Component) -> Result<usize, AreaError> {
        match component {
            Component::X87 => Ok(X87_BYTES),
            // FXSAVE has it whatever XCR0 says.
            Component::SSE if !self.has_header() || self.layout.enabled().contains(component) => {
                Ok(SSE_BYTES)
            }
            _ => Ok(self.extended(component)?.len()),
        }
    }

    /// Where a component of the extended region lies.
    fn extended(&self, component: Component) -> Result<core::ops::Range<usize>, AreaError> {
        let no_place = AreaError::NoPlace(component);
        let place = self.layout.place(component).ok_or(no_place)?;
        let offset = match self.format() {
            Format::Compacted => self.layout.compacted_offset_bytes(self.xcomp_bv(), component),
            Format::Standard if self.layout.enabled().contains(component) => {
                Some(place.offset_bytes as usize)
            }
            Format::Standard | Format::Fxsave => None,
        };
        let offset = offset.ok_or(no_place)?;
        let end_bytes = offset + place.size_bytes as usize;
        let found_bytes = self.bytes().len();
        if end_bytes > found_bytes {
            return Err(AreaError::BeyondEnd { component, end_bytes, found_bytes });
        }
        Ok(offset..end_bytes)
    }

    /// The value of a component ([shapes](Area#shapes)): its initial one where the XSTATE_BV bit is clear.
    ///
    /// # Errors
    /// [`AreaError::NoPlace`] for a component that the layout has not enabled or the compacted image has no
    /// place for, [`AreaError::BeyondEnd`] for one that is cut off.
    pub fn component(&self, component: Component) -> Result<Cow<'_, [u8]>, AreaError> {
        let size = self.size_of(component)?;
        let in_image = self.xstate_bv().contains(component);
        Ok(match component {
            Component::X87 if in_image => Cow::Owned(self.legacy().x87().into()),
            Component::SSE if in_image => Cow::Owned(self.legacy().sse().into()),
            Component::SSE => Cow::Owned(legacy::initial_sse(self.mxcsr()).into()),
            _ if in_image => Cow::Borrowed(&self.bytes()[self.extended(component)?]),
            _ => Cow::Owned(initial_value(component, size)),
        })
    }

    /// Whether every enabled component has the same value in both, whatever the formats and the bits of
    /// XSTATE_BV. What has no place in one of them counts as its initial value there; what is cut off in one is
    /// the same only if all bytes are.
    pub fn same_values<C: AsRef<[u8]>>(&self, other: &Area<C>) -> bool {
        let both = ComponentSet::LEGACY | self.layout.enabled() | other.layout.enabled();
        let is_initial = |component, value: &[u8]| value == initial_value(component, value.len());
        both.iter().all(|component| match (self.held(component), other.held(component)) {
            // Of a component whose size differs, the initial values are the same all the same.
            (Ok(Some(ours)), Ok(Some(theirs))) => {
                ours == theirs || is_initial(component, &ours) && is_initial(component, &theirs)
            }
            (Ok(Some(value)), Ok(None)) | (Ok(None), Ok(Some(value))) => is_initial(component, &value),
            (Ok(None), Ok(None)) => true,
            // Cut off: the value is not known.
            (Err(_), _) | (_, Err(_)) => self.bytes() == other.bytes(),
        })
    }

    /// The value of a component; `None` if it has no place, or is cut off where nothing is.
    fn held(&self, component: Component) -> Result<Option<Cow<'_, [u8]>>, AreaError> {
        match self.component(component) {
            Ok(value) => Ok(Some(value)),
            Err(AreaError::NoPlace(_)) => Ok(None),
            Err(_) if !self.xstate_bv().contains(component) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Area<B> {
    /// All bytes, to change at will: everything here copes with what is in them.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.as_mut()
    }

    /// The legacy region, to change as it is.
    pub fn legacy_mut(&mut self) -> LegacyRegion<&mut [u8]> {
        LegacyRegion::over(self.bytes.as_mut()).expect("`over` has checked the length")
    }

    /// Writes XSTATE_BV; does nothing where there is no header.
    pub fn set_xstate_bv(&mut self, xstate_bv: XstateBv) {
        self.set_word(XSTATE_BV, xstate_bv.0);
    }

    /// Writes XCOMP_BV; does nothing where there is no header. What it says of the places of components that
    /// are there already is not made true.
    pub fn set_xcomp_bv(&mut self, xcomp_bv: XcompBv) {
        self.set_word(XCOMP_BV, xcomp_bv.0);
    }

    fn set_word(&mut self, offset: usize, word: u64) {
        if self.has_header() {
            self.bytes_mut()[offset..offset + 8].copy_from_slice(&word.to_le_bytes());
        }
    }

    /// The reserved bytes of the header; none where there is no header.
    pub fn reserved_header_bytes_mut(&mut self) -> &mut [u8] {
        if self.has_header() { &mut self.bytes_mut()[RESERVED] } else { &mut [] }
    }

    /// Makes the whole header zero; does nothing where there is none.
    pub(crate) fn clear_header(&mut self) {
        if self.has_header() {
            self.bytes_mut()[XSTATE_BV..EXTENDED_OFFSET as usize].fill(0);
        }
    }

    /// Takes the initial configuration in the form that the header claims, in place: XSTATE_BV and the
    /// reserved bytes are zero afterwards. XCOMP_BV stays.
    pub fn set_initial_values(&mut self) {
        let mut legacy = self.legacy_mut();
        legacy.set_x87(&legacy::initial_x87());
        legacy.set_sse(&legacy::initial_sse(INITIAL_MXCSR));
        self.set_xstate_bv(XstateBv(0));
        self.reserved_header_bytes_mut().fill(0);
    }

    /// Puts one component into its initial configuration: clears its XSTATE_BV bit.
    ///
    /// # Errors
    /// As [`component`](Self::component); nothing is changed.
    pub fn set_initial(&mut self, component: Component) -> Result<(), AreaError> {
        let size = self.size_of(component)?;
        if !self.has_header() {
            return self.set_component(component, &initial_value(component, size));
        }
        match component {
            Component::X87 => self.legacy_mut().set_x87(&legacy::initial_x87()),
            // MXCSR is loaded whatever the bit says, in the standard format.
            Component::SSE => self.legacy_mut().set_sse(&legacy::initial_sse(INITIAL_MXCSR)),
            _ => {}
        }
        self.set_xstate_bv(XstateBv(self.xstate_bv().0 & !(1 << component.number())));
        Ok(())
    }

    /// Writes a component ([shapes](Area#shapes)) and sets its XSTATE_BV bit. The value is not looked at: see
    /// [`check`](Self::check) for what the instruction would refuse.
    ///
    /// # Errors
    /// As [`component`](Self::component), and [`AreaError::Length`]; nothing is changed.
    pub fn set_component(&mut self, component: Component, value: &[u8]) -> Result<(), AreaError> {
        let needed_bytes = self.size_of(component)?;
        let wrong = AreaError::Length { component, needed_bytes, found_bytes: value.len() };
        match component {
            Component::X87 => self.legacy_mut().set_x87(value.try_into().map_err(|_| wrong)?),
            Component::SSE => self.legacy_mut().set_sse(value.try_into().map_err(|_| wrong)?),
            _ => {
                let range = self.extended(component)?;
                if value.len() != needed_bytes {
                    return Err(wrong);
                }
                self.bytes_mut()[range].copy_from_slice(value);
            }
        }
        self.set_xstate_bv(XstateBv(self.xstate_bv().0 | 1 << component.number()));
        // The legacy region is always there, but XRSTOR wants XCOMP_BV to say so. No offset depends on it.
        if self.format() == Format::Compacted && ComponentSet::LEGACY.contains(component) {
            self.set_xcomp_bv(XcompBv(self.xcomp_bv().0 | 1 << component.number()));
        }
        Ok(())
    }
}

/// A component in its initial configuration: zeros, but for FCW, MXCSR and two supervisor components.
///
/// # Reference
/// Intel SDM volume 1, section 13.6 "Processor Tracking of XSAVE-Managed State".
pub(crate) fn initial_value(component: Component, size: usize) -> Vec<u8> {
    match component {
        Component::X87 => legacy::initial_x87().into(),
        Component::SSE => legacy::initial_sse(INITIAL_MXCSR).into(),
        _ => {
            let word = match component.number() {
                HDC => 1,
                HWP => 0x8000_ff01,
                _ => 0_u64,
            };
            let mut value = vec![0; size];
            value.iter_mut().zip(word.to_le_bytes()).for_each(|(byte, initial)| *byte = initial);
            value
        }
    }
}

/// Supervisor components whose initial configuration is not zero: IA32_PM_CTL1 and IA32_HWP_REQUEST.
const HDC: u8 = 13;
const HWP: u8 = 16;
