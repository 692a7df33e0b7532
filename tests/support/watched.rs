//! A register file that counts what is done to it, whose saves can go wrong, and whose XFD can be stuck.

use fpuswitch::{
    Component, ComponentSet, Pkru, Rfbm, Value,
    registers::{
        AbstractFrame, AbstractImage, AbstractRegs, Fault, Program, RegisterFile, Unsupported, UserFrames,
    },
};
use std::cell::Cell;

/// [`AbstractRegs`], watched. Counts in [`Calls`] what this thread does to all of them; and a save of registers
/// with [`Self::POISON`] in SSE leaves an image that a restore refuses, as a stray write to memory could.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Watched {
    regs: AbstractRegs,
    stuck_xfd: Option<ComponentSet>,
}

/// Saves to images and frames that did not fault, restores from images, those of both that are asked for the control words
/// alone, new images, and writes of PKRU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    pub(crate) saves: u32,
    pub(crate) restores: u32,
    pub(crate) of_control: u32,
    pub(crate) new_images: u32,
    pub(crate) pkru_writes: u32,
}

thread_local! {
    static CALLS: Cell<Calls> =
        const { Cell::new(Calls { saves: 0, restores: 0, of_control: 0, new_images: 0, pkru_writes: 0 }) };
}

impl Calls {
    /// The calls since the last time.
    pub(crate) fn take() -> Self {
        CALLS.take()
    }
}

impl Watched {
    pub(crate) const POISON: u8 = 253;

    /// Registers whose IA32_XFD is this, whatever is written to it.
    pub(crate) fn with_stuck_xfd(xfd: ComponentSet) -> Self {
        Self { stuck_xfd: Some(xfd), ..Self::default() }
    }
}

impl RegisterFile for Watched {
    type Image = AbstractImage;

    fn enabled(&self) -> ComponentSet {
        self.regs.enabled()
    }

    fn new_image(&self) -> AbstractImage {
        CALLS.set(Calls { new_images: CALLS.get().new_images + 1, ..CALLS.get() });
        self.regs.new_image()
    }

    fn dynamic(&self) -> ComponentSet {
        self.regs.dynamic()
    }

    fn reset(&mut self) {
        self.regs.reset();
    }

    fn save(&self, rfbm: Rfbm, image: &mut AbstractImage) {
        CALLS.set(Calls { saves: CALLS.get().saves + 1, ..CALLS.get() });
        self.regs.save(rfbm, image);
        if self.regs.get(Component::SSE).number() == Self::POISON {
            *image = AbstractImage::BAD_HEADER;
        }
    }

    fn restore(&mut self, rfbm: Rfbm, image: &AbstractImage) -> Result<(), Fault> {
        CALLS.set(Calls { restores: CALLS.get().restores + 1, ..CALLS.get() });
        self.regs.restore(rfbm, image)
    }

    fn save_control(&self, rfbm: Rfbm, image: &mut AbstractImage) {
        CALLS.set(Calls { of_control: CALLS.get().of_control + 1, ..CALLS.get() });
        self.save(rfbm, image);
    }

    fn restore_control(&mut self, rfbm: Rfbm, image: &AbstractImage) -> Result<(), Fault> {
        CALLS.set(Calls { of_control: CALLS.get().of_control + 1, ..CALLS.get() });
        self.restore(rfbm, image)
    }

    fn restore_initial(&mut self, rfbm: Rfbm) {
        self.regs.restore_initial(rfbm);
    }

    fn in_use(&self) -> Result<ComponentSet, Unsupported> {
        self.regs.in_use()
    }

    fn get(&self, component: Component) -> Value {
        self.regs.get(component)
    }

    fn pkru(&self) -> Option<Pkru> {
        self.regs.pkru()
    }

    fn set_pkru(&mut self, pkru: Pkru) {
        CALLS.set(Calls { pkru_writes: CALLS.get().pkru_writes + 1, ..CALLS.get() });
        self.regs.set_pkru(pkru);
    }

    fn xfd(&self) -> Result<ComponentSet, Unsupported> {
        self.regs.xfd()
    }

    fn set_xfd(&mut self, disabled: ComponentSet) -> Result<(), Unsupported> {
        self.regs.set_xfd(self.stuck_xfd.unwrap_or(disabled))
    }

    fn run(&mut self, program: Program) {
        self.regs.run(program);
    }
}

impl UserFrames for Watched {
    type Frame = AbstractFrame;

    fn frame_with_room(&self, components: ComponentSet) -> AbstractFrame {
        self.regs.frame_with_room(components)
    }

    fn save_user(&self, rfbm: Rfbm, frame: &mut AbstractFrame) -> Result<(), Fault> {
        self.regs.save_user(rfbm, frame)?;
        CALLS.set(Calls { saves: CALLS.get().saves + 1, ..CALLS.get() });
        Ok(())
    }

    fn restore_user(&mut self, rfbm: Rfbm, frame: &AbstractFrame) -> Result<(), Fault> {
        self.regs.restore_user(rfbm, frame)
    }

    fn restore_user_legacy(&mut self, frame: &AbstractFrame) -> Result<(), Fault> {
        self.regs.restore_user_legacy(frame)
    }
}
