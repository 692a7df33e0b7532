//! Where functions begin and end: the unwind tables of the modules that are loaded.

use super::process::Process;
use core::ops::Range;
use gimli::{BaseAddresses, EhFrame, EhFrameHdr, EndianSlice, LittleEndian, UnwindSection};
use std::vec::Vec;

/// An unwind table that does not say how long it is ends with its mapping, and here: the largest known program's has
/// a tenth of that.
const MOST_BYTES: u64 = 1 << 28;

/// The unwind tables of the modules that were asked for.
#[derive(Debug, Default)]
pub(super) struct UnwindTables {
    modules: Vec<Module>,
}

/// A loaded program or library, or the vDSO.
#[derive(Debug)]
struct Module {
    /// Its loadable segments.
    segments: Vec<Range<u64>>,
    table: Option<Table>,
}

/// Its `.eh_frame_hdr` and `.eh_frame`, and their addresses.
#[derive(Debug)]
struct Table {
    header: Vec<u8>,
    frames: Vec<u8>,
    bases: BaseAddresses,
}

impl UnwindTables {
    /// The function that an address is in.
    pub(super) fn function_at(&mut self, process: &Process, address: u64) -> Option<Range<u64>> {
        let has = |module: &Module| module.segments.iter().any(|segment| segment.contains(&address));
        let known = self.modules.iter().position(has);
        let index = known.or_else(|| {
            let mut starts = process.mappings_down_from(address).filter(|mapping| mapping.offset_bytes == 0);
            let module = starts.find_map(|start| Module::read(process, start.range.start).filter(has))?;
            self.modules.push(module);
            Some(self.modules.len() - 1)
        })?;
        self.modules[index].table.as_ref()?.function_at(address)
    }
}

impl Module {
    /// What an ELF file's header says, which is mapped with its first segment.
    ///
    /// # Reference
    /// elf(5), `Elf64_Ehdr` and `Elf64_Phdr`; Linux Standard Base Core 5.0, 10.6 (`PT_GNU_EH_FRAME`).
    fn read(process: &Process, base: u64) -> Option<Self> {
        const PT_LOAD: u32 = 1;
        const PT_GNU_EH_FRAME: u32 = 0x6474_e550;

        let file = process.constant::<64>(base)?;
        let (table, len) = (word(&file, 32), u16::from_le_bytes([file[56], file[57]]));
        // The magic number, 64 bits, little endian.
        if !file.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        let (mut segments, mut header, mut bias) = (Vec::new(), None, None);
        for index in 0..u64::from(len) {
            let at = base.checked_add(table)?.checked_add(56 * index)?;
            let entry = process.constant::<56>(at)?;
            let (offset, start, len) = (word(&entry, 8), word(&entry, 16), word(&entry, 40));
            match u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]) {
                PT_LOAD => {
                    // The file's first bytes are at `base`, where the first segment has them.
                    let bias = *bias.get_or_insert(base.wrapping_sub(start.wrapping_sub(offset)));
                    let start = bias.wrapping_add(start);
                    segments.push(start..start.checked_add(len)?);
                }
                PT_GNU_EH_FRAME => header = Some((start, len)),
                _ => {}
            }
        }
        let bias = bias?;
        let table = header.and_then(|(start, len)| Table::read(process, bias.wrapping_add(start), len));
        Some(Self { segments, table })
    }
}

impl Table {
    fn read(process: &Process, start: u64, len: u64) -> Option<Self> {
        let header = process.constant_from(start, len)?;
        let bases = BaseAddresses::default().set_eh_frame_hdr(start);
        let parsed = EhFrameHdr::new(&header, LittleEndian).parse(&bases, 8).ok()?;
        let frames_start = parsed.eh_frame_ptr().direct().ok()?;
        let frames = process.constant_from(frames_start, MOST_BYTES)?;
        Some(Self { bases: bases.set_eh_frame(frames_start), header, frames })
    }

    fn function_at(&self, address: u64) -> Option<Range<u64>> {
        let header = EhFrameHdr::new(&self.header, LittleEndian).parse(&self.bases, 8).ok()?;
        let frames: EhFrame<EndianSlice<'_, LittleEndian>> = EhFrame::new(&self.frames, LittleEndian);
        let entry =
            header.table()?.fde_for_address(&frames, &self.bases, address, EhFrame::cie_from_offset).ok()?;
        let start = entry.initial_address();
        Some(start..start.checked_add(entry.len())?)
    }
}

/// Eight bytes of a header.
fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}
