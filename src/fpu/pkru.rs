//! PKRU, switched eagerly beside the rest: kernel access to user memory checks it, and with a deferred
//! restore that would meet the previous task's keys.

use super::{Fpstate, PreemptOff};
use crate::{Pkru, registers::RegisterFile};

/// Takes the PKRU of a task that is switched out to memory.
pub(super) fn save<R: RegisterFile>(cpu: &PreemptOff<'_, R>, task: &mut Fpstate<R::Image>) {
    if let Some(pkru) = cpu.regs.pkru() {
        task.pkru = pkru;
    }
}

/// Loads the PKRU of a task that is switched in. WRPKRU serialises loads, hence the comparison.
pub(super) fn load<R: RegisterFile>(cpu: &mut PreemptOff<'_, R>, task: &Fpstate<R::Image>) {
    if cpu.regs.pkru().is_some_and(|live| live != task.pkru) {
        cpu.regs.set_pkru(task.pkru);
    }
}

/// Gives the current task a new PKRU, in the register, where the truth is while it runs.
pub(super) fn set_current<R: RegisterFile>(
    cpu: &mut PreemptOff<'_, R>,
    task: &mut Fpstate<R::Image>,
    pkru: Pkru,
) {
    task.pkru = pkru;
    cpu.regs.set_pkru(pkru);
}
