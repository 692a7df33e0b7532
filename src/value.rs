//! What a state component holds, as small numbers, and the PKRU register.

use core::{fmt, str::FromStr};

/// The content of one state component, as a pattern number.
///
/// 0 is the initial configuration. The abstract register file stores the number itself; a register file
/// with real bytes fills the component with a pattern made from it, so that two different numbers never
/// agree. Two numbers are kept for contents that no program asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(u8);

impl Value {
    /// The initial configuration.
    pub const INITIAL: Self = Self(0);
    /// What kernel code leaves in the registers.
    pub const KERNEL: Self = Self(254);
    /// Unspecified: a failed load, or a torn pattern.
    pub const UNSPECIFIED: Self = Self(255);

    /// The pattern `number`; `None` for the two numbers kept for kernel and unspecified contents.
    pub const fn new(number: u8) -> Option<Self> {
        if number < Self::KERNEL.0 { Some(Self(number)) } else { None }
    }

    /// The pattern `number`, one of the two kept for other contents included.
    pub(crate) const fn from_number(number: u8) -> Self {
        Self(number)
    }

    /// The pattern number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::KERNEL => f.write_str("kernel"),
            Self::UNSPECIFIED => f.write_str("unspecified"),
            Self(number) => write!(f, "{number}"),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The PKRU register: two bits for each of 16 protection keys.
///
/// # Reference
/// Intel SDM volume 3, section 4.6.2 "Protection Keys".
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Pkru(pub u32);

impl Pkru {
    /// What Linux gives a new program: only key 0 may be used (`init_pkru_value`, arch/x86/mm/pkeys.c).
    pub const DEFAULT: Self = Self(0x5555_5554);

    /// Whether an access to a user page is allowed: access-disable of its key is clear and, for a write,
    /// write-disable too (the kernel's accesses included, as CR0.WP is set).
    pub const fn allows(self, access: PageAccess) -> bool {
        let rights = self.0 >> (2 * access.key);
        rights & 1 == 0 && !(access.write && rights & 2 != 0)
    }
}

/// An access to a page of user memory: its protection key, and whether it is a write. The text form is `read 1` or
/// `write 1`.
///
/// ```
/// use fpuswitch::{PageAccess, Pkru};
/// let page = PageAccess::new(1, false).unwrap();
/// assert!(!Pkru::DEFAULT.allows(page));
/// assert!(Pkru(0x5555_5550).allows(page));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageAccess {
    key: u8,
    write: bool,
}

impl PageAccess {
    /// An access to a page with key `key`; `None` from 16 on.
    pub const fn new(key: u8, write: bool) -> Option<Self> {
        if key < 16 { Some(Self { key, write }) } else { None }
    }

    /// The protection key.
    pub const fn key(self) -> u8 {
        self.key
    }

    /// Whether it is a write.
    pub const fn is_write(self) -> bool {
        self.write
    }
}

impl fmt::Display for PageAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.write { "write" } else { "read" }, self.key)
    }
}

impl fmt::Debug for PageAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Pkru {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Pkru {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is no component value, or no PKRU value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a pattern number.
    #[error("expected a value from 0 to 253")]
    NotAValue,
    /// Not a PKRU value.
    #[error("expected a PKRU value in hexadecimal such as 0x55555554")]
    NotAPkru,
}

impl FromStr for Value {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let number = if digits { text.parse().ok() } else { None };
        number.and_then(Self::new).ok_or(ValueError::NotAValue)
    }
}

impl FromStr for Pkru {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let digits = text.strip_prefix("0x").ok_or(ValueError::NotAPkru)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ValueError::NotAPkru);
        }
        u32::from_str_radix(digits, 16).map(Self).map_err(|_| ValueError::NotAPkru)
    }
}
