//! Where each component lies in an XSAVE area of some CPU.

mod error;

pub use error::LayoutError;

use super::{Component, ComponentSet, CpuidReader, XcompBv};
use alloc::{sync::Arc, vec::Vec};

/// The forms of an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// 512 bytes of FXSAVE: the legacy region, no header.
    Fxsave,
    /// Each component at its fixed offset (XSAVE, XSAVEOPT).
    Standard,
    /// Only the components of XCOMP_BV, one behind the other (XSAVEC).
    Compacted,
}

bitflags::bitflags! {
    /// Members of the XSAVE feature set that not every CPU has.
    ///
    /// # Reference
    /// Intel SDM volume 1, section 13.2 "Enumeration of CPU support for XSAVE instructions and XSAVE-supported
    /// features": CPUID(0DH,1).EAX.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct XsaveFeatures: u32 {
        /// XSAVEOPT.
        const XSAVEOPT = 1 << 0;
        /// XSAVEC, and the compacted form of XRSTOR.
        const XSAVEC = 1 << 1;
        /// XGETBV with ECX = 1, which tells XINUSE.
        const XGETBV1 = 1 << 2;
        /// XSAVES, XRSTORS and IA32_XSS.
        const XSAVES = 1 << 3;
        /// Extended feature disable (XFD).
        const XFD = 1 << 4;
    }
}

/// Where one component of the extended region lies, in bytes.
///
/// # Reference
/// Intel SDM volume 1, section 13.2: CPUID(0DH,i) for i ≥ 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Which one.
    pub component: Component,
    /// EAX.
    pub size_bytes: u32,
    /// EBX: the offset in the standard format; 0 for a supervisor component, which has none there.
    pub offset_bytes: u32,
    /// ECX bit 0: a supervisor component, managed by IA32_XSS and in no image of user space.
    pub is_supervisor: bool,
    /// ECX bit 1: starts at a multiple of 64 in the compacted format.
    pub is_aligned: bool,
    /// ECX bit 2: can be disabled by XFD, so an area may be without room for it.
    pub is_dynamic: bool,
}

impl Place {
    fn end_bytes(&self) -> u32 {
        self.offset_bytes + self.size_bytes
    }
}

/// The legacy region: x87 and SSE.
pub(crate) const LEGACY_BYTES: usize = 512;
/// The legacy region and the header; the extended region begins here.
pub(super) const EXTENDED_OFFSET: u32 = 576;
/// No CPU is near it: more is bad data, and must not become an allocation.
const MOST_BYTES: u32 = 1 << 20;
/// Reserved in every MXCSR of a CPU that says nothing else: bits 16 to 31.
const DEFAULT_MXCSR_MASK: u32 = 0xffff;
/// All but DAZ, which came later.
const LEAST_MXCSR_MASK: u32 = 0xffbf;

/// How many bytes the registers of a component take (Intel SDM volume 1, section 13.5 "XSAVE-Managed State").
fn registers_bytes(component: Component) -> u32 {
    match component {
        Component::AVX => 16 * 16,
        Component::BNDREGS => 4 * 16,
        Component::BNDCSR => 2 * 8,
        Component::OPMASK => 8 * 8,
        Component::ZMM_HI256 => 16 * 32,
        Component::HI16_ZMM => 16 * 64,
        Component::PKRU => 4,
        Component::TILECFG => 64,
        Component::TILEDATA => 8 * 1024,
        _ => 0,
    }
}

/// What a CPU's XSAVE areas look like: which components are enabled, and where each lies.
///
/// Cheap to clone. Two layouts are equal when they describe the same areas.
///
/// # Reference
/// Intel SDM volume 1, sections 13.2 and 13.4.3 "Extended Region of an XSAVE Area".
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout(Arc<Inner>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Inner {
    has_xsave: bool,
    enabled: ComponentSet,
    features: XsaveFeatures,
    /// By ascending number, from 2 on; no number twice.
    places: Vec<Place>,
    /// What CPUID asks for in the standard format, no less than where the last enabled component ends.
    standard_bytes: u32,
    mxcsr_mask: u32,
}

impl Layout {
    /// The layout of a CPU without XSAVE: FXSAVE's 512 bytes, with x87 and SSE.
    pub fn fxsave_only() -> Self {
        Self(Arc::new(Inner {
            has_xsave: false,
            enabled: ComponentSet::LEGACY,
            features: XsaveFeatures::empty(),
            places: Vec::new(),
            standard_bytes: LEGACY_BYTES as u32,
            mxcsr_mask: DEFAULT_MXCSR_MASK,
        }))
    }

    /// The layout that a CPU describes.
    ///
    /// Leaf 0DH is believed only where the CPU has such a leaf and OSXSAVE is set; a leaf above the maximum
    /// answers with the data of another one. Otherwise it is [`fxsave_only`](Self::fxsave_only).
    ///
    /// Of XCR0, only what areas depend on is checked, not what XSETBV would refuse (AVX without SSE, say). The bits
    /// of MXCSR are what these CPUs have; [`with_mxcsr_mask`](Self::with_mxcsr_mask) takes the mask of a CPU that
    /// has told it.
    ///
    /// # Errors
    /// A description that contradicts itself: [`LayoutError`] names the field and both values.
    pub fn from_cpuid(cpu: &impl CpuidReader) -> Result<Self, LayoutError> {
        const OSXSAVE: u32 = 1 << 27;
        const FXSR: u32 = 1 << 24;
        let features = cpu.cpuid(1, 0);
        if features.edx & FXSR == 0 {
            return Err(LayoutError::NoFxsave);
        }
        if features.ecx & OSXSAVE == 0 || cpu.cpuid(0, 0).eax < 0x0d {
            return Ok(Self::fxsave_only());
        }
        let extended = cpu.cpuid(0x0d, 1).eax;
        let mut places = Vec::new();
        for component in ComponentSet::from_bits(u64::MAX << 2).iter() {
            let leaf = cpu.cpuid(0x0d, u32::from(component.number()));
            if leaf.eax != 0 {
                places.push(Place {
                    component,
                    size_bytes: leaf.eax,
                    offset_bytes: leaf.ebx,
                    is_supervisor: leaf.ecx & 1 != 0,
                    is_aligned: leaf.ecx & 2 != 0,
                    is_dynamic: leaf.ecx & 4 != 0,
                });
            }
        }
        let given_bytes = cpu.cpuid(0x0d, 0).ebx;
        let layout = Self::new(cpu.xcr0(), XsaveFeatures::from_bits_truncate(extended), places, given_bytes)?;
        // AMD's MXCSR has a bit 17, misaligned exception mask (CPUID 8000_0001H:ECX bit 7).
        let is_amd =
            cpu.cpuid(0x8000_0000, 0).eax >= 0x8000_0001 && cpu.cpuid(0x8000_0001, 0).ecx & 1 << 7 != 0;
        Ok(if is_amd { layout.with_mxcsr_mask(DEFAULT_MXCSR_MASK | 1 << 17) } else { layout })
    }

    /// Checks all that is in an [`Inner`]; `given_bytes` is 0 where nobody gives a size.
    pub(super) fn new(
        xcr0: u64,
        features: XsaveFeatures,
        places: Vec<Place>,
        given_bytes: u32,
    ) -> Result<Self, LayoutError> {
        if xcr0 & 1 == 0 {
            return Err(LayoutError::NoX87(xcr0));
        }
        let enabled = ComponentSet::from_bits(xcr0);
        if enabled.bits() != xcr0 {
            return Err(LayoutError::Xcr0(xcr0));
        }
        for place in &places {
            let Place { component, offset_bytes, size_bytes, .. } = *place;
            let from = if place.is_supervisor { 0 } else { EXTENDED_OFFSET };
            let end = offset_bytes.checked_add(size_bytes).filter(|end| *end <= MOST_BYTES);
            if offset_bytes < from || end.is_none() || size_bytes == 0 {
                return Err(LayoutError::OutOfBounds { component, offset_bytes, size_bytes });
            }
            let needed_bytes = registers_bytes(component);
            if size_bytes < needed_bytes {
                return Err(LayoutError::Size { component, needed_bytes, found_bytes: size_bytes });
            }
        }
        let mut needed_bytes = EXTENDED_OFFSET;
        let mut in_place: Vec<&Place> = Vec::new();
        for component in enabled.iter().filter(|component| component.number() >= 2) {
            let place = places.iter().find(|place| place.component == component);
            let place = place.ok_or(LayoutError::NotDescribed { component, xcr0 })?;
            if place.is_supervisor {
                return Err(LayoutError::Supervisor { component, xcr0 });
            }
            needed_bytes = needed_bytes.max(place.end_bytes());
            in_place.push(place);
        }
        in_place.sort_by_key(|place| place.offset_bytes);
        if let Some([first, second]) = in_place.array_windows().find(|[a, b]| a.end_bytes() > b.offset_bytes)
        {
            return Err(LayoutError::Overlap {
                first: first.component,
                end_bytes: first.end_bytes(),
                second: second.component,
                offset_bytes: second.offset_bytes,
            });
        }
        if given_bytes > MOST_BYTES {
            return Err(LayoutError::TooLarge { given_bytes });
        }
        if given_bytes != 0 && given_bytes < needed_bytes {
            return Err(LayoutError::TooSmall { given_bytes, needed_bytes });
        }
        Ok(Self(Arc::new(Inner {
            has_xsave: true,
            enabled,
            features,
            places,
            standard_bytes: given_bytes.max(needed_bytes),
            mxcsr_mask: DEFAULT_MXCSR_MASK,
        })))
    }

    /// The same with only those components enabled that are in `components` too. x87 always is.
    #[must_use]
    pub fn restricted_to(&self, components: ComponentSet) -> Self {
        let mut inner = Inner::clone(&self.0);
        inner.enabled = inner.enabled & components.with(Component::X87);
        if inner.has_xsave {
            let ends = inner.places.iter().filter(|place| inner.enabled.contains(place.component));
            inner.standard_bytes = ends.map(Place::end_bytes).fold(EXTENDED_OFFSET, u32::max);
        }
        Self(Arc::new(inner))
    }

    /// The same with another set of MXCSR bits that the CPU accepts, as FXSAVE writes it to bytes 28 to 31 of
    /// the legacy region. Every CPU accepts those of FFBFH, and 0, from a CPU that knows no mask, stands for
    /// them.
    ///
    /// # Reference
    /// Intel SDM volume 1, section 11.6.6 "Guidelines for Writing to the MXCSR Register".
    #[must_use]
    pub fn with_mxcsr_mask(&self, mask: u32) -> Self {
        let mut inner = Inner::clone(&self.0);
        inner.mxcsr_mask = mask | LEAST_MXCSR_MASK;
        Self(Arc::new(inner))
    }

    /// Whether the CPU has XSAVE and the system has enabled it. Otherwise there is FXSAVE only.
    pub fn has_xsave(&self) -> bool {
        self.0.has_xsave
    }

    /// The components that are enabled (XCR0).
    pub fn enabled(&self) -> ComponentSet {
        self.0.enabled
    }

    /// The components that the CPU describes, enabled or not.
    pub fn listed(&self) -> ComponentSet {
        self.0.places.iter().fold(ComponentSet::LEGACY, |set, place| set.with(place.component))
    }

    /// Which of the newer instructions there are.
    pub fn features(&self) -> XsaveFeatures {
        self.0.features
    }

    /// The bits of MXCSR that the CPU accepts.
    pub fn mxcsr_mask(&self) -> u32 {
        self.0.mxcsr_mask
    }

    /// The components of the extended region that the CPU describes, by ascending number, enabled or not.
    pub fn places(&self) -> &[Place] {
        &self.0.places
    }

    /// Where a component of the extended region lies; `None` for x87 and SSE, and for what is not described.
    pub fn place(&self, component: Component) -> Option<&Place> {
        self.0.places.iter().find(|place| place.component == component)
    }

    /// How many bytes an area has that is in this format and has room for all enabled components.
    pub fn size_bytes(&self, format: Format) -> usize {
        match format {
            _ if !self.has_xsave() => LEGACY_BYTES,
            Format::Fxsave => LEGACY_BYTES,
            Format::Standard => self.0.standard_bytes as usize,
            // Every enabled component is described.
            Format::Compacted => self
                .compacted_size_bytes(XcompBv::compacted(self.enabled()))
                .unwrap_or(self.0.standard_bytes as usize),
        }
    }

    /// How many bytes the standard format takes up to the end of the last of `components`; `None` if one of
    /// them has no place there.
    pub fn standard_size_bytes(&self, components: ComponentSet) -> Option<usize> {
        let extended = components - ComponentSet::LEGACY;
        extended.iter().try_fold(EXTENDED_OFFSET as usize, |end, component| {
            let place = self.place(component).filter(|place| !place.is_supervisor)?;
            Some(end.max(place.end_bytes() as usize))
        })
    }

    /// Where `component` begins in an image with that XCOMP_BV; `None` if it has no place in it, or one before
    /// it is not described.
    ///
    /// # Reference
    /// Intel SDM volume 1, section 13.4.3.
    pub fn compacted_offset_bytes(&self, xcomp_bv: XcompBv, component: Component) -> Option<usize> {
        if component.number() < 2 || !xcomp_bv.components().contains(component) {
            return None;
        }
        self.compacted_places(xcomp_bv)
            .find(|place| place.as_ref().is_none_or(|(c, ..)| *c == component))?
            .map(|(_, offset, _)| offset)
    }

    /// How many bytes an image with that XCOMP_BV takes; `None` if it has a component that is not described.
    pub fn compacted_size_bytes(&self, xcomp_bv: XcompBv) -> Option<usize> {
        self.compacted_places(xcomp_bv)
            .try_fold(EXTENDED_OFFSET as usize, |_, place| place.map(|(_, offset, size)| offset + size))
    }

    /// Component, offset and size of each component, in order; `None` in place of the first that is not
    /// described, and then the rest makes no sense.
    fn compacted_places(
        &self,
        xcomp_bv: XcompBv,
    ) -> impl Iterator<Item = Option<(Component, usize, usize)>> + '_ {
        let extended = xcomp_bv.components() - ComponentSet::LEGACY;
        let mut next = Some(EXTENDED_OFFSET as usize);
        extended.iter().map(move |component| {
            let place = self.place(component);
            let at = next.zip(place).map(|(at, place)| {
                (if place.is_aligned { at.next_multiple_of(64) } else { at }, place.size_bytes as usize)
            });
            next = at.map(|(offset, size)| offset + size);
            at.map(|(offset, size)| (component, offset, size))
        })
    }
}
