//! The legacy region: what FXSAVE writes, and the first 512 bytes of every XSAVE area.

use super::{AreaError, layout::LEGACY_BYTES};

/// FCW in the initial configuration: every exception masked, 64-bit precision, round to nearest.
pub(super) const INITIAL_FCW: u16 = 0x037f;
/// MXCSR in the initial configuration: every exception masked, round to nearest.
pub(super) const INITIAL_MXCSR: u32 = 0x1f80;

/// Rounding control, as bits 13 and 14 of MXCSR and bits 10 and 11 of FCW encode it.
///
/// # Reference
/// Intel SDM volume 1, section 4.8.4 "Rounding".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// To the nearest, ties to even: the initial one.
    Nearest = 0,
    /// Towards minus infinity.
    Down = 1,
    /// Towards plus infinity.
    Up = 2,
    /// Towards zero.
    Zero = 3,
}

/// Offsets in bytes (Intel SDM volume 1, section 10.5.1 "FXSAVE Area", table 10-2: the 64-bit form).
const FCW: usize = 0;
const FSW: usize = 2;
const FTW: usize = 4;
const FOP: usize = 6;
const FIP: usize = 8;
const FDP: usize = 16;
const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
const ST: usize = 32;
const XMM: usize = 160;
/// Bytes from one ST or XMM register to the next.
const SLOT: usize = 16;
const ST_BYTES: usize = 10;

/// x87 as one piece of bytes: bytes 0 to 23 of the region and 32 to 159 behind them.
pub(crate) const X87_BYTES: usize = X87_HEAD + (XMM - ST);
/// SSE as one piece of bytes: MXCSR and XMM0–15 behind it.
pub(crate) const SSE_BYTES: usize = MXCSR_BYTES + 16 * SLOT;
pub(super) const MXCSR_BYTES: usize = 4;
const X87_HEAD: usize = MXCSR;

/// The legacy region of an area, as it lies in memory.
///
/// These accessors look at the bytes, whatever XSTATE_BV says of them: see [`Area`](super::Area) for what the
/// registers would get.
///
/// # Reference
/// Intel SDM volume 1, section 10.5.1 "FXSAVE Area".
#[derive(Clone, Copy, Debug)]
pub struct LegacyRegion<B>(B);

impl<B: AsRef<[u8]>> LegacyRegion<B> {
    /// The region at the start of `bytes`.
    ///
    /// # Errors
    /// [`AreaError::TooShort`] below 512 bytes.
    pub fn over(bytes: B) -> Result<Self, AreaError> {
        let found_bytes = bytes.as_ref().len();
        if found_bytes < LEGACY_BYTES {
            return Err(AreaError::TooShort { needed_bytes: LEGACY_BYTES, found_bytes });
        }
        Ok(Self(bytes))
    }

    fn at<const N: usize>(&self, offset: usize) -> [u8; N] {
        // The region is as long as `over` has checked, and every offset here is a constant below that.
        core::array::from_fn(|n| self.0.as_ref()[offset + n])
    }

    /// The x87 control word.
    pub fn fcw(&self) -> u16 {
        u16::from_le_bytes(self.at(FCW))
    }

    /// The x87 status word.
    pub fn fsw(&self) -> u16 {
        u16::from_le_bytes(self.at(FSW))
    }

    /// The abridged x87 tag word: a set bit says that the physical register is not empty.
    pub fn ftw(&self) -> u8 {
        self.at::<1>(FTW)[0]
    }

    /// The last x87 opcode, 11 bits.
    pub fn fop(&self) -> u16 {
        u16::from_le_bytes(self.at(FOP))
    }

    /// The address of the last x87 instruction, 64 bits as the 64-bit instructions save it.
    pub fn fip(&self) -> u64 {
        u64::from_le_bytes(self.at(FIP))
    }

    /// The address of the last x87 operand.
    pub fn fdp(&self) -> u64 {
        u64::from_le_bytes(self.at(FDP))
    }

    /// MXCSR.
    pub fn mxcsr(&self) -> u32 {
        u32::from_le_bytes(self.at(MXCSR))
    }

    /// The bits of MXCSR that the CPU that saved the region accepts; 0 stands for FFBFH.
    pub fn mxcsr_mask(&self) -> u32 {
        u32::from_le_bytes(self.at(MXCSR_MASK))
    }

    /// ST(`i` mod 8), by its place in the stack: an 80-bit number.
    pub fn st(&self, i: usize) -> [u8; 10] {
        self.at(ST + i % 8 * SLOT)
    }

    /// XMM(`i` mod 16).
    pub fn xmm(&self, i: usize) -> u128 {
        u128::from_le_bytes(self.at(XMM + i % 16 * SLOT))
    }

    /// x87 in one piece, reserved bytes as zero.
    pub(super) fn x87(&self) -> [u8; X87_BYTES] {
        let bytes = self.0.as_ref();
        let mut x87 = [0; X87_BYTES];
        x87[..X87_HEAD].copy_from_slice(&bytes[..X87_HEAD]);
        x87[X87_HEAD..].copy_from_slice(&bytes[ST..XMM]);
        x87[FTW + 1] = 0;
        for slot in x87[X87_HEAD..].chunks_mut(SLOT) {
            slot[ST_BYTES..].fill(0);
        }
        x87
    }

    /// SSE in one piece.
    pub(super) fn sse(&self) -> [u8; SSE_BYTES] {
        let bytes = self.0.as_ref();
        let mut sse = [0; SSE_BYTES];
        sse[..MXCSR_BYTES].copy_from_slice(&bytes[MXCSR..MXCSR_MASK]);
        sse[MXCSR_BYTES..].copy_from_slice(&bytes[XMM..XMM + 16 * SLOT]);
        sse
    }
}

impl<B: AsMut<[u8]>> LegacyRegion<B> {
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.0.as_mut()[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Writes the x87 control word.
    pub fn set_fcw(&mut self, fcw: u16) {
        self.put(FCW, &fcw.to_le_bytes());
    }

    /// Writes the x87 status word.
    pub fn set_fsw(&mut self, fsw: u16) {
        self.put(FSW, &fsw.to_le_bytes());
    }

    /// Writes the abridged x87 tag word.
    pub fn set_ftw(&mut self, ftw: u8) {
        self.put(FTW, &[ftw]);
    }

    /// Writes MXCSR.
    pub fn set_mxcsr(&mut self, mxcsr: u32) {
        self.put(MXCSR, &mxcsr.to_le_bytes());
    }

    /// Writes MXCSR_MASK.
    pub fn set_mxcsr_mask(&mut self, mask: u32) {
        self.put(MXCSR_MASK, &mask.to_le_bytes());
    }

    /// Writes ST(`i` mod 8).
    pub fn set_st(&mut self, i: usize, number: [u8; 10]) {
        self.put(ST + i % 8 * SLOT, &number);
    }

    /// Writes XMM(`i` mod 16).
    pub fn set_xmm(&mut self, i: usize, value: u128) {
        self.put(XMM + i % 16 * SLOT, &value.to_le_bytes());
    }

    pub(super) fn set_x87(&mut self, x87: &[u8; X87_BYTES]) {
        self.put(0, &x87[..X87_HEAD]);
        self.put(ST, &x87[X87_HEAD..]);
    }

    pub(super) fn set_sse(&mut self, sse: &[u8; SSE_BYTES]) {
        self.put(MXCSR, &sse[..MXCSR_BYTES]);
        self.put(XMM, &sse[MXCSR_BYTES..]);
    }
}

/// x87 in its initial configuration.
pub(super) const fn initial_x87() -> [u8; X87_BYTES] {
    let mut x87 = [0; X87_BYTES];
    [x87[FCW], x87[FCW + 1]] = INITIAL_FCW.to_le_bytes();
    x87
}

/// SSE in its initial configuration, but for MXCSR, which standard images have from memory always.
pub(super) fn initial_sse(mxcsr: u32) -> [u8; SSE_BYTES] {
    let mut sse = [0; SSE_BYTES];
    sse[..MXCSR_BYTES].copy_from_slice(&mxcsr.to_le_bytes());
    sse
}
