//! The described CPUs of `cpus/`, and what tests of images on them share.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use fpuswitch::xstate::{
    Area, Component, CpuidDump, Format, Layout, OwnedArea, XcompBv, XsaveFeatures, XstateBv,
};
use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed},
};

macro_rules! cpus {
    ($($name:literal),+ $(,)?) => {
        /// The name and the text of each file.
        pub(crate) const CPUS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../cpus/", $name, ".txt")))),+];
    };
}

cpus![
    "emerald-rapids",
    "emerald-rapids-amx",
    "qemu-core2duo",
    "qemu-epyc-milan",
    "qemu-haswell",
    "qemu-haswell-noxsave",
    "qemu-max",
    "qemu-max-no-mpx",
    "qemu-max-no-pku",
    "qemu-max-no-xsave",
    "qemu-max-no-xsaveopt",
    "qemu-nehalem",
    "qemu-qemu64",
    "qemu-sandybridge",
    "qemu-skylake-client",
    "qemu-skylake-server",
    "sapphire-rapids",
    "skylake-sp",
    "zen3",
    "zen4",
];

pub(crate) const FORMATS: [Format; 3] = [Format::Fxsave, Format::Standard, Format::Compacted];

/// The CPU with this file.
pub(crate) fn cpu(name: &str) -> Layout {
    let (_, text) = CPUS.iter().find(|(n, _)| *n == name).expect("a file of that name");
    layout(text)
}

pub(crate) fn layout(text: &str) -> Layout {
    Layout::from_cpuid(&text.parse::<CpuidDump>().unwrap()).unwrap()
}

pub(crate) fn layouts() -> impl Iterator<Item = (&'static str, Layout)> {
    CPUS.iter().map(|(name, text)| (*name, layout(text)))
}

/// Whether the CPU has a restore of that format.
pub(crate) fn has_format(layout: &Layout, format: Format) -> bool {
    match format {
        Format::Fxsave => true,
        Format::Standard => layout.has_xsave(),
        Format::Compacted => layout.features().contains(XsaveFeatures::XSAVEC),
    }
}

pub(crate) fn cases(cases: u32) -> Config {
    Config { cases, rng_seed: RngSeed::Fixed(13), failure_persistence: None, ..Config::default() }
}

pub(crate) fn any_layout() -> impl Strategy<Value = Layout> {
    (0..CPUS.len(), any::<Option<u64>>()).prop_map(|(n, restriction)| {
        let layout = layout(CPUS[n].1);
        match restriction {
            Some(bits) => layout.restricted_to(fpuswitch::ComponentSet::from_bits(bits)),
            None => layout,
        }
    })
}

pub(crate) fn any_format() -> impl Strategy<Value = Format> {
    prop::sample::select(FORMATS.to_vec())
}

/// A valid image in a form that the CPU has: some components are set to something.
pub(crate) fn any_image() -> impl Strategy<Value = OwnedArea> {
    (any_layout(), any_format(), any::<u64>(), any::<u64>(), 0..=0xffff_u32).prop_map(
        |(layout, format, set, seed, mxcsr)| {
            let format = if has_format(&layout, format) { format } else { Format::Fxsave };
            image(&layout, format, set, seed, mxcsr)
        },
    )
}

/// The components `set` that have a place hold something that depends on `seed`, or their initial value and the
/// bit all the same.
pub(crate) fn image(layout: &Layout, format: Format, set: u64, seed: u64, mxcsr: u32) -> OwnedArea {
    let mut area = Area::initial(layout, format);
    if layout.enabled().contains(Component::SSE) && seed & 2 != 0 && format == Format::Standard {
        area.legacy_mut().set_mxcsr(mxcsr);
    }
    let set = fpuswitch::ComponentSet::from_bits(set) & layout.enabled();
    for component in set.iter().filter(|c| area.has_room_for(*c)).collect::<Vec<_>>() {
        let mut value = area.component(component).unwrap().into_owned();
        if seed >> component.number() & 1 != 0 {
            let start = if component == Component::SSE { 4 } else { 0 };
            fill(&mut value[start..], seed);
            if component == Component::X87 {
                clear_reserved(&mut value);
            }
            if component == Component::SSE {
                value[..4].copy_from_slice(&mxcsr.to_le_bytes());
            }
        }
        area.set_component(component, &value).unwrap();
    }
    area
}

/// Zeroes the bytes of x87 that are reserved.
pub(crate) fn clear_reserved(x87: &mut [u8]) {
    x87[5] = 0;
    x87[24..].chunks_mut(16).for_each(|slot| slot[10..].fill(0));
}

/// Bytes that depend on the seed and their place.
pub(crate) fn fill(bytes: &mut [u8], seed: u64) {
    let mut state = seed | 1;
    for byte in bytes {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        *byte = (state >> 56) as u8;
    }
}

/// An area over bytes of any length and content, with a header that is sometimes nearly right.
pub(crate) fn any_bytes() -> impl Strategy<Value = (Layout, Vec<u8>)> {
    let header = (any::<u64>(), any::<u64>(), any::<[bool; 4]>());
    (any_layout(), 0..11_100_usize, any::<u64>(), header).prop_map(|(layout, len, seed, header)| {
        let mut bytes = vec![0; len];
        fill(&mut bytes, seed);
        let (xstate_bv, xcomp_bv, [is_plausible, is_compacted, is_zeroed, has_mxcsr]) = header;
        if let Some(bytes) = bytes.get_mut(512..576).filter(|_| is_plausible) {
            let enabled = layout.enabled().bits();
            if is_zeroed {
                bytes.fill(0);
            }
            let xcomp_bv = if is_compacted { 1 << 63 | xcomp_bv & enabled } else { 0 };
            bytes[..8].copy_from_slice(&XstateBv(xstate_bv & enabled).0.to_le_bytes());
            bytes[8..16].copy_from_slice(&XcompBv(xcomp_bv).0.to_le_bytes());
        }
        if let Some(mxcsr) = bytes.get_mut(24..28).filter(|_| has_mxcsr) {
            mxcsr[2..].fill(0);
        }
        (layout, bytes)
    })
}

/// Every enabled component but PKRU holds something.
pub(crate) fn full(layout: &Layout, format: Format) -> OwnedArea {
    image(layout, format, !(1 << 9), u64::MAX, 0x9fbf)
}

/// The same image, with all that no restore looks at made garbage.
pub(crate) fn with_garbage(area: &OwnedArea) -> OwnedArea {
    let mut other = area.clone();
    let legacy = other.layout().size_bytes(Format::Fxsave);
    let (keep, xstate_bv) = (area.clone(), area.xstate_bv());
    let mxcsr = area.mxcsr();
    other.bytes_mut()[..legacy].fill(0xa5);
    if let Some(extended) = other.bytes_mut().get_mut(576..) {
        extended.fill(0xa5);
    }
    other.legacy_mut().set_mxcsr(mxcsr);
    for component in xstate_bv.components().iter() {
        other.set_component(component, &keep.component(component).unwrap()).unwrap();
    }
    other
}

pub(crate) fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    bytes[offset..offset + value.len()].copy_from_slice(value);
}

pub(crate) fn word(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

pub(crate) fn long(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

/// A thread's image on Skylake-SP with a value in some registers, and where each is in the standard format.
pub(crate) const VALUES: &[(&str, usize, &[u8])] = &[
    ("fcw", 0, &[0x7f, 0x0f]),
    ("fsw", 2, &[0, 0x38]),
    ("ftw", 4, &[0x80]),
    ("fop", 6, &[0xd9, 0x01]),
    ("fip", 8, &[1, 2, 3, 4, 5, 6, 7, 8]),
    ("fdp", 16, &[8, 7, 6, 5, 4, 3, 2, 1]),
    ("mxcsr", 24, &[0xa0, 0x9f, 0, 0]),
    ("st0", 32, &[1, 2, 3, 4, 5, 6, 7, 0x88, 9, 0x40]),
    ("st7", 144, &[0xff; 10]),
    ("xmm0", 160, &[0x10; 16]),
    ("xmm15", 400, &[0x1f; 16]),
    ("k1", 1096, &[0x61; 8]),
    ("zmm31", 2624, &[0x93; 64]),
];

pub(crate) fn thread(format: Format) -> OwnedArea {
    let mut area = Area::initial(&cpu("skylake-sp").with_mxcsr_mask(0x2_ffff), format);
    let room = |name: &str| format != Format::Fxsave || !["k1", "zmm31"].contains(&name);
    for (name, _, value) in VALUES.iter().filter(|(name, ..)| room(name)) {
        area.set_register(name.parse().unwrap(), value).unwrap();
    }
    with_garbage(&area)
}
