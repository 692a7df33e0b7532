//! Memory does not grow with the length of a recording, and little with its tasks. Alone in its process, whose peak
//! it measures; `cargo bench --bench replay` does it with 1 GB.

#[path = "recordings/long.rs"]
mod long;

use fpuswitch::replay::{Options, replay};
use long::{Long, peak_bytes};

const MIB: u64 = 1 << 20;

#[test]
fn twenty_thousand_tasks_fit_in_24_mebibytes() {
    const TASKS: u32 = 20_000;
    let mut input = Long::new(20_000_000, TASKS, 8);
    let report = replay(&mut input, &Options::default()).unwrap_or_else(|error| panic!("{error}"));
    let agreement = &report.agreement;
    assert_eq!(
        (agreement.disagreements, agreement.undecidable, report.lost),
        (0, 0, 0),
        "{:?}",
        agreement.first
    );
    assert!(report.bytes > 19_990_000 && agreement.decisions > 25_000, "{report:?}");
    assert!(input.tasks > u64::from(TASKS) + 2000, "{}", input.tasks);
    assert!(report.ignored.len() <= 1001 && report.ignored["(further names)"] > 1000);
    match peak_bytes() {
        Some(peak) => assert!(peak < 24 * MIB, "{} MiB", peak / MIB),
        None => println!("SKIPPED: no /proc/self/status here"),
    }
}
