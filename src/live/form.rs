//! How registers are kept in memory here: the CPU's layout, the instruction that saves, and the initial image.

use super::{LiveError, gate};
use crate::{
    Component, ComponentSet,
    arch::Features,
    registers::Unsupported,
    xstate::{Layout, OwnedArea, SaveInstruction},
};
use std::{boxed::Box, sync::OnceLock};

/// The form of every image of this process: found once.
#[derive(Debug)]
pub(super) struct Form {
    layout: Layout,
    components: ComponentSet,
    instruction: SaveInstruction,
    /// For ever, so that the kernel's path has no bounds to check.
    initial: &'static [u8],
    /// In the format of XRSTOR without XSAVEC: what a parked gate begins with.
    parked: &'static [u8],
    has_pkru: bool,
}

static FORM: OnceLock<Result<Form, LiveError>> = OnceLock::new();

/// Has this process save with another instruction than the best that the CPU has, as one does that has no better: with
/// FXSAVE, x87 and SSE alone are switched. To be said before there is a CPU or a fiber.
///
/// # Errors
/// [`Unsupported`] if the CPU lacks the instruction, if its registers cannot be used, and if it was not said in time.
///
/// # Safety
/// (a) No fiber has anything in registers that the instruction does not save, where it enters the kernel with all of them
/// live or is preempted.
#[doc(hidden)]
pub unsafe fn save_with(instruction: SaveInstruction) -> Result<(), Unsupported> {
    let features = Features::detect().map_err(|_| Unsupported("a register of this CPU"))?;
    if !instruction.is_on(features.layout()) {
        return Err(Unsupported(instruction.name()));
    }
    FORM.set(Form::find(Some(instruction))).map_err(|_| Unsupported("another form than that in use"))
}

impl Form {
    /// What XCR0 enables, but PKRU, which is switched beside it, and tiles.
    ///
    /// # Errors
    /// [`LiveError::Registers`] for a CPU without FXSAVE.
    pub(super) fn of_this_cpu() -> Result<&'static Self, LiveError> {
        FORM.get_or_init(|| Self::find(None)).as_ref().map_err(Clone::clone)
    }

    /// With the instruction that is asked for, which the CPU has, or the best.
    fn find(asked: Option<SaveInstruction>) -> Result<Self, LiveError> {
        let features = Features::detect()?;
        let host = features.host_layout();
        let tiles = ComponentSet::EMPTY.with(Component::TILECFG).with(Component::TILEDATA);
        let layout = match asked {
            Some(SaveInstruction::Fxsave) => Layout::fxsave_only().with_mxcsr_mask(host.mxcsr_mask()),
            _ => host.restricted_to(host.enabled().without(Component::PKRU) - tiles),
        };
        let instruction = asked.unwrap_or_else(|| SaveInstruction::best(&layout));
        let parked = match instruction {
            SaveInstruction::Fxsave => SaveInstruction::Fxsave,
            _ => SaveInstruction::Xsave,
        };
        Ok(Self {
            initial: Box::leak(Box::new(OwnedArea::initial(&layout, instruction.format()))).bytes(),
            parked: Box::leak(Box::new(OwnedArea::initial(&layout, parked.format()))).bytes(),
            has_pkru: features.has_pkru(),
            components: layout.enabled(),
            layout,
            instruction,
        })
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How asm saves and restores.
    pub(super) fn gate_form(&self) -> u8 {
        match self.instruction {
            SaveInstruction::Xsavec => gate::form::XSAVEC,
            SaveInstruction::Xsave | SaveInstruction::Xsaveopt => gate::form::XSAVE,
            SaveInstruction::Fxsave => gate::form::FXSAVE,
        }
    }

    /// What is switched.
    #[inline]
    pub(super) fn components(&self) -> ComponentSet {
        self.components
    }

    #[inline]
    pub(super) fn has_header(&self) -> bool {
        self.instruction != SaveInstruction::Fxsave
    }

    #[inline]
    pub(super) fn has_pkru(&self) -> bool {
        self.has_pkru
    }

    /// The bytes of an image.
    pub(super) fn size_bytes(&self) -> usize {
        self.initial.len()
    }

    /// The initial configuration as an image.
    #[inline]
    pub(super) fn initial(&self) -> &'static [u8] {
        self.initial
    }

    /// The initial configuration as a parked gate has it.
    pub(super) fn parked(&self) -> &'static [u8] {
        self.parked
    }
}
