//! A state for people, on the page of the explorer.

use super::{bench::Bench, model::State};
use crate::{
    Component,
    check::spec_for,
    fpu::{Fpstate, SignalStep, TaskKind, policy::OwnerSlot},
    machine::{Current, Machine},
    registers::{AbstractImage, AbstractRegs, Image, RegisterFile},
};
use alloc::{format, string::String};
use core::fmt;

/// The components of abstract registers.
const COMPONENTS: [Component; 3] = [Component::SSE, Component::AVX, Component::TILEDATA];

impl fmt::Debug for State {
    /// A line a CPU, and a line a user task, with another one for what it must see.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [cpus, tasks, ..] = *self.packed else { return f.write_str("no state") };
        // Which policy it was is no part of a state.
        let machine = Machine::<AbstractRegs, _>::new(OwnerSlot, cpus.into());
        let spec = spec_for(machine.cpus()[0].regs(), machine.policy());
        let mut bench = Bench::new(machine, spec, tasks.into());
        bench.machine.grow_slots(usize::from(cpus) + usize::from(tasks));
        bench.unpack(&self.packed);
        write(&bench, f)
    }
}

fn write(bench: &Bench<OwnerSlot>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for cpu in bench.machine.cpus() {
        let slot = cpu.slot();
        let current = match cpu.current() {
            Current::Idle => String::from("idle"),
            Current::Switching => String::from("between two tasks"),
            Current::Task(task) => {
                let mode = if bench.spec.in_user_mode(slot.cpu()) { "in user mode" } else { "in the kernel" };
                format!("{task} {mode}")
            }
        };
        let owner = slot.owner().map_or("nobody".into(), |owner| format!("{owner}"));
        let only = if slot.holds_only_copy() { " (only copy)" } else { "" };
        let trap = if slot.trap_armed() { ", trap armed" } else { "" };
        let open = if slot.kernel_fpu().is_some() { ", kernel FPU section" } else { "" };
        let online = if cpu.is_online() { "" } else { ", offline" };
        let values = values(|component| format!("{}", cpu.regs().get(component)));
        write!(f, "{}: {current}, owner {owner}{only}{trap}{open}{online}; {values}", slot.cpu())?;
        if let Some(pkru) = cpu.regs().pkru() {
            write!(f, " PKRU {pkru}")?;
        }
        writeln!(f, "{}", if slot.xfd().is_empty() { ", tiles enabled" } else { "" })?;
    }
    for n in 0..bench.user_slots() {
        let Some(task) = bench.machine.tasks().get(bench.user_slot(n)).filter(|task| !task.is_gone()) else {
            continue;
        };
        let fpstate = task.fpstate();
        let load = if fpstate.need_fpu_load() { "need_fpu_load" } else { "registers are the truth" };
        let last = fpstate.last_cpu().map_or("none".into(), |cpu| format!("{cpu}"));
        let image = values(|component| format!("{}", fpstate.image().get(component)));
        write!(f, "{}: {load}, last_cpu {last}", fpstate.id())?;
        about(fpstate).try_for_each(|what| write!(f, ", {what}"))?;
        match task.frames().len() {
            0 => {}
            1 => write!(f, ", 1 frame")?,
            frames => write!(f, ", {frames} frames")?,
        }
        let exited = if task.has_exited() { ", exited" } else { "" };
        writeln!(f, "{exited}; image {image} PKRU {}", fpstate.pkru())?;
        if let Some(state) = bench.spec.state(fpstate.id()) {
            let ought = values(|component| state.value(component).map_or("–".into(), |v| format!("{v}")));
            writeln!(f, "    must see {ought} PKRU {}", state.pkru())?;
        }
    }
    Ok(())
}

/// What is unusual about a task.
fn about(fpstate: &Fpstate<AbstractImage>) -> impl Iterator<Item = &'static str> {
    let signal = match fpstate.signal() {
        SignalStep::Idle => None,
        SignalStep::Save => Some("frame to be written"),
        SignalStep::SaveFaulted => Some("frame to be written, page absent"),
        SignalStep::Saved => Some("frame written"),
        SignalStep::Load => Some("frame to be read"),
        SignalStep::LoadFaulted => Some("frame to be read, page absent"),
    };
    let guest = match (fpstate.is_in_guest(), fpstate.has_guest_loaded()) {
        (true, _) => Some("guest runs"),
        (false, true) => Some("guest loaded"),
        (false, false) => None,
    };
    let worker = (fpstate.kind() == TaskKind::UserWorker).then_some("user worker");
    let room = fpstate.wants().map(|_| "waits for room");
    [worker, signal, guest, room].into_iter().flatten()
}

fn values(value: impl Fn(Component) -> String) -> String {
    COMPONENTS.map(|component| format!("{component} {}", value(component))).join(" ")
}
