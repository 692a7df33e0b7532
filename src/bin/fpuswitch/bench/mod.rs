//! `fpuswitch bench`: what green threads on the real registers cost, in units of something else.
//!
//! docs/bench.md has the formula of every number.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod arms;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod blocks;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod goals;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod report;

use crate::Status;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Few short blocks: shows that everything runs. The numbers are worth little.
    #[arg(long)]
    quick: bool,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) fn bench(arguments: &Arguments) -> Status {
    let report = match report::Report::measure(arguments.quick) {
        Ok(report) => report,
        Err(error) => return crate::complain("bench", &error),
    };
    if !arguments.json {
        report.print();
        return Status::Fine;
    }
    match serde_json::to_string(&report) {
        Ok(line) => {
            crate::print(format_args!("{line}\n"));
            Status::Fine
        }
        Err(error) => crate::complain("bench", &error),
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub(crate) fn bench(_: &Arguments) -> Status {
    eprintln!("fpuswitch: bench: green threads on the real registers need x86-64 Linux");
    Status::BadInput
}
