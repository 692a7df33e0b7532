//! Signal delivery and signal return, as steps: each attempt is one section, and between two of them the
//! task can be preempted, moved, or lose its registers.
//!
//! ```text
//! delivery: Idle → Save ⇄ SaveFaulted        return: Idle → Load ⇄ LoadFaulted
//!                   ↓                                        ↓
//!                 Saved → Idle                              Idle
//! ```
//!
//! A retry starts from the top with a fresh validity: CVE-2019-19602 kept the old one. And retries end: what is faulted in
//! is the whole frame, whatever it says of its size, and a page that is not mapped ends the delivery or return
//! (CVE-2024-26603 faulted in what the frame said, and tried for ever).

use super::{Before, Defect, Fpstate, Load, PreemptOff, access, pkru};
use crate::{
    Component, FrameChange, Pkru, Rfbm,
    registers::{Fault, Frame, FrameContents, Image, RegisterFile, UserFrames},
};

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
    #[cfg(feature = "explore")]
    pub(super) const ALL: [Self; 6] =
        [Self::Idle, Self::Save, Self::SaveFaulted, Self::Saved, Self::Load, Self::LoadFaulted];

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
    /// A page is absent: fault it in and try again.
    Faulted,
    /// A page is not mapped: there is no delivery, and the task keeps its state (and gets SIGSEGV).
    Failed,
}

/// What became of an attempt to read the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum FrameLoad {
    /// The registers hold the frame's state.
    Loaded,
    /// The image holds the frame's state.
    Copied,
    /// A page is absent: fault it in and try again.
    Faulted,
    /// The image is refused, or a page is not mapped: the task gets the initial configuration (and SIGSEGV).
    Refused,
}

/// Begins a delivery. An instruction that wants a dynamic component will come to it again behind the handler.
pub fn signal_deliver<I: Image>(task: &mut Fpstate<I>) {
    task.wants = None;
    task.signal = SignalStep::Save;
    #[cfg(feature = "explore")]
    {
        task.kept_owner = false;
    }
}

/// Tries to save the state to the frame, straight from the registers, which are loaded first if need be.
///
/// # Errors
/// As [`copy_to_cpu`](super::copy_to_cpu).
///
/// # Reference
/// Linux: copy_fpstate_to_sigframe, arch/x86/kernel/fpu/signal.c. The software bytes and PKRU are written in the same
/// section here, so that a fault there begins anew too.
pub fn signal_save<R: UserFrames>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
    frame: &mut R::Frame,
) -> Result<(Load, FrameSave), Before> {
    let load = if trusts_kept_owner(cpu, task) {
        access::registers_are_truth(cpu, task, Load::Skipped);
        Load::Skipped
    } else {
        access::move_to_cpu(cpu, task)?
    };
    let saved = cpu.regs.save_user(in_frame(cpu, task), frame);
    let pkru = cpu.regs.pkru().map(|pkru| if cpu.has(Defect::FramePkruIgnored) { Pkru(0) } else { pkru });
    let (step, save) = match saved.and_then(|()| pkru.map_or(Ok(()), |pkru| frame.set_pkru(pkru))) {
        Ok(()) => (SignalStep::Saved, FrameSave::Saved),
        Err(_) => (SignalStep::SaveFaulted, FrameSave::Faulted),
    };
    task.signal = step;
    #[cfg(feature = "explore")]
    {
        task.kept_owner = save == FrameSave::Faulted && cpu.has(Defect::RetryTrustsOldOwner);
    }
    Ok((load, save))
}

/// Whether an attempt to save believes that the owner is the one that an earlier attempt found.
#[cfg(feature = "explore")]
fn trusts_kept_owner<R: RegisterFile>(cpu: &mut PreemptOff<'_, R>, task: &Fpstate<R::Image>) -> bool {
    let earlier = cpu.earlier(task.last_cpu == Some(cpu.cpu()));
    task.kept_owner && cpu.trust(earlier)
}

/// Whether an attempt to save believes anything but what it finds itself.
#[cfg(not(feature = "explore"))]
fn trusts_kept_owner<R: RegisterFile>(_: &mut PreemptOff<'_, R>, _: &Fpstate<R::Image>) -> bool {
    false
}

/// What became of the pages on which an attempt faulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum FaultIn {
    /// They are present: try again.
    Present,
    /// One is not mapped: there is no delivery ([`FrameSave::Failed`]).
    DeliveryFailed,
    /// One is not mapped: the return is refused ([`FrameLoad::Refused`]).
    ReturnRefused,
    /// No attempt has faulted, and nothing has changed.
    NotFaulted,
}

/// Makes the pages present on which the last attempt faulted. The kernel may sleep before this. If one is not mapped,
/// there is no further attempt: the delivery or return ends here.
///
/// # Errors
/// As [`signal_enter`].
pub fn signal_fault_in<R: UserFrames>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
    frame: &mut R::Frame,
) -> Result<FaultIn, Before> {
    let again = match task.signal {
        SignalStep::SaveFaulted => SignalStep::Save,
        SignalStep::LoadFaulted => SignalStep::Load,
        _ => return Ok(FaultIn::NotFaulted),
    };
    if frame.fault_in().is_ok() {
        if cpu.has(Defect::FaultInBelievesFrame) {
            // It says that it ends with its first page. One without a header has no more.
            let _ = frame.change(FrameChange::RestAbsent);
        }
        task.signal = again;
        return Ok(FaultIn::Present);
    }
    if again == SignalStep::Load {
        access::on_this_cpu(cpu, task)?;
        access::registers_are_free(cpu, task)?;
        refuse(cpu, task);
        return Ok(FaultIn::ReturnRefused);
    }
    task.signal = SignalStep::Idle;
    Ok(FaultIn::DeliveryFailed)
}

/// Ends a delivery: the handler starts in the initial configuration with the default PKRU, which only the registers
/// hold.
///
/// # Errors
/// [`Before::Flush`] or [`Before::Evict`] as for [`copy_to_cpu`](super::copy_to_cpu): the registers are
/// written whoever's they are.
///
/// # Reference
/// Linux: fpu__clear_user_states, arch/x86/kernel/fpu/core.c.
pub fn signal_enter<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
) -> Result<(), Before> {
    access::on_this_cpu(cpu, task)?;
    access::registers_are_free(cpu, task)?;
    clear(cpu, task);
    Ok(())
}

/// Begins a signal return.
pub fn sigreturn<I: Image>(task: &mut Fpstate<I>) {
    task.wants = None;
    task.signal = SignalStep::Load;
}

/// Tries to load the registers straight from the frame: what it says that it holds, the rest initial.
///
/// A load that fails leaves the registers unspecified. If they were kept for another task, its claim goes
/// with them (d8778e393afa, 2021); if they were this task's, they hold nothing that is still needed.
///
/// # Errors
/// As [`signal_enter`].
///
/// # Reference
/// Linux: __fpu_restore_sig and restore_fpregs_from_user, arch/x86/kernel/fpu/signal.c.
pub fn sigreturn_load<R: UserFrames>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
    frame: &R::Frame,
) -> Result<FrameLoad, Before> {
    access::on_this_cpu(cpu, task)?;
    access::registers_are_free(cpu, task)?;
    let rfbm = in_frame(cpu, task);
    let Ok(contents) = frame.contents(rfbm.of(cpu.regs.enabled())) else {
        refuse(cpu, task);
        return Ok(FrameLoad::Refused);
    };
    cpu.update_xfd(task);
    let absent = Rfbm::new(cpu.regs.enabled().without(Component::PKRU) - contents.components);
    // Before the rest: in the standard format, AVX brings an MXCSR along.
    if !cpu.has(Defect::InitialBehindLoad) {
        cpu.regs.restore_initial(absent);
    }
    let restored = if contents.legacy_only {
        cpu.regs.restore_user_legacy(frame)
    } else {
        cpu.regs.restore_user(Rfbm::new(contents.components), frame)
    };
    match restored {
        Ok(()) => {
            if cpu.has(Defect::InitialBehindLoad) {
                cpu.regs.restore_initial(absent);
            }
            cpu.regs.set_pkru(pkru_of(cpu, contents));
            own_registers(cpu, task);
            Ok(FrameLoad::Loaded)
        }
        Err(Fault::Page) => {
            if task.need_fpu_load && !cpu.has(Defect::FailedLoadKeepsOwner) {
                cpu.slot.invalidate();
            }
            task.signal = SignalStep::LoadFaulted;
            Ok(FrameLoad::Faulted)
        }
        Err(_) => {
            refuse(cpu, task);
            Ok(FrameLoad::Refused)
        }
    }
}

/// Tries to make the frame's state the task's image, by the way of a kernel buffer: the slow path. The registers are
/// nobody's afterwards if they were the task's, and the image is the truth; or the task is as behind a frame that is
/// refused; or, if a page is absent, nothing has changed.
///
/// # Errors
/// As [`signal_enter`].
///
/// # Reference
/// Linux: __fpu_restore_sig, arch/x86/kernel/fpu/signal.c, for 32-bit frames. That copies straight to the image, with page
/// faults allowed and behind both invalidations, whoever has the registers, and loads it in the end; here a copy is whole
/// or nothing, and the policy says when the image is loaded.
pub fn sigreturn_copy<R: UserFrames>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
    frame: &R::Frame,
) -> Result<FrameLoad, Before> {
    access::on_this_cpu(cpu, task)?;
    let contents = frame.contents(in_frame(cpu, task).of(cpu.regs.enabled()));
    let copied = contents.and_then(|contents| {
        match frame.copy_to(contents, &mut task.image) {
            #[cfg(feature = "explore")]
            Err(Fault::GeneralProtection) if cpu.has(Defect::FrameNotChecked) => task.image.spoil(),
            copied => copied?,
        }
        Ok(pkru_of(cpu, contents))
    });
    match copied {
        Ok(pkru) => {
            give_registers_up(cpu, task);
            task.given_up = false;
            pkru::set_current(cpu, task, pkru);
            task.signal = SignalStep::Idle;
            Ok(FrameLoad::Copied)
        }
        // The image is as it was, and so is whatever the registers hold.
        Err(Fault::Page) if contents.is_ok() => {
            task.signal = SignalStep::LoadFaulted;
            Ok(FrameLoad::Faulted)
        }
        Err(_) => {
            access::registers_are_free(cpu, task)?;
            refuse(cpu, task);
            Ok(FrameLoad::Refused)
        }
    }
}

/// The PKRU that a frame brings.
fn pkru_of<R: RegisterFile>(cpu: &PreemptOff<'_, R>, contents: FrameContents) -> Pkru {
    match contents.pkru {
        Pkru(0) if cpu.has(Defect::GarbagePkru) => Pkru(u32::MAX),
        pkru => pkru,
    }
}

/// What a frame of the task holds: everything that it has room for, but for PKRU, which is written and read apart.
fn in_frame<R: RegisterFile>(cpu: &PreemptOff<'_, R>, task: &Fpstate<R::Image>) -> Rfbm {
    Rfbm::new((cpu.regs.enabled() & task.image.room()).without(Component::PKRU))
}

/// Nothing that the registers hold is the task's any more; memory is what counts.
fn give_registers_up<R: RegisterFile>(cpu: &mut PreemptOff<'_, R>, task: &mut Fpstate<R::Image>) {
    if cpu.slot.owner == Some(task.id()) {
        cpu.slot.invalidate();
    }
    task.need_fpu_load = true;
    task.invalidate();
}

/// A frame is refused: the task goes on as a handler begins.
fn refuse<R: RegisterFile>(cpu: &mut PreemptOff<'_, R>, task: &mut Fpstate<R::Image>) {
    if cpu.has(Defect::RefusedReturnKeepsState) {
        task.signal = SignalStep::Idle;
    } else {
        clear(cpu, task);
    }
}

/// The registers take the initial configuration and the default PKRU, and are the task's.
fn clear<R: RegisterFile>(cpu: &mut PreemptOff<'_, R>, task: &mut Fpstate<R::Image>) {
    cpu.update_xfd(task);
    if !cpu.has(Defect::HandlerKeepsRegisters) {
        access::load_initial(cpu);
    }
    cpu.regs.set_pkru(Pkru::DEFAULT);
    own_registers(cpu, task);
}

/// The registers were just written with a new state of the task; nothing else holds it, and the signal is over.
fn own_registers<R: RegisterFile>(cpu: &mut PreemptOff<'_, R>, task: &mut Fpstate<R::Image>) {
    access::registers_are_truth(cpu, task, Load::Restored);
    task.given_up = false;
    access::claim(cpu, task);
    task.signal = SignalStep::Idle;
}
