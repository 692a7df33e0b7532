//! The registers of the CPU that this runs on.

use super::{
    Fault, Image, Program, RegisterFile, Unsupported, UserFrames, XsaveImage, frame::LEGACY, image, pattern,
};
use crate::{
    Component, ComponentSet, Pkru, Rfbm, Value,
    arch::{Features, HardwareFault, OpError, ParkedRegs, RestoreOp, through_pkru},
    xstate::{Area, Format, Layout, OwnedArea, SaveInstruction, XcompBv, XsaveFeatures, lane},
};
use core::hash::{Hash, Hasher};
use std::vec::Vec;

mod cpu;
mod frame;
#[cfg(test)]
mod tests;

pub use crate::arch::NotAvailable as HostError;
pub use cpu::HostCpu;
pub use frame::HostFrame;

/// The registers of a simulated CPU, on which real instructions run; parked in memory between them.
///
/// Each operation runs in a window: the host's registers are put aside, the parked ones are loaded, one instruction
/// or register program runs on them, and they are parked again. So any number of simulated CPUs can be on one
/// thread, a save or a restore is what the CPU makes of it, and a #GP or #PF in one is a [`Fault`]: a SIGSEGV
/// handler, installed when the first [`HostRegs`] is made, finds the instruction in a table and lets the window
/// go on behind it; signals that are not from a window go to the program's own handler.
///
/// What user space cannot do is not here: trapping on first use (CR0.TS), XFD, XSETBV, XSAVES. PKRU is written
/// with WRPKRU, but for what it says of key 0, and is in no window: a save and a restore that ask for it write it to
/// and read it from the image beside the instruction. Tiles (AMX) need a permission of the process and are left alone.
///
/// Two are equal when every component has the same value.
///
/// ```
/// use fpuswitch::{Component, Rfbm, Value, registers::{HostRegs, Image, Program, RegisterFile}};
/// let Ok(mut regs) = HostRegs::new() else { return }; // not x86-64 Linux
/// let value = Value::new(7).unwrap();
/// regs.run(Program::Fill(Component::SSE, value));
/// let mut image = regs.new_image();
/// regs.save(Rfbm::ALL, &mut image);
/// assert_eq!(image.get(Component::SSE), value);
/// ```
#[derive(Clone, Debug)]
pub struct HostRegs {
    parked: ParkedRegs,
    pkru: Pkru,
    layout: Layout,
    save_instruction: SaveInstruction,
}

impl HostRegs {
    /// Registers as after reset. They are saved with XSAVEC where the CPU has it, else with XSAVE, else with
    /// FXSAVE.
    ///
    /// # Errors
    /// [`HostError`] off x86-64 Linux, and where the SIGSEGV handler cannot be installed.
    pub fn new() -> Result<Self, HostError> {
        let features = Features::detect()?;
        let parked = ParkedRegs::new(features)?;
        let layout = Self::layout_with_xsave(features);
        Ok(Self { parked, pkru: Pkru(0), save_instruction: SaveInstruction::best(&layout), layout })
    }

    /// The same registers, saved with another instruction from now on. With FXSAVE, it is a CPU without XSAVE, after
    /// reset.
    ///
    /// XSAVEOPT is used on an image only if nothing but saves has written it ([`XsaveImage::is_edited`]), XSAVE
    /// otherwise: the rule that keeps it from being fooled. Here it cannot be fooled anyway, as the last XRSTOR was
    /// always of the parked area.
    ///
    /// # Errors
    /// [`Unsupported`] if the CPU lacks it.
    pub fn with_save_instruction(mut self, instruction: SaveInstruction) -> Result<Self, Unsupported> {
        let features = self.parked.features();
        if !instruction.is_on(features.layout()) {
            return Err(Unsupported(instruction.name()));
        }
        if instruction == SaveInstruction::Fxsave {
            if self.layout.has_xsave() {
                self.reset();
            }
            self.layout = Layout::fxsave_only().with_mxcsr_mask(features.layout().mxcsr_mask());
        } else {
            self.layout = Self::layout_with_xsave(features);
        }
        self.save_instruction = instruction;
        Ok(self)
    }

    /// What is parked, and a place for PKRU in images and frames.
    fn layout_with_xsave(features: Features) -> Layout {
        features.host_layout().restricted_to(features.enabled().with(Component::PKRU))
    }

    /// The instruction that saves.
    pub fn save_instruction(&self) -> SaveInstruction {
        self.save_instruction
    }

    /// The layout of the images: everything of XCR0 but tiles and what this crate does not know. It says what CPU
    /// this is: an image with other components is refused, even if the host would take it.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Reads a component back with the moves that a program would use (VMOVUPS, KMOVQ, FSTP and so on), not with
    /// a save. Shapes: [`Area`].
    ///
    /// # Errors
    /// [`Unsupported`] if it is not enabled.
    pub fn read_back(&self, component: Component) -> Result<Vec<u8>, Unsupported> {
        let enabled = Some(component).filter(|component| self.layout.enabled().contains(*component));
        let size = enabled.and_then(|component| self.parked.features().component_bytes(component));
        let size = size.ok_or(NOT_ENABLED)?;
        let mut bytes = std::vec![0; size];
        self.parked.read(component, &mut bytes).map_err(|_| NOT_ENABLED)?;
        Ok(bytes)
    }

    fn standard(&self) -> Format {
        if self.save_instruction == SaveInstruction::Fxsave { Format::Fxsave } else { Format::Standard }
    }

    fn restore_op(&self) -> RestoreOp {
        if self.save_instruction == SaveInstruction::Fxsave { RestoreOp::Fxrstor } else { RestoreOp::Xrstor }
    }

    /// The parked registers as an image.
    fn parked(&self) -> Area<&[u8]> {
        Area::over(self.parked.image(), self.parked.features().layout()).expect("a parked image has a header")
    }

    /// What the program asks of a component that is enabled.
    fn fill(&mut self, component: Component, value: Value) {
        if let Some(size) = self.parked.features().component_bytes(component)
            && self.layout.enabled().contains(component)
        {
            let written = match value {
                Value::INITIAL => self.parked.clear(component),
                _ => self.parked.write(component, &pattern::bytes(component, size, value)),
            };
            debug_assert_eq!(written, Ok(()), "patterns are values that the CPU takes");
        }
    }
}

/// Gives an area that was saved without PKRU the places of `components`, and PKRU its value. Its place is behind all
/// that is parked.
fn add_pkru(area: &mut OwnedArea, components: ComponentSet, pkru: Option<Pkru>) {
    if area.format() == Format::Compacted {
        area.set_xcomp_bv(XcompBv::compacted(components));
    }
    if let Some(pkru) = pkru {
        image::set_pkru(area, pkru);
    }
}

const NOT_ENABLED: Unsupported = Unsupported("a component that is not enabled");

/// What a restore that did not happen means to the protocol.
fn fault(error: OpError) -> Fault {
    match error {
        OpError::Fault(HardwareFault::Page { .. }) => Fault::Page,
        OpError::Fault(HardwareFault::GeneralProtection | HardwareFault::Other(_)) => {
            Fault::GeneralProtection
        }
        // An image whose header claims more than it has: refused without a try, which would read beyond it.
        OpError::TooShort { .. } => Fault::GeneralProtection,
        OpError::Missing(_) => Fault::InvalidOpcode,
    }
}

impl PartialEq for HostRegs {
    fn eq(&self, other: &Self) -> bool {
        self.pkru == other.pkru && self.parked().same_values(&other.parked())
    }
}

impl Eq for HostRegs {}

impl Hash for HostRegs {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.pkru.hash(state);
        image::hash_values(&self.parked(), state);
    }
}

impl RegisterFile for HostRegs {
    type Image = XsaveImage;

    fn enabled(&self) -> ComponentSet {
        let enabled = self.layout.enabled();
        if self.parked.features().has_pkru() { enabled.with(Component::PKRU) } else { enabled }
    }

    fn new_image(&self) -> XsaveImage {
        XsaveImage::new(&self.layout, self.save_instruction.format())
    }

    fn reset(&mut self) {
        self.parked.reset();
        self.set_pkru(Pkru(0));
    }

    fn save(&self, rfbm: Rfbm, image: &mut XsaveImage) {
        let pkru = self.pkru().filter(|_| rfbm.contains(Component::PKRU));
        let saved = rfbm.of(self.layout.enabled());
        let saved = if pkru.is_some() { saved } else { saved.without(Component::PKRU) };
        let (format, instruction) = match self.save_instruction {
            SaveInstruction::Xsaveopt if image.is_edited() => (Format::Standard, SaveInstruction::Xsave),
            instruction => (instruction.format(), instruction),
        };
        image.save(&self.layout, format, saved, |area, components| {
            let saved = self.parked.save(instruction, Rfbm::new(components), area.bytes_mut());
            saved.expect("an area of this layout has room, and the instruction was looked for");
            add_pkru(area, components, pkru);
        });
    }

    fn restore(&mut self, rfbm: Rfbm, image: &XsaveImage) -> Result<(), Fault> {
        let components = self.parked_of(rfbm);
        let has_room = if image::is_own(image.area(), &self.layout) { image.room() } else { components };
        self.load(components & has_room, image.area())?;
        if !components.is_subset_of(has_room) {
            self.restore_initial(Rfbm::new(components - has_room));
        }
        if rfbm.contains(Component::PKRU) {
            self.set_pkru(image.pkru());
        }
        Ok(())
    }

    /// By XRSTOR from an image in the standard format whose XSTATE_BV is zero. AVX alone brings MXCSR along, which is
    /// loaded as it is then.
    fn restore_initial(&mut self, rfbm: Rfbm) {
        let mut initial = OwnedArea::initial(&self.layout, self.standard());
        if !rfbm.contains(Component::SSE) {
            initial.legacy_mut().set_mxcsr(self.parked().legacy().mxcsr());
        }
        let restored = self.load(self.parked_of(rfbm), &initial);
        debug_assert_eq!(restored, Ok(()), "the initial configuration is accepted");
        if rfbm.contains(Component::PKRU) {
            self.set_pkru(Pkru(0));
        }
    }

    fn in_use(&self) -> Result<ComponentSet, Unsupported> {
        if !self.layout.features().contains(XsaveFeatures::XGETBV1) {
            return Err(Unsupported("XGETBV(1)"));
        }
        let in_use = self.parked.in_use().map_err(|_| Unsupported("XGETBV(1)"))?;
        // PKRU is not among the parked registers: it is in use where it is not initial (0).
        let in_use = if self.pkru == Pkru(0) { in_use } else { in_use.with(Component::PKRU) };
        Ok(in_use & self.layout.enabled())
    }

    fn get(&self, component: Component) -> Value {
        let bytes = self.read_back(component);
        bytes.map_or(Value::INITIAL, |bytes| pattern::value(component, &bytes))
    }

    fn pkru(&self) -> Option<Pkru> {
        self.parked.features().has_pkru().then_some(self.pkru)
    }

    fn set_pkru(&mut self, pkru: Pkru) {
        if let Some(read_back) = through_pkru(self.parked.features(), pkru.0) {
            self.pkru = Pkru(read_back);
        }
    }

    fn xfd(&self) -> Result<ComponentSet, Unsupported> {
        Err(Unsupported("IA32_XFD, which only a kernel reaches,"))
    }

    fn run(&mut self, program: Program) {
        match program {
            Program::Fill(component, value) => self.fill(component, value),
            Program::FillAll(value) => self.layout.enabled().iter().for_each(|c| self.fill(c, value)),
            Program::Clear(component) => self.fill(component, Value::INITIAL),
            Program::ChangeLane { register, lane: number, value } => {
                if lane(register, number).is_some_and(|(c, _)| self.layout.enabled().contains(c)) {
                    let changed = self.parked.change_lane(register, number, value);
                    debug_assert_eq!(changed, Ok(()), "the component is enabled");
                }
            }
            Program::Round(rounding) => self.parked.set_rounding(rounding),
        }
    }
}

impl UserFrames for HostRegs {
    type Frame = HostFrame;

    fn frame_with_room(&self, components: ComponentSet) -> HostFrame {
        HostFrame::with_room(self, components)
    }

    /// By XSAVE, whatever saves images, as Linux does, or FXSAVE. A frame of another layout becomes one of this.
    fn save_user(&self, rfbm: Rfbm, frame: &mut HostFrame) -> Result<(), Fault> {
        if frame.form().layout() != &self.layout {
            frame.become_one_of(&self.layout);
        }
        let instruction = match self.save_instruction {
            SaveInstruction::Fxsave => SaveInstruction::Fxsave,
            _ => SaveInstruction::Xsave,
        };
        let saved = self.parked_of(rfbm) & frame.form().room();
        frame.clear_header();
        self.parked.save(instruction, Rfbm::new(saved), &mut frame.mapping).map_err(fault)?;
        frame.finish()
    }

    /// By XRSTOR, or FXRSTOR. An absent page of what is restored is a page fault even if this CPU does not touch it,
    /// and before any other fault: both are left to the CPU.
    fn restore_user(&mut self, rfbm: Rfbm, frame: &HostFrame) -> Result<(), Fault> {
        let restored = self.parked_of(rfbm);
        if frame.form().layout() != &self.layout {
            frame.require([frame.form().image()])?;
            return self.load(restored, &frame.image());
        }
        if self.standard() == Format::Fxsave {
            return self.restore_user_legacy(frame);
        }
        let done = self.parked.restore(RestoreOp::Xrstor, Rfbm::new(restored), &frame.mapping);
        frame.require(frame.form().accessed(restored))?;
        done.map_err(fault)?;
        self.refuse_foreign(&frame.image())
    }

    /// By FXRSTOR.
    fn restore_user_legacy(&mut self, frame: &HostFrame) -> Result<(), Fault> {
        let done = self.parked.restore(RestoreOp::Fxrstor, Rfbm::ALL, &frame.mapping);
        frame.require([LEGACY])?;
        done.map_err(fault)
    }
}

impl HostRegs {
    /// What an instruction is asked for: PKRU is in no window.
    fn parked_of(&self, rfbm: Rfbm) -> ComponentSet {
        rfbm.of(self.layout.enabled()).without(Component::PKRU)
    }

    /// Whether these are all components but PKRU.
    fn is_whole(&self, components: ComponentSet) -> bool {
        components.with(Component::PKRU) == self.layout.enabled().with(Component::PKRU)
    }

    /// Restores from an area that is all present.
    fn load<B: AsRef<[u8]>>(&mut self, components: ComponentSet, area: &Area<B>) -> Result<(), Fault> {
        if !image::is_own(area, &self.layout) {
            let own = area.convert(&self.layout, self.standard());
            return self.load(components, &own.map_err(|_| Fault::GeneralProtection)?);
        }
        if self.standard() == Format::Fxsave && !self.is_whole(components) {
            // The instruction has no mask: it gets an image of what the registers hold, changed.
            if image::refusal(area, ComponentSet::LEGACY).is_some() {
                return Err(Fault::GeneralProtection);
            }
            let mut own = self.new_image();
            self.save(Rfbm::new(ComponentSet::LEGACY), &mut own);
            own.take(components, area);
            return self.load(self.layout.enabled(), own.area());
        }
        self.parked.restore(self.restore_op(), Rfbm::new(components), area.bytes()).map_err(fault)?;
        self.refuse_foreign(area)
    }

    /// Refuses an image that the host has taken because its XCR0 enables more than this CPU's.
    fn refuse_foreign<B: AsRef<[u8]>>(&self, area: &Area<B>) -> Result<(), Fault> {
        let claimed = area.xstate_bv().0 | area.xcomp_bv().components().bits();
        let host = self.parked.features().host_layout().enabled().bits();
        let foreign = claimed & host & !self.layout.enabled().bits();
        if self.layout.has_xsave() && foreign != 0 { Err(Fault::GeneralProtection) } else { Ok(()) }
    }
}
