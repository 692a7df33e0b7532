//! A signal frame in memory that can really be absent.

use super::HostRegs;
use crate::{
    ComponentSet, FrameChange, Pkru,
    arch::Mapping,
    registers::{
        Fault, Frame, FrameContents, Unsupported, XsaveImage,
        frame::{FrameForm, HEADER},
        image,
    },
    xstate::{Area, Layout},
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
/// It has what Linux writes: the standard format, or FXSAVE's without XSAVE, with software bytes and
/// FP_XSTATE_MAGIC2. Two are equal when they hold the same values, the same pages are present, and a load makes the
/// same of both.
///
/// # Panics
/// Making and cloning one, and changing the access to its pages, panics where the system has no memory for it.
pub struct HostFrame {
    pub(super) mapping: Mapping,
    form: FrameForm,
    is_unmapped: bool,
}

impl HostFrame {
    /// A frame of the initial configuration, present, with a boundary between two pages `boundary_bytes` behind
    /// its start (modulo the size of a page).
    pub fn new(regs: &HostRegs, boundary_bytes: usize) -> Self {
        Self::of(regs, FrameForm::new(regs.layout(), regs.layout().enabled()), boundary_bytes)
    }

    /// The same with room for `components`: legacy region and header on one page, everything else on the next.
    pub(super) fn with_room(regs: &HostRegs, components: ComponentSet) -> Self {
        Self::of(regs, FrameForm::new(regs.layout(), components), HEADER.end)
    }

    fn of(regs: &HostRegs, form: FrameForm, boundary_bytes: usize) -> Self {
        let offset = (PAGE_BYTES - boundary_bytes % PAGE_BYTES) % PAGE_BYTES;
        let mapping = Mapping::new(regs.parked.features(), offset).expect("memory for a frame");
        let mut frame = Self { mapping, form: form.clone(), is_unmapped: false };
        frame.with_area(|area| form.reset(area));
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

    pub(super) fn form(&self) -> &FrameForm {
        &self.form
    }

    /// Accesses bytes, without an instruction.
    pub(super) fn require(&self, bytes: impl IntoIterator<Item = Range<usize>>) -> Result<(), Fault> {
        let (absent, start) = (self.mapping.absent(), self.mapping.address() as usize % PAGE_BYTES);
        let is_present = |bytes: Range<usize>| {
            let pages = (start + bytes.start) / PAGE_BYTES..(start + bytes.end).div_ceil(PAGE_BYTES);
            bytes.is_empty() || absent.end <= pages.start || pages.end <= absent.start
        };
        if bytes.into_iter().all(is_present) { Ok(()) } else { Err(Fault::Page) }
    }

    /// Makes it a frame of a CPU with another layout, of the initial configuration and as absent as before.
    pub(super) fn become_one_of(&mut self, layout: &Layout) {
        let form = FrameForm::new(layout, layout.enabled());
        self.form = form.clone();
        self.with_area(|area| form.reset(area));
    }

    /// Clears the header, where it is present.
    pub(super) fn clear_header(&mut self) {
        if self.require([HEADER]).is_ok() {
            self.with_area(|area| area.clear_header());
        }
    }

    /// Writes what a kernel does behind a save.
    pub(super) fn finish(&mut self) -> Result<(), Fault> {
        self.require(self.form.finished())?;
        let form = self.form.clone();
        self.with_area(|area| form.finish(area));
        Ok(())
    }

    /// The image in the frame, and behind it FP_XSTATE_MAGIC2 where there is XSAVE, whatever is absent.
    pub fn image(&self) -> Area<Vec<u8>> {
        let mut bytes = self.mapping.snapshot().expect(ACCESS);
        bytes.truncate(self.form.len());
        self.form.area(bytes)
    }

    /// Writes the image as user code would, that is, whatever is absent now.
    pub fn with_area<R>(&mut self, change: impl FnOnce(&mut Area<&mut [u8]>) -> R) -> R {
        let absent = self.mapping.absent();
        self.mapping.set_present().expect(ACCESS);
        let present = TakeAway { mapping: &mut self.mapping, absent };
        let bytes = present.mapping.bytes_mut().expect("all pages are present");
        change(&mut self.form.area(&mut bytes[..self.form.len()]))
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
    type Image = XsaveImage;

    fn fault_in(&mut self) -> Result<(), Fault> {
        if self.is_unmapped {
            return Err(Fault::Page);
        }
        self.mapping.set_present().expect(ACCESS);
        Ok(())
    }

    fn change(&mut self, change: FrameChange) -> Result<(), Unsupported> {
        let form = self.form.clone();
        self.with_area(|area| form.change(area, change))?;
        match change {
            FrameChange::Absent | FrameChange::Unmapped => self.set_absent(0..self.pages()),
            FrameChange::RestAbsent => {
                let first = if self.mapping.absent().contains(&0) { 0 } else { 1 };
                self.set_absent(first..self.pages());
            }
            _ => {}
        }
        self.is_unmapped |= change == FrameChange::Unmapped;
        Ok(())
    }

    fn contents(&self, allowed: ComponentSet) -> Result<FrameContents, Fault> {
        if self.is_unmapped { Err(Fault::Page) } else { self.form.contents(&self.image(), allowed) }
    }

    fn set_pkru(&mut self, pkru: Pkru) -> Result<(), Fault> {
        if let Some(written) = self.form.pkru() {
            self.require(written)?;
            self.with_area(|area| area.put_pkru(pkru));
        }
        Ok(())
    }

    fn copy_to(&self, contents: FrameContents, image: &mut XsaveImage) -> Result<(), Fault> {
        self.require([self.form.copied(contents)])?;
        FrameForm::copy(&self.image(), contents, image)
    }
}

impl Clone for HostFrame {
    fn clone(&self) -> Self {
        let mapping = self.mapping.try_clone().expect("memory for a frame");
        Self { mapping, form: self.form.clone(), is_unmapped: self.is_unmapped }
    }
}

impl PartialEq for HostFrame {
    fn eq(&self, other: &Self) -> bool {
        self.mapping.absent() == other.mapping.absent()
            && self.is_unmapped == other.is_unmapped
            && self.form.is_same(&self.image(), &other.form, &other.image())
    }
}

impl Eq for HostFrame {}

impl Hash for HostFrame {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.mapping.absent(), self.is_unmapped).hash(state);
        image::hash_values(&self.image(), state);
    }
}

impl fmt::Debug for HostFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame of {} pages, {:?} absent", self.pages(), self.mapping.absent())
    }
}
