//! The process's memory as the system shows it, where an address that is not there is an error and no fault.

use core::ops::Range;
use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    vec,
    vec::Vec,
};

/// One line of `/proc/self/maps`.
///
/// # Reference
/// proc_pid_maps(5).
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    pub(super) range: Range<u64>,
    /// Where in the file it begins; 0 without a file.
    pub(super) offset_bytes: u64,
    readable: bool,
    executable: bool,
    /// By this process or, as it is shared, by another.
    writable: bool,
}

impl Mapping {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let number = |digits| u64::from_str_radix(digits, 16).ok();
        let allowed = words.next()?.as_bytes();
        Some(Self {
            range: number(start)?..number(end)?,
            offset_bytes: number(words.next()?)?,
            readable: allowed.first() == Some(&b'r'),
            writable: allowed.get(1) == Some(&b'w') || allowed.get(3) != Some(&b'p'),
            executable: allowed.get(2) == Some(&b'x'),
        })
    }

    fn is_constant(&self) -> bool {
        self.readable && !self.writable
    }

    fn is_code(&self) -> bool {
        self.is_constant() && self.executable
    }
}

/// The process's mappings, as they were when this was made, and its memory, as it is.
#[derive(Debug)]
pub(super) struct Process {
    memory: File,
    /// By address.
    mappings: Vec<Mapping>,
}

impl Process {
    pub(super) fn open() -> io::Result<Self> {
        let maps = fs::read_to_string("/proc/self/maps")?;
        Ok(Self {
            memory: File::open("/proc/self/mem")?,
            mappings: maps.lines().filter_map(Mapping::parse).collect(),
        })
    }

    /// The beginnings of what is mapped at or below an address, from the nearest on.
    pub(super) fn mappings_down_from(&self, address: u64) -> impl Iterator<Item = &Mapping> {
        let below = self.mappings.partition_point(|mapping| mapping.range.start <= address);
        self.mappings[..below].iter().rev()
    }

    /// Code that nothing can write.
    pub(super) fn code(&self, range: &Range<u64>) -> Option<Vec<u8>> {
        self.read_where(range, Mapping::is_code)
    }

    /// Bytes that nothing can write.
    pub(super) fn constant<const LEN: usize>(&self, address: u64) -> Option<[u8; LEN]> {
        let range = address..address.checked_add(LEN as u64)?;
        self.read_where(&range, Mapping::is_constant)?.try_into().ok()
    }

    /// A pointer that nothing can write.
    pub(super) fn pointer(&self, address: u64) -> Option<u64> {
        self.constant(address).map(u64::from_le_bytes)
    }

    /// The bytes from an address to the end of the mapping that it is in, or to `most_bytes`.
    pub(super) fn constant_from(&self, address: u64, most_bytes: u64) -> Option<Vec<u8>> {
        let mapping = self.mappings_down_from(address).next()?;
        let end = address.saturating_add(most_bytes).min(mapping.range.end);
        self.read_where(&(address..end), Mapping::is_constant)
    }

    /// The bytes, if the mappings that they are in all are like that.
    fn read_where(&self, range: &Range<u64>, is_fit: impl Fn(&Mapping) -> bool) -> Option<Vec<u8>> {
        let mut from = range.start;
        for mapping in &self.mappings {
            if mapping.range.contains(&from) && is_fit(mapping) {
                from = mapping.range.end;
            }
        }
        if range.is_empty() || from < range.end {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(range.end - range.start).ok()?];
        self.memory.read_exact_at(&mut bytes, range.start).ok()?;
        Some(bytes)
    }
}
