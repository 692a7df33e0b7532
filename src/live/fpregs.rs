//! The registers of the OS thread that plays a CPU, as the protocol sees them.

use super::{
    form::Form,
    gate::{FCW, Gate, MXCSR, check, leave},
    image::LiveImage,
    instructions,
};
use crate::{
    Component, ComponentSet, Pkru, Rfbm, Value,
    registers::{Fault, Image, Program, RegisterFile, Unsupported},
    xstate::{LEGACY_BYTES, XsaveFeatures},
};

/// Where FCW and MXCSR are in every form of image (Intel SDM volume 1, table 10-2 "Layout of the 512-Byte Memory Region").
const FCW_AT: usize = 0;
const MXCSR_AT: usize = 24;
/// XSTATE_BV, in a form with a header.
pub(super) const XSTATE_BV_AT: usize = LEGACY_BYTES;

/// The fpregs of a CPU: the registers themselves, or in the parked gate what the gate parked of them.
///
/// It belongs to the kernel of one OS thread; what is done with it there is `Cpu`'s business.
#[derive(Debug)]
pub(super) struct Fpregs {
    pub(super) gate: *mut Gate,
    pub(super) form: &'static Form,
    /// The x87 stack may hold something: user code was stopped where no ABI says that it is empty, or an image was loaded.
    pub(super) is_x87_in_use: bool,
}

impl Fpregs {
    /// Reads a field of the gate.
    ///
    /// Every access is a word's, and none outlives a statement: asm and a signal handler of this OS thread use the gate
    /// too.
    #[inline(always)]
    fn leave(&self) -> u8 {
        // SAFETY: the gate lives as long as its CPU, which has this.
        unsafe { (*self.gate).leave }
    }

    #[inline(always)]
    fn set_leave(&mut self, leave: u8) {
        // SAFETY: as for `leave`.
        unsafe { (*self.gate).leave = leave };
    }

    /// The control words that user code left: FCW and MXCSR.
    #[inline]
    fn control(&self) -> (u16, u32) {
        // SAFETY: the gate lives as long as its CPU, and the areas that it points to as long as it does; they are aligned
        // for these words, and FXSAVE or XSAVE has written them where `leave` says so.
        unsafe {
            let words =
                |area: *const u8| (area.cast::<u16>().read(), area.add(MXCSR_AT).cast::<u32>().read());
            match self.leave() {
                leave::NOTHING => (FCW, MXCSR),
                leave::MXCSR => (FCW, (*self.gate).user_mxcsr),
                leave::LEGACY => words((*self.gate).aside),
                _ => words((*self.gate).parked),
            }
        }
    }
}

/// Whether the components that hold the control words are named: both are, or neither.
#[inline]
fn names_control(rfbm: Rfbm) -> bool {
    rfbm.contains(Component::SSE)
}

/// Writes both control words to an area.
///
/// # Safety
/// (a) The area has a legacy region, at a multiple of 16.
#[inline]
unsafe fn write_control(area: *mut u8, (fcw, mxcsr): (u16, u32)) {
    // SAFETY: by (a).
    unsafe {
        area.add(FCW_AT).cast::<u16>().write(fcw);
        area.add(MXCSR_AT).cast::<u32>().write(mxcsr);
    }
}

impl RegisterFile for Fpregs {
    type Image = LiveImage;

    #[inline]
    fn enabled(&self) -> ComponentSet {
        let components = self.form.components();
        if self.form.has_pkru() { components.with(Component::PKRU) } else { components }
    }

    fn new_image(&self) -> LiveImage {
        LiveImage::new(self.form)
    }

    fn reset(&mut self) {
        self.restore_initial(Rfbm::ALL);
        self.set_pkru(Pkru(0));
    }

    #[inline]
    fn save(&self, rfbm: Rfbm, image: &mut LiveImage) {
        let components = rfbm.of(self.form.components());
        // SAFETY: (a) the protocol runs in the kernel of this gate's OS thread. (b) An image has room for all
        // components of the form, and nobody writes its header's reserved bytes.
        unsafe { instructions::save(image.as_ptr(), components.bits()) };
    }

    /// Words of memory alone: the gate has seen what the control words are.
    #[inline]
    fn save_control(&self, rfbm: Rfbm, image: &mut LiveImage) {
        if !names_control(rfbm) {
            return;
        }
        // SAFETY: (a) an image has a legacy region.
        unsafe { write_control(image.as_ptr(), self.control()) };
    }

    #[inline]
    fn restore(&mut self, rfbm: Rfbm, image: &LiveImage) -> Result<(), Fault> {
        let components = rfbm.of(self.form.components());
        // SAFETY: (a) as for `save`. (b) Nothing but saves and this crate writes an image, and those write what a
        // restore takes.
        unsafe { instructions::restore(image.as_ptr(), components.bits()) };
        // Also if its user code does not run before another's is loaded.
        self.is_x87_in_use = true;
        Ok(())
    }

    /// The control words are loaded at the exit, and only if they are not the default. Of the other registers nothing is
    /// specified.
    #[inline]
    fn restore_control(&mut self, rfbm: Rfbm, image: &LiveImage) -> Result<(), Fault> {
        if !names_control(rfbm) {
            return Ok(());
        }
        // SAFETY: an image has a legacy region, at a multiple of 64.
        let (fcw, mxcsr) = unsafe {
            (
                image.as_ptr().add(FCW_AT).cast::<u16>().read(),
                image.as_ptr().add(MXCSR_AT).cast::<u32>().read(),
            )
        };
        let is_parked = self.leave() == leave::PARKED;
        if self.is_x87_in_use {
            // Code behind a call expects the x87 stack to be empty (System V ABI, section 3.2.3 "Registers").
            self.take_for_kernel();
            self.is_x87_in_use = false;
        }
        if is_parked || fcw != FCW {
            // SAFETY: as for `leave`.
            let area = unsafe { if is_parked { (*self.gate).parked } else { (*self.gate).aside } };
            let initial = self.form.parked();
            // SAFETY: `parked` has the length of its template, and `aside` 512 bytes, which are the legacy region of it.
            unsafe {
                instructions::copy_bytes(
                    area,
                    initial.as_ptr(),
                    if is_parked { initial.len() } else { LEGACY_BYTES },
                );
                write_control(area, (fcw, mxcsr));
                if is_parked && self.form.has_header() {
                    area.add(XSTATE_BV_AT).cast::<u64>().write(ComponentSet::LEGACY.bits());
                }
            }
            if !is_parked {
                self.set_leave(leave::LEGACY);
            }
        } else if mxcsr & super::gate::MXCSR_CONTROL != MXCSR {
            // SAFETY: as for `leave`.
            unsafe { (*self.gate).user_mxcsr = mxcsr };
            self.set_leave(leave::MXCSR);
        } else {
            self.set_leave(leave::NOTHING);
        }
        Ok(())
    }

    #[inline]
    fn restore_initial(&mut self, rfbm: Rfbm) {
        let components = rfbm.of(self.form.components());
        // SAFETY: (a) as for `save`. (b) The initial configuration is accepted.
        unsafe { instructions::restore(self.form.initial().as_ptr(), components.bits()) };
    }

    fn in_use(&self) -> Result<ComponentSet, Unsupported> {
        if !self.form.layout().features().contains(XsaveFeatures::XGETBV1) {
            return Err(Unsupported("XGETBV(1)"));
        }
        if self.leave() == leave::PARKED {
            // SAFETY: the parked area has a header where the CPU has XGETBV.
            let bits = unsafe { (*self.gate).parked.add(XSTATE_BV_AT).cast::<u64>().read() };
            return Ok(ComponentSet::from_bits(bits));
        }
        // SAFETY: (a) was looked up.
        Ok(ComponentSet::from_bits(unsafe { instructions::xinuse() }) & self.form.components())
    }

    fn get(&self, component: Component) -> Value {
        let mut image = self.new_image();
        self.save(Rfbm::ALL, &mut image);
        image.get(component)
    }

    #[inline]
    fn pkru(&self) -> Option<Pkru> {
        // SAFETY: (a) was looked up.
        self.form.has_pkru().then(|| Pkru(unsafe { instructions::rdpkru() }))
    }

    #[inline]
    fn set_pkru(&mut self, pkru: Pkru) {
        if self.form.has_pkru() {
            // SAFETY: (a) was looked up. (b) Everything of the kernel's has key 0, which is never denied.
            unsafe { instructions::wrpkru(pkru.0 & !3) };
        }
    }

    fn xfd(&self) -> Result<ComponentSet, Unsupported> {
        Err(Unsupported("IA32_XFD, which only a kernel reaches,"))
    }

    #[inline]
    fn run(&mut self, program: Program) {
        run(self, &program);
    }
}

/// Runs a register program by way of an image. Nothing but a defect's clobbering comes here: where one can be planted, the
/// kernel path has a call of this, which is made only if it is.
#[inline(never)]
pub(super) extern "C" fn run(regs: &mut Fpregs, program: &Program) {
    let mut image = regs.new_image();
    regs.save(Rfbm::ALL, &mut image);
    let _ = match *program {
        Program::Fill(component, value) => image.set(component, value),
        Program::Clear(component) => image.set(component, Value::INITIAL),
        Program::FillAll(value) => {
            regs.form.components().iter().try_for_each(|component| image.set(component, value))
        }
        Program::ChangeLane { .. } | Program::Round(_) => Err(Unsupported("that register program")),
    };
    let _ = regs.restore(Rfbm::ALL, &image);
}

impl Fpregs {
    /// Kernel code is about to use the registers: nobody's only copy is in them.
    #[inline]
    pub(super) fn take_for_kernel(&mut self) {
        if self.leave() != leave::PARKED {
            self.set_leave(leave::NOTHING);
            // SAFETY: (a) the kernel of this OS thread. (b) The protocol has saved it.
            unsafe { instructions::take_for_kernel() };
        }
    }

    /// The thread that is loaded next promises that its control words are the default, or does not.
    #[inline]
    pub(super) fn set_promised(&mut self, is_promised: bool) {
        // SAFETY: as for `leave`.
        let gate = unsafe { &raw mut (*self.gate).check };
        // SAFETY: likewise.
        unsafe {
            if *gate != check::PARK {
                *gate = if is_promised { check::PROMISED } else { check::COMPARE };
            }
        }
    }
}
