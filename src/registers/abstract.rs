//! The abstract register file: a small number a component.
//!
//! For exhaustive exploration and replay, where a machine state has to be a few dozen bytes. Three components
//! stand for all: SSE (legacy, in every image) and AVX (extended), because a partial load or save shows only
//! where there are two; and TILEDATA, which is dynamic.

use super::{Fault, Frame, FrameContents, Image, Program, RegisterFile, Unsupported, UserFrames};
use crate::{Component, ComponentSet, FrameChange, Pkru, Rfbm, Value, xstate::lane};

const COMPONENTS: [Component; 3] = [Component::SSE, Component::AVX, Component::TILEDATA];

const DYNAMIC: ComponentSet = ComponentSet::EMPTY.with(Component::TILEDATA);

/// What every image has room for.
const BASE: ComponentSet =
    ComponentSet::EMPTY.with(Component::SSE).with(Component::AVX).with(Component::PKRU);

const NO_ROOM: Unsupported = Unsupported("a component that the image has no room for");

type Values = [Value; COMPONENTS.len()];

fn index(component: Component) -> Option<usize> {
    COMPONENTS.iter().position(|known| *known == component)
}

/// Registers that hold a [`Value`] for SSE, one for AVX, one for TILEDATA, and PKRU and IA32_XFD.
///
/// ```
/// use fpuswitch::{Component, Rfbm, Value, registers::{AbstractRegs, Image, Program, RegisterFile}};
/// let mut regs = AbstractRegs::default();
/// let value = Value::new(7).unwrap();
/// regs.run(Program::Fill(Component::AVX, value));
///
/// let mut image = regs.new_image();
/// regs.save(Rfbm::ALL, &mut image);
/// assert_eq!(image.get(Component::AVX), value);
/// assert_eq!(image.get(Component::SSE), Value::INITIAL);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AbstractRegs {
    values: Values,
    pkru: Pkru,
    xfd: ComponentSet,
}

impl Default for AbstractRegs {
    /// Registers as after reset.
    fn default() -> Self {
        Self { values: [Value::INITIAL; COMPONENTS.len()], pkru: Pkru(0), xfd: ComponentSet::EMPTY }
    }
}

impl AbstractRegs {
    /// Changes the components of `rfbm` that there are.
    fn each(&mut self, rfbm: Rfbm, mut value: impl FnMut(usize, Component) -> Value) {
        for (i, component) in COMPONENTS.iter().enumerate() {
            if rfbm.contains(*component) {
                self.values[i] = value(i, *component);
            }
        }
    }

    /// The worst that "unspecified" allows.
    fn tear(&mut self, rfbm: Rfbm) {
        self.each(rfbm, |_, _| Value::UNSPECIFIED);
    }
}

/// An image of [`AbstractRegs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AbstractImage {
    values: Values,
    pkru: Pkru,
    has_tiles: bool,
    is_bad: bool,
}

impl AbstractImage {
    /// An image that a restore refuses, for tests of what happens then.
    pub const BAD_HEADER: Self = Self { is_bad: true, ..Self::BLANK };

    const BLANK: Self =
        Self { values: [Value::INITIAL; COMPONENTS.len()], pkru: Pkru(0), has_tiles: false, is_bad: false };
}

#[cfg(feature = "explore")]
impl AbstractRegs {
    /// Shows all of it.
    pub(crate) fn walk(&mut self, walk: &mut impl crate::walk::Walk) {
        let Self { values, pkru, xfd } = self;
        values.iter_mut().for_each(|value| walk.value(value));
        walk.pkru(pkru);
        walk.xfd(xfd);
    }
}

#[cfg(feature = "explore")]
impl AbstractImage {
    /// Shows all of it.
    pub(crate) fn walk(&mut self, walk: &mut impl crate::walk::Walk) {
        let Self { values, pkru, has_tiles, is_bad } = self;
        values.iter_mut().for_each(|value| walk.value(value));
        walk.pkru(pkru);
        walk.flags([has_tiles, is_bad]);
    }
}

#[cfg(feature = "explore")]
impl AbstractFrame {
    /// What it holds.
    pub(crate) fn image(&self) -> &AbstractImage {
        &self.image
    }

    /// Shows all of it.
    pub(crate) fn walk(&mut self, walk: &mut impl crate::walk::Walk) {
        let Self { image, first_absent, rest_absent, unmapped, bad_header, bad_mxcsr, legacy_only, short } =
            self;
        image.walk(walk);
        walk.flags([first_absent, rest_absent, unmapped, bad_header, bad_mxcsr, legacy_only, short]);
    }
}

impl Image for AbstractImage {
    fn reset(&mut self) {
        *self = Self { has_tiles: self.has_tiles, ..Self::BLANK };
    }

    fn room(&self) -> ComponentSet {
        if self.has_tiles { BASE | DYNAMIC } else { BASE }
    }

    fn grow(&mut self, components: ComponentSet) -> Result<(), Unsupported> {
        if components - BASE - DYNAMIC != ComponentSet::EMPTY {
            return Err(NO_ROOM);
        }
        self.has_tiles |= components.contains(Component::TILEDATA);
        Ok(())
    }

    fn copy_from(&mut self, other: &Self) {
        let has_tiles = self.has_tiles;
        *self = Self { has_tiles, ..*other };
        if !has_tiles {
            self.values[2] = Value::INITIAL;
        }
    }

    fn is_restorable(&self) -> bool {
        !self.is_bad
    }

    fn get(&self, component: Component) -> Value {
        index(component).map_or(Value::INITIAL, |i| self.values[i])
    }

    fn set(&mut self, component: Component, value: Value) -> Result<(), Unsupported> {
        let i = index(component).filter(|_| self.has_room_for(component)).ok_or(NO_ROOM)?;
        self.values[i] = value;
        Ok(())
    }

    fn pkru(&self) -> Pkru {
        self.pkru
    }

    fn set_pkru(&mut self, pkru: Pkru) {
        self.pkru = pkru;
    }

    #[cfg(feature = "explore")]
    fn spoil(&mut self) {
        self.is_bad = true;
    }

    #[cfg(feature = "explore")]
    fn zero_initial(&mut self) {
        let sse = &mut self.values[0];
        if *sse == Value::INITIAL {
            *sse = Value::UNSPECIFIED;
        }
    }
}

/// A signal frame of [`AbstractRegs`]: an image on two pages, with what makes it another than the kernel wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AbstractFrame {
    image: AbstractImage,
    first_absent: bool,
    rest_absent: bool,
    unmapped: bool,
    bad_header: bool,
    bad_mxcsr: bool,
    /// The software bytes do not hold.
    legacy_only: bool,
    short: bool,
}

impl AbstractFrame {
    const fn of(image: AbstractImage) -> Self {
        Self {
            image,
            first_absent: false,
            rest_absent: false,
            unmapped: false,
            bad_header: false,
            bad_mxcsr: false,
            legacy_only: false,
            short: false,
        }
    }

    fn value(&self, component: Component) -> Value {
        let legacy = ComponentSet::LEGACY.contains(component);
        if self.short && !legacy { Value::INITIAL } else { self.image.get(component) }
    }

    fn check_present(&self) -> Result<(), Fault> {
        if self.first_absent || self.rest_absent || self.unmapped { Err(Fault::Page) } else { Ok(()) }
    }

    /// As an access meets it that stays within the legacy region, which is on the first page.
    fn legacy(&self) -> Self {
        Self { rest_absent: false, bad_header: false, ..*self }
    }
}

impl Frame for AbstractFrame {
    type Image = AbstractImage;

    fn fault_in(&mut self) -> Result<(), Fault> {
        if self.unmapped {
            return Err(Fault::Page);
        }
        (self.first_absent, self.rest_absent) = (false, false);
        Ok(())
    }

    fn change(&mut self, change: FrameChange) -> Result<(), Unsupported> {
        match change {
            FrameChange::Absent => (self.first_absent, self.rest_absent) = (true, true),
            FrameChange::RestAbsent => self.rest_absent = true,
            FrameChange::Unmapped => self.unmapped = true,
            FrameChange::BadHeader => self.bad_header = true,
            FrameChange::BadMxcsr => self.bad_mxcsr = true,
            FrameChange::BadMagic | FrameChange::BadSize => self.legacy_only = true,
            FrameChange::Short => (self.short, self.image.pkru) = (true, Pkru(0)),
            FrameChange::Pkru(pkru) => self.image.pkru = pkru.unwrap_or(Pkru(0)),
        }
        Ok(())
    }

    fn contents(&self, allowed: ComponentSet) -> Result<FrameContents, Fault> {
        if self.unmapped {
            return Err(Fault::Page);
        }
        let allowed = allowed.without(Component::PKRU);
        Ok(if self.legacy_only {
            let components = allowed & ComponentSet::LEGACY;
            FrameContents { components, legacy_only: true, pkru: Pkru(0) }
        } else {
            let components = allowed & self.image.room();
            FrameContents { components, legacy_only: false, pkru: self.image.pkru }
        })
    }

    fn set_pkru(&mut self, pkru: Pkru) -> Result<(), Fault> {
        self.check_present()?;
        self.image.pkru = pkru;
        Ok(())
    }

    fn copy_to(&self, contents: FrameContents, image: &mut AbstractImage) -> Result<(), Fault> {
        let read = if contents.legacy_only { self.legacy() } else { *self };
        read.check_present()?;
        if read.bad_mxcsr || read.bad_header {
            return Err(Fault::GeneralProtection);
        }
        let pkru = image.pkru;
        image.reset();
        image.pkru = pkru;
        for (i, component) in COMPONENTS.iter().enumerate() {
            if contents.components.contains(*component) {
                image.values[i] = self.value(*component);
            }
        }
        Ok(())
    }
}

impl RegisterFile for AbstractRegs {
    type Image = AbstractImage;

    fn enabled(&self) -> ComponentSet {
        BASE | DYNAMIC
    }

    fn dynamic(&self) -> ComponentSet {
        DYNAMIC
    }

    fn new_image(&self) -> AbstractImage {
        AbstractImage::BLANK
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn save(&self, rfbm: Rfbm, image: &mut AbstractImage) {
        image.is_bad = false;
        let saved = rfbm.of(image.room());
        for (i, component) in COMPONENTS.iter().enumerate() {
            if saved.contains(*component) {
                // A component that XFD disables is saved as if in its initial configuration.
                let disabled = self.xfd.contains(*component);
                image.values[i] = if disabled { Value::INITIAL } else { self.values[i] };
            }
        }
        if rfbm.contains(Component::PKRU) {
            image.pkru = self.pkru;
        }
    }

    fn restore(&mut self, rfbm: Rfbm, image: &AbstractImage) -> Result<(), Fault> {
        let disabled = |component: Component| {
            self.xfd.contains(component) && rfbm.contains(component) && image.get(component) != Value::INITIAL
        };
        if image.is_bad || COMPONENTS.into_iter().any(disabled) {
            self.tear(rfbm);
            return Err(if image.is_bad { Fault::GeneralProtection } else { Fault::DeviceNotAvailable });
        }
        self.each(rfbm, |i, _| image.values[i]);
        if rfbm.contains(Component::PKRU) {
            self.pkru = image.pkru;
        }
        Ok(())
    }

    fn restore_initial(&mut self, rfbm: Rfbm) {
        self.each(rfbm, |_, _| Value::INITIAL);
        if rfbm.contains(Component::PKRU) {
            self.pkru = Pkru(0);
        }
    }

    fn in_use(&self) -> Result<ComponentSet, Unsupported> {
        let in_use = COMPONENTS.iter().zip(self.values).filter(|(_, value)| *value != Value::INITIAL);
        Ok(in_use.fold(ComponentSet::EMPTY, |set, (component, _)| set.with(*component)))
    }

    fn get(&self, component: Component) -> Value {
        index(component).map_or(Value::INITIAL, |i| self.values[i])
    }

    fn pkru(&self) -> Option<Pkru> {
        Some(self.pkru)
    }

    fn set_pkru(&mut self, pkru: Pkru) {
        self.pkru = pkru;
    }

    fn xfd(&self) -> Result<ComponentSet, Unsupported> {
        Ok(self.xfd)
    }

    fn set_xfd(&mut self, disabled: ComponentSet) -> Result<(), Unsupported> {
        if disabled - DYNAMIC != ComponentSet::EMPTY {
            return Err(Unsupported("XFD of a component that is not dynamic"));
        }
        self.xfd = disabled;
        Ok(())
    }

    fn run(&mut self, program: Program) {
        match program {
            Program::Fill(component, value) => {
                if let Some(i) = index(component).filter(|_| !self.xfd.contains(component)) {
                    self.values[i] = value;
                }
            }
            Program::FillAll(value) => {
                COMPONENTS.iter().for_each(|component| self.run(Program::Fill(*component, value)));
            }
            Program::Clear(component) => self.run(Program::Fill(component, Value::INITIAL)),
            Program::ChangeLane { register, lane: number, .. } => {
                if let Some((component, _)) = lane(register, number) {
                    self.run(Program::Fill(component, Value::UNSPECIFIED));
                }
            }
            // A part of what SSE stands for.
            Program::Round(_) => self.run(Program::Fill(Component::SSE, Value::UNSPECIFIED)),
        }
    }
}

impl UserFrames for AbstractRegs {
    type Frame = AbstractFrame;

    fn frame_with_room(&self, components: ComponentSet) -> AbstractFrame {
        let has_tiles = components.contains(Component::TILEDATA);
        AbstractFrame::of(AbstractImage { has_tiles, ..AbstractImage::BLANK })
    }

    fn save_user(&self, rfbm: Rfbm, frame: &mut AbstractFrame) -> Result<(), Fault> {
        frame.check_present()?;
        let mut image = frame.image;
        self.save(Rfbm::new(rfbm.of(self.enabled()).without(Component::PKRU)), &mut image);
        *frame = AbstractFrame::of(image);
        Ok(())
    }

    fn restore_user(&mut self, rfbm: Rfbm, frame: &AbstractFrame) -> Result<(), Fault> {
        let present = frame.check_present();
        if present.is_err() || frame.bad_header || frame.bad_mxcsr {
            // A load may have changed registers before it reached the absent page.
            self.tear(rfbm);
            return present.and(Err(Fault::GeneralProtection));
        }
        let mut image = frame.image;
        for (i, component) in COMPONENTS.iter().enumerate() {
            image.values[i] = frame.value(*component);
        }
        self.restore(Rfbm::new(rfbm.of(self.enabled()).without(Component::PKRU)), &image)
    }

    fn restore_user_legacy(&mut self, frame: &AbstractFrame) -> Result<(), Fault> {
        self.restore_user(Rfbm::new(ComponentSet::LEGACY), &frame.legacy())
    }
}
