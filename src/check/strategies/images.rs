//! Images as saves and writers leave them, and images that are damaged.

use super::{programs, values};
use crate::{
    Component, ComponentSet, Pkru, Rfbm, Value,
    registers::{Image, Program, RegisterFile, XsaveImage},
    xstate::{Area, XcompBv, XstateBv},
};
use alloc::vec::Vec;
use proptest::{collection::vec, prelude::*, sample::select};

/// Images of registers like `regs`: with room for some of the dynamic components, what random [`programs()`] leave behind
/// saved to it, some components written afterwards, and any PKRU. A restore takes every one.
///
/// ```
/// use fpuswitch::{Rfbm, check::images, registers::{AbstractRegs, Image, RegisterFile}};
/// use proptest::prelude::*;
///
/// let regs = AbstractRegs::default();
/// proptest!(|(image in images(&regs))| {
///     let mut loaded = regs.clone();
///     prop_assert_eq!(loaded.restore(Rfbm::ALL, &image), Ok(()));
///     let mut saved = image.clone();
///     saved.reset();
///     loaded.save(Rfbm::ALL, &mut saved);
///     prop_assert_eq!(saved, image);
/// });
/// ```
///
/// # Panics
/// As [`programs()`].
pub fn images<R>(regs: &R) -> impl Strategy<Value = R::Image> + use<R>
where
    R: RegisterFile + Clone,
{
    let mut blank = regs.clone();
    blank.reset();
    contents(blank.enabled()).prop_map(move |contents| contents.image(&blank))
}

/// Images of registers like `regs` with one to three damages: to what the header says, to its reserved bytes, to MXCSR, or
/// to what no restore looks at. Some are refused, and some are not.
///
/// ```
/// use fpuswitch::{Rfbm, check::damaged_images, registers::{RegisterFile, SoftRegs}};
/// use proptest::prelude::*;
///
/// let regs = SoftRegs::default();
/// proptest!(|(image in damaged_images(&regs))| {
///     // The check says before what the instruction does.
///     let refused = regs.clone().restore(Rfbm::ALL, &image).is_err();
///     prop_assert_eq!(refused, image.refusal().is_some());
/// });
/// ```
///
/// # Panics
/// As [`programs()`].
pub fn damaged_images<R>(regs: &R) -> impl Strategy<Value = XsaveImage> + use<R>
where
    R: RegisterFile<Image = XsaveImage> + Clone,
{
    (images(regs), vec(damage(), 1..=3)).prop_map(|(mut image, damages)| {
        damages.iter().for_each(|damage| damage.apply(image.area_mut()));
        image
    })
}

/// Images of registers like `regs` that a restore refuses (invariant I9). Of abstract registers there is one:
/// [`AbstractImage::BAD_HEADER`](crate::registers::AbstractImage::BAD_HEADER).
///
/// ```
/// use fpuswitch::{Rfbm, check::refused_images, registers::{Fault, Image, RegisterFile, SoftRegs}};
/// use proptest::prelude::*;
///
/// let regs = SoftRegs::default();
/// proptest!(|(image in refused_images(&regs))| {
///     prop_assert!(!image.is_restorable());
///     prop_assert_eq!(regs.clone().restore(Rfbm::ALL, &image), Err(Fault::GeneralProtection));
/// });
/// ```
///
/// # Panics
/// As [`programs()`].
pub fn refused_images<R>(regs: &R) -> impl Strategy<Value = XsaveImage> + use<R>
where
    R: RegisterFile<Image = XsaveImage> + Clone,
{
    damaged_images(regs).prop_map(|mut image| {
        if image.refusal().is_none() {
            // The two that no format takes: one where there is a header, the other where there is none.
            Damage::Reserved(0, u8::MAX).apply(image.area_mut());
            image.area_mut().legacy_mut().set_mxcsr(u32::MAX);
        }
        image
    })
}

/// What an image is made from.
#[derive(Clone, Debug)]
struct Contents {
    ran: Vec<Program>,
    /// The dynamic components that it has room for, if these bits are so.
    room: u64,
    written: Vec<(Component, Value)>,
    pkru: Pkru,
}

fn contents(enabled: ComponentSet) -> impl Strategy<Value = Contents> {
    let components: Vec<_> = enabled.without(Component::PKRU).iter().collect();
    let ran = vec(programs(enabled), 0..5);
    let written = vec((select(components), values()), 0..3);
    let pkru = prop_oneof![Just(Pkru(0)), Just(Pkru::DEFAULT), any::<u32>().prop_map(Pkru)];
    (ran, any::<u64>(), written, pkru).prop_map(|(ran, room, written, pkru)| Contents {
        ran,
        room,
        written,
        pkru,
    })
}

impl Contents {
    fn image<R: RegisterFile + Clone>(&self, blank: &R) -> R::Image {
        let mut regs = blank.clone();
        self.ran.iter().for_each(|program| regs.run(*program));
        regs.set_pkru(self.pkru);
        let mut image = regs.new_image();
        // An error in these is that there can be no room.
        let _ = image.grow(regs.dynamic() & ComponentSet::from_bits(self.room));
        regs.save(Rfbm::ALL, &mut image);
        for (component, value) in &self.written {
            let _ = image.set(*component, *value);
        }
        image
    }
}

/// Damage to an image, or to what it claims.
#[derive(Clone, Debug)]
enum Damage {
    XstateBv(u64),
    XcompBv(u64),
    Compacted(u64),
    Reserved(usize, u8),
    Mxcsr(u32),
    Fcw(u16),
    Fsw(u16),
}

impl Damage {
    fn apply(&self, area: &mut Area<impl AsRef<[u8]> + AsMut<[u8]>>) {
        match self {
            Self::XstateBv(bits) => area.set_xstate_bv(XstateBv(area.xstate_bv().0 ^ bits)),
            Self::XcompBv(bits) => area.set_xcomp_bv(XcompBv(area.xcomp_bv().0 ^ bits)),
            Self::Compacted(bits) => area.set_xcomp_bv(XcompBv(1 << 63 | bits)),
            Self::Reserved(at, value) => {
                let bytes = area.reserved_header_bytes_mut();
                if !bytes.is_empty() {
                    bytes[at % bytes.len()] = *value;
                }
            }
            Self::Mxcsr(bits) => {
                let mxcsr = area.legacy().mxcsr();
                area.legacy_mut().set_mxcsr(mxcsr ^ bits);
            }
            // Unmasked, and pending: nothing that a restore looks at.
            Self::Fcw(fcw) => area.legacy_mut().set_fcw(*fcw),
            Self::Fsw(fsw) => area.legacy_mut().set_fsw(*fsw),
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let bit = || prop_oneof![(0..8_u32), (0..64_u32)].prop_map(|bit| 1_u64 << bit);
    prop_oneof![
        3 => bit().prop_map(Damage::XstateBv),
        1 => bit().prop_map(Damage::XcompBv),
        1 => prop_oneof![0..0x100_u64, any::<u64>()].prop_map(Damage::Compacted),
        1 => (any::<usize>(), 1..=u8::MAX).prop_map(|(at, value)| Damage::Reserved(at, value)),
        2 => (0..32_u32).prop_map(|bit| Damage::Mxcsr(1 << bit)),
        1 => any::<u16>().prop_map(Damage::Fcw),
        1 => any::<u16>().prop_map(Damage::Fsw),
    ]
}
