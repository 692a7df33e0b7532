//! Loops of one instruction, to be timed.
//!
//! A loop is an [`Op`] that cannot fault: its areas are its own, and hold zeros or what it saved there. It runs in a
//! window, so that no Rust code comes between the registers' in-use class and the first round.

use super::{
    parked::ParkedRegs,
    window::{Area, Op},
};
use crate::{
    ComponentSet, Rfbm,
    arch::{OpError, TimedOp},
    xstate::{SaveInstruction, XsaveFeatures},
};
use core::{arch::naked_asm, mem::offset_of};
use std::vec::Vec;

/// What a loop works on.
#[repr(C)]
struct Loop {
    /// The first area.
    first: *mut u8,
    /// Behind the last.
    end: *mut u8,
    components: u64,
    /// Not 0.
    times: u64,
}

/// In: RDI = a [`Loop`]. RSI goes through the areas, R8 is behind the last, R11 counts down to 0. As an op's, its
/// registers are RAX, RCX, RDX, RSI, R8, R11 and the flags; R10 stays.
macro_rules! loops {
    ($($(#[$doc:meta])* $name:ident: $($line:literal),*;)+) => {$(
        $(#[$doc])*
        #[unsafe(naked)]
        unsafe extern "sysv64" fn $name() {
            naked_asm!(
                "mov rsi, [rdi + {first}]",
                "mov r8, [rdi + {end}]",
                "mov r11, [rdi + {times}]",
                "mov eax, [rdi + {components}]",
                "mov edx, [rdi + {components} + 4]",
                "mov ecx, 1",
                ".p2align 6",
                "2:",
                $($line,)*
                "add rsi, {stride}",
                "cmp rsi, r8",
                "cmove rsi, [rdi + {first}]",
                "dec r11",
                "jnz 2b",
                "ret",
                first = const offset_of!(Loop, first),
                end = const offset_of!(Loop, end),
                times = const offset_of!(Loop, times),
                components = const offset_of!(Loop, components),
                stride = const Area::BYTES,
            )
        }
    )+};
}

loops! {
    nothing: ;
    xsave: "xsave64 [rsi]";
    xsavec: "xsavec64 [rsi]";
    xsaveopt: "xsaveopt64 [rsi]";
    fxsave: "fxsave64 [rsi]";
    xrstor: "xrstor64 [rsi]";
    /// XSAVEC sets the SSE bit of XSTATE_BV whenever MXCSR is not 1F80H, so the MXCSR that XRSTOR loads, or resets
    /// to 1F80H, is the one before. Components in their initial configuration are put there again.
    xsavec_xrstor: "xsavec64 [rsi]", "xrstor64 [rsi]";
    /// ECX = 1.
    xgetbv1: "xgetbv";
    rdtsc: "rdtsc";
}

/// An instruction, the registers that it is to find, and the areas that it goes through in turn.
#[derive(Debug)]
pub(crate) struct Measurement {
    registers: ParkedRegs,
    op: Op,
    areas: Vec<Area>,
}

impl Measurement {
    /// Registers of some in-use class, and as many areas (at least one). For XRSTOR they hold these registers, as
    /// XSAVEC saves them, or XSAVE where that is missing.
    ///
    /// # Errors
    /// [`OpError::Missing`].
    pub(crate) fn new(registers: &ParkedRegs, op: TimedOp, areas: usize) -> Result<Self, OpError> {
        let features = registers.features();
        let has_xsave = features.layout().has_xsave();
        let has_xsavec = features.has(XsaveFeatures::XSAVEC);
        let (is_there, name, code): (_, _, Op) = match op {
            TimedOp::Nothing => (true, "", nothing),
            TimedOp::Xsave => (has_xsave, "XSAVE", xsave),
            TimedOp::Xsavec => (has_xsavec, "XSAVEC", xsavec),
            TimedOp::Xsaveopt => (features.has(XsaveFeatures::XSAVEOPT), "XSAVEOPT", xsaveopt),
            TimedOp::Fxsave => (true, "FXSAVE", fxsave),
            TimedOp::Xrstor => (has_xsave, "XRSTOR", xrstor),
            TimedOp::XsavecXrstor => (has_xsavec, "XSAVEC", xsavec_xrstor),
            TimedOp::Xgetbv1 => (features.has(XsaveFeatures::XGETBV1), "XGETBV with ECX = 1", xgetbv1),
            TimedOp::Rdtsc => (true, "RDTSC", rdtsc),
        };
        if !is_there {
            return Err(OpError::Missing(name));
        }
        let mut area = Area::zeroed();
        if op == TimedOp::Xrstor {
            let save = if has_xsavec { SaveInstruction::Xsavec } else { SaveInstruction::Xsave };
            registers.save(save, Rfbm::ALL, &mut area.bytes_mut()[..])?;
        }
        Ok(Self { registers: registers.clone(), op: code, areas: std::vec![area; areas.max(1)] })
    }

    /// Repeats the instruction `times` times, in one window. 0 does nothing.
    pub(crate) fn run(&mut self, times: u32) {
        if times == 0 {
            return;
        }
        let components = self.registers.features().enabled();
        let mut operand = Loop::over(&mut self.areas, components, times);
        // SAFETY: (a) `new` has looked. (b) The loop reads a `Loop`, whose areas have room for `components` in
        // either format and are borrowed exclusively, and one op alone has ever written to them. (c) It cannot
        // fault: the areas are aligned, and XRSTOR finds what XSAVEC or XSAVE saved to zeroed areas.
        let never = unsafe { self.registers.look(self.op, (&raw mut operand).cast(), ComponentSet::EMPTY) };
        debug_assert!(never.is_ok(), "{never:?}");
    }
}

#[cfg(test)]
impl Measurement {
    /// The registers after a loop: what `run` does not look at.
    pub(super) fn registers_after(&mut self, times: u32) -> &ParkedRegs {
        let components = self.registers.features().enabled();
        let mut operand = Loop::over(&mut self.areas, components, times);
        // SAFETY: as in `run`.
        unsafe { self.registers.change(self.op, (&raw mut operand).cast(), ComponentSet::EMPTY) }.unwrap();
        &self.registers
    }
}

impl Loop {
    fn over(areas: &mut [Area], components: ComponentSet, times: u32) -> Self {
        let areas = areas.as_mut_ptr_range();
        Self {
            first: areas.start.cast(),
            end: areas.end.cast(),
            components: components.bits(),
            times: times.into(),
        }
    }
}
