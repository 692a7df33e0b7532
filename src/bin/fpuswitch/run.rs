//! `fpuswitch run`.

use crate::{Status, complain, print};
use comfy_table::Table;
use fpuswitch::{
    EventFile,
    check::{Step, Steps},
    fpu::{PkruMode, policy::Builtin},
    machine::Machine,
    registers::AbstractRegs,
};
use std::path::Path;

const LEGEND: &str = "owner slots: * the only copy, [] a kernel FPU section; need_fpu_load: the tasks that have it set; \
                      newest copy: in a CPU's registers, in memory, or in both";

pub(crate) fn run(file: &Path, policy: Builtin, pkru_in_xsave: bool) -> Status {
    let name = file.display().to_string();
    let text = match crate::read(file) {
        Ok(text) => text,
        Err(error) => return complain(&name, &error),
    };
    let events: EventFile = match text.parse() {
        Ok(events) => events,
        Err(error) => return complain(&name, &error),
    };
    let mode = if pkru_in_xsave { PkruMode::InXsave } else { PkruMode::Eager };
    let machine = match Machine::<AbstractRegs, _>::new(policy, events.cpus()).with_pkru(mode) {
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

fn rows(steps: &Steps<AbstractRegs, Builtin>) -> Table {
    let mut table = crate::table();
    table.set_header(["step"].iter().chain(&Step::HEADINGS));
    for (number, step) in (1..).zip(steps.steps()) {
        table.add_row([number.to_string()].into_iter().chain(step.cells()));
    }
    table
}
