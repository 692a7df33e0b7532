//! The seam to the protocol.

use super::{MemoryOperand, SoftFault, SoftFrame, SoftRegs, Tracking, save::Save, value};
use crate::{
    Component, ComponentSet, Pkru, Rfbm, Value,
    registers::{Fault, Program, RegisterFile, Unsupported, XsaveImage, pattern},
    xstate::{Format, OwnedArea, SaveInstruction, XsaveFeatures, initial_value, lane},
};
use core::ops::Range;

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
            SaveInstruction::Xsaveopt if image.is_edited() => SaveInstruction::Xsave,
            instruction => instruction,
        };
        let format = instruction.format();
        // XRSTOR_INFO names no image but the one that was restored, as long as that holds the same.
        let is_restored = image.takes_directly(&self.layout, format, rfbm)
            && self.tracking.image.as_ref() == Some(image.version());
        let at = MemoryOperand::at(if is_restored { IMAGE_ADDRESS } else { ELSEWHERE });
        image.save(&self.layout, format, rfbm, |area| {
            let saved = self.store(&Save { instruction, rfbm, at: &at }, area.bytes_mut());
            debug_assert_eq!(saved, Ok(()), "the area is long enough, and all present");
        });
    }

    /// Restores from an image, `rfbm` being within what is enabled.
    fn restore_image(
        &mut self,
        rfbm: ComponentSet,
        image: &XsaveImage,
        present: &Range<usize>,
    ) -> Result<(), SoftFault> {
        let at = MemoryOperand { address: IMAGE_ADDRESS, present: present.clone() };
        let area = image.area();
        let len = area.bytes().len();
        if area.layout() != &self.layout || area.format() == Format::Fxsave && self.layout.has_xsave() {
            // No instruction restores it as it is.
            at.require(&(0..len), len)?;
            let own = area.convert(&self.layout, self.instruction.format())?;
            return self.load_area(rfbm, &MemoryOperand::at(IMAGE_ADDRESS), &own);
        }
        self.load_area(rfbm, &at, area)?;
        self.tracking.image = Some(image.version().clone());
        Ok(())
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

    /// What the protocol asks for: PKRU has operations of its own.
    fn without_pkru(&self, rfbm: Rfbm) -> ComponentSet {
        rfbm.of(self.layout.enabled()).without(Component::PKRU)
    }
}

impl RegisterFile for SoftRegs {
    type Image = XsaveImage;
    type Frame = SoftFrame;

    fn enabled(&self) -> ComponentSet {
        self.layout.enabled()
    }

    fn new_image(&self) -> XsaveImage {
        XsaveImage::new(&self.layout, self.instruction.format())
    }

    fn new_frame(&self) -> SoftFrame {
        SoftFrame::new(&self.layout)
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
        self.save_image(self.instruction, self.without_pkru(rfbm), image);
    }

    /// By XRSTOR, or FXRSTOR from an image of FXSAVE.
    fn restore(&mut self, rfbm: Rfbm, image: &XsaveImage) -> Result<(), Fault> {
        let all = MemoryOperand::default().present;
        Ok(self.restore_image(self.without_pkru(rfbm), image, &all)?)
    }

    /// By XRSTOR from an area of the initial configuration, in the standard format: AVX alone brings MXCSR along.
    fn restore_initial(&mut self, rfbm: Rfbm) {
        let initial = OwnedArea::initial(&self.layout, Format::Standard);
        let at = MemoryOperand::at(INITIAL_ADDRESS);
        let restored = self.load_area(self.without_pkru(rfbm), &at, &initial);
        debug_assert_eq!(restored, Ok(()), "the initial configuration is accepted");
    }

    fn save_user(&self, rfbm: Rfbm, frame: &mut SoftFrame) -> Result<(), Fault> {
        let rfbm = self.without_pkru(rfbm);
        let instruction =
            if self.layout.has_xsave() { SaveInstruction::Xsave } else { SaveInstruction::Fxsave };
        let save = Save { instruction, rfbm, at: frame.operand() };
        let area = frame.image().area();
        if area.layout() == &self.layout {
            self.check_store(&save, area.bytes())?;
        } else {
            // Another CPU's frame becomes this one's.
            let len = area.bytes().len();
            frame.operand().require(&(0..len), len)?;
        }
        self.save_image(instruction, rfbm, frame.image_mut());
        Ok(())
    }

    fn restore_user(&mut self, rfbm: Rfbm, frame: &SoftFrame) -> Result<(), Fault> {
        Ok(self.restore_image(self.without_pkru(rfbm), frame.image(), &frame.operand().present)?)
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
