//! A task's image as real bytes: an XSAVE area.

use super::{Image, Unsupported, pattern};
use crate::{
    Component, ComponentSet, Pkru, Rfbm, Value,
    xstate::{
        AlignedBytes, Area, Format, Layout, OwnedArea, Refusal, SOFTWARE, ViewError, XcompBv, XsaveFeatures,
    },
};
use alloc::{sync::Arc, vec::Vec};
use core::hash::{Hash, Hasher};

/// The image of [`SoftRegs`](super::SoftRegs) and of the host's registers: an area that it owns.
///
/// It has the CPU's layout, and room for all that this enables or for a part: in the compacted format XCOMP_BV leaves
/// the others out, in the standard format the bytes end before them.
///
/// Two images are equal when their components have the same values and a restore refuses neither or both for
/// the same reason, and they have room for the same dynamic components: formats, XSTATE_BV bits and the bytes behind a
/// clear bit do not count.
#[derive(Clone, Debug)]
pub struct XsaveImage {
    area: OwnedArea,
    /// The form that the area has room for, whatever its header says by now.
    format: Format,
    /// The components that it has room for, likewise, and the bytes that it takes.
    room: ComponentSet,
    size_bytes: usize,
    edited: bool,
    version: Version,
}

/// What an image holds, as far as it can be told without looking: images of the same version hold the same, as
/// copies do until one of them is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Version(Arc<u8>);

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl XsaveImage {
    /// An image of the initial configuration with room for all that `layout` has enabled.
    pub fn new(layout: &Layout, format: Format) -> Self {
        Self::with_room(layout, format, layout.enabled())
    }

    /// The same with room for those components alone that are in `room` too. x87 always is, and so is SSE in FXSAVE's
    /// form, which has room for nothing else.
    pub fn with_room(layout: &Layout, format: Format, room: ComponentSet) -> Self {
        let room = possible_room(layout, format) & room;
        if !layout.has_xsave() || format == Format::Fxsave {
            let area = OwnedArea::initial(layout, Format::Fxsave);
            return Self::over(area, Format::Fxsave, ComponentSet::LEGACY);
        }
        let own = layout.restricted_to(room);
        let bytes = AlignedBytes::zeroed(own.size_bytes(format));
        let mut area = Area::over(bytes, layout).expect("legacy region and header are in every size");
        area.set_xcomp_bv(xcomp_bv(format, own.enabled()));
        area.set_initial_values();
        Self::over(area, format, own.enabled())
    }

    /// The image of a task on a CPU with `layout`: without room for what is dynamic there.
    pub(super) fn of_new_task(layout: &Layout, format: Format) -> Self {
        Self::with_room(layout, format, layout.enabled() - dynamic(layout))
    }

    fn over(area: OwnedArea, format: Format, room: ComponentSet) -> Self {
        let (size_bytes, version) = (area.bytes().len(), Version::default());
        Self { area, format, room, size_bytes, edited: false, version }
    }

    /// The area.
    pub fn area(&self) -> &OwnedArea {
        &self.area
    }

    /// The area, to change at will. An image changed like that is *edited*: see
    /// [`is_edited`](Self::is_edited).
    pub fn area_mut(&mut self) -> &mut OwnedArea {
        self.edited = true;
        self.version = Version::default();
        &mut self.area
    }

    /// Whether the image was written after the last save to it. XSAVEOPT must not be used on such an image: if
    /// it was restored before it was written, parts would be left out that count as unchanged (Intel SDM volume
    /// 1, section 13.9 "Operation of XSAVEOPT": the modified optimisation).
    pub fn is_edited(&self) -> bool {
        self.edited
    }

    /// Whether a save of `saved` in `format` by a CPU with `layout` can go straight to the area: it has room, and
    /// nothing in it is to be kept but PKRU.
    pub(super) fn takes_directly(&self, layout: &Layout, format: Format, saved: ComponentSet) -> bool {
        self.is_of(layout, format) && self.room.without(Component::PKRU).is_subset_of(saved)
    }

    fn is_of(&self, layout: &Layout, format: Format) -> bool {
        let has_room = self.area.bytes().len() >= self.size_bytes;
        has_room && self.format == format && self.area.layout() == layout
    }

    /// Has those of the components `saved` that there is room for saved in `format` by a CPU with `layout`: straight
    /// to the area, or by the way over one of the CPU's own, so that what is not saved stays. The image of another
    /// CPU, or one in another form, becomes this one's.
    ///
    /// `save` is given the area and the components that have their place in it afterwards.
    ///
    /// The header is cleared before: no instruction writes its reserved bytes, and XSAVE not even XCOMP_BV, so
    /// that whatever is there would make the next restore fault.
    pub(super) fn save(
        &mut self,
        layout: &Layout,
        format: Format,
        saved: ComponentSet,
        save: impl FnOnce(&mut OwnedArea, ComponentSet),
    ) {
        if self.takes_directly(layout, format, saved) {
            let kept = Some(self.pkru()).filter(|_| !saved.contains(Component::PKRU));
            self.area.clear_header();
            save(&mut self.area, self.room);
            if let Some(pkru) = kept {
                self.set_pkru(pkru);
            }
            self.edited = false;
            self.version = Version::default();
            return;
        }
        let is_good = self.refusal().is_none();
        if !is_good || !self.is_of(layout, format) {
            let mut own = Self::of_new_task(layout, format);
            own.room_for(self.room & possible_room(layout, format));
            let before = core::mem::replace(self, own);
            self.set_pkru(before.pkru());
            if is_good {
                self.take(self.room, &before.area);
            }
        }
        let saved = saved & self.room;
        let mut own = OwnedArea::initial(layout, format);
        save(&mut own, saved);
        self.take(saved, &own);
    }

    /// Makes room for components that it can have room for; what is there stays.
    fn room_for(&mut self, components: ComponentSet) {
        if components.is_subset_of(self.room) {
            return;
        }
        let mut larger = Self::with_room(self.area.layout(), self.format, self.room | components);
        larger.take(self.room, &self.area);
        let reserved = larger.area.reserved_header_bytes_mut();
        reserved.copy_from_slice(self.area.reserved_header_bytes());
        *self = larger;
    }

    /// Takes over what a signal frame's `area` holds of `components`, or the legacy region alone; the rest but PKRU
    /// becomes initial.
    ///
    /// # Errors
    /// Why a kernel refuses the image, and nothing is changed.
    pub(super) fn take_frame<B: AsRef<[u8]>>(
        &mut self,
        area: &Area<B>,
        components: ComponentSet,
        legacy_only: bool,
    ) -> Result<(), ViewError> {
        let mut taken = Self::with_room(self.area.layout(), self.format, self.room);
        if legacy_only {
            taken.area.set_user_fpregs(&area.bytes()[..SOFTWARE.end])?;
        } else {
            taken.area.take_signal_frame(area, components, self.room)?;
        }
        taken.set_pkru(self.pkru());
        *self = taken;
        Ok(())
    }

    pub(super) fn version(&self) -> &Version {
        &self.version
    }

    /// The dynamic components that it has room for: what XFD lets a task use follows from it.
    fn dynamic_room(&self) -> ComponentSet {
        dynamic(self.area.layout()) & self.room
    }

    /// What a restore of everything that it has room for would refuse.
    pub fn refusal(&self) -> Option<Refusal> {
        refusal(&self.area, self.room)
    }

    /// Takes over the components in `from` that `components` names.
    pub(super) fn take<B: AsRef<[u8]>>(&mut self, components: ComponentSet, from: &Area<B>) {
        copy(components, from, self.area_mut());
    }
}

/// Copies the components that `components` names; those that have no place in one of the two are passed over.
fn copy<B, C>(components: ComponentSet, from: &Area<B>, to: &mut Area<C>)
where
    B: AsRef<[u8]>,
    C: AsRef<[u8]> + AsMut<[u8]>,
{
    for component in components.iter() {
        if let Ok(value) = from.component(component) {
            // MXCSR has a value whatever the bit says.
            let in_image = from.xstate_bv().contains(component) || component == Component::SSE;
            // An error is that there is no place.
            let _ = if in_image { to.set_component(component, &value) } else { to.set_initial(component) };
        }
    }
}

impl PartialEq for XsaveImage {
    fn eq(&self, other: &Self) -> bool {
        self.area.same_values(&other.area)
            && self.refusal() == other.refusal()
            && self.dynamic_room() == other.dynamic_room()
    }
}

impl Eq for XsaveImage {}

impl Hash for XsaveImage {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.dynamic_room().hash(state);
        hash_values(&self.area, state);
    }
}

/// What a restore of everything would refuse where there is room for `room`.
pub(super) fn refusal<B: AsRef<[u8]>>(area: &Area<B>, room: ComponentSet) -> Option<Refusal> {
    area.check(area.format(), Rfbm::new(room)).err()
}

/// Whether a CPU with `layout` has an instruction that restores the area as it is.
pub(super) fn is_own<B: AsRef<[u8]>>(area: &Area<B>, layout: &Layout) -> bool {
    area.layout() == layout && (area.format() != Format::Fxsave || !layout.has_xsave())
}

/// The dynamic components of a CPU: those enabled that XFD can disable.
pub(super) fn dynamic(layout: &Layout) -> ComponentSet {
    let has_xfd = layout.has_xsave() && layout.features().contains(XsaveFeatures::XFD);
    let dynamic = layout.places().iter().filter(|place| has_xfd && place.is_dynamic);
    dynamic.fold(ComponentSet::EMPTY, |set, place| set.with(place.component)) & layout.enabled()
}

/// All that an image in that form can have room for.
fn possible_room(layout: &Layout, format: Format) -> ComponentSet {
    if format == Format::Fxsave { ComponentSet::LEGACY } else { layout.enabled() }
}

fn xcomp_bv(format: Format, room: ComponentSet) -> XcompBv {
    if format == Format::Compacted { XcompBv::compacted(room) } else { XcompBv::STANDARD }
}

/// Hashes what [`Area::same_values`] compares: areas with the same values give the same.
pub(crate) fn hash_values<B: AsRef<[u8]>, H: Hasher>(area: &Area<B>, state: &mut H) {
    for component in (area.layout().enabled() | ComponentSet::LEGACY).iter() {
        // No place counts as the initial value, which therefore must not be hashed either.
        if let Ok(value) = area.component(component)
            && pattern::value(component, &value) != Value::INITIAL
        {
            (component, value).hash(state);
        }
    }
}

impl Image for XsaveImage {
    fn reset(&mut self) {
        let xcomp_bv = xcomp_bv(self.format, self.room);
        self.area_mut().set_xcomp_bv(xcomp_bv);
        self.area_mut().set_initial_values();
    }

    fn room(&self) -> ComponentSet {
        self.room
    }

    fn grow(&mut self, components: ComponentSet) -> Result<(), Unsupported> {
        if !components.is_subset_of(possible_room(self.area.layout(), self.format)) {
            return Err(NO_ROOM);
        }
        self.room_for(components);
        Ok(())
    }

    fn copy_from(&mut self, other: &Self) {
        if self.room == other.room {
            return self.clone_from(other);
        }
        self.reset();
        self.take(self.room, &other.area);
    }

    fn is_restorable(&self) -> bool {
        // A bit of what there is no room for would be a #NM: XFD disables that.
        let claimed = self.area.xstate_bv().components();
        self.refusal().is_none() && (self.format == Format::Fxsave || claimed.is_subset_of(self.room))
    }

    fn get(&self, component: Component) -> Value {
        self.area.component(component).map_or(Value::INITIAL, |bytes| pattern::value(component, &bytes))
    }

    fn set(&mut self, component: Component, value: Value) -> Result<(), Unsupported> {
        if !self.has_room_for(component) {
            return Err(NO_ROOM);
        }
        let size = self.area.size_of(component).map_err(|_| NO_ROOM)?;
        let written = match value {
            Value::INITIAL => self.area_mut().set_initial(component),
            _ => self.area_mut().set_component(component, &pattern::bytes(component, size, value)),
        };
        written.map_err(|_| NO_ROOM)
    }

    fn pkru(&self) -> Pkru {
        self.area.pkru_component().unwrap_or(Pkru(0))
    }

    fn set_pkru(&mut self, pkru: Pkru) {
        set_pkru(self.area_mut(), pkru);
    }

    #[cfg(feature = "explore")]
    fn spoil(&mut self) {
        // Without a header, MXCSR is all that can be refused.
        self.area_mut().legacy_mut().set_mxcsr(u32::MAX);
        self.area_mut().reserved_header_bytes_mut().fill(0xff);
    }

    #[cfg(feature = "explore")]
    fn zero_initial(&mut self) {
        for component in [Component::X87, Component::SSE] {
            if self.get(component) == Value::INITIAL
                && let Ok(size) = self.area.size_of(component)
            {
                let zeroed = self.area_mut().set_component(component, &alloc::vec![0; size]);
                debug_assert_eq!(zeroed, Ok(()), "it has a place of that size");
            }
        }
    }

    fn regset(&self, pkru: Pkru) -> Result<Vec<u8>, ViewError> {
        Ok(self.area.regset(pkru)?.bytes().to_vec())
    }

    fn set_regset(&mut self, regset: &[u8]) -> Result<Pkru, ViewError> {
        let room = self.room;
        self.area_mut().set_regset(regset, room)
    }
}

/// Writes PKRU, where there is a place for it: a clear bit is 0.
pub(super) fn set_pkru<B: AsRef<[u8]> + AsMut<[u8]>>(area: &mut Area<B>, pkru: Pkru) {
    if pkru == Pkru(0) {
        // An error is that there is no place.
        let _ = area.set_initial(Component::PKRU);
    } else {
        area.put_pkru(pkru);
    }
}

const NO_ROOM: Unsupported = Unsupported("a component that the image has no room for");
