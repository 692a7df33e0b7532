//! Signal delivery and signal return, as steps: each attempt is one section, and between two of them the
//! task can be preempted, moved, or lose its registers.
//!
//! ```text
//! delivery: Idle → Save ⇄ SaveFaulted        return: Idle → Load ⇄ LoadFaulted
//!                   ↓                                        ↓
//!                 Saved → Idle                              Idle
//! ```
//!
//! A retry starts from the top with a fresh validity: CVE-2019-19602 kept the old one.

use super::{Before, Fpstate, Load, PreemptOff, access};
use crate::registers::{Fault, Frame, RegisterFile};

/// Where a task is in a signal delivery or return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignalStep {
    /// In neither.
    Idle,
    /// Delivery: the frame is to be written.
    Save,
    /// Delivery: the frame's page was absent.
    SaveFaulted,
    /// Delivery: the frame is written, the handler has to get fresh registers.
    Saved,
    /// Return: the frame is to be read.
    Load,
    /// Return: the frame's page was absent.
    LoadFaulted,
}

impl SignalStep {
    /// Whether the task's old state is given up and the new one not there yet: a failed load may have left
    /// anything in its registers. The invariants exempt such a task from I2, I4 and I5.
    pub fn is_returning(self) -> bool {
        matches!(self, Self::Load | Self::LoadFaulted)
    }
}

/// What became of an attempt to write the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum FrameSave {
    /// The frame holds the state.
    Saved,
    /// The page is absent: fault it in and try again.
    Faulted,
}

/// What became of an attempt to read the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum FrameLoad {
    /// The registers hold the frame's state.
    Loaded,
    /// The page is absent: fault it in and try again.
    Faulted,
    /// The image is refused: the task gets the initial configuration (and SIGSEGV).
    Refused,
}

/// Begins a delivery.
pub fn signal_deliver<I: crate::registers::Image>(task: &mut Fpstate<I>) {
    task.signal = SignalStep::Save;
}

/// Tries to save the state to the frame, straight from the registers, which are loaded first if need be.
///
/// # Errors
/// As [`copy_to_cpu`](super::copy_to_cpu).
pub fn signal_save<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
    frame: &mut R::Frame,
) -> Result<(Load, FrameSave), Before> {
    let load = access::move_to_cpu(cpu, task)?;
    let (step, save) = match cpu.regs.save_user(cpu.rfbm(), frame) {
        Ok(()) => (SignalStep::Saved, FrameSave::Saved),
        Err(_) => (SignalStep::SaveFaulted, FrameSave::Faulted),
    };
    task.signal = step;
    Ok((load, save))
}

/// Makes the page present on which the last attempt faulted. The kernel may sleep here.
pub fn signal_fault_in<I: crate::registers::Image, F: Frame>(task: &mut Fpstate<I>, frame: &mut F) {
    frame.fault_in();
    task.signal = match task.signal {
        SignalStep::SaveFaulted => SignalStep::Save,
        SignalStep::LoadFaulted => SignalStep::Load,
        step => step,
    };
}

/// Ends a delivery: the handler starts in the initial configuration, which only the registers hold.
///
/// # Errors
/// [`Before::Flush`] or [`Before::Evict`] as for [`copy_to_cpu`](super::copy_to_cpu): the registers are
/// written whoever's they are.
pub fn signal_enter<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
) -> Result<(), Before> {
    access::on_this_cpu(cpu, task)?;
    access::registers_are_free(cpu, task)?;
    access::load_initial(cpu);
    own_registers(cpu, task);
    task.signal = SignalStep::Idle;
    Ok(())
}

/// Begins a signal return.
pub fn sigreturn<I: crate::registers::Image>(task: &mut Fpstate<I>) {
    task.signal = SignalStep::Load;
}

/// Tries to load the registers straight from the frame.
///
/// A load that fails leaves the registers unspecified. If they were kept for another task, its claim goes
/// with them (d8778e393afa, 2021); if they were this task's, they hold nothing that is still needed.
///
/// # Errors
/// As [`signal_enter`].
pub fn sigreturn_load<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
    frame: &R::Frame,
) -> Result<FrameLoad, Before> {
    access::on_this_cpu(cpu, task)?;
    access::registers_are_free(cpu, task)?;
    let rfbm = cpu.rfbm();
    let load = match cpu.regs.restore_user(rfbm, frame) {
        Ok(()) => FrameLoad::Loaded,
        Err(Fault::Page) => {
            if task.need_fpu_load {
                cpu.slot.invalidate();
            }
            task.signal = SignalStep::LoadFaulted;
            return Ok(FrameLoad::Faulted);
        }
        Err(_) => {
            access::load_initial(cpu);
            FrameLoad::Refused
        }
    };
    own_registers(cpu, task);
    task.signal = SignalStep::Idle;
    Ok(load)
}

/// The registers were just written with a new state of the task; nothing else holds it.
fn own_registers<R: RegisterFile>(cpu: &mut PreemptOff<'_, R>, task: &mut Fpstate<R::Image>) {
    access::registers_are_truth(cpu, task, Load::Restored);
    task.given_up = false;
    access::claim(cpu, task);
}
