//! The abstract register file: a small number a component.
//!
//! For exhaustive exploration and replay, where a machine state has to be a few dozen bytes. Two components
//! stand for all: SSE (legacy, in every image) and AVX (extended), because a partial load or save shows only
//! where there are two.

use super::{Fault, Frame, Image, Program, RegisterFile, Unsupported};
use crate::{Component, ComponentSet, FrameChange, Pkru, Rfbm, Value, xstate::lane};

const COMPONENTS: [Component; 2] = [Component::SSE, Component::AVX];

const NO_ROOM: Unsupported = Unsupported("a component other than SSE and AVX");

fn index(component: Component) -> Option<usize> {
    COMPONENTS.iter().position(|known| *known == component)
}

/// Registers that hold a [`Value`] for SSE, one for AVX, and PKRU.
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
    values: [Value; COMPONENTS.len()],
    pkru: Pkru,
}

impl Default for AbstractRegs {
    /// Registers as after reset.
    fn default() -> Self {
        Self { values: [Value::INITIAL; COMPONENTS.len()], pkru: Pkru(0) }
    }
}

/// What an abstract image or frame holds besides its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    Whole,
    /// Refused by a restore (#GP).
    BadHeader,
    /// The legacy region only: a restore finds the extended components in their initial configuration.
    Short,
}

/// An image of [`AbstractRegs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AbstractImage {
    values: [Value; COMPONENTS.len()],
    form: Form,
}

impl AbstractImage {
    /// An image that a restore refuses, for tests of what happens then.
    pub const BAD_HEADER: Self = Self { values: [Value::INITIAL; COMPONENTS.len()], form: Form::BadHeader };

    const BLANK: Self = Self { values: [Value::INITIAL; COMPONENTS.len()], form: Form::Whole };
}

impl Image for AbstractImage {
    fn reset(&mut self) {
        *self = Self::BLANK;
    }

    /// Every image has room for every component there is.
    fn grow(&mut self, components: ComponentSet) -> Result<(), Unsupported> {
        let mut kept = components.without(Component::PKRU).iter();
        if kept.all(|component| self.has_room_for(component)) { Ok(()) } else { Err(NO_ROOM) }
    }

    fn has_room_for(&self, component: Component) -> bool {
        index(component).is_some()
    }

    fn get(&self, component: Component) -> Value {
        index(component).map_or(Value::INITIAL, |i| self.values[i])
    }

    fn set(&mut self, component: Component, value: Value) -> Result<(), Unsupported> {
        let i = index(component).ok_or(NO_ROOM)?;
        self.values[i] = value;
        Ok(())
    }
}

/// A signal frame of [`AbstractRegs`]: an image whose page may be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AbstractFrame {
    image: AbstractImage,
    present: bool,
}

impl Frame for AbstractFrame {
    fn fault_in(&mut self) {
        self.present = true;
    }

    fn change(&mut self, change: FrameChange) {
        match change {
            FrameChange::Absent => self.present = false,
            FrameChange::BadHeader => self.image.form = Form::BadHeader,
            FrameChange::Short if self.image.form == Form::Whole => self.image.form = Form::Short,
            FrameChange::Short => {}
        }
    }
}

impl RegisterFile for AbstractRegs {
    type Image = AbstractImage;
    type Frame = AbstractFrame;

    fn enabled(&self) -> ComponentSet {
        COMPONENTS.iter().fold(ComponentSet::EMPTY.with(Component::PKRU), |set, c| set.with(*c))
    }

    fn new_image(&self) -> AbstractImage {
        AbstractImage::BLANK
    }

    fn new_frame(&self) -> AbstractFrame {
        AbstractFrame { image: AbstractImage::BLANK, present: true }
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn save(&self, rfbm: Rfbm, image: &mut AbstractImage) {
        image.form = Form::Whole;
        for (i, component) in COMPONENTS.iter().enumerate() {
            if rfbm.contains(*component) {
                image.values[i] = self.values[i];
            }
        }
    }

    fn restore(&mut self, rfbm: Rfbm, image: &AbstractImage) -> Result<(), Fault> {
        for (i, component) in COMPONENTS.iter().enumerate() {
            let legacy = *component == Component::SSE;
            if rfbm.contains(*component) {
                self.values[i] = match image.form {
                    Form::Whole => image.values[i],
                    Form::Short if legacy => image.values[i],
                    Form::Short => Value::INITIAL,
                    // The worst that "unspecified" allows.
                    Form::BadHeader => Value::UNSPECIFIED,
                };
            }
        }
        match image.form {
            Form::BadHeader => Err(Fault::GeneralProtection),
            Form::Whole | Form::Short => Ok(()),
        }
    }

    fn restore_initial(&mut self, rfbm: Rfbm) {
        for (i, component) in COMPONENTS.iter().enumerate() {
            if rfbm.contains(*component) {
                self.values[i] = Value::INITIAL;
            }
        }
    }

    fn save_user(&self, rfbm: Rfbm, frame: &mut AbstractFrame) -> Result<(), Fault> {
        if !frame.present {
            return Err(Fault::Page);
        }
        self.save(rfbm, &mut frame.image);
        Ok(())
    }

    fn restore_user(&mut self, rfbm: Rfbm, frame: &AbstractFrame) -> Result<(), Fault> {
        if !frame.present {
            // A load may have changed registers before it reached the absent page.
            for (i, component) in COMPONENTS.iter().enumerate() {
                if rfbm.contains(*component) {
                    self.values[i] = Value::UNSPECIFIED;
                }
            }
            return Err(Fault::Page);
        }
        self.restore(rfbm, &frame.image)
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
        Err(Unsupported("XFD"))
    }

    fn run(&mut self, program: Program) {
        match program {
            Program::Fill(component, value) => {
                if let Some(i) = index(component) {
                    self.values[i] = value;
                }
            }
            Program::FillAll(value) => self.values = [value; COMPONENTS.len()],
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
