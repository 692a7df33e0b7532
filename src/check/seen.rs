//! What user code sees.

use super::{
    Invariant, Spec,
    invariants::{Checked, Shown, fits, holds},
};
use crate::{
    Component,
    fpu::Policy,
    machine::{Current, Machine},
    registers::RegisterFile,
};
use alloc::format;

/// Checks only what user code sees: whoever runs in user mode finds what the reference model says, in every component and in
/// PKRU. Errors that are latent pass.
///
/// # Errors
/// I1 when the reference model has nobody running user code there, I2 for a component, I7 for PKRU.
pub fn check_seen<R: RegisterFile, P: Policy>(machine: &Machine<R, P>, spec: &Spec) -> Checked {
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
    Ok(())
}
