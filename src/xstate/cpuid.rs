//! Where layouts come from: CPUID, read through an interface, and CPUID of another machine, from text.

use alloc::collections::BTreeMap;
use core::{num::ParseIntError, str::FromStr};

/// What CPUID gives for one leaf and sub-leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the registers' names say it all")]
pub struct CpuidResult {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// A CPU that can be asked: the host, or a description of another one.
pub trait CpuidReader {
    /// Executes CPUID with EAX = `leaf` and ECX = `subleaf`.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult;

    /// Executes XGETBV with ECX = 0. Asked only where CPUID says that OSXSAVE is set.
    fn xcr0(&self) -> u64;
}

/// CPUID of some machine, as text in the form of `cpuid -r`, and its XCR0.
///
/// One line a sub-leaf; `XCR0:` has a line of its own, which the tool does not print. Without it, what sub-leaf 0
/// of leaf 0DH lists counts as enabled as far as it fits into the size that it gives for XCR0. Empty lines, what follows `#`, and the heading
/// `CPU 0:` are passed over; the second CPU and those behind it are not read. A leaf that has no line
/// is all zero.
///
/// ```
/// use fpuswitch::xstate::{Component, CpuidDump, Format, Layout};
/// let dump: CpuidDump = "
///     CPU 0:
///        0x00000000 0x00: eax=0x0000000d ebx=0 ecx=0 edx=0
///        0x00000001 0x00: eax=0 ebx=0 ecx=0x0c000000 edx=0x07000000
///        0x0000000d 0x00: eax=0x7 ebx=0x340 ecx=0x340 edx=0x0
///        0x0000000d 0x02: eax=0x100 ebx=0x240 ecx=0x0 edx=0x0
///     XCR0: 0x7".parse()?;
/// let layout = Layout::from_cpuid(&dump)?;
/// assert_eq!(layout.size_bytes(Format::Standard), 832);
/// assert_eq!(layout.place(Component::AVX).unwrap().offset_bytes, 576);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuidDump {
    leaves: BTreeMap<(u32, u32), CpuidResult>,
    xcr0: Option<u64>,
}

impl CpuidDump {
    /// Whether the text said what XCR0 is.
    pub fn has_xcr0(&self) -> bool {
        self.xcr0.is_some()
    }
}

impl CpuidReader for CpuidDump {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        self.leaves.get(&(leaf, subleaf)).copied().unwrap_or_default()
    }

    fn xcr0(&self) -> u64 {
        let all = self.cpuid(0x0d, 0);
        let listed = u64::from(all.edx) << 32 | u64::from(all.eax);
        let fits = |number: &u32| {
            let place = self.cpuid(0x0d, *number);
            *number < 2 || place.ebx.saturating_add(place.eax) <= all.ebx
        };
        let fitting = || (0..63).filter(fits).fold(0, |bits, number| bits | 1 << number);
        self.xcr0.unwrap_or_else(|| listed & fitting())
    }
}

/// A line of a CPUID dump that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct CpuidDumpError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: CpuidLineProblem,
}

/// What is wrong with a line of a CPUID dump.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CpuidLineProblem {
    /// Neither of the two forms.
    #[error("expected `0xLEAF 0xSUBLEAF: eax=… ebx=… ecx=… edx=…` or `XCR0: 0x…`")]
    Form,
    /// Not a number.
    #[error("{text:?} is no number of that size: {source}")]
    Number {
        /// What stands there.
        text: alloc::string::String,
        /// Why not.
        source: ParseIntError,
    },
    /// The same leaf and sub-leaf, or XCR0, a second time with other values.
    #[error("the second value for the same leaf")]
    Twice,
}

impl FromStr for CpuidDump {
    type Err = CpuidDumpError;

    fn from_str(text: &str) -> Result<Self, CpuidDumpError> {
        let mut dump = Self::default();
        let mut headings = 0;
        for (n, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            let is_heading = line.starts_with("CPU") && line.ends_with(':');
            headings += usize::from(is_heading);
            if headings > 1 {
                break;
            }
            if !line.is_empty() && !is_heading {
                dump.line(line).map_err(|problem| CpuidDumpError { line: n + 1, problem })?;
            }
        }
        Ok(dump)
    }
}

impl CpuidDump {
    fn line(&mut self, line: &str) -> Result<(), CpuidLineProblem> {
        let (name, values) = line.split_once(':').ok_or(CpuidLineProblem::Form)?;
        if name.eq_ignore_ascii_case("XCR0") {
            let xcr0 = number(values.trim(), u64::from_str_radix)?;
            return match self.xcr0.replace(xcr0) {
                Some(before) if before != xcr0 => Err(CpuidLineProblem::Twice),
                _ => Ok(()),
            };
        }
        let (leaf, subleaf) = name.split_once(' ').ok_or(CpuidLineProblem::Form)?;
        let key = (number(leaf, u32::from_str_radix)?, number(subleaf.trim(), u32::from_str_radix)?);
        let mut values = values.split_whitespace();
        let mut register = |name: &str| {
            let value = values.next().and_then(|value| value.strip_prefix(name));
            number(
                value.and_then(|value| value.strip_prefix('=')).ok_or(CpuidLineProblem::Form)?,
                u32::from_str_radix,
            )
        };
        let result = CpuidResult {
            eax: register("eax")?,
            ebx: register("ebx")?,
            ecx: register("ecx")?,
            edx: register("edx")?,
        };
        if values.next().is_some() {
            return Err(CpuidLineProblem::Form);
        }
        match self.leaves.insert(key, result) {
            Some(before) if before != result => Err(CpuidLineProblem::Twice),
            _ => Ok(()),
        }
    }
}

/// A hexadecimal number, with or without `0x`.
fn number<T>(
    text: &str,
    parse: impl FnOnce(&str, u32) -> Result<T, ParseIntError>,
) -> Result<T, CpuidLineProblem> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let unsigned = if digits.starts_with(['+', '-']) { "" } else { digits };
    parse(unsigned, 16).map_err(|source| CpuidLineProblem::Number { text: text.into(), source })
}
