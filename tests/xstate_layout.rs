//! Where components lie, on every CPU that is described in `cpus/`, and what is no description.

mod cpus;

use cpus::{CPUS, cpu, layouts};
use fpuswitch::{
    Component, ComponentSet,
    xstate::{
        Area, CpuidDump, CpuidDumpError, CpuidLineProblem, CpuidReader, Format, Layout, LayoutError, XcompBv,
        XsaveFeatures,
    },
};

const C: fn(u8) -> Component = |number| Component::new(number).unwrap();

/// Component, offset in the standard format, offset in the compacted format with all enabled components.
type Row = (u8, u32, usize);

/// What the manual's rules make of the tables, worked out by hand: name, XCR0, standard size, compacted size.
const LAYOUTS: &[(&str, u64, usize, usize, &[Row])] = &[
    ("emerald-rapids", 0xe7, 2688, 2432, &[(2, 576, 576), (5, 1088, 832), (6, 1152, 896), (7, 1664, 1408)]),
    (
        "emerald-rapids-amx",
        0x600e7,
        11008,
        10688,
        &[(2, 576, 576), (5, 1088, 832), (6, 1152, 896), (7, 1664, 1408), (17, 2752, 2432), (18, 2816, 2496)],
    ),
    ("qemu-max", 0x21f, 2696, 968, &[(2, 576, 576), (3, 960, 832), (4, 1024, 896), (9, 2688, 960)]),
    ("qemu-max-no-mpx", 0x207, 2696, 840, &[(2, 576, 576), (9, 2688, 832)]),
    ("qemu-max-no-pku", 0x1f, 1088, 960, &[(2, 576, 576), (3, 960, 832), (4, 1024, 896)]),
    (
        "qemu-max-no-xsaveopt",
        0x21f,
        2696,
        968,
        &[(2, 576, 576), (3, 960, 832), (4, 1024, 896), (9, 2688, 960)],
    ),
    ("qemu-max-no-xsave", 3, 512, 512, &[]),
    ("qemu-skylake-server", 0x207, 2696, 840, &[(2, 576, 576), (9, 2688, 832)]),
    ("qemu-epyc-milan", 0x207, 2696, 840, &[(2, 576, 576), (9, 2688, 832)]),
    ("qemu-skylake-client", 7, 832, 832, &[(2, 576, 576)]),
    ("qemu-haswell", 7, 832, 832, &[(2, 576, 576)]),
    ("qemu-haswell-noxsave", 3, 512, 512, &[]),
    ("qemu-sandybridge", 7, 832, 832, &[(2, 576, 576)]),
    ("qemu-nehalem", 3, 512, 512, &[]),
    ("qemu-core2duo", 3, 512, 512, &[]),
    ("qemu-qemu64", 3, 512, 512, &[]),
    (
        "skylake-sp",
        0x2ff,
        2696,
        2568,
        &[
            (2, 576, 576),
            (3, 960, 832),
            (4, 1024, 896),
            (5, 1088, 960),
            (6, 1152, 1024),
            (7, 1664, 1536),
            (9, 2688, 2560),
        ],
    ),
    (
        // PKRU ends at 2440, and the next component is aligned.
        "sapphire-rapids",
        0x602e7,
        11008,
        10752,
        &[
            (2, 576, 576),
            (5, 1088, 832),
            (6, 1152, 896),
            (7, 1664, 1408),
            (9, 2688, 2432),
            (17, 2752, 2496),
            (18, 2816, 2560),
        ],
    ),
    (
        "zen4",
        0x2e7,
        2440,
        2440,
        &[(2, 576, 576), (5, 832, 832), (6, 896, 896), (7, 1408, 1408), (9, 2432, 2432)],
    ),
    ("zen3", 0x207, 840, 840, &[(2, 576, 576), (9, 832, 832)]),
];

#[test]
fn layouts_of_described_cpus_are_as_worked_out_by_hand() {
    assert_eq!(LAYOUTS.len(), CPUS.len());
    for (name, xcr0, standard, compacted, rows) in LAYOUTS {
        let layout = cpu(name);
        assert_eq!(layout.enabled().bits(), *xcr0, "{name}");
        assert_eq!(layout.size_bytes(Format::Standard), *standard, "{name}");
        assert_eq!(layout.size_bytes(Format::Compacted), *compacted, "{name}");
        assert_eq!(layout.size_bytes(Format::Fxsave), 512, "{name}");
        let all = XcompBv::compacted(layout.enabled());
        let extended = layout.enabled().iter().filter(|c| c.number() >= 2);
        assert!(extended.map(Component::number).eq(rows.iter().map(|row| row.0)), "{name}");
        for (number, offset, compacted_offset) in *rows {
            assert_eq!(layout.place(C(*number)).unwrap().offset_bytes, *offset, "{name} {number}");
            let found = layout.compacted_offset_bytes(all, C(*number));
            assert_eq!(found, Some(*compacted_offset), "{name} {number}");
        }
    }
}

#[test]
fn sizes_are_those_that_cpuid_gives() {
    for (name, text) in CPUS {
        let dump: CpuidDump = text.parse().unwrap();
        let layout = Layout::from_cpuid(&dump).unwrap();
        if !layout.has_xsave() {
            continue;
        }
        let (leaf, compacted) = (dump.cpuid(0xd, 0), dump.cpuid(0xd, 1).ebx as usize);
        assert_eq!(layout.size_bytes(Format::Standard), leaf.ebx as usize, "{name}");
        assert_eq!(layout.standard_size_bytes(layout.listed()), Some(leaf.ecx as usize), "{name}");
        // EBX of sub-leaf 1 is for XCR0 and IA32_XSS. QEMU counts what is listed, and fills it in without XSAVEC.
        let counted = if name.starts_with("qemu") { layout.listed() } else { layout.enabled() };
        assert_eq!(layout.compacted_size_bytes(XcompBv::compacted(counted)), Some(compacted), "{name}");
    }
}

#[test]
fn compacted_offsets_depend_on_what_is_in_the_image() {
    let layout = cpu("sapphire-rapids");
    let amx = ComponentSet::EMPTY.with(Component::TILECFG).with(Component::TILEDATA);
    let offset = |set, component| layout.compacted_offset_bytes(XcompBv::compacted(set), component);
    assert_eq!(offset(amx, Component::TILEDATA), Some(640));
    // Behind 8 bytes of PKRU, the next multiple of 64.
    assert_eq!(offset(amx.with(Component::PKRU), Component::TILECFG), Some(640));
    assert_eq!(offset(amx.with(Component::PKRU), Component::TILEDATA), Some(704));
    assert_eq!(offset(amx, Component::AVX), None);
    assert_eq!(offset(amx.with(Component::SSE), Component::SSE), None);
    assert_eq!(offset(amx.with(C(8)), Component::TILECFG), None, "an undescribed component before it");
    assert_eq!(offset(amx.with(C(62)), Component::TILECFG), Some(576), "an undescribed component behind it");
    assert_eq!(layout.compacted_size_bytes(XcompBv::compacted(amx.with(C(62)))), None);
    assert_eq!(layout.standard_size_bytes(amx), Some(11008));
    assert_eq!(layout.standard_size_bytes(amx.with(C(62))), None);
    assert_eq!(layout.standard_size_bytes(ComponentSet::from_bits(3)), Some(576));
}

#[test]
fn features_and_flags_are_read() {
    let layout = cpu("sapphire-rapids");
    assert!(layout.features().is_all());
    let tiles = layout.place(Component::TILEDATA).unwrap();
    assert!(tiles.is_aligned && tiles.is_dynamic && !tiles.is_supervisor);
    let config = layout.place(Component::TILECFG).unwrap();
    assert!(config.is_aligned && !config.is_dynamic);
    assert_eq!(cpu("qemu-haswell").features(), XsaveFeatures::XSAVEOPT);
    assert_eq!(cpu("qemu-max-no-xsaveopt").features(), XsaveFeatures::XGETBV1);
    assert!(!cpu("emerald-rapids").enabled().contains(Component::TILECFG));
    assert!(cpu("emerald-rapids").listed().contains(Component::TILECFG));
}

#[test]
fn leaf_0dh_counts_only_below_the_maximum_and_with_osxsave() {
    let nehalem = CPUS.iter().find(|(name, _)| *name == "qemu-nehalem").unwrap().1;
    let osxsave = |text: &str| text.replace("ecx=0x00000000 edx=0x07000000", "ecx=0x0c000000 edx=0x07000000");
    let enabled = osxsave(nehalem);
    assert_ne!(enabled, nehalem);
    assert_eq!(Layout::from_cpuid(&enabled.parse::<CpuidDump>().unwrap()), Ok(Layout::fxsave_only()));
    // The same with a maximum that includes the leaf: now it is believed, and is nonsense.
    let believed = enabled.replace("eax=0x0000000b", "eax=0x0000000d");
    assert_eq!(Layout::from_cpuid(&believed.parse::<CpuidDump>().unwrap()), Err(LayoutError::NoX87(1 << 32)));

    let haswell = CPUS.iter().find(|(name, _)| *name == "qemu-haswell").unwrap().1;
    let disabled = haswell.replace("ecx=0x0c000000", "ecx=0x04000000");
    assert_eq!(Layout::from_cpuid(&disabled.parse::<CpuidDump>().unwrap()), Ok(Layout::fxsave_only()));
    for name in ["qemu-core2duo", "qemu-qemu64", "qemu-max-no-xsave", "qemu-haswell-noxsave"] {
        assert_eq!(cpu(name), Layout::fxsave_only(), "{name}");
    }
}

#[test]
fn bad_descriptions_are_refused_by_name() {
    let haswell = CPUS.iter().find(|(name, _)| *name == "qemu-haswell").unwrap().1;
    let avx = "0x0000000d 0x02: eax=0x00000100 ebx=0x00000240 ecx=0x00000000 edx=0x00000000";
    let out = |offset_bytes, size_bytes| LayoutError::OutOfBounds {
        component: Component::AVX,
        offset_bytes,
        size_bytes,
    };
    let not_described = |component, xcr0| LayoutError::NotDescribed { component, xcr0 };
    let supervisor = LayoutError::Supervisor { component: Component::AVX, xcr0: 7 };
    let small = LayoutError::Size { component: Component::AVX, needed_bytes: 256, found_bytes: 255 };
    let overlap = LayoutError::Overlap {
        first: Component::AVX,
        end_bytes: 832,
        second: Component::BNDREGS,
        offset_bytes: 831,
    };
    let rows: [(&str, &str, LayoutError); 14] = [
        ("edx=0x07000000", "edx=0x06000000", LayoutError::NoFxsave),
        ("XCR0: 0x7", "XCR0: 0x6", LayoutError::NoX87(6)),
        ("XCR0: 0x7", "XCR0: 0x8000000000000007", LayoutError::Xcr0(1 << 63 | 7)),
        ("XCR0: 0x7", "XCR0: 0x17", not_described(Component::BNDCSR, 0x17)),
        (avx, "", not_described(Component::AVX, 7)),
        ("ebx=0x00000240 ecx=0x00000000", "ebx=0x00000240 ecx=1", supervisor),
        ("eax=0x00000100", "eax=0x000000ff", small),
        ("ebx=0x00000340 ecx", "ebx=0xffffffff ecx", LayoutError::TooLarge { given_bytes: u32::MAX }),
        ("ebx=0x00000240", "ebx=0x0000023f", out(0x23f, 0x100)),
        ("ebx=0x00000240", "ebx=0x00100000", out(0x10_0000, 0x100)),
        ("ebx=0x00000240", "ebx=0xffffff80", out(0xffff_ff80, 0x100)),
        ("eax=0x00000100", "eax=0xffffffff", out(0x240, u32::MAX)),
        (
            "ebx=0x00000340 ecx=0x00000340",
            "ebx=0x0000033f ecx=0x00000340",
            LayoutError::TooSmall { given_bytes: 831, needed_bytes: 832 },
        ),
        ("XCR0: 0x7", "0x0000000d 0x03: eax=0x40 ebx=0x33f ecx=0 edx=0\nXCR0: 0xf", overlap),
    ];
    for (from, to, expected) in rows {
        let text = haswell.replace(from, to);
        assert_ne!(text, haswell, "{from}");
        assert_eq!(Layout::from_cpuid(&text.parse::<CpuidDump>().unwrap()), Err(expected), "{to}");
    }
    // One byte further there is room.
    let neighbour = haswell
        .replace("XCR0: 0x7", "0x0000000d 0x03: eax=0x40 ebx=0x340 ecx=0 edx=0\nXCR0: 0xf")
        .replace("ebx=0x00000340 ecx=0x00000340", "ebx=0x00000380 ecx=0x00000380");
    assert!(Layout::from_cpuid(&neighbour.parse::<CpuidDump>().unwrap()).is_ok());
}

#[test]
fn a_supervisor_component_has_no_offset_in_the_standard_format() {
    let text = CPUS.iter().find(|(name, _)| *name == "zen3").unwrap().1;
    let text = format!("{text}0x0000000d 0x0b: eax=0x10 ebx=0 ecx=1 edx=0\n");
    let layout = cpus::layout(&text);
    let cet = C(11);
    assert!(layout.place(cet).unwrap().is_supervisor);
    assert!(!layout.enabled().contains(cet));
    assert_eq!(layout.standard_size_bytes(layout.listed()), None);
    assert_eq!(layout.compacted_size_bytes(XcompBv::compacted(layout.listed())), Some(856));
}

#[test]
fn a_restricted_layout_keeps_the_offsets() {
    let layout = cpu("skylake-sp");
    let some = layout.restricted_to(ComponentSet::EMPTY.with(Component::SSE).with(Component::OPMASK));
    assert_eq!(some.enabled().bits(), 0b10_0011, "x87 stays");
    assert_eq!(some.places(), layout.places());
    assert_eq!(some.size_bytes(Format::Standard), 1152);
    assert_eq!(some.size_bytes(Format::Compacted), 640);
    assert_eq!(layout.restricted_to(layout.enabled()), layout);
    assert_eq!(some.restricted_to(layout.enabled()), some, "nothing comes back");
    let least = layout.restricted_to(ComponentSet::EMPTY);
    assert_eq!((least.enabled().bits(), least.size_bytes(Format::Standard)), (1, 576));
}

#[test]
fn every_mxcsr_mask_has_the_bits_that_all_cpus_have() {
    let layout = Layout::fxsave_only();
    assert_eq!(layout.mxcsr_mask(), 0xffff);
    assert_eq!(layout.with_mxcsr_mask(0).mxcsr_mask(), 0xffbf);
    assert_eq!(layout.with_mxcsr_mask(0x2_ffff).mxcsr_mask(), 0x2_ffff);
    assert_eq!(layout.with_mxcsr_mask(0x2_0000).mxcsr_mask(), 0x2_ffbf);
}

/// The note that Linux writes for this CPU.
fn note(layout: &Layout) -> Vec<u8> {
    let enabled = layout.places().iter().filter(|place| layout.enabled().contains(place.component));
    enabled
        .flat_map(|place| [u32::from(place.component.number()), place.size_bytes, place.offset_bytes, 0])
        .flat_map(u32::to_le_bytes)
        .collect()
}

#[test]
fn a_layout_note_describes_the_same_areas() {
    for (name, layout) in layouts().filter(|(_, layout)| layout.has_xsave()) {
        let told = Layout::from_note(&note(&layout)).unwrap();
        assert_eq!(told.enabled(), layout.enabled(), "{name}");
        for format in [Format::Standard, Format::Compacted] {
            assert_eq!(told.size_bytes(format), layout.size_bytes(format), "{name}");
        }
        for component in told.enabled().iter().filter(|c| c.number() >= 2) {
            assert_eq!(told.place(component), layout.place(component), "{name}");
        }
    }
    assert_eq!(Layout::from_note(&[]).unwrap().enabled().bits(), 3);
}

#[test]
fn bad_notes_are_refused_by_entry() {
    let good = note(&cpu("zen3"));
    assert_eq!(Layout::from_note(&good[..31]), Err(LayoutError::NoteLength(31)));
    for number in [0, 1, 63, 256 + 2, u32::MAX] {
        let mut bad = good.clone();
        bad[16..20].copy_from_slice(&number.to_le_bytes());
        assert_eq!(Layout::from_note(&bad), Err(LayoutError::NoteComponent { entry: 1, number }));
    }
    let twice = [&good[..16], &good[..16]].concat();
    assert_eq!(Layout::from_note(&twice), Err(LayoutError::NoteComponent { entry: 1, number: 2 }));
    let mut overlapping = good.clone();
    overlapping[24..28].copy_from_slice(&831_u32.to_le_bytes());
    let overlap = LayoutError::Overlap {
        first: Component::AVX,
        end_bytes: 832,
        second: Component::PKRU,
        offset_bytes: 831,
    };
    assert_eq!(Layout::from_note(&overlapping), Err(overlap));
}

/// A register set as Linux hands it out: XCR0 at byte 464.
fn regset(xcr0: u64, size_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; size_bytes];
    bytes[464..472].copy_from_slice(&xcr0.to_le_bytes());
    bytes
}

#[test]
fn register_sets_of_published_cpus_are_recognised() {
    // The emulated Milan has Intel's layout, and QEMU's CPUs with fewer components are parts of Intel's.
    for (name, layout) in layouts() {
        let set = regset(layout.enabled().bits(), layout.size_bytes(Format::Standard));
        let guess = Layout::from_regset(&set).unwrap();
        assert_eq!(guess.enabled(), layout.enabled(), "{name}");
        for component in guess.enabled().iter().filter(|c| c.number() >= 2) {
            let offset = |layout: &Layout| layout.place(component).unwrap().offset_bytes;
            assert_eq!(offset(&guess), offset(&layout), "{name} {component}");
        }
    }
}

#[test]
fn the_size_tells_the_vendors_apart() {
    let pkru = |size| {
        Layout::from_regset(&regset(0x207, size)).map(|l| l.place(Component::PKRU).unwrap().offset_bytes)
    };
    assert_eq!([pkru(2696), pkru(2440), pkru(840)], [Ok(2688), Ok(2432), Ok(832)]);
    assert_eq!(pkru(2688), Err(LayoutError::Unknown { xcr0: 0x207, size_bytes: 2688 }));
    // With x87, SSE and AVX alone they are the same, so it does not matter which one is taken.
    assert_eq!(Layout::from_regset(&regset(7, 832)).unwrap().size_bytes(Format::Standard), 832);
    assert_eq!(Layout::from_regset(&regset(3, 576)).unwrap().enabled().bits(), 3);
}

#[test]
fn register_sets_that_fit_no_cpu_are_refused() {
    assert_eq!(Layout::from_regset(&[0; 512]), Ok(Layout::fxsave_only()));
    for size in [0, 511, 513, 575] {
        assert_eq!(Layout::from_regset(&vec![0; size]), Err(LayoutError::RegsetLength(size)));
    }
    for (xcr0, size_bytes) in [(0, 576), (2, 576), (1 << 62 | 3, 576), (7, 576), (7, 840), (u64::MAX, 11008)]
    {
        let refused = Layout::from_regset(&regset(xcr0, size_bytes));
        assert_eq!(refused, Err(LayoutError::Unknown { xcr0, size_bytes }), "{xcr0:#x}");
    }
}

#[test]
fn dumps_are_read_as_the_tool_prints_them() {
    let text =
        "CPU 0:\n   0x00000001 0x00: eax=0x1 ebx=2 ecx=0x3 edx=0x4 # why\n\nXCR0: 0x7\nCPU 1:\n  nonsense\n";
    let dump: CpuidDump = text.parse().unwrap();
    let leaf = dump.cpuid(1, 0);
    assert_eq!((leaf.eax, leaf.ebx, leaf.ecx, leaf.edx, dump.xcr0()), (1, 2, 3, 4, 7));
    assert_eq!(dump.cpuid(1, 1), Default::default());
    assert!(dump.has_xcr0());
    let listed: CpuidDump = "0xd 0x0: eax=7 ebx=0 ecx=0 edx=1".parse().unwrap();
    assert!(!listed.has_xcr0());
    assert_eq!(listed.xcr0(), 1 << 32 | 7);
}

#[test]
fn bad_dumps_are_refused_by_line() {
    let form = CpuidLineProblem::Form;
    for line in [
        "nonsense",
        "0xd 0x0:",
        "XCR0:",
        "0xd: eax=1",
        "0xd 0: eax=1 ebx=1 ecx=1",
        "0xd 0: eax=1 ebx=1 ecx=1 edx=1 x=1",
    ] {
        let refused = format!("\n{line}\n").parse::<CpuidDump>();
        let Err(CpuidDumpError { line: 2, problem }) = refused else { panic!("{line}: {refused:?}") };
        let is_number = matches!(&problem, CpuidLineProblem::Number { text, .. } if text.is_empty());
        assert!(problem == form || is_number, "{line}: {problem:?}");
    }
    for line in
        ["XCR0: 0x1ffffffffffffffff", "0xd 0: eax=0x100000000 ebx=0 ecx=0 edx=0", "XCR0: -1", "XCR0: +1"]
    {
        let refused = line.parse::<CpuidDump>();
        assert!(
            matches!(refused, Err(CpuidDumpError { line: 1, problem: CpuidLineProblem::Number { .. } })),
            "{line}"
        );
    }
    for twice in ["XCR0: 7\nXCR0: 3", "1 0: eax=1 ebx=0 ecx=0 edx=0\n1 0: eax=2 ebx=0 ecx=0 edx=0"] {
        let refused = twice.parse::<CpuidDump>();
        assert_eq!(refused, Err(CpuidDumpError { line: 2, problem: CpuidLineProblem::Twice }));
    }
    assert!("XCR0: 7\nXCR0: 7".parse::<CpuidDump>().is_ok(), "the same again is fine");
}

#[test]
fn an_area_never_has_room_for_less_than_the_layout_needs() {
    for (name, layout) in layouts() {
        for format in cpus::FORMATS {
            let area = Area::initial(&layout, format);
            let format = if layout.has_xsave() { format } else { Format::Fxsave };
            assert_eq!(area.format(), format, "{name}");
            assert_eq!(area.bytes().len(), layout.size_bytes(format), "{name}");
        }
    }
}

#[test]
fn without_xcr0_what_fits_counts_as_enabled() {
    // AMX is listed, and off: EBX is for XCR0 = E7H.
    let text = CPUS.iter().find(|(name, _)| *name == "emerald-rapids").unwrap().1;
    let text = text.replace("XCR0: 0xe7", "").replace("eax=0x000000e7", "eax=0x000600e7");
    let dump: CpuidDump = text.parse().unwrap();
    assert!(!dump.has_xcr0());
    assert_eq!(Layout::from_cpuid(&dump), Ok(cpu("emerald-rapids")));
}

#[test]
fn amd_has_one_more_bit_of_mxcsr() {
    let text = CPUS.iter().find(|(name, _)| *name == "zen4").unwrap().1;
    let extended = "0x80000000 0x00: eax=0x80000001 ebx=0 ecx=0 edx=0\n";
    let misaligned = "0x80000001 0x00: eax=0 ebx=0 ecx=0x80 edx=0\n";
    assert_eq!(cpus::layout(text).mxcsr_mask(), 0xffff);
    assert_eq!(cpus::layout(&format!("{extended}{text}")).mxcsr_mask(), 0xffff);
    assert_eq!(cpus::layout(&format!("{extended}{misaligned}{text}")).mxcsr_mask(), 0x2_ffff);
    // The leaf is above the maximum.
    assert_eq!(cpus::layout(&format!("{misaligned}{text}")).mxcsr_mask(), 0xffff);
}

#[test]
fn a_signal_frame_is_no_register_set() {
    let mut frame = regset(0, 836);
    frame[464..468].copy_from_slice(b"SXPF");
    assert_eq!(Layout::from_regset(&frame), Err(LayoutError::SignalFrame));
}
