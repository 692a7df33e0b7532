//! Registers that are at fault themselves.

use crate::{
    Component, ComponentSet, Pkru, Rfbm, Value,
    fpu::Defect,
    registers::{Fault, Program, RegisterFile, SoftRegs, Unsupported, UserFrames, XsaveImage},
    xstate::{Format, SaveInstruction},
};

/// Registers with bytes on which the part of a [`Defect`] that lies below the protocol is wrong too. Most defects have none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Defective<R> {
    regs: R,
    defect: Option<Defect>,
}

impl<R> Defective<R> {
    /// Registers like `regs`, with that error or none.
    pub fn new(regs: R, defect: Option<Defect>) -> Self {
        Self { regs, defect }
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }
}

impl Defective<SoftRegs> {
    /// The default software registers with that error or none. XSAVEOPT saves where the error is one of its use.
    ///
    /// # Panics
    /// Never: the default CPU has XSAVEOPT.
    pub fn software(defect: Option<Defect>) -> Self {
        let regs = SoftRegs::default();
        Self::new(
            match defect {
                Some(Defect::XsaveoptOfReusedArea) => {
                    let regs = regs.with_save_instruction(SaveInstruction::Xsaveopt);
                    regs.expect("the default CPU has it").with_one_area()
                }
                _ => regs,
            },
            defect,
        )
    }
}

impl<R: RegisterFile<Image = XsaveImage>> RegisterFile for Defective<R> {
    type Image = XsaveImage;

    fn enabled(&self) -> ComponentSet {
        self.regs.enabled()
    }

    fn dynamic(&self) -> ComponentSet {
        self.regs.dynamic()
    }

    fn new_image(&self) -> XsaveImage {
        let image = self.regs.new_image();
        if !self.has(Defect::AreaTooSmall) {
            return image;
        }
        let layout = image.area().layout();
        let size_bytes = layout.size_bytes(Format::Compacted);
        let has_place = |component: &Component| {
            let place = layout.place(*component);
            place.is_none_or(|place| place.offset_bytes as usize + place.size_bytes as usize <= size_bytes)
        };
        let room = layout.enabled().iter().filter(has_place);
        XsaveImage::with_room(layout, Format::Standard, room.fold(ComponentSet::EMPTY, ComponentSet::with))
    }

    fn reset(&mut self) {
        self.regs.reset();
    }

    fn save(&self, rfbm: Rfbm, image: &mut XsaveImage) {
        self.regs.save(rfbm, image);
    }

    fn restore(&mut self, rfbm: Rfbm, image: &XsaveImage) -> Result<(), Fault> {
        self.regs.restore(rfbm, image)
    }

    fn restore_initial(&mut self, rfbm: Rfbm) {
        if !self.has(Defect::InitialBehindLoad) {
            return self.regs.restore_initial(rfbm);
        }
        // The MXCSR in memory is the initial one, not the one that the registers hold.
        let initial = XsaveImage::new(self.regs.new_image().area().layout(), Format::Standard);
        let restored = self.regs.restore(rfbm, &initial);
        debug_assert_eq!(restored, Ok(()), "the initial configuration is accepted");
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
        self.regs.set_pkru(pkru);
    }

    fn xfd(&self) -> Result<ComponentSet, Unsupported> {
        self.regs.xfd()
    }

    fn set_xfd(&mut self, disabled: ComponentSet) -> Result<(), Unsupported> {
        self.regs.set_xfd(disabled)
    }

    fn run(&mut self, program: Program) {
        self.regs.run(program);
    }
}

impl<R: UserFrames<Image = XsaveImage>> UserFrames for Defective<R> {
    type Frame = R::Frame;

    fn frame_with_room(&self, components: ComponentSet) -> R::Frame {
        self.regs.frame_with_room(components)
    }

    fn save_user(&self, rfbm: Rfbm, frame: &mut R::Frame) -> Result<(), Fault> {
        self.regs.save_user(rfbm, frame)
    }

    fn restore_user(&mut self, rfbm: Rfbm, frame: &R::Frame) -> Result<(), Fault> {
        self.regs.restore_user(rfbm, frame)
    }

    fn restore_user_legacy(&mut self, frame: &R::Frame) -> Result<(), Fault> {
        self.regs.restore_user_legacy(frame)
    }
}
