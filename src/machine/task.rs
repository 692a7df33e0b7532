//! One task of a machine.

use crate::{
    CpuId, TaskId,
    fpu::{Fpstate, PkruMode, TaskKind},
    registers::{Image, UserFrames},
};
use alloc::vec::Vec;

/// A task: its fpstate, and what the machine knows of it besides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Task<R: UserFrames> {
    pub(super) fpstate: Fpstate<R::Image>,
    pub(super) on: Option<CpuId>,
    /// Whose user memory it runs on: its own, or that of the program that made it a user worker.
    pub(super) memory: TaskId,
    frames: Vec<R::Frame>,
}

impl<R: UserFrames> Task<R> {
    /// How many signal frames a machine keeps for a task; a further one makes it forget the oldest.
    pub const MOST_FRAMES: usize = 4;

    pub(super) fn new(id: TaskId, kind: TaskKind, regs: &R, pkru_mode: PkruMode) -> Self {
        let fpstate = Fpstate::new(id, kind, regs.new_image());
        let fpstate = match pkru_mode {
            PkruMode::Eager => fpstate,
            PkruMode::InXsave => fpstate.with_pkru_in_image(),
        };
        Self { fpstate, on: None, memory: id, frames: Vec::new() }
    }

    /// The fpstate.
    pub fn fpstate(&self) -> &Fpstate<R::Image> {
        &self.fpstate
    }

    /// The CPU on which the task runs, in user mode or in the kernel.
    pub fn on(&self) -> Option<CpuId> {
        self.on
    }

    /// Whether the task has exited; it may still run in the kernel.
    pub fn has_exited(&self) -> bool {
        self.fpstate.kind() == TaskKind::Exited
    }

    /// Whether the task is no more: its slot may be used again.
    pub fn is_gone(&self) -> bool {
        self.has_exited() && self.on.is_none()
    }

    /// The signal frames in its user memory, the newest last.
    pub fn frames(&self) -> &[R::Frame] {
        &self.frames
    }

    /// Shows all of it but where it runs, which its CPU says.
    #[cfg(feature = "explore")]
    pub(super) fn walk<W: crate::walk::Walk>(
        &mut self,
        walk: &mut W,
        blank: &R,
        of_image: impl Fn(&mut R::Image, &mut W),
        of_frame: impl Fn(&mut R::Frame, &mut W),
    ) {
        let Self { fpstate, on: _, memory, frames } = self;
        fpstate.walk(walk, &blank.new_image(), of_image);
        let mut of = Some(*memory);
        walk.task(&mut of);
        *memory = of.unwrap_or(*memory);
        let count = walk.count(frames.len());
        frames.resize_with(count, || blank.new_frame());
        frames.iter_mut().for_each(|frame| of_frame(frame, walk));
    }

    /// A new frame, which is the newest from here on.
    pub(super) fn push_frame(&mut self, regs: &R) {
        if self.frames.len() == Self::MOST_FRAMES {
            self.frames.remove(0);
        }
        self.frames.push(regs.frame_with_room(self.fpstate.image().room()));
    }

    /// Drops the newest frame.
    pub(super) fn pop_frame(&mut self) {
        self.frames.pop();
    }

    pub(super) fn drop_frames(&mut self) {
        self.frames.clear();
    }

    /// The newest frame beside the fpstate; a blank one, which user code forged, if there is none.
    pub(super) fn newest_frame(&mut self, regs: &R) -> (&mut Fpstate<R::Image>, &mut R::Frame) {
        if self.frames.is_empty() {
            self.push_frame(regs);
        }
        let newest = self.frames.len() - 1;
        (&mut self.fpstate, &mut self.frames[newest])
    }
}
