//! A thread's image: an XSAVE area that asm saves to and restores from.

use super::{form::Form, fpregs::XSTATE_BV_AT, instructions::copy_bytes};
use crate::{
    Component, ComponentSet, Pkru, Value,
    registers::{Image, Unsupported, hash_values, pattern},
    xstate::Area,
};
use alloc::alloc::{alloc_zeroed, dealloc, handle_alloc_error};
use core::{
    alloc::Layout as Memory,
    fmt,
    hash::{Hash, Hasher},
    ptr::NonNull,
};

/// A thread's FPU state in memory: an area with room for everything that is switched here.
///
/// Two are equal when every component has the same value.
pub struct LiveImage {
    area: NonNull<u8>,
    form: &'static Form,
}

// SAFETY: the area is owned by the image alone, and is plain bytes.
unsafe impl Send for LiveImage {}
// SAFETY: through a shared reference it is only read.
unsafe impl Sync for LiveImage {}

fn memory(form: &Form) -> Memory {
    Memory::from_size_align(form.size_bytes(), 64).expect("an area is some kilobytes")
}

impl LiveImage {
    /// An image of the initial configuration.
    pub(super) fn new(form: &'static Form) -> Self {
        let memory = memory(form);
        // SAFETY: an area is 512 bytes at least.
        let area = unsafe { alloc_zeroed(memory) };
        let Some(area) = NonNull::new(area) else { handle_alloc_error(memory) };
        let mut image = Self { area, form };
        image.bytes_mut().copy_from_slice(form.initial());
        image
    }

    /// Where the area is: a multiple of 64.
    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.area.as_ptr()
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the area has that many bytes, initialised, and `self` is borrowed.
        unsafe { core::slice::from_raw_parts(self.as_ptr(), self.form.size_bytes()) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.as_ptr(), self.form.size_bytes()) }
    }

    fn area(&self) -> Area<&[u8]> {
        let area = Area::over(self.bytes(), self.form.layout());
        area.expect("legacy region and header are in every size")
    }

    fn area_mut(&mut self) -> Area<&mut [u8]> {
        let layout = self.form.layout();
        let area = Area::over(self.bytes_mut(), layout);
        area.expect("legacy region and header are in every size")
    }
}

impl Drop for LiveImage {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: (a) `new` allocated it so, and nobody uses it behind this.
        unsafe { free(self.as_ptr(), self.form) };
    }
}

/// Frees an area. The end of a fiber would drop a guest's image, if it had a guest, so that the kernel path has a call of
/// this, which is never made.
///
/// # Safety
/// (a) [`LiveImage::new`] allocated the area, and nobody uses it any more.
#[inline(never)]
pub(super) unsafe extern "C" fn free(area: *mut u8, form: &Form) {
    // SAFETY: by (a).
    unsafe { dealloc(area, memory(form)) };
}

impl Clone for LiveImage {
    fn clone(&self) -> Self {
        let mut clone = Self::new(self.form);
        clone.clone_from(self);
        clone
    }

    fn clone_from(&mut self, source: &Self) {
        self.bytes_mut().copy_from_slice(source.bytes());
    }
}

impl PartialEq for LiveImage {
    fn eq(&self, other: &Self) -> bool {
        self.area().same_values(&other.area())
    }
}

impl Eq for LiveImage {}

impl Hash for LiveImage {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_values(&self.area(), state);
    }
}

impl fmt::Debug for LiveImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an image of {} bytes", self.bytes().len())
    }
}

impl Image for LiveImage {
    /// On the kernel's path at the end of a thread: no instruction of the FPU.
    #[inline]
    fn reset(&mut self) {
        let initial = self.form.initial();
        // SAFETY: both have that many bytes, and the template is nobody's image.
        unsafe { copy_bytes(self.as_ptr(), initial.as_ptr(), initial.len()) };
    }

    #[inline]
    fn room(&self) -> ComponentSet {
        self.form.components()
    }

    fn grow(&mut self, components: ComponentSet) -> Result<(), Unsupported> {
        if components.is_subset_of(self.room()) { Ok(()) } else { Err(Unsupported("a dynamic component")) }
    }

    fn copy_from(&mut self, other: &Self) {
        self.clone_from(other);
    }

    /// Only saves and this crate write it.
    fn is_restorable(&self) -> bool {
        true
    }

    fn get(&self, component: Component) -> Value {
        match self.area().component(component) {
            Ok(bytes) => pattern::value(component, &bytes),
            Err(_) => Value::INITIAL,
        }
    }

    /// XSTATE_BV, which a save has written.
    #[inline]
    fn in_use(&self) -> ComponentSet {
        if !self.form.has_header() {
            return self.room();
        }
        // SAFETY: the header is in every such area, which is aligned for the word.
        let bits = unsafe { self.as_ptr().add(XSTATE_BV_AT).cast::<u64>().read() };
        ComponentSet::from_bits(bits) & self.room()
    }

    fn set(&mut self, component: Component, value: Value) -> Result<(), Unsupported> {
        let mut area = self.area_mut();
        let size = area.size_of(component).map_err(|_| Unsupported("a component that is not enabled"))?;
        let written = match value {
            Value::INITIAL => area.set_initial(component),
            _ => area.set_component(component, &pattern::bytes(component, size, value)),
        };
        written.map_err(|_| Unsupported("a component that is not enabled"))
    }

    /// It is switched beside the images.
    #[inline]
    fn pkru(&self) -> Pkru {
        Pkru(0)
    }

    /// Images have no room for it.
    #[inline]
    fn set_pkru(&mut self, _: Pkru) {}
}
