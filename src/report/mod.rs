//! Findings as rows for people.

mod steps;

pub use steps::{Step, Steps};
