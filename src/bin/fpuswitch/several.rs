//! What a replay of several recordings found: a row each.

use crate::{
    costs::Source,
    one::{align_right, at_least, print_bases, print_disagreements},
    print, table,
};
use fpuswitch::replay::{OptimumCounts, PolicyCounts, Report};
use std::path::Path;

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

pub(crate) fn print_several(found: &[(String, Report)], costs: &Source) {
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
    let ns = report.optimum.cost_ns(&costs.costs);
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
