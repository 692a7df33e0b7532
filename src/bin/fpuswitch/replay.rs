//! `fpuswitch replay`.

use crate::{Named, Status, bundled, complain, costs::Source, json, print, table};
use comfy_table::{CellAlignment, Table};
use fpuswitch::{
    fpu::policy::Builtin,
    replay::{Options, ReplayError, Report, replay as replay_recording},
};
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
};

/// Inputs above this size get a progress bar on a terminal.
const PROGRESS_FROM_BYTES: u64 = 100_000_000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A policy to compare, again for each further one: eager, eager-owner, deferred, owner-slot, lazy-save.
    /// Without: all.
    #[arg(long = "policy", value_name = "NAME")]
    policies: Vec<Named>,
    /// Costs as JSON: {"save_ns": 40, "restore_ns": 43, "check_ns": 1.3}. Without: measured here, where that
    /// can be done.
    #[arg(long, value_name = "FILE")]
    costs: Option<PathBuf>,
    /// Check all invariants behind every event, on all machines.
    #[arg(long)]
    check: bool,
    /// Print one JSON object a recording, one line each.
    #[arg(long)]
    json: bool,
    /// Recordings: ftrace text, plain or gzip; - for standard input. Without: those that come with the crate.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(crate) fn replay(arguments: &Arguments) -> Status {
    let Some(costs) = Source::new(arguments.costs.as_deref()) else { return Status::BadInput };
    let mut options = Options { check: arguments.check, ..Options::default() };
    if !arguments.policies.is_empty() {
        options.policies = distinct(&arguments.policies);
    }
    let mut found = Vec::new();
    let mut status = Status::Fine;
    for (name, input) in inputs(&arguments.files) {
        let report = input.map_err(|error| ReplayError::Input(error.into()));
        match report.and_then(|input| replay_recording(input, &options)) {
            Ok(report) => {
                if report.agreement.disagreements > 0 || report.says_little() {
                    status = status.max(Status::Finding);
                }
                if arguments.json {
                    print_json(&name, &report, &costs);
                } else {
                    found.push((name, report));
                }
            }
            Err(error) => {
                let worse = complain(&name, &error);
                let violation = matches!(error, ReplayError::Violation { .. });
                status = status.max(if violation { Status::Finding } else { worse });
            }
        }
    }
    match found.as_slice() {
        [] => {}
        [(name, report)] => print_one(name, report, &costs),
        several => print_several(several, &costs),
    }
    status
}

fn distinct(named: &[Named]) -> Vec<Builtin> {
    let mut policies = Vec::new();
    for Named(policy) in named {
        if !policies.contains(policy) {
            policies.push(*policy);
        }
    }
    policies
}

type Input = io::Result<Box<dyn Read>>;

fn inputs(files: &[PathBuf]) -> Box<dyn Iterator<Item = (String, Input)> + '_> {
    if files.is_empty() {
        let bundled = bundled::RECORDINGS.iter();
        return Box::new(bundled.map(|(name, bytes)| (name.to_string(), Ok(Box::new(*bytes) as _))));
    }
    Box::new(files.iter().map(|file| (file.display().to_string(), open(file))))
}

fn open(file: &Path) -> Input {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let input = File::open(file)?;
    let bytes = input.metadata()?.len();
    if bytes < PROGRESS_FROM_BYTES || !io::stderr().is_terminal() {
        return Ok(Box::new(input));
    }
    let bar = ProgressBar::new(bytes).with_finish(ProgressFinish::AndClear);
    if let Ok(style) = ProgressStyle::with_template("{bytes} of {total_bytes} {wide_bar} {eta} left") {
        bar.set_style(style);
    }
    Ok(Box::new(bar.wrap_read(input)))
}

fn print_json(name: &str, report: &Report, costs: &Source) {
    match serde_json::to_string(&json::File::new(name, report, &costs.costs)) {
        Ok(line) => print(format_args!("{line}\n")),
        Err(error) => {
            complain(name, &error);
        }
    }
}

fn print_one(name: &str, report: &Report, costs: &Source) {
    let kernel = report.kernel;
    let functions = if report.has_functions { "" } else { ", without function lines" };
    print(format_args!(
        "{name}: {:.3} s on {} CPUs, {} lines{functions}\n\
         kernel: {} switches, {} returns with the load flag set, {} saves, {} restores\n",
        report.seconds,
        report.cpus,
        report.lines,
        kernel.switches,
        kernel.returns,
        kernel.saves,
        kernel.restores
    ));
    if report.lost > 0 {
        let little = if report.says_little() { ": more is unknown than known, a finding" } else { "" };
        print(format_args!("events were lost in {} places{little}\n", report.lost));
    }
    print_agreement(report);
    print_disagreements(name, report);
    let optimum = report.optimum;
    let mut table = table();
    table.set_header([
        "policy",
        "saves",
        "× optimum",
        "restores",
        "× optimum",
        "skipped",
        "cost",
        "of the time",
    ]);
    for policy in &report.policies {
        let cost_ns = policy.cost_ns(&costs.costs);
        let cpu_ns = report.seconds * report.cpus as f64 * 1e9;
        table.add_row([
            policy.name.to_string(),
            policy.saves.to_string(),
            ratio(optimum.saves_ratio(policy.saves)),
            policy.restores.to_string(),
            ratio(optimum.restores_ratio(policy.restores)),
            policy.restores_skipped.to_string(),
            format!("{:.1} µs", cost_ns / 1e3),
            if cpu_ns > 0.0 { format!("{:.4} %", 100.0 * cost_ns / cpu_ns) } else { "–".to_string() },
        ]);
    }
    table.add_row(["optimum", &optimum.saves.to_string(), "", &optimum.restores.to_string()]);
    align_right(&mut table);
    print(format_args!("{table}\ncosts: {costs}\n"));
    let ignored: u64 = report.ignored.values().sum();
    if ignored > 0 {
        let names: Vec<_> = report.ignored.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let shown = names.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
        let more = if names.len() > 8 { ", …" } else { "" };
        print(format_args!("{ignored} lines of unknown events, without effect: {shown}{more}\n"));
    }
}

fn print_agreement(report: &Report) {
    let agreement = &report.agreement;
    print(format_args!(
        "agreement of owner-slot with the kernel: {} decisions, {} disagreements, {} undecidable\n",
        agreement.decisions, agreement.disagreements, agreement.undecidable
    ));
    if agreement.inferred() > 0 {
        let verdict = if agreement.infers_too_much() { ": more than 5 %, a finding" } else { "" };
        print(format_args!(
            "not counted as agreement, inferred from what the kernel did: {} returns, {} kernel FPU sections{verdict}\n",
            agreement.inferred_returns, agreement.inferred_kernel_fpu
        ));
    }
    for (quirk, count) in &agreement.quirks {
        print(format_args!("quirk {} ({}): {count} {}\n", quirk.name(), quirk.origin(), quirk.costs()));
    }
}

fn print_disagreements(name: &str, report: &Report) {
    for found in &report.agreement.first {
        let (expected, done) = (did(found.expected), did(found.found));
        print(format_args!(
            "{name}: line {}: {} of {} on c{}: expected {expected}, the kernel {done}\n",
            found.line, found.decision, found.pid, found.cpu
        ));
    }
}

fn did(done: bool) -> &'static str {
    if done { "did it" } else { "did not" }
}

fn print_several(found: &[(String, Report)], costs: &Source) {
    let mut table = table();
    let mut header = vec!["recording", "decisions", "disagree", "inferred", "unknown"];
    let policies: Vec<&str> = found[0].1.policies.iter().map(|policy| policy.name).collect();
    header.extend(&policies);
    header.push("optimum");
    table.set_header(header);
    let mut totals = [0; 4];
    // Saves and restores, and what they cost in ns; by policy, the optimum last.
    let mut done = vec![((0, 0), 0.0); policies.len() + 1];
    for (name, report) in found {
        let short = Path::new(name).file_name().map_or(name.as_str().into(), |name| name.to_string_lossy());
        let mut row = vec![short.trim_end_matches(".gz").trim_end_matches(".txt").to_string()];
        let agreement = &report.agreement;
        let counts =
            [agreement.decisions, agreement.disagreements, agreement.inferred(), agreement.undecidable];
        for (total, count) in totals.iter_mut().zip(counts) {
            *total += count;
            row.push(count.to_string());
        }
        let optimum = (report.optimum.saves, report.optimum.restores);
        let (save_ns, restore_ns) = (costs.costs.save_ns, costs.costs.restore_ns);
        let best = (optimum, optimum.0 as f64 * save_ns + optimum.1 as f64 * restore_ns);
        let policies = report.policies.iter();
        let work = policies.map(|p| ((p.saves, p.restores), p.cost_ns(&costs.costs))).chain([best]);
        for (sum, ((saves, restores), ns)) in done.iter_mut().zip(work) {
            *sum = ((sum.0.0 + saves, sum.0.1 + restores), sum.1 + ns);
            row.push(format!("{saves}/{restores}"));
        }
        table.add_row(row);
    }
    let mut row = vec!["all".to_string()];
    row.extend(totals.map(|count| count.to_string()));
    row.extend(done.iter().map(|((saves, restores), _)| format!("{saves}/{restores}")));
    table.add_row(row);
    let mut row = vec!["cost in µs".to_string()];
    row.extend([""; 4].map(String::from));
    row.extend(done.iter().map(|(_, ns)| format!("{:.0}", ns / 1e3)));
    table.add_row(row);
    align_right(&mut table);
    print(format_args!("{table}\nper policy: saves/restores; costs: {costs}\n"));
    for (name, report) in found {
        print_disagreements(name, report);
        if report.lost > 0 {
            print(format_args!("{name}: events were lost in {} places\n", report.lost));
        }
        if report.says_little() {
            print(format_args!("{name}: too much is inferred or unknown for the agreement to say much\n"));
        }
    }
    print(format_args!("one recording alone shows more; --json shows all\n"));
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or("–".to_string(), |ratio| format!("{ratio:.2}"))
}

/// Numbers to the right, the first column to the left.
fn align_right(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}
