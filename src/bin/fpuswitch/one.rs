//! What a replay of one recording found, on one screen.

use crate::{costs::Source, print, table};
use comfy_table::{CellAlignment, Table};
use fpuswitch::replay::{Basis, PolicyCounts, Report, TaskRestores};

/// How many tasks are shown.
const MOST_TASKS: usize = 4;
/// How wide a name of a recording may be beside the rest of its line.
const MOST_NAME: usize = 12;

pub(crate) fn print_one(name: &str, report: &Report, costs: &Source) {
    let kernel = report.kernel;
    let functions = if report.has_functions { "" } else { ", no function lines" };
    let separator = if name.chars().count() > MOST_NAME { "\n" } else { " " };
    print(format_args!(
        "{name}:{separator}{:.3} s on {} CPUs, {:.3} s of CPU time; {} lines{functions}\n\
         its lines: {} switches, {} returns with load due, {} saves, {} restores\n",
        report.seconds,
        report.cpus,
        report.cpu_ns() / 1e9,
        report.lines,
        kernel.switches,
        kernel.returns,
        kernel.saves,
        kernel.restores
    ));
    if report.lost > 0 {
        let little = if report.knows_too_little() { ": more is unknown than known, a finding" } else { "" };
        print(format_args!("events were lost in {} places{little}\n", report.lost));
    }
    print_agreement(report);
    print_disagreements(name, report);
    print_policies(report, costs);
    print(format_args!("costs: {costs}\n"));
    let flushes = report.policies.iter().filter(|policy| policy.flushes > 0);
    let flushes: Vec<_> = flushes.map(|policy| format!("{} {}", policy.name, policy.flushes)).collect();
    if !flushes.is_empty() {
        print(format_args!("flushes by another CPU, in the cost: {}\n", flushes.join(", ")));
    }
    print_bases(report);
    print_causes(report);
    print_tasks(report);
    print_beyond(report, costs);
    let ignored: u64 = report.ignored.values().sum();
    if ignored > 0 {
        let names: Vec<_> = report.ignored.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let shown = names.iter().take(2).cloned().collect::<Vec<_>>().join(", ");
        let more = if names.len() > 2 { ", …" } else { "" };
        print(format_args!("{ignored} lines of unknown events, without effect: {shown}{more}\n"));
    }
}

/// A row a policy, dearest first; the kernel among them, the optimum last.
fn print_policies(report: &Report, costs: &Source) {
    let optimum = report.optimum;
    let traps = report.policies.iter().any(|policy| policy.traps > 0);
    let mut table = table();
    let mut header = vec!["policy", "saves", "× opt", "restores", "× opt", "skipped"];
    header.extend(traps.then_some("traps"));
    header.extend(["cost µs", "% CPU"]);
    table.set_header(header);
    let percent = |ns: f64| match report.cpu_ns() {
        all if all > 0.0 => format!("{:.4}", 100.0 * ns / all),
        _ => "–".into(),
    };
    let row = |name: &str, policy: &PolicyCounts| {
        let ns = policy.cost_ns(&costs.costs);
        let [saves, restores] = policy.over_optimum(&optimum);
        let least = at_least(policy.basis);
        let mut row = vec![
            name.to_string(),
            format!("{least}{}", policy.saves),
            ratio(saves, least),
            format!("{least}{}", policy.restores),
            ratio(restores, least),
            policy.restores_skipped.to_string(),
        ];
        row.extend(traps.then(|| policy.traps.to_string()));
        row.extend([format!("{least}{}", micros(ns)), format!("{least}{}", percent(ns))]);
        (ns, row)
    };
    let kernel = row(KERNEL, &report.as_the_kernel());
    let policies = report.policies.iter().map(|policy| row(policy.name, policy));
    let mut rows: Vec<_> = policies.chain([kernel]).collect();
    rows.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    table.add_rows(rows.into_iter().map(|(_, row)| row));
    let mut row = vec!["optimum".to_string(), optimum.saves.to_string(), String::new()];
    row.extend([optimum.restores.to_string(), String::new()]);
    row.resize(6 + usize::from(traps), String::new());
    let ns = optimum.cost_ns(&costs.costs);
    row.extend([micros(ns), percent(ns)]);
    table.add_row(row);
    align_right(&mut table);
    print(format_args!("{table}\n"));
}

/// The kernel's row.
const KERNEL: &str = "the kernel";

fn micros(ns: f64) -> String {
    format!("{:.1}", ns / 1e3)
}

/// Why the kernel restored.
fn print_causes(report: &Report) {
    let total = report.causes.total();
    if total == 0 {
        return;
    }
    let mut table = table();
    table.set_header(["why the kernel restored", "restores", "share"]);
    for (cause, restores) in report.causes.sorted() {
        let share = 100.0 * restores as f64 / total as f64;
        table.add_row([cause.meaning(), &restores.to_string(), &format!("{share:.1} %")]);
    }
    align_right(&mut table);
    print(format_args!("{table}\n"));
}

/// Whose restores they were.
fn print_tasks(report: &Report) {
    if report.top.is_empty() {
        return;
    }
    let total = report.causes.total();
    let mut table = table();
    table.set_header(["most restores", "pid", "restores", "share", "most of them because"]);
    for TaskRestores { name, pid, restores, .. } in report.top.iter().take(MOST_TASKS) {
        let share = 100.0 * restores.total() as f64 / total as f64;
        let first = restores.sorted().first().map_or("", |(cause, _)| cause.short());
        table.add_row([
            name,
            &pid.to_string(),
            &restores.total().to_string(),
            &format!("{share:.1} %"),
            first,
        ]);
    }
    align_right(&mut table);
    if let Some(column) = table.column_mut(4) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    print(format_args!("{table}\n"));
}

/// What the kernel did beyond the optimum, by what made it do so.
fn print_beyond(report: &Report, costs: &Source) {
    let beyond = report.beyond_optimum();
    if beyond == [0, 0] {
        return;
    }
    let ns = |[saves, restores]: [i64; 2]| {
        saves as f64 * costs.costs.save_ns + restores as f64 * costs.costs.restore_ns
    };
    let mut rows: Vec<_> = report
        .agreement
        .quirks
        .iter()
        .map(|(quirk, count)| {
            let count = *count as i64;
            let counts = if quirk.costs() == "saves" { [count, 0] } else { [0, count] };
            (format!("{} ({})", quirk.name(), quirk.origin()), counts)
        })
        .collect();
    if report.for_frames > 0 {
        rows.push(("loads for signal frames".to_string(), [0, report.for_frames as i64]));
    }
    let all = beyond.map(|count| count as i64);
    let rest = rows.iter().fold(all, |rest, (_, counts)| [rest[0] - counts[0], rest[1] - counts[1]]);
    rows.push((format!("{} itself", report.reference.name), rest));
    rows.sort_by(|(_, one), (_, other)| ns(*other).total_cmp(&ns(*one)));
    let mut table = table();
    table.set_header(["the kernel beyond the optimum", "saves", "restores", "cost µs"]);
    for (what, counts) in rows.into_iter().chain([("all".to_string(), all)]) {
        let [saves, restores] =
            counts.map(|count| if count == 0 { String::new() } else { count.to_string() });
        table.add_row([what, saves, restores, micros(ns(counts))]);
    }
    align_right(&mut table);
    print(format_args!("{table}\n"));
}

fn print_agreement(report: &Report) {
    let agreement = &report.agreement;
    print(format_args!(
        "owner-slot against the kernel: {} decisions, {} disagreements, {} undecidable\n",
        agreement.decisions, agreement.disagreements, agreement.undecidable
    ));
    if agreement.inferred() > 0 {
        let verdict = if agreement.infers_too_much() { ": more than 5 %, a finding" } else { "" };
        print(format_args!(
            "inferred, no agreement: {} returns, {} kernel FPU sections{verdict}\n",
            agreement.inferred_returns, agreement.inferred_kernel_fpu
        ));
    }
}

pub(crate) fn print_disagreements(name: &str, report: &Report) {
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

/// The mark of a lower bound.
pub(crate) fn at_least(basis: Basis) -> &'static str {
    if basis == Basis::SeenEntries { "≥" } else { "" }
}

/// What counts rest on that are not exact.
pub(crate) fn print_bases(report: &Report) {
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
pub(crate) fn align_right(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}
