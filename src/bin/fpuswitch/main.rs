//! The command line.

mod bench;
mod bug;
mod bundled;
mod costs;
mod explore;
mod json;
mod layout;
mod one;
mod pictures;
#[cfg(target_os = "linux")]
mod record;
mod replay;
mod run;
mod several;

use clap::{Parser, Subcommand};
use fpuswitch::fpu::{Policy, policy::Builtin};
use std::{path::Path, process::ExitCode, sync::Mutex};

/// FPU context-switching policies, simulated, checked, and held against recordings of the Linux kernel.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Replay recordings of the Linux kernel under several policies, and compare.
    ///
    /// Exit status: 0; 1 with a disagreement, with more than 5 % of the decisions inferred, where lost events leave
    /// more unknown than known, or where --check finds an invariant violated; 2 for bad input. The worst of several
    /// files wins.
    Replay(replay::Arguments),
    /// Record what the running kernel does with the FPU registers, for replay. Needs root.
    ///
    /// All tasks and CPUs are recorded, into a tracing instance of its own, which is removed in the end; other
    /// tracing goes on undisturbed. The recording ends with COMMAND, after N seconds, or with Ctrl-C, whichever comes
    /// first; without COMMAND and --seconds, only with Ctrl-C.
    ///
    /// Exit status: 0; 1 if events were lost or COMMAND failed; 2 if there is no recording, or something of it is
    /// left in the kernel.
    #[cfg(target_os = "linux")]
    Record(record::Arguments),
    /// Go through every state that a small machine can reach, and check every invariant in each.
    ///
    /// Exit status: 0; 1 with a violation, or where a situation that ought to come up does not; 2 for bad input.
    /// With --defect: 0 if the bug is found, which is what it is for, and 1 if it is missed, or shows in another
    /// invariant than it names; for a harmless one the other way round. With --corpus the same over all bugs; under
    /// another policy (--policy) and for user code alone (--user-code), missing one is no error, as not every policy
    /// relies on what is wrong.
    Explore(explore::Arguments),
    /// Replay a file of events and print what happens, step by step.
    ///
    /// Exit status: 0 if all invariants hold, 1 if not, 2 for bad input.
    Run(run::Arguments),
    /// Show what XSAVE areas look like: components, offsets and sizes in both formats, what is enabled and what
    /// is only listed.
    ///
    /// Exit status: 0, or 2 for a description that is no good.
    Layout(layout::Arguments),
    /// Measure what saves and restores cost on this machine: ns by instruction and in-use class of the registers.
    ///
    /// Exit status: 0, or 2 where there are no real registers.
    Costs(costs::Arguments),
    /// Measure what green threads on the real registers cost, in units of what they are to be held against: a coroutine,
    /// the save and restore instructions, a signal, a switch by the kernel. Needs x86-64 Linux.
    ///
    /// Exit status: 0, whatever the numbers are, or 2 where nothing can be measured.
    Bench(bench::Arguments),
}

/// A policy chosen by name.
#[derive(Clone, Copy)]
struct Named(Builtin);

impl std::str::FromStr for Named {
    type Err = fpuswitch::fpu::policy::UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        name.parse().map(Self)
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name())
    }
}

/// How a command ended; the worst of several wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Status {
    Fine,
    Finding,
    BadInput,
}

fn main() -> ExitCode {
    let status = match Arguments::parse().command {
        Command::Replay(arguments) => replay::replay(&arguments),
        #[cfg(target_os = "linux")]
        Command::Record(arguments) => record::record(&arguments),
        Command::Explore(arguments) => explore::explore(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Layout(arguments) => layout::layout(&arguments),
        Command::Costs(arguments) => costs::costs(&arguments),
        Command::Bench(arguments) => bench::bench(&arguments),
    };
    let output = match OUTPUT.lock().ok().and_then(|failed| *failed) {
        None | Some(std::io::ErrorKind::BrokenPipe) => Status::Fine,
        Some(_) => Status::BadInput,
    };
    match status.max(output) {
        Status::Fine => ExitCode::SUCCESS,
        Status::Finding => ExitCode::from(1),
        Status::BadInput => ExitCode::from(2),
    }
}

/// Prints an error and what caused it to standard error.
fn complain(about: &str, error: &dyn std::error::Error) -> Status {
    let mut message = format!("fpuswitch: {about}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !message.ends_with(&cause_text) {
            message = format!("{message}: {cause_text}");
        }
        source = cause.source();
    }
    eprintln!("{message}");
    Status::BadInput
}

/// The text of a file; - stands for standard input.
fn read(file: &Path) -> std::io::Result<String> {
    if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    }
}

/// An empty table in the style of all of them.
fn table() -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table
}

/// Whether standard output has failed: nothing more is printed, and unless the reader has just gone away, as
/// `head` does, the command has failed too.
static OUTPUT: Mutex<Option<std::io::ErrorKind>> = Mutex::new(None);

/// Prints to standard output.
fn print(text: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let Ok(mut failed) = OUTPUT.lock() else { return };
    if failed.is_some() {
        return;
    }
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_fmt(text).and_then(|()| out.flush()) {
        *failed = Some(error.kind());
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            complain("standard output", &error);
        }
    }
}
