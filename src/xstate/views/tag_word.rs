//! The x87 tag word in full, two bits a register, which FXSAVE abridges to one.

use crate::xstate::LegacyRegion;

/// What the x87 tag word says of a register.
///
/// # Reference
/// Intel SDM volume 1, section 8.1.7 "x87 FPU Tag Word".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tag {
    /// A normal number.
    Valid = 0,
    /// Zero.
    Zero = 1,
    /// A NaN, an infinity, a denormal, or an encoding that is none.
    Special = 2,
    /// Nothing.
    Empty = 3,
}

/// The full x87 tag word, as FSAVE writes it and debuggers show it: two bits a register, by its physical number.
///
/// ```
/// use fpuswitch::xstate::{Area, Format, Layout, Tag};
/// let mut area = Area::initial(&Layout::fxsave_only(), Format::Fxsave);
/// let mut x87 = area.legacy_mut();
/// // After FLD1: TOP is 7, so ST0 is the physical register 7.
/// x87.set_fsw(7 << 11);
/// x87.set_ftw(1 << 7);
/// x87.set_st(0, [0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f]);
/// let tags = x87.tag_word();
/// assert_eq!((tags.0, tags.tag(7), tags.tag(0)), (0x3fff, Tag::Valid, Tag::Empty));
/// assert_eq!(tags.abridged(), 1 << 7);
/// # Ok::<(), fpuswitch::xstate::AreaError>(())
/// ```
///
/// # Reference
/// Intel SDM volume 1, section 8.1.7 "x87 FPU Tag Word".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TagWord(pub u16);

impl TagWord {
    /// The tag of the physical register `physical` mod 8.
    pub const fn tag(self, physical: usize) -> Tag {
        match self.0 >> (physical % 8 * 2) & 3 {
            0 => Tag::Valid,
            1 => Tag::Zero,
            2 => Tag::Special,
            _ => Tag::Empty,
        }
    }

    /// The tag word of an FXSAVE image: a bit is set for a register that is not empty. Between the other tags a
    /// restore does not tell: they follow from the registers.
    pub fn abridged(self) -> u8 {
        (0..8).filter(|n| self.tag(*n) != Tag::Empty).fold(0, |bits, n| bits | 1 << n)
    }
}

impl<B: AsRef<[u8]>> LegacyRegion<B> {
    /// The full tag word, from the abridged one and what is in the registers. That of MMX registers comes out as they
    /// look as numbers, which is what FSAVE says of them too.
    ///
    /// # Reference
    /// Intel SDM volume 2, "FXSAVE": table "Recreating FSAVE Format".
    pub fn tag_word(&self) -> TagWord {
        let top = usize::from(self.fsw() >> 11 & 7);
        let tag = |physical: usize| match self.ftw() >> physical & 1 {
            0 => Tag::Empty,
            _ => tag_of(self.st((physical + 8 - top) % 8)),
        };
        TagWord((0..8).fold(0, |word, physical| word | (tag(physical) as u16) << (physical * 2)))
    }
}

/// What an 80-bit number is: significand in bits 0 to 63, of which 63 is the integer bit, and exponent in 64 to 78.
fn tag_of(number: [u8; 10]) -> Tag {
    let [s0, s1, s2, s3, s4, s5, s6, s7, e0, e1] = number;
    let significand = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    let exponent = u16::from_le_bytes([e0, e1]) & 0x7fff;
    match (exponent, significand) {
        (0, 0) => Tag::Zero,
        (0 | 0x7fff, _) => Tag::Special,
        _ if significand >> 63 == 0 => Tag::Special,
        _ => Tag::Valid,
    }
}
