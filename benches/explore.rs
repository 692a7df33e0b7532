//! How fast states are explored, and in how much memory.
//!
//! `cargo bench --features explore --bench explore`. Two threads. What is aimed at holds for two cores that do nothing else.

#[path = "../tests/recordings/long.rs"]
#[allow(dead_code, reason = "the recording")]
mod long;

use fpuswitch::{
    check::{Group, Scope, explore},
    fpu::policy::OwnerSlot,
};
use long::peak_bytes;
use std::time::Instant;

fn main() {
    let scope = Scope { threads: 2, ..Scope::with([Group::Signals]) };
    let before = peak_bytes();
    let start = Instant::now();
    let counts = explore(OwnerSlot, &scope).expect("nothing is wrong");
    let seconds = start.elapsed().as_secs_f64();
    println!("owner-slot, {scope}, {} threads, {seconds:.1} s", scope.threads);
    println!("{} states, {} transitions", counts.states, counts.transitions);
    println!("{:.2} million transitions a second", counts.transitions as f64 / seconds / 1e6);
    match (before, peak_bytes()) {
        (Some(before), Some(after)) => {
            println!("{} bytes of memory a state", (after - before) / counts.states as u64);
        }
        _ => println!("bytes of memory a state: SKIPPED: no /proc/self/status here"),
    }
    println!("aimed at: 1 million transitions a second on 2 idle cores, 200 bytes a state");
}
