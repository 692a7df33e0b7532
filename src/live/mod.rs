//! Green threads on the real registers. So far, what passes them between CPUs.
#![allow(dead_code, reason = "nobody runs threads yet")]

mod sync;
