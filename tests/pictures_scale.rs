//! A trace is written as it comes: memory is the timeline's. Alone in its process, whose peak it measures.

#[path = "recordings/long.rs"]
mod long;

use fpuswitch::{
    replay::{Options, Window, replay_with_timeline},
    report::perfetto,
};
use long::{Long, peak_bytes};
use std::io::{self, Write};

const MIB: u64 = 1 << 20;

/// Counts what is written.
struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_trace_takes_no_memory_beside_its_timeline() {
    let input = Long::new(10_000_000, 1000, 8);
    let (_, timeline) =
        replay_with_timeline(input, &Options::default(), 3, Window::ALL).expect("a recording");
    let before = peak_bytes();
    let mut out = Counted(0);
    perfetto(&mut out, "long", &timeline).expect("nothing fails here");
    assert!(out.0 > 5 * MIB, "{} bytes", out.0);
    match (before, peak_bytes()) {
        (Some(before), Some(peak)) => assert!(peak - before < MIB, "{} KiB", (peak - before) >> 10),
        _ => println!("SKIPPED: no /proc/self/status here"),
    }
}
