//! Names of CPUs and tasks.

use core::{fmt, num::NonZeroU64, str::FromStr};

/// A logical CPU, counted from 0. Its text form is `c0`, `c1`, …
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuId(pub u32);

/// A task: a slot that can be reused, and the generation that tells its users apart.
///
/// Two tasks in the same slot never compare equal (invariant I13: a name that outlived its task matches
/// nothing). One word, never zero, so that `Option<TaskId>` is one word as well. The text form is
/// `T3` for the first task of slot 3 and `T3.2` for the second.
///
/// ```
/// use fpuswitch::TaskId;
/// let first = TaskId::first(3);
/// assert_eq!(first.to_string(), "T3");
/// assert_eq!(first.next_generation().to_string(), "T3.2");
/// assert_eq!("T3.2".parse(), Ok(first.next_generation()));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(NonZeroU64);

impl TaskId {
    /// The first task of `slot`.
    pub const fn first(slot: u32) -> Self {
        Self::in_generation(slot, 0)
    }

    /// A name before the first of `slot`: the next generation is [`first`](Self::first).
    #[cfg(feature = "explore")]
    pub(crate) const fn before_first(slot: u32) -> Self {
        Self::in_generation(slot, u32::MAX - 1)
    }

    /// The task that reuses this one's slot. Generations wrap after 2³² − 1 reuses of one slot.
    pub const fn next_generation(self) -> Self {
        Self::in_generation(self.slot(), self.generation() % u32::MAX)
    }

    /// The slot, an index into a table of tasks.
    pub const fn slot(self) -> u32 {
        self.0.get() as u32
    }

    /// The generation, from 1.
    pub const fn generation(self) -> u32 {
        (self.0.get() >> 32) as u32
    }

    pub(crate) const fn in_generation(slot: u32, reuses: u32) -> Self {
        let generation = (reuses as u64) + 1;
        // The generation is at least 1, so the word is not zero and `MIN` is never taken.
        match NonZeroU64::new((generation << 32) | slot as u64) {
            Some(word) => Self(word),
            None => Self(NonZeroU64::MIN),
        }
    }
}

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.generation() {
            1 => write!(f, "T{}", self.slot()),
            generation => write!(f, "T{}.{generation}", self.slot()),
        }
    }
}

impl fmt::Debug for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that names no CPU or no task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not `c` and a number.
    #[error("expected a CPU such as c0")]
    NotACpu,
    /// Not `T`, a slot, and optionally a dot and a generation from 1.
    #[error("expected a task such as T0, or T0.2 for the second task in slot 0")]
    NotATask,
}

impl FromStr for CpuId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let number = text.strip_prefix('c').ok_or(IdError::NotACpu)?;
        decimal(number).map(CpuId).ok_or(IdError::NotACpu)
    }
}

impl FromStr for TaskId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let number = text.strip_prefix('T').ok_or(IdError::NotATask)?;
        let (slot, generation) = match number.split_once('.') {
            Some((slot, generation)) => (slot, decimal(generation)),
            None => (number, Some(1)),
        };
        let slot = decimal(slot).ok_or(IdError::NotATask)?;
        let reuses = generation.and_then(|g| g.checked_sub(1)).ok_or(IdError::NotATask)?;
        Ok(Self::in_generation(slot, reuses))
    }
}

/// Digits only: `u32::from_str` would take a sign.
fn decimal(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn names_print_and_parse_back() {
        for id in [TaskId::first(0), TaskId::first(u32::MAX), TaskId::first(7).next_generation()] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!("c12".parse(), Ok(CpuId(12)));
    }

    #[test]
    fn text_that_names_nothing_is_refused() {
        for text in ["", "c", "c-1", "c+1", "T0", "cx"] {
            assert_eq!(text.parse::<CpuId>(), Err(IdError::NotACpu), "{text:?}");
        }
        for text in ["", "T", "T1.", "T1.0", "T.1", "T+1", "T1.2.3", "c0", "T4294967296"] {
            assert_eq!(text.parse::<TaskId>(), Err(IdError::NotATask), "{text:?}");
        }
    }

    #[test]
    fn a_reused_slot_is_another_task() {
        let mut id = TaskId::first(1);
        assert_eq!((id.slot(), id.generation()), (1, 1));
        id = id.next_generation();
        assert_ne!(id, TaskId::first(1));
        let last = TaskId::in_generation(1, u32::MAX - 1);
        assert_eq!(last.next_generation(), TaskId::first(1));
    }
}
