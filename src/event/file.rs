//! Files of events: one a line, with comments.

use super::{Event, ParseEventError};
use crate::CpuId;
use alloc::vec::Vec;

/// The events of a file, each with its line from 1.
///
/// ```
/// use fpuswitch::{Event, EventFile, TaskId};
///
/// let file: EventFile = "spawn T0 # the first program\n\nin c1 T0\n".parse()?;
/// assert_eq!(file.events, [(1, Event::Spawn(TaskId::first(0))), (3, "in c1 T0".parse()?)]);
/// assert_eq!(file.cpus(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFile {
    /// Line and event.
    pub events: Vec<(usize, Event)>,
}

/// A line of an event file that is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventFileError {
    /// The line cannot be read.
    #[error("line {line}: {source}")]
    Malformed {
        /// The line, from 1.
        line: usize,
        /// What was expected.
        source: ParseEventError,
    },
    /// The line names a CPU that no machine has.
    #[error("line {line}: {cpu} is too high: a machine has c0 to c{}", EventFile::MOST_CPUS - 1)]
    TooManyCpus {
        /// The line, from 1.
        line: usize,
        /// The CPU.
        cpu: CpuId,
    },
}

impl EventFile {
    /// The most CPUs that a file may ask for: Linux's limit on x86-64.
    pub const MOST_CPUS: u32 = 8192;

    /// How many CPUs the file asks for: one more than the highest that it names, and at least one.
    pub fn cpus(&self) -> usize {
        let highest = self.events.iter().filter_map(|(_, event)| event.cpu()).map(|cpu| cpu.0).max();
        highest.unwrap_or(0) as usize + 1
    }
}

impl core::str::FromStr for EventFile {
    type Err = EventFileError;

    fn from_str(text: &str) -> Result<Self, EventFileError> {
        let mut events = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let event = text.split('#').next().unwrap_or_default().trim();
            if event.is_empty() {
                continue;
            }
            let event: Event = event.parse().map_err(|source| EventFileError::Malformed { line, source })?;
            match event.cpu() {
                Some(cpu) if cpu.0 >= Self::MOST_CPUS => {
                    return Err(EventFileError::TooManyCpus { line, cpu });
                }
                _ => events.push((line, event)),
            }
        }
        Ok(Self { events })
    }
}
