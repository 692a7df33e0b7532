//! `fpuswitch replay`.

use crate::{
    Named, Status, bundled, complain, costs::Source, json, one::print_one, pictures::Pictures, print,
    several::print_several,
};
use fpuswitch::{
    fpu::policy::Builtin,
    replay::{Options, ReplayError, Report, replay as replay_recording, replay_with_timeline},
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
    #[command(flatten)]
    pictures: Pictures,
    /// Recordings: text of ftrace, trace-cmd report or perf script, plain or gzip; - for standard input. Without: those that come with the crate.
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
    let window = match arguments.pictures.window(arguments.files.len()) {
        Ok(window) => window,
        Err(error) => return complain("replay", &error),
    };
    let watched = watched(&arguments.policies, &options.policies);
    let mut found = Vec::new();
    let mut status = Status::Fine;
    for (name, input) in inputs(&arguments.files) {
        let report = input.map_err(|error| ReplayError::Input(error.into()));
        let report = report.and_then(|input| match window {
            Some(window) => replay_with_timeline(input, &options, watched, window)
                .map(|(report, timeline)| (report, Some(timeline))),
            None => replay_recording(input, &options).map(|report| (report, None)),
        });
        match report {
            Ok((report, timeline)) => {
                if let Some(timeline) = timeline {
                    let drawn = arguments.pictures.draw(&name, &report, &timeline, &costs.costs);
                    status = status.max(drawn);
                }
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
                let violation = matches!(error, ReplayError::Breach { .. });
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

/// The number of the policy that pictures show: the first that was asked for, which is compared first, or `owner-slot`.
fn watched(asked: &[Named], compared: &[Builtin]) -> usize {
    let watched = asked.first().map_or(Builtin::OwnerSlot, |named| named.0);
    compared.iter().take_while(|policy| **policy != watched).count()
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
    match serde_json::to_string(&json::File::new(name, report, costs)) {
        Ok(line) => print(format_args!("{line}\n")),
        Err(error) => {
            complain(name, &error);
        }
    }
}
