//! Where the costs come from, and `fpuswitch costs`.

use crate::{Status, complain, print, table};
use fpuswitch::{
    costs::{self, InstructionCost},
    replay::Costs,
};
use serde::Serialize;
use std::{
    fmt,
    path::{Path, PathBuf},
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also write them to a file, as JSON, which `replay --costs` takes.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What goes to the file: what replay reads, and all the rest.
#[derive(Serialize)]
struct Measured<'a> {
    #[serde(flatten)]
    costs: Costs,
    instructions: &'a [InstructionCost],
}

pub(crate) fn costs(arguments: &Arguments) -> Status {
    let instructions = match costs::measure() {
        Ok(instructions) => instructions,
        Err(error) => return complain("costs", &error),
    };
    let (others, by_class): (Vec<_>, Vec<_>) = instructions.iter().partition(|cost| cost.class.is_empty());
    print(format_args!("{}\n\n", rows(&by_class)));
    print(format_args!(
        "ns each, and in brackets how many times the cheapest save or restore. 2 areas in turn stay in the \
        first-level cache,\n64 do not. XINUSE is what XGETBV(1) tells.\n"
    ));
    let others =
        others.iter().map(|cost| format!("{} {:.1} ns", cost.instruction, cost.ns)).collect::<Vec<_>>();
    print(format_args!("{}.\n", others.join(", ")));
    let used = match Costs::of(&instructions) {
        Some(costs) => Source { costs, from: MEASURED },
        None => Source { costs: Costs::TABLE, from: "from the built-in table, without XSAVEC" },
    };
    print(format_args!("Replay uses: {used}\n"));
    let Some(file) = &arguments.out else { return Status::Fine };
    let costs = used.costs;
    let written = serde_json::to_string_pretty(&Measured { costs, instructions: &instructions })
        .map_err(std::io::Error::from)
        .and_then(|json| std::fs::write(file, json + "\n"));
    match written {
        Ok(()) => Status::Fine,
        Err(error) => complain(&file.display().to_string(), &error),
    }
}

/// A row an in-use class and number of areas, a column an instruction.
fn rows(costs: &[&InstructionCost]) -> comfy_table::Table {
    let kind = |cost: &InstructionCost| (cost.class, cost.in_use, cost.areas);
    let mut kinds: Vec<_> = costs.iter().map(|cost| kind(cost)).collect();
    kinds.dedup();
    // Every row has the same instructions: those that the CPU has.
    let first = costs.iter().take_while(|cost| kinds.first() == Some(&kind(cost)));
    let instructions: Vec<_> = first.map(|cost| cost.instruction).collect();
    let mut rows = table();
    rows.set_header(["registers", "XINUSE", "areas"].into_iter().chain(instructions.iter().copied()));
    for (class, in_use, areas) in kinds {
        let shown = instructions.iter().map(|name| {
            let cost =
                costs.iter().find(|cost| kind(cost) == (class, in_use, areas) && cost.instruction == *name);
            cost.map_or(String::new(), |cost| format!("{:.1} ({:.1})", cost.ns, cost.ratio))
        });
        let in_use = in_use.map_or(String::new(), |bits| format!("{bits:02X}H"));
        rows.add_row([class.into(), in_use, areas.to_string()].into_iter().chain(shown));
    }
    rows
}

/// Of costs that user space can measure; the others are assumed.
const MEASURED: &str = "measured here";
const FILE: &str = "from the file";

/// Costs and where they come from.
pub(crate) struct Source {
    pub(crate) costs: Costs,
    from: &'static str,
}

#[derive(Debug, thiserror::Error)]
enum CostsError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("{0}: expected JSON such as {{\"save_ns\": 40, \"restore_ns\": 43, \"check_ns\": 1.3}}")]
    Malformed(#[from] serde_json::Error),
    #[error("expected costs that are finite and not negative")]
    NotSensible,
}

impl Source {
    /// In JSON: where save and restore come from, where the check, and where all others.
    pub(crate) fn names(&self) -> [&'static str; 3] {
        match self.from {
            MEASURED if Costs::MEASURES_CHECKS => ["measured", "measured", "assumed"],
            MEASURED => ["measured", "table", "assumed"],
            FILE => ["file"; 3],
            _ => ["table"; 3],
        }
    }

    /// From a file, or measured here, or from the table. `None` if the file is no good; it has been said.
    pub(crate) fn new(file: Option<&Path>) -> Option<Self> {
        match file {
            Some(file) => match read(file) {
                Ok(costs) => Some(Self { costs, from: FILE }),
                Err(error) => {
                    complain(&file.display().to_string(), &error);
                    None
                }
            },
            None => Some(match Costs::measure() {
                Some(costs) => Self { costs, from: MEASURED },
                None => Self { costs: Costs::TABLE, from: "from the built-in table" },
            }),
        }
    }
}

fn read(file: &Path) -> Result<Costs, CostsError> {
    let costs: Costs = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    if costs.is_sensible() { Ok(costs) } else { Err(CostsError::NotSensible) }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Costs { save_ns, restore_ns, check_ns, trap_ns, flush_ns, control_words_ns } = self.costs;
        let (from, assumed) = (self.from, if self.from == MEASURED { "assumed" } else { self.from });
        if self.from == MEASURED && !Costs::MEASURES_CHECKS {
            // An unoptimised build.
            write!(f, "save {save_ns:.1} ns, restore {restore_ns:.1} ns ({from}), ")?;
            writeln!(f, "check {check_ns:.1} ns (table),")?;
        } else {
            writeln!(
                f,
                "save {save_ns:.1} ns, restore {restore_ns:.1} ns, check {check_ns:.1} ns ({from}),"
            )?;
        }
        write!(f, "#NM trap {trap_ns:.0} ns, flush by another CPU {flush_ns:.0} ns, ")?;
        write!(f, "control words {control_words_ns:.1} ns ({assumed})")
    }
}
