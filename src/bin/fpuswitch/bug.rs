//! A bug of the corpus, chosen by name or by number.

use fpuswitch::check::corpus::{Bug, OUT_OF_SCOPE, bugs};
use std::str::FromStr;

#[derive(Clone, Copy)]
pub(crate) struct NamedBug(pub(crate) &'static Bug);

#[derive(Debug, thiserror::Error)]
pub(crate) enum UnknownBug {
    #[error("{what} is not in the corpus: {why}")]
    OutOfScope { what: &'static str, why: &'static str },
    #[error("no such bug of the corpus; there are {}", ids())]
    Unknown,
}

fn ids() -> String {
    bugs().iter().map(|bug| bug.id).collect::<Vec<_>>().join(", ")
}

impl FromStr for NamedBug {
    type Err = UnknownBug;

    fn from_str(name: &str) -> Result<Self, UnknownBug> {
        // What stands for a number where there is none begins with a small letter, and is not that of one bug.
        let is_number = !name.starts_with(|first: char| first.is_ascii_lowercase());
        let is = |bug: &&Bug| bug.id == name || is_number && bug.number == name;
        if let Some(bug) = bugs().iter().find(is) {
            return Ok(Self(bug));
        }
        let out = OUT_OF_SCOPE.iter().find(|(number, ..)| *number == name);
        Err(out.map_or(UnknownBug::Unknown, |(_, what, why)| UnknownBug::OutOfScope { what, why }))
    }
}
