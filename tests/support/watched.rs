//! A register file that counts what is done to it, and one whose saves can go wrong.

use fpuswitch::{
    Component, ComponentSet, Pkru, Rfbm, Value,
    registers::{AbstractFrame, AbstractImage, AbstractRegs, Fault, Program, RegisterFile, Unsupported},
};
use std::cell::Cell;

/// [`AbstractRegs`], watched. Counts in [`Calls`] what this thread does to all of them; and a save of registers
/// with [`Self::POISON`] in SSE leaves an image that a restore refuses, as a stray write to memory could.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Watched(AbstractRegs);

/// Saves to images and frames that did not fault, and restores from images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    pub(crate) saves: u32,
    pub(crate) restores: u32,
}

thread_local! {
    static CALLS: Cell<Calls> = const { Cell::new(Calls { saves: 0, restores: 0 }) };
}

impl Calls {
    /// The calls since the last time.
    pub(crate) fn take() -> Self {
        CALLS.take()
    }
}

impl Watched {
    pub(crate) const POISON: u8 = 253;
}

impl RegisterFile for Watched {
    type Image = AbstractImage;
    type Frame = AbstractFrame;

    fn enabled(&self) -> ComponentSet {
        self.0.enabled()
    }

    fn new_image(&self) -> AbstractImage {
        self.0.new_image()
    }

    fn new_frame(&self) -> AbstractFrame {
        self.0.new_frame()
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    fn save(&self, rfbm: Rfbm, image: &mut AbstractImage) {
        CALLS.set(Calls { saves: CALLS.get().saves + 1, ..CALLS.get() });
        self.0.save(rfbm, image);
        if self.0.get(Component::SSE).number() == Self::POISON {
            *image = AbstractImage::BAD_HEADER;
        }
    }

    fn restore(&mut self, rfbm: Rfbm, image: &AbstractImage) -> Result<(), Fault> {
        CALLS.set(Calls { restores: CALLS.get().restores + 1, ..CALLS.get() });
        self.0.restore(rfbm, image)
    }

    fn restore_initial(&mut self, rfbm: Rfbm) {
        self.0.restore_initial(rfbm);
    }

    fn save_user(&self, rfbm: Rfbm, frame: &mut AbstractFrame) -> Result<(), Fault> {
        self.0.save_user(rfbm, frame)?;
        CALLS.set(Calls { saves: CALLS.get().saves + 1, ..CALLS.get() });
        Ok(())
    }

    fn restore_user(&mut self, rfbm: Rfbm, frame: &AbstractFrame) -> Result<(), Fault> {
        self.0.restore_user(rfbm, frame)
    }

    fn in_use(&self) -> Result<ComponentSet, Unsupported> {
        self.0.in_use()
    }

    fn get(&self, component: Component) -> Value {
        self.0.get(component)
    }

    fn pkru(&self) -> Option<Pkru> {
        self.0.pkru()
    }

    fn set_pkru(&mut self, pkru: Pkru) {
        self.0.set_pkru(pkru);
    }

    fn xfd(&self) -> Result<ComponentSet, Unsupported> {
        self.0.xfd()
    }

    fn run(&mut self, program: Program) {
        self.0.run(program);
    }
}
