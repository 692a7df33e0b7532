//! Memory that can fault: pages of our own, some of which may be inaccessible.

use super::features::Features;
use crate::arch::Absent;
use core::{fmt, ops::Range, ptr};
use std::{io, vec::Vec};

const PAGE: usize = 4096;

/// An area in anonymous pages of its own. Instructions fault on those that are absent; Rust code cannot.
///
/// The area starts at any offset into the first page, so that it can straddle a boundary, or be misaligned. It
/// has room for whatever an instruction could touch here, in either format.
pub(crate) struct Mapping {
    base: *mut u8,
    pages: usize,
    offset: usize,
    /// The pages without access.
    absent: Range<usize>,
}

// SAFETY: the pages belong to this value alone, and to no thread. It is not `Sync`: `snapshot` changes their
// protection for a moment.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Zeroed pages, all present, with an area `offset_bytes` from their start (modulo the size of a page).
    ///
    /// # Errors
    /// The system has no memory for it.
    pub(crate) fn new(features: Features, offset_bytes: usize) -> io::Result<Self> {
        let offset = offset_bytes % PAGE;
        Self::with_pages((offset + features.most_bytes()).div_ceil(PAGE), offset)
    }

    fn with_pages(pages: usize, offset: usize) -> io::Result<Self> {
        // SAFETY: a new anonymous mapping at an address that the kernel chooses touches no other memory.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                pages * PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { base: base.cast(), pages, offset, absent: 0..0 })
    }

    /// How many pages there are.
    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// Where the area starts. Dereferencing it is up to instructions.
    pub(crate) fn address(&self) -> u64 {
        self.area_ptr() as u64
    }

    /// The pages without access.
    pub(crate) fn absent(&self) -> Range<usize> {
        self.absent.clone()
    }

    /// Takes the access to these pages away, and gives it to the others. What is in them stays.
    ///
    /// # Errors
    /// The system refused it; the pages count as absent all the same.
    pub(crate) fn set_absent(&mut self, pages: Range<usize>) -> io::Result<()> {
        self.set_present()?;
        let pages = pages.start.min(self.pages)..pages.end.min(self.pages);
        if !pages.is_empty() {
            self.absent = pages;
            self.protect(&self.absent, libc::PROT_NONE)?;
        }
        Ok(())
    }

    /// Gives access to all pages.
    ///
    /// # Errors
    /// The system refused it; nothing is changed.
    pub(crate) fn set_present(&mut self) -> io::Result<()> {
        self.protect(&self.absent, libc::PROT_READ | libc::PROT_WRITE)?;
        self.absent = 0..0;
        Ok(())
    }

    fn protect(&self, pages: &Range<usize>, protection: libc::c_int) -> io::Result<()> {
        // SAFETY: `pages` lie within the mapping (`set_absent`), so the sum does. References into them do not
        // outlive the borrow of `self`, and are given out by `bytes_mut` alone, while all pages are present;
        // `snapshot` gives access where there was none.
        let result = unsafe {
            libc::mprotect(self.base.add(pages.start * PAGE).cast(), pages.len() * PAGE, protection)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The area, to the end of the pages.
    ///
    /// # Errors
    /// [`Absent`].
    pub(crate) fn bytes_mut(&mut self) -> Result<&mut [u8], Absent> {
        if !self.absent.is_empty() {
            return Err(Absent);
        }
        // SAFETY: the pages are mapped and accessible, zeroed at first, and `self` is borrowed exclusively.
        Ok(unsafe { core::slice::from_raw_parts_mut(self.area_ptr(), self.area_len()) })
    }

    /// A copy of the area, whatever is absent: what the pager would bring back.
    ///
    /// # Errors
    /// The system refused to change the access.
    pub(crate) fn snapshot(&self) -> io::Result<Vec<u8>> {
        self.protect(&self.absent, libc::PROT_READ)?;
        // SAFETY: every page can be read now, and nobody writes to them while `self` is borrowed.
        let copy = unsafe { core::slice::from_raw_parts(self.area_ptr(), self.area_len()) }.to_vec();
        self.protect(&self.absent, libc::PROT_NONE)?;
        Ok(copy)
    }

    /// A mapping with the same content and the same absent pages.
    ///
    /// # Errors
    /// The system has no memory for it.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let mut clone = Self::with_pages(self.pages, self.offset)?;
        if let Ok(bytes) = clone.bytes_mut() {
            bytes.copy_from_slice(&self.snapshot()?);
        }
        clone.set_absent(self.absent())?;
        Ok(clone)
    }

    pub(super) fn area_ptr(&self) -> *mut u8 {
        // SAFETY: the offset is less than a page, and there is at least one.
        unsafe { self.base.add(self.offset) }
    }

    pub(super) fn area_len(&self) -> usize {
        self.pages * PAGE - self.offset
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers to it any more. It cannot fail for a whole mapping.
        unsafe { libc::munmap(self.base.cast(), self.pages * PAGE) };
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "area {:#x}, {} pages, absent {:?}", self.address(), self.pages, self.absent)
    }
}
