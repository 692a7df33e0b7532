//! Which tool has printed a recording.

use super::line::{
    Expected, Parsed, parse,
    perf::{self, Pids},
};

/// The form of a recording's lines, known from its first event on.
#[derive(Clone, Debug, Default)]
pub(super) enum Form {
    #[default]
    Unknown,
    /// The kernel, or `trace-cmd report`.
    Ftrace,
    /// `perf script`.
    Perf(Pids),
}

impl Form {
    /// Parses one line, given without its line end.
    ///
    /// # Errors
    /// What was expected where the line is malformed.
    pub(super) fn parse<'a>(&mut self, line: &'a [u8]) -> Result<Parsed<'a>, Expected> {
        match self {
            Self::Ftrace => parse(line),
            Self::Perf(pids) => perf::parse(line, pids),
            Self::Unknown => {
                let parsed = parse(line);
                if matches!(parsed, Ok(Parsed::Event(_))) {
                    *self = Self::Ftrace;
                } else if parsed.is_err() && perf::begins_line(line) {
                    let mut pids = Pids::default();
                    let parsed = perf::parse(line, &mut pids);
                    *self = Self::Perf(pids);
                    return parsed;
                }
                parsed
            }
        }
    }
}
