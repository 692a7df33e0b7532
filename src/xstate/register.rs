//! Registers by name, wherever their parts lie in an area.

use super::{Area, AreaError, Component, ComponentSet, legacy::MXCSR_BYTES};
use alloc::{borrow::ToOwned, string::String, vec::Vec};
use core::{fmt, str::FromStr};

/// A register that an XSAVE area holds, by the name that a debugger calls it: `xmm0`, `ymm7`, `fcw`, `pkru`.
///
/// `st0` to `st7` go by their place in the stack, as they lie in memory; mm0 to mm7 are the same registers by
/// number and have no names here. Writing one leaves the tag word alone: a register that `ftw` calls empty stays
/// empty. `ftw` is the abridged tag word, one bit a physical register. The upper part
/// of a vector register is a register of its own as far as memory goes: writing `ymm7` leaves the upper half
/// of `zmm7` alone, unlike the instructions with a VEX prefix.
///
/// ```
/// use fpuswitch::xstate::{Area, Format, Layout, Register};
/// let mut area = Area::initial(&Layout::fxsave_only(), Format::Fxsave);
/// let fcw: Register = "fcw".parse()?;
/// assert_eq!(area.register(fcw)?.to_string(), "037f");
/// area.set_register(fcw, &0x0f7f_u16.to_le_bytes())?;
/// assert_eq!(area.legacy().fcw(), 0x0f7f);
/// assert!(area.register("ymm7".parse()?).is_err(), "there is no AVX");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Reference
/// Intel SDM volume 1, section 13.5 "XSAVE-managed State".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Register {
    bank: Bank,
    number: u8,
}

/// Registers that differ by a number only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Bank {
    Fcw,
    Fsw,
    Ftw,
    Fop,
    Fip,
    Fdp,
    St,
    Mxcsr,
    Xmm,
    Ymm,
    Zmm,
    Opmask,
    Bnd,
    Bndcfgu,
    Bndstatus,
    Pkru,
    Tilecfg,
    Tmm,
}

/// Names, and how many there are; 0 for a register without a number.
const BANKS: [(Bank, &str, u8); 18] = [
    (Bank::Fcw, "fcw", 0),
    (Bank::Fsw, "fsw", 0),
    (Bank::Ftw, "ftw", 0),
    (Bank::Fop, "fop", 0),
    (Bank::Fip, "fip", 0),
    (Bank::Fdp, "fdp", 0),
    (Bank::St, "st", 8),
    (Bank::Mxcsr, "mxcsr", 0),
    (Bank::Xmm, "xmm", 32),
    (Bank::Ymm, "ymm", 32),
    (Bank::Zmm, "zmm", 32),
    (Bank::Opmask, "k", 8),
    (Bank::Bnd, "bnd", 4),
    (Bank::Bndcfgu, "bndcfgu", 0),
    (Bank::Bndstatus, "bndstatus", 0),
    (Bank::Pkru, "pkru", 0),
    (Bank::Tilecfg, "tilecfg", 0),
    (Bank::Tmm, "tmm", 8),
];

/// Some bytes of a component ([shapes](Area#shapes)).
#[derive(Clone, Copy)]
struct Part {
    component: Component,
    offset: usize,
    len: usize,
}

impl Part {
    /// Number `n` of things of `stride` bytes that begin at `start`.
    fn nth(component: Component, start: usize, stride: usize, n: u8) -> Self {
        Self { component, offset: start + usize::from(n) * stride, len: stride }
    }

    fn range(self) -> core::ops::Range<usize> {
        self.offset..self.offset + self.len
    }
}

/// Bytes of x87 before ST0; it has 16 bytes a register and uses 10.
const ST: usize = 24;
/// ZMM16 is the first in Hi16_ZMM.
const FIRST_HI16: u8 = 16;

impl Register {
    /// Every register there is a name for, in the order of the components.
    pub fn all() -> impl Iterator<Item = Self> {
        BANKS
            .into_iter()
            .flat_map(|(bank, _, count)| (0..count.max(1)).map(move |number| Self { bank, number }))
    }

    /// How many bytes it has.
    pub fn size_bytes(self) -> usize {
        self.parts().map(|part| part.len).sum()
    }

    /// The components that it is spread over.
    pub fn components(self) -> ComponentSet {
        self.parts().fold(ComponentSet::EMPTY, |set, part| set.with(part.component))
    }

    /// Where its bytes are, the least significant first.
    fn parts(self) -> impl Iterator<Item = Part> {
        use Component as C;
        let x87 = |offset, len| [Some(Part { component: C::X87, offset, len }), None, None];
        let one =
            |component, start, stride| [Some(Part::nth(component, start, stride, self.number)), None, None];
        let vector = |len| match self.number.checked_sub(FIRST_HI16) {
            Some(n) => [Some(Part { len, ..Part::nth(C::HI16_ZMM, 0, 64, n) }), None, None],
            None => [
                Some(Part::nth(C::SSE, MXCSR_BYTES, 16, self.number)),
                (len >= 32).then(|| Part::nth(C::AVX, 0, 16, self.number)),
                (len >= 64).then(|| Part::nth(C::ZMM_HI256, 0, 32, self.number)),
            ],
        };
        let parts = match self.bank {
            Bank::Fcw => x87(0, 2),
            Bank::Fsw => x87(2, 2),
            Bank::Ftw => x87(4, 1),
            Bank::Fop => x87(6, 2),
            Bank::Fip => x87(8, 8),
            Bank::Fdp => x87(16, 8),
            Bank::St => x87(ST + usize::from(self.number) * 16, 10),
            Bank::Mxcsr => one(C::SSE, 0, MXCSR_BYTES),
            Bank::Xmm => vector(16),
            Bank::Ymm => vector(32),
            Bank::Zmm => vector(64),
            Bank::Opmask => one(C::OPMASK, 0, 8),
            Bank::Bnd => one(C::BNDREGS, 0, 16),
            Bank::Bndcfgu => one(C::BNDCSR, 0, 8),
            Bank::Bndstatus => one(C::BNDCSR, 8, 8),
            Bank::Pkru => one(C::PKRU, 0, 4),
            Bank::Tilecfg => one(C::TILECFG, 0, 64),
            Bank::Tmm => one(C::TILEDATA, 0, 1024),
        };
        parts.into_iter().flatten()
    }
}

/// Where 32 bits of ZMM0–31 lie: the component, and the offset in it ([shapes](Area#shapes)). `None` if there is no
/// such register or lane.
pub(crate) fn lane(register: u8, lane: u8) -> Option<(Component, usize)> {
    let register = if register < 32 { Some(Register { bank: Bank::Zmm, number: register }) } else { None };
    let mut offset = usize::from(lane) * 4;
    register?.parts().find_map(|part| match offset.checked_sub(part.len) {
        None => Some((part.component, part.offset + offset)),
        Some(behind) => {
            offset = behind;
            None
        }
    })
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (_, name, count) in BANKS.iter().filter(|(bank, ..)| *bank == self.bank) {
            f.write_str(name)?;
            if *count > 0 {
                write!(f, "{}", self.number)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that names no register.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no register, expected one such as st0, xmm7, zmm31, k1, mxcsr or fcw")]
pub struct UnknownRegister(pub String);

impl FromStr for Register {
    type Err = UnknownRegister;

    /// Takes the names that `Display` prints, in any case.
    fn from_str(text: &str) -> Result<Self, UnknownRegister> {
        let lower = text.to_ascii_lowercase();
        let number = |digits: &str, count: u8| {
            let plain =
                digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
            digits.parse().ok().filter(|number| plain && *number < count)
        };
        let named = BANKS.iter().find_map(|(bank, name, count)| match lower.strip_prefix(name)? {
            "" if *count == 0 => Some(Self { bank: *bank, number: 0 }),
            digits => number(digits, *count).map(|number| Self { bank: *bank, number }),
        });
        named.ok_or_else(|| UnknownRegister(text.to_owned()))
    }
}

/// What is in a register: its bytes, the least significant first.
///
/// Prints them in hexadecimal, the most significant first, in groups of four.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RegisterValue(Vec<u8>);

impl RegisterValue {
    /// The bytes, little-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The value as a number; `None` for a register of more than 16 bytes.
    pub fn as_u128(&self) -> Option<u128> {
        let mut bytes = [0; 16];
        bytes.get_mut(..self.0.len())?.copy_from_slice(&self.0);
        Some(u128::from_le_bytes(bytes))
    }
}

impl fmt::Display for RegisterValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, byte) in self.0.iter().enumerate().rev() {
            let group_ends = n % 4 == 0 && n > 0;
            write!(f, "{byte:02x}{}", if group_ends { "_" } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for RegisterValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<B: AsRef<[u8]>> Area<B> {
    /// What a register holds after a restore of this image with the full mask.
    ///
    /// # Errors
    /// The first component that the register needs and that has no place in the image, or is cut off, as
    /// [`component`](Self::component).
    pub fn register(&self, register: Register) -> Result<RegisterValue, AreaError> {
        let mut bytes = Vec::with_capacity(register.size_bytes());
        for part in register.parts() {
            let value = self.component(part.component)?;
            // A component can be smaller than the register's part only in a made-up layout.
            bytes.extend(value.get(part.range()).ok_or(AreaError::NoPlace(part.component))?);
        }
        Ok(RegisterValue(bytes))
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Area<B> {
    /// Writes a register, and sets the XSTATE_BV bits of the components that it is spread over. The rest of
    /// such a component keeps its value, the initial one where the bit was clear.
    ///
    /// # Errors
    /// [`AreaError::RegisterLength`] if `value` is not as long as the register, otherwise as
    /// [`register`](Self::register); nothing is changed.
    pub fn set_register(&mut self, register: Register, value: &[u8]) -> Result<(), AreaError> {
        let (needed_bytes, found_bytes) = (register.size_bytes(), value.len());
        if needed_bytes != found_bytes {
            return Err(AreaError::RegisterLength { register, needed_bytes, found_bytes });
        }
        // Every part has its place, or nothing is written.
        self.register(register)?;
        let mut rest = value;
        for part in register.parts() {
            let mut component = self.component(part.component)?.into_owned();
            let (bytes, behind) = rest.split_at(part.len);
            component[part.range()].copy_from_slice(bytes);
            self.set_component(part.component, &component)?;
            rest = behind;
        }
        Ok(())
    }
}
