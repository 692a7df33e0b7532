//! The seam to the protocol.

use super::{MemoryOperand, SoftFault, SoftFrame, SoftRegs, Tracking, save::Save, value};
use crate::{
    Component, ComponentSet, Pkru, Rfbm, Value,
    registers::{
        Fault, Image, Program, RegisterFile, Unsupported, UserFrames, XsaveImage, frame::LEGACY, image,
        pattern,
    },
    xstate::{Area, Format, OwnedArea, SaveInstruction, XsaveFeatures, initial_value, lane},
};

/// Where the image is that was restored last, and the one of the initial configuration: in the kernel's half, out
/// of the way of areas that somebody uses with the instructions.
const IMAGE_ADDRESS: u64 = 0xffff_8000_0000_0000;
const INITIAL_ADDRESS: u64 = 0xffff_8000_0001_0000;
/// Where all other images are. Not aligned, so that no XRSTOR was from there.
const ELSEWHERE: u64 = u64::MAX;

impl SoftRegs {
    /// Saves an image with the instruction, `rfbm` being within what is enabled.
    fn save_image(&self, instruction: SaveInstruction, rfbm: ComponentSet, image: &mut XsaveImage) {
        // An XSAVEOPT takes what is in the image for what the last restore found there.
        let instruction = match instruction {
            SaveInstruction::Xsaveopt if image.is_edited() && !self.has_one_area() => SaveInstruction::Xsave,
            instruction => instruction,
        };
        let format = instruction.format();
        // XRSTOR_INFO names no image but the one that was restored, as long as that holds the same.
        let is_restored = image.takes_directly(&self.layout, format, rfbm)
            && self.tracking.image.as_ref() == Some(image.version());
        let at =
            MemoryOperand::at(if is_restored || self.has_one_area() { IMAGE_ADDRESS } else { ELSEWHERE });
        image.save(&self.layout, format, rfbm, |area, rfbm| {
            let saved = self.store(&Save { instruction, rfbm, at: &at }, area.bytes_mut());
            debug_assert_eq!(saved, Ok(()), "the area is long enough, and all present");
        });
    }

    /// Restores from an image, `rfbm` being within what is enabled.
    fn restore_image(&mut self, rfbm: ComponentSet, image: &XsaveImage) -> Result<(), SoftFault> {
        let area = image.area();
        if !image::is_own(area, &self.layout) {
            return self.load_foreign(rfbm, area);
        }
        let room = image.room();
        self.load_area(rfbm & room, &MemoryOperand::at(IMAGE_ADDRESS), area)?;
        self.tracking.image = Some(image.version().clone());
        if !rfbm.is_subset_of(room) {
            self.restore_initial(Rfbm::new(rfbm - room));
        }
        Ok(())
    }

    fn load_foreign<B: AsRef<[u8]>>(&mut self, rfbm: ComponentSet, area: &Area<B>) -> Result<(), SoftFault> {
        let own = area.convert(&self.layout, self.instruction.format())?;
        self.load_area(rfbm, &MemoryOperand::at(IMAGE_ADDRESS), &own)
    }

    fn load_area(
        &mut self,
        rfbm: ComponentSet,
        at: &MemoryOperand,
        area: &OwnedArea,
    ) -> Result<(), SoftFault> {
        match area.format() {
            Format::Fxsave => self.load_legacy(at, rfbm, area.bytes()),
            Format::Standard | Format::Compacted => self.xrstor(Rfbm::new(rfbm), at, area),
        }
    }

    /// What is asked for of a frame with room for `room`: PKRU has operations of its own there.
    fn of_frame(&self, rfbm: Rfbm, room: ComponentSet) -> ComponentSet {
        rfbm.of(self.layout.enabled() & room).without(Component::PKRU)
    }
}

impl RegisterFile for SoftRegs {
    type Image = XsaveImage;

    fn enabled(&self) -> ComponentSet {
        self.layout.enabled()
    }

    fn dynamic(&self) -> ComponentSet {
        image::dynamic(&self.layout)
    }

    fn new_image(&self) -> XsaveImage {
        XsaveImage::of_new_task(&self.layout, self.instruction.format())
    }

    fn reset(&mut self) {
        for (component, value) in &mut self.values {
            *value = initial_value(*component, value.len());
        }
        self.xfd = ComponentSet::EMPTY;
        self.xfd_err = ComponentSet::EMPTY;
        self.tracking = Tracking::default();
    }

    /// By the [save instruction](SoftRegs::save_instruction). Another CPU's image, one in another form, and one
    /// that would lose components keep their form: the saved components are copied into them.
    fn save(&self, rfbm: Rfbm, image: &mut XsaveImage) {
        self.save_image(self.instruction, rfbm.of(self.layout.enabled()), image);
    }

    /// By XRSTOR, or FXRSTOR from an image of FXSAVE.
    fn restore(&mut self, rfbm: Rfbm, image: &XsaveImage) -> Result<(), Fault> {
        Ok(self.restore_image(rfbm.of(self.layout.enabled()), image)?)
    }

    /// By XRSTOR from an area of the initial configuration, in the standard format. AVX alone brings MXCSR along, which
    /// is loaded as it is then.
    fn restore_initial(&mut self, rfbm: Rfbm) {
        let mut initial = OwnedArea::initial(&self.layout, Format::Standard);
        if !rfbm.contains(Component::SSE) {
            initial.legacy_mut().set_mxcsr(value::mxcsr(&self.values[&Component::SSE]));
        }
        let at = MemoryOperand::at(INITIAL_ADDRESS);
        let restored = self.load_area(rfbm.of(self.layout.enabled()), &at, &initial);
        debug_assert_eq!(restored, Ok(()), "the initial configuration is accepted");
    }

    fn in_use(&self) -> Result<ComponentSet, Unsupported> {
        self.xinuse().map_err(|_| Unsupported("XGETBV(1)"))
    }

    fn get(&self, component: Component) -> Value {
        let enabled = self.layout.enabled().contains(component);
        let value = self.values.get(&component).filter(|_| enabled);
        value.map_or(Value::INITIAL, |value| pattern::value(component, value))
    }

    fn pkru(&self) -> Option<Pkru> {
        let value = self.values.get(&Component::PKRU)?.first_chunk()?;
        Some(Pkru(u32::from_le_bytes(*value)))
    }

    fn set_pkru(&mut self, pkru: Pkru) {
        self.write(Component::PKRU, |value| value[..4].copy_from_slice(&pkru.0.to_le_bytes()));
    }

    fn xfd(&self) -> Result<ComponentSet, Unsupported> {
        if self.layout.has_xsave() && self.layout.features().contains(XsaveFeatures::XFD) {
            Ok(self.xfd)
        } else {
            Err(Unsupported("XFD"))
        }
    }

    /// # Errors
    /// [`Unsupported`] without XFD, and for components that it does not apply to.
    fn set_xfd(&mut self, disabled: ComponentSet) -> Result<(), Unsupported> {
        self.xfd()?;
        let applies = |component| self.layout.place(component).is_some_and(|place| place.is_dynamic);
        if !disabled.iter().all(applies) {
            return Err(Unsupported("XFD of a component that is not dynamic"));
        }
        self.xfd = disabled;
        Ok(())
    }

    /// Components that XFD disables are left out too, without a #NM: see [`require`](SoftRegs::require).
    fn run(&mut self, program: Program) {
        match program {
            Program::Fill(component, value) => self.fill(component, value),
            Program::FillAll(value) => {
                for component in self.layout.enabled().iter() {
                    self.fill(component, value);
                }
            }
            Program::Clear(component) => self.fill(component, Value::INITIAL),
            Program::ChangeLane { register, lane: number, value } => {
                if let Some((component, at)) = lane(register, number) {
                    self.write(component, |bytes| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes()));
                }
            }
            Program::Round(rounding) => {
                self.write(Component::X87, |bytes| value::set_x87_rounding(bytes, rounding));
                self.write(Component::SSE, |bytes| value::set_sse_rounding(bytes, rounding));
            }
        }
    }
}

impl UserFrames for SoftRegs {
    type Frame = SoftFrame;

    fn frame_with_room(&self, components: ComponentSet) -> SoftFrame {
        SoftFrame::new(&self.layout, components)
    }

    /// By XSAVE, or FXSAVE, to the frame's bytes. Nothing is written if it faults. Another CPU's frame becomes this
    /// one's.
    fn save_user(&self, rfbm: Rfbm, frame: &mut SoftFrame) -> Result<(), Fault> {
        if frame.form().layout() != &self.layout {
            frame.become_one_of(&self.layout, self.enabled() - self.dynamic());
        }
        let instruction =
            if self.layout.has_xsave() { SaveInstruction::Xsave } else { SaveInstruction::Fxsave };
        let rfbm = self.of_frame(rfbm, frame.form().room());
        let at = frame.operand().clone();
        let save = Save { instruction, rfbm, at: &at };
        self.check_store(&save, frame.image().bytes())?;
        frame.require(frame.form().finished())?;
        frame.image_mut().clear_header();
        self.store(&save, frame.image_mut().bytes_mut())?;
        frame.finish();
        Ok(())
    }

    /// By XRSTOR, or FXRSTOR, from the frame's bytes. An absent byte of what is restored is a page fault even where
    /// XSTATE_BV says that there is nothing to be loaded, and before any other fault: both are left to the CPU.
    fn restore_user(&mut self, rfbm: Rfbm, frame: &SoftFrame) -> Result<(), Fault> {
        let (form, area) = (frame.form(), frame.image());
        if form.layout() != &self.layout {
            frame.require([form.image()])?;
            return Ok(self.load_foreign(rfbm.of(self.layout.enabled()).without(Component::PKRU), area)?);
        }
        if !self.layout.has_xsave() {
            return self.restore_user_legacy(frame);
        }
        let rfbm = self.of_frame(rfbm, self.enabled());
        let restored = self.xrstor(Rfbm::new(rfbm), frame.operand(), area);
        frame.require(form.accessed(rfbm))?;
        Ok(restored?)
    }

    /// By FXRSTOR.
    fn restore_user_legacy(&mut self, frame: &SoftFrame) -> Result<(), Fault> {
        let restored = self.load_legacy(frame.operand(), ComponentSet::LEGACY, frame.image().bytes());
        frame.require([LEGACY])?;
        Ok(restored?)
    }
}
