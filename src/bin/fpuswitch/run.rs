//! `fpuswitch run`.

use crate::{Named, Status, bug::NamedBug, complain, print};
use clap::ValueEnum;
use comfy_table::Table;
use fpuswitch::{
    EventFile,
    check::{
        Planted, Step, Steps,
        corpus::{Defective, Tier},
    },
    fpu::{
        Defect, PkruMode, Policy,
        policy::{Builtin, TrapRestore},
    },
    machine::Machine,
    registers::{AbstractRegs, HostRegs, UserFrames},
};
use std::path::PathBuf;

const LEGEND: &str = "owner slots: * the only copy, [] a kernel FPU section; need_fpu_load: the tasks that have it set; \
                      newest copy: in a CPU's registers, in memory, or in both";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The policy: eager, eager-owner, trap-restore, full-lazy, deferred, owner-slot, lazy-save, entry-exit,
    /// call-boundary or use-class. Without: the one that the bug of --defect names, or owner-slot.
    #[arg(long, value_name = "NAME")]
    policy: Option<Named>,
    /// Behind more slices with a use in a row than that, trap-restore loads without a trap. Without: 5, as in Linux; for
    /// a bug 0. `explore` finds lists with 0.
    #[arg(long, value_name = "N")]
    slices: Option<u8>,
    /// Keep PKRU inside XSAVE images instead of switching it eagerly: what is wrong with that shows where the kernel
    /// accesses user memory (event user-memory). Not under a policy that traps.
    #[arg(long)]
    pkru_in_xsave: bool,
    /// The registers. Without: abstract, and soft for a bug that shows on bytes alone.
    #[arg(long, value_name = "KIND")]
    registers: Option<Registers>,
    /// Plant the defect of a bug of the corpus, by its name or its number: on the mechanism with it, the bug's file
    /// of events shows what is broken.
    #[arg(long, value_name = "ID")]
    defect: Option<NamedBug>,
    /// A file of events (docs/events.md); - for standard input.
    file: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Registers {
    /// A small number a component.
    Abstract,
    /// The manual in software, on a CPU with AVX-512, AMX and protection keys.
    Soft,
    /// Those of this machine.
    Host,
}

#[derive(Debug, thiserror::Error)]
#[error("{0} counts no slices: expected --policy trap-restore beside it")]
struct CountsNone(&'static str);

pub(crate) fn run(arguments: &Arguments) -> Status {
    let name = arguments.file.display().to_string();
    let text = match crate::read(&arguments.file) {
        Ok(text) => text,
        Err(error) => return complain(&name, &error),
    };
    let events: EventFile = match text.parse() {
        Ok(events) => events,
        Err(error) => return complain(&name, &error),
    };
    let of_bug = arguments.defect.map(|NamedBug(bug)| bug.policy);
    let policy = arguments.policy.map(|Named(policy)| policy).or(of_bug).unwrap_or(Builtin::OwnerSlot);
    // The lists of the corpus were found with that.
    let of_bug = arguments.defect.filter(|_| policy == Builtin::TrapRestore).map(|_| 0);
    match (policy, arguments.slices.or(of_bug)) {
        (Builtin::TrapRestore, Some(slices)) => arguments.under(TrapRestore::behind(slices), &name, &events),
        (_, Some(_)) => complain("--slices", &CountsNone(policy.name())),
        (_, None) => arguments.under(policy, &name, &events),
    }
}

impl Arguments {
    fn under(&self, policy: impl Policy, name: &str, events: &EventFile) -> Status {
        match self.defect {
            Some(NamedBug(bug)) => self.on(Planted { policy, defect: bug.defect }, name, events),
            None => self.on(policy, name, events),
        }
    }

    fn on(&self, policy: impl Policy, name: &str, events: &EventFile) -> Status {
        let takes_bytes = |NamedBug(bug)| bug.tier != Tier::Explorer;
        let usual = if self.defect.is_some_and(takes_bytes) { Registers::Soft } else { Registers::Abstract };
        let defect: Option<Defect> = self.defect.map(|NamedBug(bug)| bug.defect);
        match self.registers.unwrap_or(usual) {
            Registers::Abstract => self.replay(policy, AbstractRegs::default(), name, events),
            Registers::Soft => self.replay(policy, Defective::software(defect), name, events),
            Registers::Host => match HostRegs::new() {
                Ok(host) => self.replay(policy, Defective::new(host, defect), name, events),
                Err(error) => complain("--registers host", &error),
            },
        }
    }

    fn replay<R: UserFrames + Clone>(
        &self,
        policy: impl Policy,
        regs: R,
        name: &str,
        events: &EventFile,
    ) -> Status {
        let mode = if self.pkru_in_xsave { PkruMode::InXsave } else { PkruMode::Eager };
        let machine = match Machine::with_registers(policy, events.cpus(), regs).with_pkru(mode) {
            Ok(machine) => machine,
            Err(error) => return complain("--pkru-in-xsave", &error),
        };
        let mut steps = Steps::new(machine);
        let mut status = Status::Fine;
        let mut found = None;
        for (line, event) in &events.events {
            match steps.apply(*event) {
                Ok(Ok(())) => {}
                Ok(Err(violation)) => {
                    status = Status::Finding;
                    found = Some((*line, violation));
                    break;
                }
                Err(error) => {
                    status = complain(&format!("{name}: line {line}: {event}"), &error);
                    break;
                }
            }
        }
        print(format_args!("{}\n{LEGEND}\n", rows(&steps)));
        if let Some((line, violation)) = found {
            print(format_args!("line {line}: {violation}\n"));
        }
        status
    }
}

fn rows<R: UserFrames, P: Policy>(steps: &Steps<R, P>) -> Table {
    let mut table = crate::table();
    table.set_header(["step"].iter().chain(&Step::HEADINGS));
    for (number, step) in (1..).zip(steps.steps()) {
        table.add_row([number.to_string()].into_iter().chain(step.cells()));
    }
    table
}
