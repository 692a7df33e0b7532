//! What user code sees.

use super::{
    Invariant, Spec,
    invariants::{Checked, Shown, fits, holds},
};
use crate::{
    Component,
    fpu::{Policy, SignalStep},
    machine::{Current, Machine, Task},
    registers::{Frame, Image, UserFrames},
};
use alloc::format;

/// Checks only what user code sees: whoever runs in user mode finds what the reference model says, in every component and in
/// PKRU, and so does whoever reads the components of signal frames that were written. Errors that are latent pass.
///
/// # Errors
/// I1 when the reference model has nobody running user code there, I2 for a component, I7 for PKRU.
pub fn check_seen<R: UserFrames, P: Policy>(machine: &Machine<R, P>, spec: &Spec) -> Checked {
    for cpu in machine.cpus() {
        let name = cpu.slot().cpu();
        let Current::Task(task) = cpu.current() else { continue };
        if machine.task(task).is_none_or(|task| task.fpstate().user_on().is_none()) {
            continue;
        }
        let state = spec.state(task).filter(|_| spec.in_user_mode(name) && spec.current(name) == Some(task));
        let Some(state) = state else {
            return holds(Invariant::I1, false, || {
                format!("{task} is in user mode on {name}, which is not expected")
            });
        };
        if let Some(live) = cpu.regs().pkru() {
            holds(Invariant::I7, live == state.pkru(), || {
                format!("{task} has PKRU {live} on {name}, expected {}", state.pkru())
            })?;
        }
        if cpu.slot().trap_armed() {
            continue;
        }
        for component in cpu.regs().enabled().without(Component::PKRU).iter() {
            let (is, ought) = (cpu.regs().get(component), state.value(component));
            holds(Invariant::I2, fits(machine, is, ought), || {
                format!("{task} sees {component} = {is} on {name}, expected {}", Shown(ought))
            })?;
        }
    }
    machine.tasks().iter().try_for_each(|task| check_frames(machine, spec, task))
}

/// A frame that has been written holds what was to be saved. What is absent or damaged, or not written yet, is not looked at.
fn check_frames<R: UserFrames, P: Policy>(machine: &Machine<R, P>, spec: &Spec, task: &Task<R>) -> Checked {
    let (fpstate, regs) = (task.fpstate(), machine.cpus()[0].regs());
    let Some(state) = spec.state(fpstate.id()) else { return Ok(()) };
    let is_unwritten = matches!(fpstate.signal(), SignalStep::Save | SignalStep::SaveFaulted);
    let written = task.frames().len() - usize::from(is_unwritten).min(task.frames().len());
    for (frame, (ought, _)) in task.frames().iter().zip(state.frames()).take(written) {
        let mut image = regs.new_image();
        let components = regs.enabled().without(Component::PKRU) & fpstate.image().room();
        let copied = image.grow(components).is_ok()
            && frame.contents(components).is_ok_and(|contents| {
                contents.components == components && frame.copy_to(contents, &mut image).is_ok()
            });
        for component in components.iter().filter(|_| copied) {
            let (is, ought) = (image.get(component), ought(component));
            holds(Invariant::I2, fits(machine, is, ought), || {
                format!("a frame of {} holds {component} = {is}, expected {}", fpstate.id(), Shown(ought))
            })?;
        }
    }
    Ok(())
}
