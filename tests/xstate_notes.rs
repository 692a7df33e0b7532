//! Register sets and their layout in the notes of a core file; the x87 tag word that debuggers show. Constants are
//! written down from the kernel's uapi/linux/elf.h and uapi/asm/elf.h.

mod cpus;

use cpus::{any_layout, cases, cpu, fill, full, layouts};
use fpuswitch::{
    ComponentSet, Pkru,
    xstate::{Area, AreaError, Format, Layout, LayoutError, LegacyRegion, NoteError, Tag, TagWord},
};
use proptest::prelude::*;

const ALL: ComponentSet = ComponentSet::from_bits(u64::MAX);

/// One note as an ELF core file has it: sizes of name and descriptor, type, name, descriptor.
fn note(name: &[u8], kind: u32, descriptor: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [name.len() as u32, descriptor.len() as u32, kind] {
        bytes.extend(word.to_le_bytes());
    }
    for part in [name, descriptor] {
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

#[test]
fn notes_of_a_core_file_are_as_linux_writes_them() {
    let layout = cpu("zen3");
    // struct x86_xfeat_component: number, size, offset, flags.
    let entries: Vec<u8> =
        [2_u32, 256, 576, 0, 9, 8, 832, 0].into_iter().flat_map(u32::to_le_bytes).collect();
    assert_eq!(layout.to_note(), entries);
    assert_eq!(layout.layout_note(), note(b"LINUX\0", 0x205, &entries));
    let area = full(&layout, Format::Standard);
    let regset = area.regset(Pkru(4)).unwrap();
    assert_eq!(area.xstate_note(Pkru(4)).unwrap(), note(b"LINUX\0", 0x202, regset.bytes()));
    for (name, layout) in layouts().filter(|(_, layout)| layout.has_xsave()) {
        let told = Layout::from_note(&layout.to_note()).unwrap();
        assert_eq!(told.to_note(), layout.to_note(), "{name}");
    }
    assert!(cpu("qemu-core2duo").to_note().is_empty());
}

#[test]
fn register_sets_are_found_among_the_notes() {
    let layout = cpu("zen4");
    let threads = [full(&layout, Format::Compacted), Area::initial(&layout, Format::Compacted)];
    let mut segment = note(b"CORE\0", 1, &[0x11; 337]);
    for thread in &threads {
        segment.extend(note(b"CORE\0", 0x202, &[1, 2, 3]));
        segment.extend(thread.xstate_note(Pkru(4)).unwrap());
    }
    // Without a layout, the published one of that size.
    let bare = segment.clone();
    let guessed = Area::from_notes(&bare).unwrap();
    segment.extend(layout.layout_note());
    segment.extend(note(b"LINUX\0", 0x205, &layout.to_note()));
    let told = Area::from_notes(&segment).unwrap();
    for images in [guessed, told] {
        assert_eq!(images.len(), 2);
        for (image, thread) in images.iter().zip(&threads) {
            assert_eq!(image.bytes(), thread.regset(Pkru(4)).unwrap().bytes());
            let mut back = Area::initial(&layout, Format::Compacted);
            assert_eq!(back.set_regset(image.bytes(), ALL), Ok(Pkru(4)));
            assert!(back.same_values(thread));
        }
    }
    assert!(Area::from_notes(&[]).unwrap().is_empty());
    // The last descriptor need not be filled up to a multiple of 4.
    let odd = note(b"CORE\0", 1, &[0; 5]);
    assert!(Area::from_notes(&odd[..odd.len() - 3]).unwrap().is_empty());
}

#[test]
fn notes_that_cannot_be_read_are_refused_by_offset() {
    let layout = cpu("zen3");
    let first = note(b"CORE\0", 1, &[0; 8]);
    let offset = first.len();
    let read = |second: &[u8]| Area::from_notes(&[&first, second].concat()).map(|images| images.len());
    let truncated =
        |needed_bytes, found_bytes| Err(NoteError::Truncated { offset, needed_bytes, found_bytes });
    let good = layout.layout_note();
    assert_eq!(read(&good[..11]), truncated(12, 11));
    assert_eq!(read(&good[..good.len() - 1]), truncated(52, 51));
    let mut huge = good.clone();
    huge[..8].fill(0xff);
    assert_eq!(read(&huge), truncated(12 + (1 << 32) + 0xffff_ffff, 52));
    let because = |source| Err(NoteError::Layout { offset, source });
    assert_eq!(read(&note(b"LINUX\0", 0x205, &[0; 15])), because(LayoutError::NoteLength(15)));
    assert_eq!(read(&note(b"LINUX\0", 0x202, &[0; 100])), because(LayoutError::RegsetLength(100)));
    let two = [good.clone(), cpu("zen4").layout_note()].concat();
    assert_eq!(read(&two), Err(NoteError::SecondLayout { offset: offset + 52 }));
    let short = note(b"LINUX\0", 0x202, &[0; 575]);
    let source = AreaError::TooShort { needed_bytes: 576, found_bytes: 575 };
    let offset = offset + 52;
    assert_eq!(read(&[good, short].concat()), Err(NoteError::Area { offset, source }));
}

#[test]
fn tags_follow_from_the_registers() {
    let number = |exponent: u16, significand: u64| {
        let mut number = [0; 10];
        number[..8].copy_from_slice(&significand.to_le_bytes());
        number[8..].copy_from_slice(&exponent.to_le_bytes());
        number
    };
    let integer = 1 << 63;
    // The manual's table, and signs, which do not matter.
    let rows = [
        (number(0x3fff, integer), Tag::Valid),
        (number(0xbfff, integer | 5), Tag::Valid),
        (number(1, integer), Tag::Valid),
        (number(0x7ffe, u64::MAX), Tag::Valid),
        (number(0x3fff, 0), Tag::Special),
        (number(0x3fff, integer - 1), Tag::Special),
        (number(0, 0), Tag::Zero),
        (number(0x8000, 0), Tag::Zero),
        (number(0, 1), Tag::Special),
        (number(0, integer), Tag::Special),
        (number(0x7fff, integer), Tag::Special),
        (number(0xffff, integer | 1 << 62), Tag::Special),
        (number(0x7fff, 0), Tag::Special),
    ];
    let mut region = LegacyRegion::over([0; 512]).unwrap();
    for (value, tag) in rows {
        for top in 0..8_u16 {
            for place in 0..8 {
                let physical = (place + usize::from(top)) % 8;
                region.set_fsw(top << 11 | 0xc7ff);
                region.set_st(place, value);
                region.set_ftw(1 << physical);
                let word = region.tag_word();
                assert_eq!(word.tag(physical), tag, "{value:x?} in ST{place} with TOP = {top}");
                assert_eq!(word.0 | 3 << (physical * 2), 0xffff, "the others are empty");
                assert_eq!(word.abridged(), 1 << physical);
                region.set_ftw(0);
                assert_eq!(region.tag_word(), TagWord(0xffff));
                region.set_st(place, [0; 10]);
            }
        }
    }
    // The manual's example: TOP is 4; ST0 to ST2 hold something.
    assert_eq!(TagWord(0b11_00_01_10_11_11_11_11).abridged(), 0b0111_0000);
    for word in 0..=u16::MAX {
        let bits = (0..8).filter(|n| word >> (2 * n) & 3 != 3).fold(0, |bits, n| bits | 1 << n);
        assert_eq!(TagWord(word).abridged(), bits);
    }
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn hostile_notes_never_panic(
        layout in any_layout(),
        words in prop::collection::vec(prop_oneof![0..0x300_u32, any::<u32>()], 0..400),
        (at, seed) in (0..64_usize, any::<u64>()),
    ) {
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        let _ = Area::from_notes(&bytes);
        bytes.splice(0..0, layout.layout_note());
        let _ = Area::from_notes(&bytes);
        let len = bytes.len();
        fill(&mut bytes[at.min(len)..(at + 4).min(len)], seed);
        let _ = Area::from_notes(&bytes);
    }
}
