//! The names of functions, for people.

use core::{fmt, ptr};
use std::{boxed::Box, format};

/// What is known of an address.
#[derive(Debug, Default)]
pub(super) struct Symbol {
    /// The function, even if the source's line is from one that was inlined.
    pub(super) function: Option<Box<str>>,
    /// `file:line`.
    pub(super) line: Option<Box<str>>,
}

impl Symbol {
    pub(super) fn at(address: u64) -> Self {
        let mut found = Self::default();
        // One on: it takes an address for one that a call returns to, and looks at the byte before.
        backtrace::resolve(ptr::without_provenance_mut(address.wrapping_add(1) as usize), |symbol| {
            // From what was inlined to what it was inlined in.
            if let Some(name) = symbol.name() {
                found.function = Some(format!("{name:#}").into());
            }
            if let (None, Some(file), Some(line)) = (&found.line, symbol.filename(), symbol.lineno()) {
                found.line = Some(format!("{}:{line}", file.display()).into());
            }
        });
        found
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.function.as_deref().unwrap_or("a function without a name"))?;
        match &self.line {
            Some(line) => write!(f, " ({line})"),
            None => Ok(()),
        }
    }
}
