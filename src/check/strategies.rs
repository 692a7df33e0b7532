//! Strategies for property tests.

use super::RandomEvents;
use proptest::{collection::vec, prelude::*};

/// Lists of random events, of at most `most` events on two or three CPUs. They shrink to shorter lists, and to events that
/// are simpler to name.
///
/// ```
/// use fpuswitch::{check::random_events, fpu::policy::OwnerSlot, registers::AbstractRegs};
/// use proptest::test_runner::TestRunner;
///
/// TestRunner::default().run(&random_events(60), |events| {
///     let checked = events.check(&AbstractRegs::default(), OwnerSlot);
///     checked.map(drop).map_err(|found| proptest::test_runner::TestCaseError::fail(found.to_string()))
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn random_events(most: usize) -> impl Strategy<Value = RandomEvents> {
    (2..=3_usize, vec(any::<u32>(), 0..=most)).prop_map(|(cpus, choices)| RandomEvents { cpus, choices })
}
