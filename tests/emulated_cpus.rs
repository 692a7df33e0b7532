//! The hardware tests on emulated CPUs, which `tests/vm/run` boots.

use std::{path::Path, process::Command};

#[test]
#[ignore = "the emulated CPUs were not run: tests/vm/run does it, in minutes, with QEMU"]
fn emulated_cpus_do_what_is_expected_of_them() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/run");
    let status = Command::new(script).status().expect("bash");
    assert!(status.success(), "{status}");
}
