//! How fast recordings are replayed under all policies, and in how much memory.
//!
//! `cargo bench --bench replay`. One thread. Each arm is the median of several runs, taken in turn; the ratio
//! is to splitting the same text into lines, which no reader can do without.

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use fpuswitch::replay::{Options, Report, replay};
use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Read, Write},
    path::Path,
    time::Instant,
};

const MB: f64 = 1e6;
const RUNS: usize = 7;
/// Text of each speed arm, at least: so much that setting up does not count.
const TEXT_BYTES: usize = 20_000_000;
/// Text in the memory arm.
const LONG_BYTES: u64 = 1_000_000_000;

fn main() {
    // First, while nothing else has touched memory.
    memory();
    speed();
}

/// 1 GB in which every task lives for 16 lines.
fn memory() {
    let before = peak_kib();
    let start = Instant::now();
    let mut input = ShortLived::new(LONG_BYTES);
    let report = run(&mut input);
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(report.agreement.disagreements, 0, "{:?}", report.agreement.first);
    println!(
        "{:.0} MB of text with {} tasks, generated meanwhile: {seconds:.1} s",
        report.bytes as f64 / MB,
        input.tasks
    );
    match (before, peak_kib()) {
        (Some(before), Some(after)) => {
            println!(
                "peak memory: {:.1} MB, of it before the replay {:.1} MB",
                after / 1024.0,
                before / 1024.0
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

/// The most memory that this process ever had resident, in KiB.
fn peak_kib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// A recording in which a parent forks child after child, each of which runs once and dies.
struct ShortLived {
    tasks: u64,
    left: u64,
    block: String,
    read: usize,
}

impl ShortLived {
    fn new(bytes: u64) -> Self {
        Self { tasks: 0, left: bytes, block: "# tracer: function\n".to_string(), read: 0 }
    }

    fn next_task(&mut self) {
        const PIDS: u64 = 4_194_304 - 1000;
        let child = 1000 + self.tasks % PIDS;
        let time = self.tasks as f64 / 1e4;
        self.tasks += 1;
        self.block.clear();
        let mut line = |pid: u64, what: &str| {
            writeln!(self.block, "          worker-{pid:<7} [000] d..2. {time:>12.6}: {what}")
                .expect("memory");
        };
        let switch = |from: u64, state: &str, to: u64| {
            format!(
                "sched_switch: prev_comm=worker prev_pid={from} prev_prio=120 prev_state={state} \
                 ==> next_comm=worker next_pid={to} next_prio=120"
            )
        };
        let fpu = |event: &str| {
            format!("x86_fpu_{event}: x86/fpu: 000000002b6caff0 load: 0 xfeatures: 217 xcomp_bv: 0")
        };
        line(1, "sys_enter: NR 56 (1200011, 0, 0, 0, 0, 0)");
        line(1, "fpu_clone <-copy_thread");
        line(1, &fpu("copy_src"));
        line(1, &fpu("copy_dst"));
        line(1, &format!("sched_process_fork: comm=worker pid=1 child_comm=worker child_pid={child}"));
        line(1, &switch(1, "S", child));
        line(1, &fpu("regs_deactivated"));
        line(child, "switch_fpu_return <-exit_to_user_mode_prepare");
        line(child, &fpu("regs_activated"));
        line(child, "sched_process_exit: comm=worker pid=1 prio=120");
        line(child, &fpu("regs_deactivated"));
        line(child, &fpu("dropped"));
        line(child, &switch(child, "Z", 1));
        line(child, &fpu("regs_deactivated"));
        line(1, "switch_fpu_return <-exit_to_user_mode_prepare");
        line(1, &fpu("regs_activated"));
    }
}

impl Read for ShortLived {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read == self.block.len() {
            if self.left < self.block.len() as u64 {
                return Ok(0);
            }
            self.left -= self.block.len() as u64;
            self.read = 0;
            self.next_task();
        }
        let rest = &self.block.as_bytes()[self.read..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.read += count;
        Ok(count)
    }
}
