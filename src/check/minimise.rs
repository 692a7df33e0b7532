//! Short lists of events out of long ones.

use crate::Event;
use alloc::vec::Vec;

/// What is left of a list of events that breaks something when as much as possible is left out: long runs of events
/// first, then ever shorter ones, until none can be left out alone.
///
/// `breaks` is given a list, and returns those of its events that happened up to where it breaks, or `None` if nothing
/// breaks. [`Violation::minimised`](super::Violation::minimised) is this for the invariants; here one may ask for
/// something else.
///
/// ```
/// use fpuswitch::{Event, EventFile, check::minimise};
///
/// // What breaks is that T0 is read behind a write.
/// let breaks = |events: &[Event]| {
///     let write = events.iter().position(|event| matches!(event, Event::Write(..)))?;
///     let read = events[write..].iter().position(|event| matches!(event, Event::Read(..)))?;
///     Some(events[..=write + read].to_vec())
/// };
/// let file: EventFile = "spawn T0\nread T0 AVX\nwrite T0 AVX 7\nexec c0\nread T0 AVX\nexit c0".parse()?;
/// let events = file.events.into_iter().map(|(_, event)| event).collect();
/// assert_eq!(minimise(events, breaks), ["write T0 AVX 7".parse()?, "read T0 AVX".parse()?]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn minimise(
    mut events: Vec<Event>,
    mut breaks: impl FnMut(&[Event]) -> Option<Vec<Event>>,
) -> Vec<Event> {
    let mut run = (events.len() / 2).max(1);
    loop {
        let before = events.len();
        let mut end = events.len();
        while end > 0 {
            let start = end.saturating_sub(run);
            if let Some(shorter) = breaks(&[&events[..start], &events[end..]].concat()) {
                events = shorter;
            }
            end = start.min(events.len());
        }
        if run > 1 {
            run /= 2;
        } else if events.len() == before {
            return events;
        }
    }
}
