//! Shared by the tests of replay: the bundled recordings as text, what an independent reader finds in them,
//! and recordings written by hand.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

mod found;
mod optimum;
mod rows;
mod script;

pub(crate) use found::Found;
pub(crate) use optimum::Optimum;
pub(crate) use rows::{Row, rows};
pub(crate) use script::{Script, functions, tracepoints};

use std::{fs, io::Read, path::PathBuf};

/// The recordings with function lines.
pub(crate) const WITH_FUNCTIONS: [&str; 10] = [
    "fork-2cpu-6.1",
    "hop-2cpu-6.1",
    "kfpu-2cpu-6.1",
    "mix-4cpu-6.1",
    "pipe-2cpu-6.1",
    "pipe-nofp-1cpu-6.1",
    "ptrace-2cpu-6.1",
    "sig-2cpu-6.1",
    "spin-2cpu-6.1",
    "yield-2cpu-6.1",
];

/// The recording without.
pub(crate) const TRACEPOINTS_ONLY: &str = "cargo-build-2cpu-6.18";

/// A bundled recording, as the file holds it.
pub(crate) fn gzip(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("recordings");
    fs::read(folder.join(format!("{name}.txt.gz"))).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Its text.
pub(crate) fn text(name: &str) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(&gzip(name)[..]).read_to_string(&mut text).unwrap();
    text
}
