//! How fast recordings are replayed under all policies, and in how much memory.
//!
//! `cargo bench --bench replay`. One thread. Each arm is the median of several runs, taken in turn; the ratio
//! is to splitting the same text into lines, which no reader can do without.

#[path = "../tests/recordings/long.rs"]
mod long;

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use fpuswitch::replay::{Options, Report, replay};
use long::{Long, peak_bytes};
use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
    time::Instant,
};

const MB: f64 = 1e6;
const RUNS: usize = 7;
/// Text of each speed arm, at least: so much that setting up does not count.
const TEXT_BYTES: usize = 20_000_000;
/// Text in the memory arm.
const LONG_BYTES: u64 = 1_000_000_000;
/// Tasks that are alive there at a time.
const LONG_TASKS: u32 = 100_000;
const LONG_CPUS: u32 = 8;

fn main() {
    // First, while nothing else has touched memory.
    memory();
    speed();
}

/// 1 GB in which 100 000 tasks are alive from soon on, and further ones take the place of those that die.
fn memory() {
    let before = peak_bytes();
    let start = Instant::now();
    let mut input = Long::new(LONG_BYTES, LONG_TASKS, LONG_CPUS);
    let report = run(&mut input);
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(report.agreement.disagreements, 0, "{:?}", report.agreement.first);
    println!(
        "{:.0} MB of text, generated meanwhile: {} lines, {LONG_CPUS} CPUs, {} tasks, {LONG_TASKS} of them at a time, \
         {} decisions: {seconds:.1} s",
        report.bytes as f64 / MB,
        report.lines,
        input.tasks,
        report.agreement.decisions
    );
    match (before, peak_bytes()) {
        (Some(before), Some(after)) => {
            println!(
                "peak memory: {:.1} MB, of it before the replay {:.1} MB",
                after as f64 / MB,
                before as f64 / MB
            );
        }
        _ => println!("peak memory: SKIPPED: no /proc/self/status here"),
    }
}

/// Every recording that comes with the crate, repeated.
fn speed() {
    println!("\n{:<24} {:>9} {:>9} {:>9} {:>14}", "recording", "lines", "plain", "gzip", "plain / split");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings");
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .expect("the recordings are there")
        .map(|entry| entry.expect("a folder that can be read").path())
        .collect();
    names.sort();
    for path in names {
        let mut once = Vec::new();
        MultiGzDecoder::new(File::open(&path).expect("a recording")).read_to_end(&mut once).expect("whole");

        let times = TEXT_BYTES.div_ceil(once.len());
        let text = once.repeat(times);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&text).expect("memory");
        let gzip = gzip.finish().expect("memory");
        let (mut split, mut plain, mut packed) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..RUNS {
            split.push(seconds(|| text.split(|byte| *byte == b'\n').count() as u64));
            plain.push(seconds(|| run(text.as_slice()).lines));
            packed.push(seconds(|| run(gzip.as_slice()).lines));
        }
        let mb = text.len() as f64 / MB;
        let (split, plain, packed) = (median(split), median(plain), median(packed));
        let lines = once.iter().filter(|byte| **byte == b'\n').count();
        let name = path.file_stem().map(|name| name.to_string_lossy().replace(".txt", ""));
        println!(
            "{:<24} {lines:>9} {:>4.0} MB/s {:>4.0} MB/s {:>14.2}",
            name.unwrap_or_default(),
            mb / plain,
            mb / packed,
            plain / split
        );
    }
}

fn run(input: impl Read) -> Report {
    replay(input, &Options::default()).expect("a recording")
}

fn seconds(work: impl FnOnce() -> u64) -> f64 {
    let start = Instant::now();
    std::hint::black_box(work());
    start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
