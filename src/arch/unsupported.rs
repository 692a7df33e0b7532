//! Targets without these instructions or this system: the same names, and types that have no values.

use super::{Absent, NotAvailable, OpError, RestoreOp, Source, Target, TimedOp};
use crate::{
    Component, ComponentSet, Rfbm,
    xstate::{CpuidReader, CpuidResult, Layout, Rounding, SaveInstruction},
};
use core::ops::Range;
use std::{io, vec::Vec};

/// See the x86-64 version; here it answers nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host;

impl CpuidReader for Host {
    fn cpuid(&self, _: u32, _: u32) -> CpuidResult {
        CpuidResult::default()
    }

    fn xcr0(&self) -> u64 {
        3
    }
}

/// What the types here are made of: nothing. In a private field, so that code that uses them is like elsewhere.
#[derive(Clone, Copy, Debug)]
enum Never {}

/// See the x86-64 version; here it cannot be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Features(Never);

impl Features {
    pub(crate) fn detect() -> Result<Self, NotAvailable> {
        Err(NotAvailable::Target)
    }

    pub(crate) fn layout(self) -> &'static Layout {
        match self.0 {}
    }

    pub(crate) fn host_layout(self) -> &'static Layout {
        match self.0 {}
    }

    pub(crate) fn enabled(self) -> ComponentSet {
        match self.0 {}
    }

    pub(crate) fn has_pkru(self) -> bool {
        match self.0 {}
    }

    pub(crate) fn most_bytes(self) -> usize {
        match self.0 {}
    }

    pub(crate) fn component_bytes(self, _: Component) -> Option<usize> {
        match self.0 {}
    }
}

/// See the x86-64 version; here it cannot be made.
#[derive(Clone, Debug)]
pub(crate) struct ParkedRegs(Never);

impl ParkedRegs {
    pub(crate) fn new(features: Features) -> Result<Self, NotAvailable> {
        match features.0 {}
    }

    pub(crate) fn reset(&mut self) {
        match self.0 {}
    }

    pub(crate) fn features(&self) -> Features {
        match self.0 {}
    }

    pub(crate) fn image(&self) -> &[u8] {
        match self.0 {}
    }

    pub(crate) fn save<'a>(
        &self,
        _: SaveInstruction,
        _: Rfbm,
        _: impl Into<Target<'a>>,
    ) -> Result<(), OpError> {
        match self.0 {}
    }

    pub(crate) fn restore<'a>(
        &mut self,
        _: RestoreOp,
        _: Rfbm,
        _: impl Into<Source<'a>>,
    ) -> Result<(), OpError> {
        match self.0 {}
    }

    pub(crate) fn in_use(&self) -> Result<ComponentSet, OpError> {
        match self.0 {}
    }

    pub(crate) fn write(&mut self, _: Component, _: &[u8]) -> Result<(), OpError> {
        match self.0 {}
    }

    pub(crate) fn read(&self, _: Component, _: &mut [u8]) -> Result<(), OpError> {
        match self.0 {}
    }

    pub(crate) fn clear(&mut self, _: Component) -> Result<(), OpError> {
        match self.0 {}
    }

    pub(crate) fn change_lane(&mut self, _: u8, _: u8, _: u32) -> Result<(), OpError> {
        match self.0 {}
    }

    pub(crate) fn set_rounding(&mut self, _: Rounding) {
        match self.0 {}
    }
}

/// See the x86-64 version; here it cannot be made.
#[derive(Debug)]
pub(crate) struct Mapping(Never);

impl Mapping {
    pub(crate) fn new(features: Features, _: usize) -> io::Result<Self> {
        match features.0 {}
    }

    pub(crate) fn pages(&self) -> usize {
        match self.0 {}
    }

    pub(crate) fn address(&self) -> u64 {
        match self.0 {}
    }

    pub(crate) fn absent(&self) -> Range<usize> {
        match self.0 {}
    }

    pub(crate) fn set_absent(&mut self, _: Range<usize>) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn set_present(&mut self) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn bytes_mut(&mut self) -> Result<&mut [u8], Absent> {
        match self.0 {}
    }

    pub(crate) fn snapshot(&self) -> io::Result<Vec<u8>> {
        match self.0 {}
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        match self.0 {}
    }
}

/// See the x86-64 version; here nobody has [`Features`] to call it with.
pub(crate) fn through_pkru(features: Features, _: u32) -> Option<u32> {
    match features.0 {}
}

/// See the x86-64 version; here it cannot be made.
#[derive(Debug)]
pub(crate) struct Measurement(Never);

impl Measurement {
    pub(crate) fn new(registers: &ParkedRegs, _: TimedOp, _: usize) -> Result<Self, OpError> {
        match registers.0 {}
    }

    pub(crate) fn run(&mut self, _: u32) {
        match self.0 {}
    }
}
