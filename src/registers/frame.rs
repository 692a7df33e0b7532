//! What signal frames of real bytes have in common, wherever these are: as Linux writes and reads them.

use super::{Fault, FrameContents, Unsupported, XsaveImage, image};
use crate::{
    Component, ComponentSet, FrameChange,
    xstate::{
        Area, FrameKind, Layout, MAGIC1_AT, MAGIC2_BYTES, Place, Refusal, SOFTWARE, SignalFrame,
        XSTATE_SIZE_AT, XstateBv,
    },
};
use core::ops::Range;

/// The header of an XSAVE area (Intel SDM volume 1, section 13.4.2 "XSAVE Header").
pub(super) const HEADER: Range<usize> = 512..576;
/// What FXSAVE and FXRSTOR access (section 10.5.1 "FXSAVE Area").
pub(super) const LEGACY: Range<usize> = 0..416;

const NO_HEADER: Unsupported =
    Unsupported("a header and what is behind it, which frames without XSAVE do not have,");
const NO_PKRU: Unsupported = Unsupported("PKRU, for which the frame has no room,");

/// How long a frame is, and what it has room for. Its area is that long: it ends with the second magic number.
///
/// # Reference
/// Linux: copy_fpstate_to_sigframe, arch/x86/kernel/fpu/signal.c.
#[derive(Clone, Debug)]
pub(super) struct FrameForm {
    layout: Layout,
    room: ComponentSet,
    len: usize,
}

impl FrameForm {
    /// Frames of a CPU with `layout` and with room for `components`, x87, SSE and PKRU, as far as it has enabled them.
    pub(super) fn new(layout: &Layout, components: ComponentSet) -> Self {
        let room = (components | ComponentSet::LEGACY).with(Component::PKRU) & layout.enabled();
        let len = layout.restricted_to(room).signal_frame_bytes();
        Self { layout: layout.clone(), room, len }
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn room(&self) -> ComponentSet {
        self.room
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where the image is.
    pub(super) fn image(&self) -> Range<usize> {
        0..self.magic2().start
    }

    /// Where the second magic number is.
    fn magic2(&self) -> Range<usize> {
        let bytes = if self.layout.has_xsave() { MAGIC2_BYTES } else { 0 };
        self.len - bytes..self.len
    }

    /// The frame in `bytes`, which are as many as it has.
    pub(super) fn area<B: AsRef<[u8]>>(&self, bytes: B) -> Area<B> {
        Area::over(bytes, &self.layout).expect("a frame has room for legacy region and header")
    }

    /// The bytes that an access to `components` can touch, whatever XSTATE_BV says (Intel SDM volume 1, section 13.13
    /// "Memory Accesses by the XSAVE Feature Set").
    pub(super) fn accessed(&self, components: ComponentSet) -> impl Iterator<Item = Range<usize>> {
        let components = components & self.room;
        let has_legacy = components & ComponentSet::LEGACY.with(Component::AVX) != ComponentSet::EMPTY;
        let header = self.layout.has_xsave().then_some(HEADER);
        let places = self.layout.places().iter().filter(move |place| components.contains(place.component));
        has_legacy.then_some(LEGACY).into_iter().chain(header).chain(places.map(bytes_of))
    }

    /// The bytes that a kernel writes behind a save.
    pub(super) fn finished(&self) -> [Range<usize>; 2] {
        [SOFTWARE, self.magic2()]
    }

    /// Writes them: see [`Area::finish_signal_frame`].
    pub(super) fn finish<B: AsRef<[u8]> + AsMut<[u8]>>(&self, area: &mut Area<B>) {
        area.finish_signal_frame(self.room);
    }

    /// Takes the initial configuration.
    pub(super) fn reset<B: AsRef<[u8]> + AsMut<[u8]>>(&self, area: &mut Area<B>) {
        area.clear_header();
        area.set_initial_values();
        area.legacy_mut().set_mxcsr_mask(self.layout.mxcsr_mask());
        self.finish(area);
    }

    /// Changes the bytes as user code would. What is present is no matter of theirs.
    pub(super) fn change<B: AsRef<[u8]> + AsMut<[u8]>>(
        &self,
        area: &mut Area<B>,
        change: FrameChange,
    ) -> Result<(), Unsupported> {
        let needs_header = matches!(
            change,
            FrameChange::RestAbsent
                | FrameChange::BadHeader
                | FrameChange::BadMagic
                | FrameChange::BadSize
                | FrameChange::Short
        );
        if needs_header && !self.layout.has_xsave() {
            return Err(NO_HEADER);
        }
        if matches!(change, FrameChange::Pkru(_)) && !self.room.contains(Component::PKRU) {
            return Err(NO_PKRU);
        }
        let xstate_bv = area.xstate_bv().0;
        match change {
            FrameChange::Absent | FrameChange::RestAbsent | FrameChange::Unmapped => {}
            FrameChange::BadHeader => area.reserved_header_bytes_mut()[0] = 0xff,
            FrameChange::BadMxcsr => area.legacy_mut().set_mxcsr(u32::MAX),
            FrameChange::BadMagic => area.bytes_mut()[MAGIC1_AT].fill(0),
            FrameChange::BadSize => area.bytes_mut()[XSTATE_SIZE_AT].fill(0),
            FrameChange::Short => area.set_xstate_bv(XstateBv(xstate_bv & ComponentSet::LEGACY.bits())),
            FrameChange::Pkru(Some(pkru)) => area.put_pkru(pkru),
            // What is in the component stays behind.
            FrameChange::Pkru(None) => {
                area.set_xstate_bv(XstateBv(xstate_bv & !(1 << Component::PKRU.number())));
            }
        }
        Ok(())
    }

    /// What the frame says that it holds; see [`Frame::contents`](super::Frame::contents).
    pub(super) fn contents<B: AsRef<[u8]>>(
        &self,
        area: &Area<B>,
        allowed: ComponentSet,
    ) -> Result<FrameContents, Fault> {
        let layout = self.layout.restricted_to(allowed.with(Component::PKRU));
        // An error is that the kernel would read on behind the frame.
        let frame = SignalFrame::over(area.bytes(), &layout).map_err(|_| Fault::Page)?;
        let (components, legacy_only) = match frame.kind() {
            FrameKind::Extended(components) => (components.without(Component::PKRU), false),
            FrameKind::Legacy(_) => (ComponentSet::LEGACY & layout.enabled(), true),
        };
        Ok(FrameContents { components, legacy_only, pkru: frame.pkru() })
    }

    /// The bytes that are read to copy what a frame holds.
    pub(super) fn copied(&self, contents: FrameContents) -> Range<usize> {
        if contents.legacy_only { 0..SOFTWARE.end } else { self.image() }
    }

    /// Copies what the frame holds; see [`Frame::copy_to`](super::Frame::copy_to).
    pub(super) fn copy<B: AsRef<[u8]>>(
        area: &Area<B>,
        contents: FrameContents,
        image: &mut XsaveImage,
    ) -> Result<(), Fault> {
        let copied = image.take_frame(area, contents.components, contents.legacy_only);
        copied.map_err(|_| Fault::GeneralProtection)
    }

    /// The bytes that a write of PKRU accesses; `None` without room for it.
    pub(super) fn pkru(&self) -> Option<[Range<usize>; 2]> {
        let place = self.layout.place(Component::PKRU).filter(|place| self.room.contains(place.component))?;
        Some([HEADER, bytes_of(place)])
    }

    /// Whether two frames hold the same, and every load makes the same of them.
    pub(super) fn is_same<B, C>(&self, area: &Area<B>, other: &Self, theirs: &Area<C>) -> bool
    where
        B: AsRef<[u8]>,
        C: AsRef<[u8]>,
    {
        area.same_values(theirs) && self.read(area) == other.read(theirs)
    }

    fn read<B: AsRef<[u8]>>(&self, area: &Area<B>) -> (Option<Refusal>, Result<FrameContents, Fault>) {
        (image::refusal(area, self.room), self.contents(area, self.room))
    }
}

fn bytes_of(place: &Place) -> Range<usize> {
    let start = place.offset_bytes as usize;
    start..start + place.size_bytes as usize
}
