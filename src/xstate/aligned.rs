//! Bytes at a 64-byte boundary, without unsafe code.

use alloc::{vec, vec::Vec};
use core::fmt;

/// The boundary that the instructions want (Intel SDM volume 1, section 13.4 "XSAVE Area").
const ALIGNMENT: usize = 64;

/// Zeroed bytes that start at a multiple of 64: a vector a little too long, and where to begin in it.
pub struct AlignedBytes {
    room: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    /// `len` zeros.
    ///
    /// # Panics
    /// If there is no memory for that many.
    pub fn zeroed(len: usize) -> Self {
        let room = vec![0; len.saturating_add(ALIGNMENT - 1)];
        // The vector is never made longer, so its bytes stay where they are. `align_offset` may decline to
        // answer in constant evaluation only.
        let start = room.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT - 1);
        Self { room, start, len }
    }
}

impl AsRef<[u8]> for AlignedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.room[self.start..self.start + self.len]
    }
}

impl AsMut<[u8]> for AlignedBytes {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.start..self.start + self.len]
    }
}

impl Clone for AlignedBytes {
    fn clone(&self) -> Self {
        let mut clone = Self::zeroed(self.len);
        clone.as_mut().copy_from_slice(self.as_ref());
        clone
    }

    fn clone_from(&mut self, source: &Self) {
        if self.len == source.len {
            self.as_mut().copy_from_slice(source.as_ref());
        } else {
            *self = source.clone();
        }
    }
}

impl fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_start_at_a_boundary_and_clones_too() {
        for len in [0, 1, 512, 576, 2696, 11008] {
            let mut bytes = AlignedBytes::zeroed(len);
            bytes.as_mut().iter_mut().enumerate().for_each(|(n, byte)| *byte = n as u8);
            let mut other = AlignedBytes::zeroed(7);
            other.clone_from(&bytes);
            for copy in [&bytes, &bytes.clone(), &other] {
                assert_eq!(copy.as_ref().as_ptr() as usize % 64, 0);
                assert!(copy.as_ref().iter().enumerate().all(|(n, byte)| *byte == n as u8));
                assert_eq!(copy.as_ref().len(), len);
            }
        }
    }
}
