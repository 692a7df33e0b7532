//! How registers are kept in memory here: the CPU's layout, the instruction that saves, and the initial image.

use super::{LiveError, gate, system};
use crate::{
    Component, ComponentSet,
    arch::Features,
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

impl Form {
    /// What XCR0 enables, but PKRU, which is switched beside it, and tiles.
    ///
    /// # Errors
    /// [`LiveError::Registers`] for a CPU without FXSAVE; [`LiveError::Tiles`] if the process may use tiles.
    pub(super) fn of_this_cpu() -> Result<&'static Self, LiveError> {
        static FORM: OnceLock<Result<Form, LiveError>> = OnceLock::new();
        FORM.get_or_init(Self::find).as_ref().map_err(Clone::clone)
    }

    fn find() -> Result<Self, LiveError> {
        if system::permits_tiles() {
            return Err(LiveError::Tiles);
        }
        let features = Features::detect()?;
        let host = features.host_layout();
        let tiles = ComponentSet::EMPTY.with(Component::TILECFG).with(Component::TILEDATA);
        let layout = host.restricted_to(host.enabled().without(Component::PKRU) - tiles);
        let instruction = SaveInstruction::best(&layout);
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
