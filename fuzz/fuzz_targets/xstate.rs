//! Images of any bytes, for CPUs of any description: see README.md.
#![no_main]

use fpuswitch::xstate::{
    Area, ConvertError, CpuidDump, CpuidReader, CpuidResult, Format, Layout, Refusal, Register, Rfbm,
    XcompBv, XstateBv,
};
use fpuswitch::{Component, ComponentSet};
use libfuzzer_sys::fuzz_target;

macro_rules! cpus {
    ($($name:literal),+ $(,)?) => { [$(include_str!(concat!("../../cpus/", $name, ".txt"))),+] };
}

const CPUS: [&str; 9] = cpus![
    "emerald-rapids-amx",
    "qemu-haswell",
    "qemu-max",
    "qemu-nehalem",
    "qemu-skylake-server",
    "sapphire-rapids",
    "skylake-sp",
    "zen3",
    "zen4",
];

const FORMATS: [Format; 3] = [Format::Fxsave, Format::Standard, Format::Compacted];

/// Takes values off the front of the input, and zeros when it is used up.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    fn long(&mut self) -> u64 {
        u64::from(self.word()) << 32 | u64::from(self.word())
    }
}

/// A CPU with some described components.
struct Described {
    leaves: Vec<CpuidResult>,
    xcr0: u64,
    features: u32,
    size: u32,
}

impl CpuidReader for Described {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        match (leaf, subleaf) {
            (0, _) => CpuidResult { eax: 0xd, ..CpuidResult::default() },
            (1, _) => CpuidResult { ecx: 1 << 27, edx: 1 << 24, ..CpuidResult::default() },
            (_, 0) => CpuidResult { ebx: self.size, ..CpuidResult::default() },
            (_, 1) => CpuidResult { eax: self.features, ..CpuidResult::default() },
            (_, n) => self.leaves.get(n as usize - 2).copied().unwrap_or_default(),
        }
    }

    fn xcr0(&self) -> u64 {
        self.xcr0
    }
}

fn layout(input: &mut Input) -> Option<Layout> {
    let choice = input.byte();
    let layout = match CPUS.get(usize::from(choice & 0x1f)) {
        Some(text) => Layout::from_cpuid(&text.parse::<CpuidDump>().ok()?).ok()?,
        None => {
            let count = input.byte() % 20;
            let leaf = |input: &mut Input| CpuidResult {
                eax: if choice & 0x80 != 0 { input.word() } else { input.word() & 0xfff },
                ebx: if choice & 0x80 != 0 { input.word() } else { input.word() & 0x3fff },
                ecx: u32::from(input.byte()),
                edx: 0,
            };
            let leaves = (0..count).map(|_| leaf(input)).collect();
            let features = u32::from(input.byte());
            let size = if choice & 0x40 != 0 { input.word() } else { 0 };
            Layout::from_cpuid(&Described { leaves, xcr0: input.long() | 1, features, size }).ok()?
        }
    };
    let layout =
        if choice & 0x20 != 0 { layout.restricted_to(ComponentSet::from_bits(input.long())) } else { layout };
    Some(if choice & 0x80 != 0 { layout.with_mxcsr_mask(input.word()) } else { layout })
}

fn fuzz(input: &mut Input) -> Option<()> {
    let (from, to) = (layout(input)?, layout(input)?);
    let flags = input.byte();
    let format = FORMATS[usize::from(flags % 3)];
    let (mask, set, place) = (input.long(), input.long(), input.long());
    let mut bytes = input.0.to_vec();
    let _ = Layout::from_regset(&bytes);
    let _ = Layout::from_note(&bytes);
    // Mostly long enough, and with a header that is nearly right.
    if flags & 0x80 == 0 {
        bytes.resize(from.size_bytes(Format::Standard).max(from.size_bytes(Format::Compacted)), 0);
    }
    let mut area = Area::over(&mut bytes[..], &from).ok()?;
    if flags & 0x40 == 0 {
        let enabled = from.enabled().bits();
        area.set_xcomp_bv(XcompBv(if format == Format::Compacted { 1 << 63 | place & enabled } else { 0 }));
        let places = if format == Format::Compacted { place & enabled } else { enabled };
        area.set_xstate_bv(XstateBv(set & places));
        if let Some(reserved) = area.bytes_mut().get_mut(528..576) {
            reserved.fill(0);
        }
        let mxcsr = area.legacy().mxcsr() & from.mxcsr_mask();
        area.legacy_mut().set_mxcsr(mxcsr);
    }
    let rfbm = Rfbm::new(ComponentSet::from_bits(mask));
    let found = area.format();
    let accepted = area.check(found, Rfbm::ALL);
    if accepted.is_ok() {
        assert_eq!(area.check(found, rfbm), Ok(()));
    }
    if area.check_user_image(ComponentSet::from_bits(mask)).is_ok() {
        assert!(matches!(area.check(found, rfbm), Ok(()) | Err(Refusal::BeyondEnd { .. })));
    }
    for format in FORMATS {
        // To itself: there is always a way.
        match area.convert(&from, format) {
            Ok(there) => {
                assert!(there.same_values(&area));
                assert_eq!(there.check(format, Rfbm::ALL), Ok(()));
            }
            Err(ConvertError::Source(_)) => assert!(accepted.is_err()),
            Err(ConvertError::Target(_)) => assert_ne!(format, found),
            Err(ConvertError::NoPlace(component)) => {
                assert!(format != found || found == Format::Compacted);
                assert!(area.component(component).is_ok());
            }
            Err(error) => panic!("{error}"),
        }
        // To somewhere else, and back.
        if let Ok(there) = area.convert(&to, format) {
            assert!(there.same_values(&area) && area.same_values(&there));
            assert_eq!(there.check(format, Rfbm::ALL), Ok(()));
            match there.convert(&from, found) {
                Ok(back) => assert!(back.same_values(&area)),
                // The image was longer than its CPU makes them, or a component that is not enabled was in it.
                Err(error) => {
                    assert!(accepted.is_err() || matches!(error, ConvertError::NoPlace(_)), "{error}")
                }
            }
        }
    }
    let before = area.bytes().to_vec();
    for component in ComponentSet::from_bits(u64::MAX).iter() {
        if let Ok(value) = area.component(component).map(|value| value.into_owned()) {
            area.set_component(component, &value).unwrap();
            assert_eq!(area.component(component).unwrap(), value);
        }
    }
    for register in Register::all() {
        match area.register(register) {
            Ok(value) => {
                area.set_register(register, value.bytes()).unwrap();
                assert_eq!(area.register(register), Ok(value));
            }
            Err(error) => {
                let value = vec![0; register.size_bytes()];
                assert_eq!(area.set_register(register, &value), Err(error));
            }
        }
    }
    // What is cut off cannot be written, and no two images are the same that have it.
    let before = Area::over(&before[..], &from).unwrap();
    for component in (from.enabled() | ComponentSet::LEGACY).iter() {
        assert_eq!(before.component(component), area.component(component));
    }
    area.set_initial_values();
    assert!(area.component(Component::X87).is_ok());
    Some(())
}

fuzz_target!(|data: &[u8]| {
    let _ = fuzz(&mut Input(data));
});
