//! Notes of a core file: register sets, and the layout that they have.

use super::ViewError;
use crate::{
    Pkru,
    xstate::{Area, AreaError, Layout, LayoutError},
};
use alloc::vec::Vec;

const NT_X86_XSTATE: u32 = 0x202;
const NT_X86_XSAVE_LAYOUT: u32 = 0x205;
/// With its terminating zero.
const OWNER: &[u8] = b"LINUX\0";
/// `Elf64_Nhdr`: sizes of the name and of the descriptor, and the type.
const HEADER_BYTES: usize = 12;

/// Why the notes of a core file cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// A note that ends behind the last byte.
    #[error("the note at byte {offset} takes {needed_bytes} bytes, {found_bytes} are left")]
    Truncated {
        /// Where it begins.
        offset: usize,
        /// What it takes: its header, or that, the name and the descriptor.
        needed_bytes: u64,
        /// What there is.
        found_bytes: usize,
    },
    /// A second layout, other than the first.
    #[error("the note at byte {offset} gives a second layout, other than the first")]
    SecondLayout {
        /// Where it begins.
        offset: usize,
    },
    /// A layout note that describes no layout; or, without such a note, a register set of no known layout.
    #[error("the note at byte {offset}: {source}")]
    Layout {
        /// Where it begins.
        offset: usize,
        /// Why not.
        source: LayoutError,
    },
    /// A register set that is too short for a header.
    #[error("the note at byte {offset}: {source}")]
    Area {
        /// Where it begins.
        offset: usize,
        /// Why not.
        source: AreaError,
    },
}

impl Layout {
    /// The descriptor of an NT_X86_XSAVE_LAYOUT note: an entry for each enabled component of the extended region, by
    /// ascending number. [`from_note`](Self::from_note) reads it back.
    ///
    /// # Reference
    /// As there.
    pub fn to_note(&self) -> Vec<u8> {
        let enabled = self.places().iter().filter(|place| self.enabled().contains(place.component));
        enabled
            .flat_map(|place| [u32::from(place.component.number()), place.size_bytes, place.offset_bytes, 0])
            .flat_map(u32::to_le_bytes)
            .collect()
    }

    /// The whole NT_X86_XSAVE_LAYOUT note (type 205H), which Linux writes once, behind the threads' notes.
    ///
    /// # Reference
    /// Linux 6.12 and later, arch/x86/kernel/fpu/xstate.c: elf_coredump_extra_notes_write.
    pub fn layout_note(&self) -> Vec<u8> {
        note(NT_X86_XSAVE_LAYOUT, &self.to_note())
    }
}

impl<B: AsRef<[u8]>> Area<B> {
    /// The whole NT_X86_XSTATE note (type 202H) of a thread whose PKRU is `pkru`: its
    /// [register set](Self::regset) as a core file has it.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Reference
    /// Linux, fs/binfmt_elf.c: fill_thread_core_info, writenote.
    ///
    /// ```
    /// use fpuswitch::{Pkru, xstate::{Area, CpuidDump, Format, Layout}};
    /// let cpu: CpuidDump = include_str!("../../../cpus/zen4.txt").parse()?;
    /// let layout = Layout::from_cpuid(&cpu)?;
    /// let thread = Area::initial(&layout, Format::Compacted);
    /// let mut segment = thread.xstate_note(Pkru::DEFAULT)?;
    /// segment.extend(layout.layout_note());
    ///
    /// let images = Area::from_notes(&segment)?;
    /// assert_eq!(images.len(), 1);
    /// assert_eq!(images[0].register("pkru".parse()?)?.to_string(), "55555554");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn xstate_note(&self, pkru: Pkru) -> Result<Vec<u8>, ViewError> {
        Ok(note(NT_X86_XSTATE, self.regset(pkru)?.bytes()))
    }
}

impl<'a> Area<&'a [u8]> {
    /// The register sets in the notes of a core file (its PT_NOTE segment), a thread each, in the order of the threads.
    /// They have the layout of the file's layout note, wherever that is; without one, they are
    /// [guessed](Layout::from_regset). Other notes are passed over.
    ///
    /// PKRU is the component's here: there is no other place for it.
    ///
    /// # Errors
    /// The first note that cannot be read.
    pub fn from_notes(segment: &'a [u8]) -> Result<Vec<Self>, NoteError> {
        let (mut layout, mut regsets) = (None, Vec::new());
        let mut offset = 0;
        while offset < segment.len() {
            let (kind, descriptor, next) = read(segment, offset)?;
            match kind {
                Some(NT_X86_XSTATE) => regsets.push((offset, descriptor)),
                Some(NT_X86_XSAVE_LAYOUT) => {
                    let told = Layout::from_note(descriptor);
                    let told = told.map_err(|source| NoteError::Layout { offset, source })?;
                    if layout.get_or_insert_with(|| told.clone()) != &told {
                        return Err(NoteError::SecondLayout { offset });
                    }
                }
                _ => {}
            }
            offset = next;
        }
        let image = |(offset, regset)| {
            let layout = match &layout {
                Some(layout) => layout.clone(),
                None => Layout::from_regset(regset).map_err(|source| NoteError::Layout { offset, source })?,
            };
            Area::over(regset, &layout).map_err(|source| NoteError::Area { offset, source })
        };
        regsets.into_iter().map(image).collect()
    }
}

/// One note; name and descriptor are filled up to multiples of 4.
fn note(kind: u32, descriptor: &[u8]) -> Vec<u8> {
    let fill = |bytes: &mut Vec<u8>| bytes.resize(bytes.len().next_multiple_of(4), 0);
    // A layout has at most 1 MiB.
    let header = [OWNER.len() as u32, descriptor.len() as u32, kind];
    let mut bytes: Vec<u8> = header.into_iter().flat_map(u32::to_le_bytes).collect();
    bytes.extend(OWNER);
    fill(&mut bytes);
    bytes.extend(descriptor);
    fill(&mut bytes);
    bytes
}

/// The note at `offset`: its type if it is one of Linux's, its descriptor, and where the next begins.
fn read(segment: &[u8], offset: usize) -> Result<(Option<u32>, &[u8], usize), NoteError> {
    let rest = &segment[offset..];
    let truncated = |needed_bytes| NoteError::Truncated { offset, needed_bytes, found_bytes: rest.len() };
    let header: &[u8; HEADER_BYTES] = rest.first_chunk().ok_or(truncated(HEADER_BYTES as u64))?;
    let word = |n: usize| u32::from_le_bytes([header[n], header[n + 1], header[n + 2], header[n + 3]]);
    let (name_bytes, descriptor_bytes, kind) = (word(0), word(4), word(8));
    // As 64-bit numbers these cannot overflow. The last note need not be filled up.
    let start = HEADER_BYTES as u64 + u64::from(name_bytes).next_multiple_of(4);
    let end = start + u64::from(descriptor_bytes);
    let descriptor = usize::try_from(end).ok().and_then(|end| rest.get(start as usize..end));
    let descriptor = descriptor.ok_or(truncated(end))?;
    let name = &rest[HEADER_BYTES..][..name_bytes as usize];
    let next = offset + (end as usize).next_multiple_of(4);
    Ok(((name == OWNER).then_some(kind), descriptor, next))
}
