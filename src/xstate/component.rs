//! State components and sets of them.

use core::{fmt, ops, str::FromStr};

/// A state component: its bit number in XCR0, RFBM and XSTATE_BV. Numbers without a name here are kept.
///
/// # Reference
/// Intel SDM volume 1, section 13.1 "XSAVE-supported features and state-component bitmaps".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Component(u8);

impl Component {
    /// x87 state: bytes 0–23 and 32–159 of the legacy region.
    pub const X87: Self = Self(0);
    /// SSE state: XMM0–15 and MXCSR.
    pub const SSE: Self = Self(1);
    /// AVX state: the upper halves of YMM0–15.
    pub const AVX: Self = Self(2);
    /// MPX state: BND0–3.
    pub const BNDREGS: Self = Self(3);
    /// MPX state: BNDCFGU and BNDSTATUS.
    pub const BNDCSR: Self = Self(4);
    /// AVX-512 state: k0–k7.
    pub const OPMASK: Self = Self(5);
    /// AVX-512 state: the upper halves of ZMM0–15.
    pub const ZMM_HI256: Self = Self(6);
    /// AVX-512 state: ZMM16–31.
    pub const HI16_ZMM: Self = Self(7);
    /// The protection-key rights of user pages.
    pub const PKRU: Self = Self(9);
    /// AMX state: the tile configuration.
    pub const TILECFG: Self = Self(17);
    /// AMX state: the tiles, a dynamic component.
    pub const TILEDATA: Self = Self(18);

    const NAMES: [(Self, &'static str); 11] = [
        (Self::X87, "x87"),
        (Self::SSE, "SSE"),
        (Self::AVX, "AVX"),
        (Self::BNDREGS, "BNDREGS"),
        (Self::BNDCSR, "BNDCSR"),
        (Self::OPMASK, "opmask"),
        (Self::ZMM_HI256, "ZMM_Hi256"),
        (Self::HI16_ZMM, "Hi16_ZMM"),
        (Self::PKRU, "PKRU"),
        (Self::TILECFG, "TILECFG"),
        (Self::TILEDATA, "TILEDATA"),
    ];

    /// The component with this bit number; `None` from 63 on (bit 63 of XCOMP_BV is no component).
    pub const fn new(number: u8) -> Option<Self> {
        if number < 63 { Some(Self(number)) } else { None }
    }

    /// The bit number, 0 to 62.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(component, _)| component == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "component{}", self.0),
        }
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that names no state component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a state component such as SSE, AVX or component8")]
pub struct UnknownComponent;

impl FromStr for Component {
    type Err = UnknownComponent;

    /// Takes the names that `Display` prints, in any case.
    fn from_str(text: &str) -> Result<Self, UnknownComponent> {
        if let Some((component, _)) = Self::NAMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text)) {
            return Ok(*component);
        }
        let lower = text.to_ascii_lowercase();
        let number = lower.strip_prefix("component").ok_or(UnknownComponent)?;
        let plain = number.bytes().all(|b| b.is_ascii_digit()) && (number == "0" || !number.starts_with('0'));
        number.parse().ok().filter(|_| plain).and_then(Self::new).ok_or(UnknownComponent)
    }
}

/// A set of state components: the bits that a mask such as RFBM or XCR0 names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ComponentSet(u64);

impl ComponentSet {
    /// No component.
    pub const EMPTY: Self = Self(0);
    /// x87 and SSE, which the legacy region holds.
    pub const LEGACY: Self = Self(3);

    /// The set with exactly these bits; bit 63 is dropped, it names no component.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & !(1 << 63))
    }

    /// The bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// This set and `component`.
    #[must_use]
    pub const fn with(self, component: Component) -> Self {
        Self(self.0 | 1 << component.0)
    }

    /// This set without `component`.
    #[must_use]
    pub const fn without(self, component: Component) -> Self {
        Self(self.0 & !(1 << component.0))
    }

    /// Whether `component` is in the set.
    pub const fn contains(self, component: Component) -> bool {
        self.0 & 1 << component.0 != 0
    }

    /// Whether there is no component in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of these are in `other`.
    pub const fn is_subset_of(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// The components, by ascending number.
    pub fn iter(self) -> impl Iterator<Item = Component> {
        let lowest = |bits: u64| (bits != 0).then_some(bits);
        // Clearing the lowest bit of a set leads to the rest of it.
        let rests = core::iter::successors(lowest(self.0), move |bits| lowest(bits & (bits - 1)));
        rests.map(|bits| Component(bits.trailing_zeros() as u8))
    }
}

impl ops::BitAnd for ComponentSet {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl ops::BitOr for ComponentSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl ops::Sub for ComponentSet {
    type Output = Self;

    /// Those that are not in `other`.
    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl FromIterator<Component> for ComponentSet {
    fn from_iter<I: IntoIterator<Item = Component>>(components: I) -> Self {
        components.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Debug for ComponentSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn every_component_prints_and_parses_back() {
        for component in ComponentSet::from_bits(u64::MAX).iter() {
            assert_eq!(component.to_string().parse(), Ok(component));
        }
        assert_eq!("hi16_zmm".parse(), Ok(Component::HI16_ZMM));
        assert_eq!("component8".parse(), Ok(Component(8)));
        assert_eq!("Component8".parse(), Ok(Component(8)));
        for text in ["", "component", "component63", "component+8", "component08", "MMX"] {
            assert_eq!(text.parse::<Component>(), Err(UnknownComponent), "{text:?}");
        }
    }

    #[test]
    fn sets_hold_what_was_put_in() {
        let set = ComponentSet::EMPTY.with(Component::AVX).with(Component::PKRU);
        assert_eq!(set.bits(), 0x204);
        assert!(set.without(Component::AVX).iter().eq([Component::PKRU]));
        assert_eq!(ComponentSet::from_bits(1 << 63), ComponentSet::EMPTY);
        let legacy: ComponentSet = [Component::SSE, Component::X87].into_iter().collect();
        assert_eq!(legacy, ComponentSet::LEGACY);
        assert_eq!(((legacy | set) - set, (legacy | set) & set), (legacy, set));
        assert!(set.is_subset_of(legacy | set) && !set.is_subset_of(legacy) && (set - set).is_empty());
    }
}
