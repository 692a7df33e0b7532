//! How far the machine agrees with the kernel: the table of docs/agreement.md, a row a recording.
//!
//! `cargo run --release --example agreement -- FILES`, without FILES for the recordings that come with the crate. What
//! a recording does not say stands in its file's name: `MODE-[SECONDSs-]CPUScpu-[CPU_MODEL-]KERNEL.txt.gz`, and the
//! last column makes one like it.

use fpuswitch::replay::{Options, Report, replay};
use std::{
    error::Error,
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

const HEADER: &str = "\
| recording | kernel | CPU model | CPUs | mode | seconds | lines | decisions | agree | disagree | inferred | unknown | quirks | made by |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";

/// What a file's name says.
struct Name<'a> {
    mode: &'a str,
    seconds: Option<&'a str>,
    cpus: &'a str,
    /// `None`: real hardware, not the emulator.
    model: Option<&'a str>,
    kernel: &'a str,
}

impl<'a> Name<'a> {
    fn parse(stem: &'a str) -> Option<Self> {
        let (front, back) = stem.split_once("cpu-")?;
        let (front, cpus) = front.rsplit_once('-')?;
        let timed = front.rsplit_once('-').and_then(|(mode, seconds)| {
            let seconds = seconds.strip_suffix('s')?;
            seconds.parse::<f64>().is_ok().then_some((mode, Some(seconds)))
        });
        let (mode, seconds) = timed.unwrap_or((front, None));
        let (model, kernel) = match back.rsplit_once('-') {
            Some((model, kernel)) => (Some(model), kernel),
            None => (recorder_knows(mode).then_some("max"), back),
        };
        Some(Self { mode, seconds, cpus, model, kernel })
    }
}

/// Whether `mode` is one of recorder/workload.c.
fn recorder_knows(mode: &str) -> bool {
    const MODES: [&str; 14] = [
        "core",
        "fork",
        "fpregs",
        "hop",
        "kfpu",
        "mix",
        "pipe",
        "pipe-nofp",
        "ptrace",
        "sig",
        "sigpage",
        "spin",
        "threads",
        "yield",
    ];
    MODES.contains(&mode)
}

/// A row of the table.
struct Row<'a> {
    stem: &'a str,
    name: Name<'a>,
    report: &'a Report,
}

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Name { mode, seconds, cpus, model, kernel } = self.name;
        let Report { lines, agreement, .. } = self.report;
        let ran = self.report.seconds;
        write!(
            f,
            "| {} | {kernel} | {} | {cpus} | {mode} | {ran:.1} | {lines} ",
            self.stem,
            model.unwrap_or("real")
        )?;
        let agree = agreement.decisions - agreement.disagreements;
        write!(f, "| {} | {agree} | {} ", agreement.decisions, agreement.disagreements)?;
        write!(f, "| {} | {} | ", agreement.inferred(), agreement.undecidable)?;
        for (at, (quirk, count)) in agreement.quirks.iter().enumerate() {
            write!(f, "{}{} {count}", if at == 0 { "" } else { ", " }, quirk.name())?;
        }
        match model {
            Some(model) => {
                let about = format!("{ran:.1}");
                let seconds = seconds.unwrap_or(&about);
                write!(f, " | `recorder/record {mode} {seconds} {cpus} FILE {model}` |")
            }
            None => f.write_str(" | |"),
        }
    }
}

fn row(file: &Path) -> Result<(String, bool), Box<dyn Error>> {
    let stem = file.file_name().and_then(|name| name.to_str()).ok_or("a file's name is no text")?;
    let stem = stem.trim_end_matches(".gz").trim_end_matches(".txt");
    let name = Name::parse(stem).ok_or_else(|| format!("{stem}: expected MODE-CPUScpu-KERNEL"))?;
    // The machine that is held against the kernel needs no others beside it.
    let options = Options { policies: Vec::new(), ..Options::default() };
    let report = replay(File::open(file)?, &options).map_err(|error| format!("{stem}: {error}"))?;
    let agrees = report.agreement.disagreements == 0 && !report.says_little();
    Ok((Row { stem, name, report: &report }.to_string(), agrees))
}

/// The table of these recordings, and whether none has a finding.
pub(crate) fn table(files: &[PathBuf]) -> Result<(String, bool), Box<dyn Error>> {
    let (mut table, mut all_agree) = (format!("{HEADER}\n"), true);
    for file in files {
        let (row, agrees) = row(file)?;
        table += &format!("{row}\n");
        all_agree &= agrees;
    }
    Ok((table, all_agree))
}

/// The recordings that come with the crate.
pub(crate) fn bundled() -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings");
    let files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut files: Vec<PathBuf> = files.collect::<io::Result<_>>()?;
    files.sort();
    Ok(files)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if files.is_empty() {
        files = bundled()?;
    }
    let (table, all_agree) = table(&files)?;
    print!("{table}");
    assert!(all_agree, "a recording has a finding: fpuswitch replay FILE shows it");
    Ok(())
}
