//! Layouts of machines that cannot be asked: from a core file's layout note, or guessed from a register set.

use super::{Component, Layout, LayoutError, Place, XsaveFeatures, layout::LEGACY_BYTES};
use alloc::vec::Vec;

/// Aligned in the compacted format and dynamic wherever they exist.
const AMX: [Component; 2] = [Component::TILECFG, Component::TILEDATA];

/// A component at a known place, as every CPU has it that has it at all.
fn known(component: Component, size_bytes: u32, offset_bytes: u32) -> Place {
    Place {
        component,
        size_bytes,
        offset_bytes,
        is_supervisor: false,
        is_aligned: AMX.contains(&component),
        is_dynamic: component == Component::TILEDATA,
    }
}

/// Standard offsets of the CPUs that are known from print: Intel's (with MPX, and so with AMX), AMD's with
/// AVX-512 (Zen 4), and AMD's without (Zen 3).
const PUBLISHED: [&[(Component, u32, u32)]; 3] = [
    &[
        (Component::AVX, 256, 576),
        (Component::BNDREGS, 64, 960),
        (Component::BNDCSR, 64, 1024),
        (Component::OPMASK, 64, 1088),
        (Component::ZMM_HI256, 512, 1152),
        (Component::HI16_ZMM, 1024, 1664),
        (Component::PKRU, 8, 2688),
        (Component::TILECFG, 64, 2752),
        (Component::TILEDATA, 8192, 2816),
    ],
    &[
        (Component::AVX, 256, 576),
        (Component::OPMASK, 64, 832),
        (Component::ZMM_HI256, 512, 896),
        (Component::HI16_ZMM, 1024, 1408),
        (Component::PKRU, 8, 2432),
    ],
    &[(Component::AVX, 256, 576), (Component::PKRU, 8, 832)],
];

/// Where Linux puts XCR0 in a register set: the first of the bytes that the legacy region leaves to software.
const XCR0_OFFSET: usize = 464;
/// What is there in a signal frame instead (struct _fpx_sw_bytes, arch/x86/include/uapi/asm/sigcontext.h).
const FP_XSTATE_MAGIC1: [u8; 4] = 0x4650_5853_u32.to_le_bytes();

impl Layout {
    /// The layout that a core file's NT_X86_XSAVE_LAYOUT note (type 205H) describes: entries of four words
    /// (number, size, offset, flags), one an enabled component of the extended region.
    ///
    /// The flags are reserved. Whether a component is aligned in the compacted format is not in the note;
    /// only the AMX components are, on every CPU there is.
    ///
    /// # Errors
    /// An entry that cannot be: [`LayoutError`].
    ///
    /// # Reference
    /// Linux 6.12 and later: struct x86_xfeat_component, arch/x86/include/uapi/asm/elf.h;
    /// dump_xsave_layout_desc, arch/x86/kernel/fpu/xstate.c.
    pub fn from_note(descriptor: &[u8]) -> Result<Self, LayoutError> {
        let (entries, rest) = descriptor.as_chunks::<16>();
        if !rest.is_empty() {
            return Err(LayoutError::NoteLength(descriptor.len()));
        }
        let mut places: Vec<Place> = Vec::new();
        for (entry, bytes) in entries.iter().enumerate() {
            let word = |n: usize| u32::from_le_bytes([bytes[n], bytes[n + 1], bytes[n + 2], bytes[n + 3]]);
            let number = word(0);
            let component = u8::try_from(number).ok().and_then(Component::new).filter(|c| c.number() >= 2);
            let fresh = component.filter(|c| places.iter().all(|place| place.component != *c));
            let component = fresh.ok_or(LayoutError::NoteComponent { entry, number })?;
            places.push(known(component, word(4), word(8)));
        }
        places.sort_by_key(|place| place.component);
        let xcr0 = places.iter().fold(3, |bits, place| bits | 1 << place.component.number());
        Self::new(xcr0, XsaveFeatures::XSAVEC, places, 0)
    }

    /// The layout of a bare register set (NT_X86_XSTATE) from an unknown machine: XCR0 is at byte 464, and of
    /// the published layouts the one counts whose areas with that XCR0 have just this size.
    ///
    /// That the machine had XSAVEC, and which bits its MXCSR had, is assumed: the set has its own mask
    /// ([`mxcsr_mask`](super::LegacyRegion::mxcsr_mask)), which is as good as where the set is from.
    ///
    /// # Errors
    /// [`LayoutError::Unknown`] when there is none, [`LayoutError::RegsetLength`] when it is too short,
    /// [`LayoutError::SignalFrame`] for an image from a signal frame.
    ///
    /// # Reference
    /// Linux: struct user_xstateregs and USER_XSTATE_XCR0_WORD, arch/x86/include/asm/user.h.
    pub fn from_regset(bytes: &[u8]) -> Result<Self, LayoutError> {
        let size_bytes = bytes.len();
        if size_bytes == LEGACY_BYTES {
            return Ok(Self::fxsave_only());
        }
        if size_bytes < LEGACY_BYTES + 64 {
            return Err(LayoutError::RegsetLength(size_bytes));
        }
        if bytes[XCR0_OFFSET..].starts_with(&FP_XSTATE_MAGIC1) {
            return Err(LayoutError::SignalFrame);
        }
        let xcr0 = bytes[XCR0_OFFSET..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        let candidates = PUBLISHED.iter().filter_map(|published| {
            let places = published.iter().map(|(component, size, offset)| known(*component, *size, *offset));
            Self::new(xcr0, XsaveFeatures::XSAVEC, places.collect(), 0).ok()
        });
        let mut fitting =
            candidates.filter(|layout| layout.standard_size_bytes(layout.enabled()) == Some(size_bytes));
        fitting.next().ok_or(LayoutError::Unknown { xcr0, size_bytes })
    }
}
