//! A task's image as real bytes: an XSAVE area.

use super::{Image, Unsupported, pattern};
use crate::{
    Component, ComponentSet, Rfbm, Value,
    xstate::{Area, Format, Layout, OwnedArea, Refusal, XcompBv},
};
use alloc::sync::Arc;
use core::hash::{Hash, Hasher};

/// The image of [`SoftRegs`](super::SoftRegs) and of the host's registers: an area that it owns.
///
/// Two images are equal when their components have the same values and a restore refuses neither or both for
/// the same reason: formats, XSTATE_BV bits and the bytes behind a clear bit do not count.
#[derive(Clone, Debug)]
pub struct XsaveImage {
    area: OwnedArea,
    /// The form that the area has room for, whatever its header says by now.
    format: Format,
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
        let area = OwnedArea::initial(layout, format);
        Self { format: area.format(), area, edited: false, version: Version::default() }
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
    /// nothing in it is to be kept.
    pub(super) fn takes_directly(&self, layout: &Layout, format: Format, saved: ComponentSet) -> bool {
        self.is_of(layout, format) && layout.enabled().without(Component::PKRU).is_subset_of(saved)
    }

    fn is_of(&self, layout: &Layout, format: Format) -> bool {
        let has_room = self.area.bytes().len() >= layout.size_bytes(format);
        has_room && self.format == format && self.area.layout() == layout
    }

    /// Has the components `saved` saved in `format` by a CPU with `layout`: straight to the area, or by the way over
    /// one of the CPU's own, so that what is not saved stays. The image of another CPU, or one in another form,
    /// becomes this one's.
    ///
    /// The header is cleared before: no instruction writes its reserved bytes, and XSAVE not even XCOMP_BV, so
    /// that whatever is there would make the next restore fault.
    pub(super) fn save(
        &mut self,
        layout: &Layout,
        format: Format,
        saved: ComponentSet,
        save: impl FnOnce(&mut OwnedArea),
    ) {
        if self.takes_directly(layout, format, saved) {
            self.area.clear_header();
            save(&mut self.area);
            self.edited = false;
            self.version = Version::default();
            return;
        }
        let is_good = self.refusal().is_none();
        if !is_good || !self.is_of(layout, format) {
            let before = core::mem::replace(self, Self::new(layout, format));
            if is_good {
                self.take(layout.enabled(), &before.area);
            }
        }
        let mut own = OwnedArea::initial(layout, format);
        save(&mut own);
        self.take(saved, &own);
    }

    pub(super) fn version(&self) -> &Version {
        &self.version
    }

    /// What a restore of everything would refuse.
    pub fn refusal(&self) -> Option<Refusal> {
        refusal(&self.area)
    }

    /// Takes over the components in `from` that `components` names.
    pub(super) fn take<B: AsRef<[u8]>>(&mut self, components: ComponentSet, from: &Area<B>) {
        copy(components, from, self.area_mut());
    }
}

/// Copies the components that `components` names; those that have no place in one of the two are passed over.
pub(super) fn copy<B, C>(components: ComponentSet, from: &Area<B>, to: &mut Area<C>)
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
        self.area.same_values(&other.area) && self.refusal() == other.refusal()
    }
}

impl Eq for XsaveImage {}

impl Hash for XsaveImage {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_values(&self.area, state);
    }
}

/// What a restore of everything would refuse.
pub(super) fn refusal<B: AsRef<[u8]>>(area: &Area<B>) -> Option<Refusal> {
    area.check(area.format(), Rfbm::ALL).err()
}

/// Makes every restore refuse the image: by its header, or by MXCSR where there is none.
pub(super) fn spoil<B: AsRef<[u8]> + AsMut<[u8]>>(area: &mut Area<B>) {
    match area.reserved_header_bytes_mut().first_mut() {
        Some(byte) => *byte = 0xff,
        None => area.legacy_mut().set_mxcsr(u32::MAX),
    }
}

/// Hashes what [`Area::same_values`] compares: areas with the same values give the same.
pub(super) fn hash_values<B: AsRef<[u8]>, H: Hasher>(area: &Area<B>, state: &mut H) {
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
        let enabled = self.area.layout().enabled();
        let compacted = self.format == Format::Compacted;
        let xcomp_bv = if compacted { XcompBv::compacted(enabled) } else { XcompBv::STANDARD };
        self.area_mut().set_xcomp_bv(xcomp_bv);
        self.area_mut().set_initial_values();
    }

    fn grow(&mut self, components: ComponentSet) -> Result<(), Unsupported> {
        let mut wanted = components.without(Component::PKRU).iter();
        if wanted.all(|component| self.area.has_room_for(component)) { Ok(()) } else { Err(NO_ROOM) }
    }

    fn has_room_for(&self, component: Component) -> bool {
        self.area.has_room_for(component)
    }

    fn get(&self, component: Component) -> Value {
        self.area.component(component).map_or(Value::INITIAL, |bytes| pattern::value(component, &bytes))
    }

    fn set(&mut self, component: Component, value: Value) -> Result<(), Unsupported> {
        let size = self.area.size_of(component).map_err(|_| NO_ROOM)?;
        let written = match value {
            Value::INITIAL => self.area_mut().set_initial(component),
            _ => self.area_mut().set_component(component, &pattern::bytes(component, size, value)),
        };
        written.map_err(|_| NO_ROOM)
    }
}

const NO_ROOM: Unsupported = Unsupported("a component that the image has no room for");
