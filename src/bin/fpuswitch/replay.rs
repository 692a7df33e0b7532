//! `fpuswitch replay`.

use crate::{Named, Status, bundled, complain, costs::Source, json, print, table};
use comfy_table::{CellAlignment, Table};
use fpuswitch::{
    fpu::policy::Builtin,
    replay::{Basis, OptimumCounts, Options, PolicyCounts, ReplayError, Report, replay as replay_recording},
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
    /// A policy to compare, again for each further one: eager, eager-owner, trap-restore, full-lazy, deferred,
    /// owner-slot, lazy-save, entry-exit, call-boundary, use-class. Without: those whose counts follow from a
    /// recording alone, which leaves out trap-restore, full-lazy and use-class (they depend on --use), entry-exit
    /// (whose counts are lower bounds) and call-boundary (whose programs see something else).
    #[arg(long = "policy", value_name = "NAME")]
    policies: Vec<Named>,
    /// Compare all policies.
    #[arg(long, conflicts_with = "policies")]
    all_policies: bool,
    /// The share of slices, from switch-in to switch-out, that use the FPU, 0 to 1, and for use-class of
    /// programs that do: no recording says.
    #[arg(long = "use", value_name = "P", default_value_t = 1.0, value_parser = share)]
    fpu_use: f64,
    /// Costs as JSON: {"save_ns": 40, "restore_ns": 43, "check_ns": 1.3}, and if they are not to be taken from the
    /// built-in table "trap_ns" (a #NM trap), "flush_ns" (a flush by another CPU) and "control_words_ns". Without: measured here, where
    /// that can be done.
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
    let mut options = Options { check: arguments.check, fpu_use: arguments.fpu_use, ..Options::default() };
    if arguments.all_policies {
        options.policies = Builtin::ALL.to_vec();
    } else if !arguments.policies.is_empty() {
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

fn share(text: &str) -> Result<f64, &'static str> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or("expected a share from 0 to 1")
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
    let traps = report.policies.iter().any(|policy| policy.traps > 0);
    let flushes = report.policies.iter().any(|policy| policy.flushes > 0);
    let mut table = table();
    let mut header = vec!["policy", "saves", "× optimum", "restores", "× optimum", "skipped"];
    header.extend(traps.then_some("traps"));
    header.extend(flushes.then_some("flushes"));
    header.extend(["cost", "of the time"]);
    table.set_header(header);
    for policy in &report.policies {
        let cost_ns = policy.cost_ns(&costs.costs);
        let cpu_ns = report.seconds * report.cpus as f64 * 1e9;
        let [saves, restores] = policy.over_optimum(&optimum);
        let least = at_least(policy.basis);
        let mut row = vec![
            policy.name.to_string(),
            format!("{least}{}", policy.saves),
            ratio(saves, least),
            format!("{least}{}", policy.restores),
            ratio(restores, least),
            policy.restores_skipped.to_string(),
        ];
        row.extend(traps.then(|| policy.traps.to_string()));
        row.extend(flushes.then(|| policy.flushes.to_string()));
        row.push(format!("{least}{:.1} µs", cost_ns / 1e3));
        row.push(if cpu_ns > 0.0 {
            format!("{least}{:.4} %", 100.0 * cost_ns / cpu_ns)
        } else {
            "–".into()
        });
        table.add_row(row);
    }
    table.add_row(["optimum", &optimum.saves.to_string(), "", &optimum.restores.to_string()]);
    align_right(&mut table);
    print(format_args!("{table}\ncosts: {costs}\n"));
    print_bases(report);
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

/// More policies than this get rows of a table of their own.
const MOST_COLUMNS: usize = 6;

/// The sums of one policy over several recordings, or of the optimum.
#[derive(Clone, Copy, Default)]
struct Sum {
    saves: u64,
    restores: u64,
    traps: u64,
    flushes: u64,
    ns: f64,
}

fn print_several(found: &[(String, Report)], costs: &Source) {
    let first = &found[0].1;
    let in_columns = first.policies.len() <= MOST_COLUMNS;
    let mut table = table();
    let mut header = vec!["recording", "decisions", "disagree", "inferred", "unknown"];
    let columns = if in_columns { first.policies.as_slice() } else { &[] };
    header.extend(columns.iter().map(|policy| policy.name));
    header.push("optimum");
    table.set_header(header);
    let mut totals = [0; 4];
    // By policy, the optimum last.
    let mut sums = vec![Sum::default(); first.policies.len() + 1];
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
        if in_columns {
            let shown = |p: &PolicyCounts| pair(at_least(p.basis), p.saves, p.restores);
            row.extend(report.policies.iter().map(shown));
        }
        row.push(pair("", report.optimum.saves, report.optimum.restores));
        table.add_row(row);
        for (sum, more) in sums.iter_mut().zip(work(report, costs)) {
            sum.saves += more.saves;
            sum.restores += more.restores;
            sum.traps += more.traps;
            sum.flushes += more.flushes;
            sum.ns += more.ns;
        }
    }
    let leasts: Vec<_> = first.policies.iter().map(|policy| at_least(policy.basis)).chain([""]).collect();
    let shown = if in_columns { 0.. } else { first.policies.len().. };
    let shown = || leasts.iter().zip(&sums).skip(shown.start);
    let mut row = vec!["all".to_string()];
    row.extend(totals.map(|count| count.to_string()));
    row.extend(shown().map(|(least, sum)| pair(least, sum.saves, sum.restores)));
    table.add_row(row);
    let mut row = vec!["cost in µs".to_string()];
    row.extend([""; 4].map(String::from));
    row.extend(shown().map(|(least, sum)| format!("{least}{:.0}", sum.ns / 1e3)));
    table.add_row(row);
    align_right(&mut table);
    print(format_args!("{table}\n"));
    if !in_columns {
        print_sums(first, &leasts, &sums);
    }
    print(format_args!("per policy: saves/restores; costs: {costs}\n"));
    print_bases(first);
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

/// What each policy did, and the optimum behind them.
fn work(report: &Report, costs: &Source) -> impl Iterator<Item = Sum> {
    let OptimumCounts { saves, restores } = report.optimum;
    let ns = saves as f64 * costs.costs.save_ns + restores as f64 * costs.costs.restore_ns;
    let best = Sum { saves, restores, ns, ..Sum::default() };
    let of = |p: &PolicyCounts| Sum {
        saves: p.saves,
        restores: p.restores,
        traps: p.traps,
        flushes: p.flushes,
        ns: p.cost_ns(&costs.costs),
    };
    report.policies.iter().map(of).chain([best])
}

/// A row a policy.
fn print_sums(report: &Report, leasts: &[&str], sums: &[Sum]) {
    let mut table = table();
    table.set_header(["all recordings", "saves", "restores", "traps", "flushes", "cost in µs"]);
    let names = report.policies.iter().map(|policy| policy.name).chain(["optimum"]);
    for ((name, least), sum) in names.zip(leasts).zip(sums) {
        table.add_row([
            name.to_string(),
            format!("{least}{}", sum.saves),
            format!("{least}{}", sum.restores),
            sum.traps.to_string(),
            sum.flushes.to_string(),
            format!("{least}{:.0}", sum.ns / 1e3),
        ]);
    }
    align_right(&mut table);
    print(format_args!("{table}\n"));
}

fn pair(least: &str, saves: u64, restores: u64) -> String {
    format!("{least}{saves}/{restores}")
}

/// The mark of a lower bound.
fn at_least(basis: Basis) -> &'static str {
    if basis == Basis::SeenEntries { "≥" } else { "" }
}

/// What counts rest on that are not exact.
fn print_bases(report: &Report) {
    let names = |basis| {
        let policies = report.policies.iter().filter(|policy| policy.basis == basis);
        policies.map(|policy| policy.name).collect::<Vec<_>>().join(", ")
    };
    let by_use = names(Basis::FpuUse);
    if !by_use.is_empty() {
        let share = report.fpu_use;
        print(format_args!(
            "{by_use}: if a slice (for use-class, a program) uses the FPU with probability {share} (--use); the\n\
             optimum is no bound for them\n"
        ));
    }
    let by_calls = names(Basis::Calls);
    if !by_calls.is_empty() {
        print(format_args!(
            "{by_calls}: if system calls keep the control words alone, which count in the cost and not as saves and\n\
             restores; the optimum keeps everything, and is no bound\n"
        ));
    }
    let by_entries = names(Basis::SeenEntries);
    if !by_entries.is_empty() {
        print(format_args!("{by_entries}: lower bounds, of the kernel entries that the recording shows\n"));
    }
}

fn ratio(ratio: Option<f64>, least: &str) -> String {
    ratio.map_or("–".to_string(), |ratio| format!("{least}{ratio:.2}"))
}

/// Numbers to the right, the first column to the left.
fn align_right(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}
