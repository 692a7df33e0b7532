//! A signal frame in memory that can really be absent.

use super::HostRegs;
use crate::{
    FrameChange,
    arch::Mapping,
    registers::{Fault, Frame, image},
    xstate::{Area, Layout, XstateBv},
};
use core::{
    fmt,
    hash::{Hash, Hasher},
    ops::Range,
};
use std::vec::Vec;

/// A signal frame in pages of its own, which can be taken away for real: an instruction that touches an absent one
/// faults.
///
/// # Panics
/// Making and cloning one, and changing the access to its pages, panics where the system has no memory for it.
pub struct HostFrame {
    pub(super) mapping: Mapping,
    pub(super) layout: Layout,
}

impl HostFrame {
    /// Where the header ends: legacy region and header on one page, everything else on the next.
    pub(super) const HEADER_END: usize = 576;

    /// A frame of the initial configuration, present, with a boundary between two pages `boundary_bytes` behind
    /// its start (modulo the size of a page).
    pub fn new(regs: &HostRegs, boundary_bytes: usize) -> Self {
        let offset = (PAGE_BYTES - boundary_bytes % PAGE_BYTES) % PAGE_BYTES;
        let mapping = Mapping::new(regs.parked.features(), offset).expect("memory for a frame");
        let mut frame = Self { mapping, layout: regs.layout().clone() };
        frame.with_area(|area| area.set_initial_values());
        frame
    }

    /// How many pages there are.
    pub fn pages(&self) -> usize {
        self.mapping.pages()
    }

    /// Takes the access to some pages away, and gives it to the others. What is in them stays.
    pub fn set_absent(&mut self, pages: Range<usize>) {
        self.mapping.set_absent(pages).expect(ACCESS);
    }

    pub(super) fn if_present(&self) -> Result<(), Fault> {
        if self.mapping.absent().is_empty() { Ok(()) } else { Err(Fault::Page) }
    }

    /// The image in the frame, whatever is absent.
    pub fn image(&self) -> Area<Vec<u8>> {
        let bytes = self.mapping.snapshot().expect(ACCESS);
        Area::over(bytes, &self.layout).expect("a mapping has room for an area")
    }

    /// Writes the image as user code would, that is, whatever is absent now.
    pub fn with_area(&mut self, change: impl FnOnce(&mut Area<&mut [u8]>)) {
        let absent = self.mapping.absent();
        self.mapping.set_present().expect(ACCESS);
        let present = TakeAway { mapping: &mut self.mapping, absent };
        let bytes = present.mapping.bytes_mut().expect("all pages are present");
        change(&mut Area::over(bytes, &self.layout).expect("a mapping has room for an area"));
    }
}

/// Pages that are present for as long as this lives, even if that ends in a panic.
struct TakeAway<'a> {
    mapping: &'a mut Mapping,
    absent: Range<usize>,
}

impl Drop for TakeAway<'_> {
    fn drop(&mut self) {
        // Nothing can be done about a failure here: the pages stay present.
        let _ = self.mapping.set_absent(self.absent.clone());
    }
}

/// The pages of this architecture.
const PAGE_BYTES: usize = 4096;
const ACCESS: &str = "the system changes the access to pages of ours";

impl Frame for HostFrame {
    fn fault_in(&mut self) {
        self.mapping.set_present().expect(ACCESS);
    }

    fn change(&mut self, change: FrameChange) {
        match change {
            FrameChange::Absent => self.set_absent(0..self.pages()),
            FrameChange::BadHeader => self.with_area(|area| {
                image::spoil(area);
            }),
            FrameChange::Short => self.with_area(|area| area.set_xstate_bv(XstateBv(area.xstate_bv().0 & 3))),
        }
    }
}

impl Clone for HostFrame {
    fn clone(&self) -> Self {
        Self { mapping: self.mapping.try_clone().expect("memory for a frame"), layout: self.layout.clone() }
    }
}

impl PartialEq for HostFrame {
    fn eq(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.image(), other.image());
        self.mapping.absent() == other.mapping.absent()
            && ours.same_values(&theirs)
            && image::refusal(&ours) == image::refusal(&theirs)
    }
}

impl Eq for HostFrame {}

impl Hash for HostFrame {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.mapping.absent().hash(state);
        image::hash_values(&self.image(), state);
    }
}

impl fmt::Debug for HostFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame of {} pages, {:?} absent", self.pages(), self.mapping.absent())
    }
}
