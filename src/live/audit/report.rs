//! What is said of an instruction that fails.

use super::{NotFpuFree, Reason, function::Functions, symbols::Symbol};
use std::{collections::HashMap, string::ToString, vec::Vec};

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) address: u64,
    pub(super) reason: Reason,
}

impl Refusal {
    /// Says so when nothing is known of the place.
    pub(super) fn bare(self) -> NotFpuFree {
        let symbol = Symbol::at(self.address);
        NotFpuFree {
            address: self.address as usize,
            function: symbol.function,
            offset_bytes: 0,
            source_line: symbol.line,
            instruction: None,
            callers: Vec::new(),
            reason: self.reason,
        }
    }

    /// Says so, given the functions, and for each instruction that was come to the one before it.
    pub(super) fn report(self, functions: &mut Functions, origins: &HashMap<u64, u64>) -> NotFpuFree {
        let address = self.address;
        let mut found = self.bare();
        let mut start = None;
        if let Ok(function) = functions.at(address) {
            start = Some(function.range.start);
            found.offset_bytes = (address - function.range.start) as usize;
            found.instruction =
                function.instruction(address).map(|instruction| instruction.to_string().into());
        }
        let mut at = address;
        while let Some(&origin) = origins.get(&at) {
            let origin_start = functions.at(origin).ok().map(|function| function.range.start);
            if origin_start != start {
                found.callers.push(Symbol::at(origin).to_string());
                start = origin_start;
            }
            at = origin;
        }
        found
    }
}
