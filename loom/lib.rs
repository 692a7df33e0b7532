//! Nothing: see tests/live.rs.
