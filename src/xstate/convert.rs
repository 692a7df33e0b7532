//! From one format to another, and from one CPU's layout to another's.

use super::{
    Area, Component, ComponentSet, Format, Layout, OwnedArea, Refusal, Rfbm, XstateBv, area::initial_value,
};

/// Why an image cannot be carried over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The image is not valid where it comes from.
    #[error("the image is refused on the CPU that it is from: {0}")]
    Source(Refusal),
    /// The target would refuse it: it has no such format, or lacks bits of MXCSR.
    #[error("the image would be refused on the target CPU: {0}")]
    Target(Refusal),
    /// A component with a value to carry, and no place for it in the target.
    #[error("{0} is not in its initial configuration, and the target has no place for it")]
    NoPlace(Component),
    /// A component with a value to carry, and of another size in the target.
    #[error(
        "{component} has {from_bytes} bytes and is not in its initial configuration, the target's has {to_bytes}"
    )]
    Size {
        /// Which one.
        component: Component,
        /// Its size here.
        from_bytes: usize,
        /// Its size there.
        to_bytes: usize,
    },
}

/// The bytes of the legacy region that belong to no component: MXCSR_MASK; and the reserved bytes and those
/// for software behind XMM15.
const UNMANAGED: [core::ops::Range<usize>; 2] = [28..32, 416..512];

impl<B: AsRef<[u8]>> Area<B> {
    /// The same image in `format`, for a CPU with the layout `to`.
    ///
    /// Each component has the same value afterwards, or there is an error that names it; the result passes
    /// [`check`](Self::check) with every mask. XSTATE_BV has a bit for what had one (FXSAVE images count as
    /// having x87 and SSE), so that a component in its initial configuration is known to be. One bit can be
    /// added: in the compacted format MXCSR is part of what SSE's bit stands for, so it is set when MXCSR is
    /// not 1F80H, as XSAVEC does.
    ///
    /// A component in its initial configuration needs no place, neither in the target nor here: an image that
    /// was cut off behind the last component with a set bit is fine.
    ///
    /// Bytes that no restore reads come along as they are: MXCSR_MASK, and bytes 416 to 511 of the legacy
    /// region, of which software may use the last 48. If it says something of the layout there (Linux puts
    /// XCR0 at byte 464), that is still the source's. Reserved bytes within the registers become zero.
    ///
    /// A kernel's image (XSAVES) is read too: XCOMP_BV may have the supervisor components that the layout
    /// describes. They are not for any user's image, so a set XSTATE_BV bit of one is
    /// [`NoPlace`](ConvertError::NoPlace): clear it with [`set_initial`](Self::set_initial) to do without.
    ///
    /// # Errors
    /// [`ConvertError`]; there is no result then, not even in part.
    ///
    /// # Reference
    /// Intel SDM volume 1, sections 13.4 "XSAVE Area", 13.8 "Operation of XRSTOR" and 13.10 "Operation of
    /// XSAVEC".
    ///
    /// ```
    /// use fpuswitch::xstate::{Area, Component, ConvertError, CpuidDump, Format, Layout};
    /// let intel: CpuidDump = include_str!("../../cpus/skylake-sp.txt").parse()?;
    /// let amd: CpuidDump = include_str!("../../cpus/zen3.txt").parse()?;
    /// let (intel, amd) = (Layout::from_cpuid(&intel)?, Layout::from_cpuid(&amd)?);
    ///
    /// let mut area = Area::initial(&intel, Format::Standard);
    /// area.set_register("pkru".parse()?, &[0, 0, 0, 4])?;
    /// let there = area.convert(&amd, Format::Compacted)?;
    /// assert!(there.same_values(&area));
    ///
    /// area.set_register("k1".parse()?, &[1; 8])?;
    /// let refused = area.convert(&amd, Format::Compacted);
    /// assert_eq!(refused.err(), Some(ConvertError::NoPlace(Component::OPMASK)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn convert(&self, to: &Layout, format: Format) -> Result<OwnedArea, ConvertError> {
        self.check_source().map_err(ConvertError::Source)?;
        let mut target = OwnedArea::initial(to, format);
        for component in self.xstate_bv().components().with(Component::SSE).iter() {
            self.carry(component, &mut target)?;
        }
        for range in UNMANAGED {
            target.bytes_mut()[range.clone()].copy_from_slice(&self.bytes()[range]);
        }
        target.check(format, Rfbm::ALL).map_err(ConvertError::Target)?;
        Ok(target)
    }

    /// Whether the image is valid where it comes from, and what is in it is within its bytes.
    pub(super) fn check_source(&self) -> Result<(), Refusal> {
        self.check_restore(self.format(), Rfbm::ALL, self.restorable())?;
        self.check_room(self.xstate_bv().components())
    }

    /// What a restore could be asked for here: XRSTORS too, which takes the compacted format only.
    fn restorable(&self) -> ComponentSet {
        let enabled = self.layout().enabled();
        let places = self.layout().places().iter();
        let supervisor = places.filter(|place| place.is_supervisor && self.format() == Format::Compacted);
        supervisor.fold(enabled, |set, place| set.with(place.component))
    }

    /// Gives `target` the value that `component` has here, if it is not in its initial configuration, and the
    /// XSTATE_BV bit, if it is set here.
    pub(super) fn carry(&self, component: Component, target: &mut OwnedArea) -> Result<(), ConvertError> {
        // SSE is asked for whatever XSTATE_BV says, and may be not enabled.
        let Ok(value) = self.component(component) else { return Ok(()) };
        // What a supervisor component's initial configuration is, not every manual says: a set bit is a value.
        let is_supervisor = self.layout().place(component).is_some_and(|place| place.is_supervisor);
        let is_initial = !is_supervisor && value == initial_value(component, value.len());
        let in_image = self.xstate_bv().contains(component);
        let size = match target.size_of(component) {
            Ok(size) => size,
            Err(_) if is_initial => return Ok(()),
            Err(_) => return Err(ConvertError::NoPlace(component)),
        };
        if is_initial {
            if in_image {
                target.set_xstate_bv(XstateBv(target.xstate_bv().0 | 1 << component.number()));
            }
            return Ok(());
        }
        if size != value.len() {
            return Err(ConvertError::Size { component, from_bytes: value.len(), to_bytes: size });
        }
        // The length is right and there is a place.
        target.set_component(component, &value).map_err(|_| ConvertError::NoPlace(component))?;
        // Only MXCSR is not initial without its bit, and the standard format has room for that.
        if !in_image && target.format() == Format::Standard {
            target.set_xstate_bv(XstateBv(target.xstate_bv().0 & !(1 << component.number())));
        }
        Ok(())
    }
}
