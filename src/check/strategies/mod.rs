//! Strategies for property tests (feature `proptest`): random events, machines, images and register programs.
//!
//! A strategy is made from what one has: a policy, a register file. The tests of this crate use the same ones.

mod images;
mod programs;

pub use images::{damaged_images, images, refused_images};
pub use programs::{programs, values};

use super::{RandomEvents, Steps};
use crate::{fpu::Policy, machine::Machine, registers::UserFrames};
use core::fmt::Debug;
use proptest::{collection::vec, prelude::*};

/// Lists of random events, of at most `most` events on two or three CPUs. They shrink to shorter lists, and to events that
/// are simpler to name; the [`Violation`](super::Violation) that a test fails with is shorter still, and has the events
/// as a file.
///
/// ```
/// use fpuswitch::{check::random_events, fpu::policy::OwnerSlot, registers::AbstractRegs};
/// use proptest::prelude::*;
///
/// proptest! {
///     // In a test, with #[test] above it.
///     fn no_list_of_events_breaks_an_invariant(events in random_events(60)) {
///         events.check(&AbstractRegs::default(), OwnerSlot)?;
///     }
/// }
/// no_list_of_events_breaks_an_invariant();
/// ```
pub fn random_events(most: usize) -> impl Strategy<Value = RandomEvents> {
    (2..=3_usize, vec(any::<u32>(), 0..=most)).prop_map(|(cpus, choices)| RandomEvents { cpus, choices })
}

/// Machines like `like`, but for at most `most` random events that have happened, with the reference model beside them: to
/// go on from, or to look at. They shrink as [`random_events`] do.
///
/// Nothing happens behind an event that breaks an invariant: that is [found](RandomEvents::check) by the events.
///
/// ```
/// use fpuswitch::{Event, check::machines, fpu::policy::OwnerSlot, machine::Machine, registers::AbstractRegs};
/// use proptest::prelude::*;
///
/// proptest! {
///     fn nobody_is_left_in_the_registers_of_a_cpu_without_power(
///         steps in machines(&Machine::<AbstractRegs, _>::new(OwnerSlot, 2), 60),
///     ) {
///         let mut steps = steps;
///         for cpu in [0, 1].map(fpuswitch::CpuId) {
///             if let Ok(held) = steps.apply(Event::PowerLoss(cpu)) {
///                 held?;
///                 prop_assert_eq!(steps.machine().cpus()[cpu.0 as usize].slot().owner(), None);
///             }
///         }
///     }
/// }
/// nobody_is_left_in_the_registers_of_a_cpu_without_power();
/// ```
pub fn machines<R, P>(like: &Machine<R, P>, most: usize) -> impl Strategy<Value = Steps<R, P>> + use<R, P>
where
    R: UserFrames + Clone + Debug,
    P: Policy,
{
    let new = like.anew();
    random_events(most).prop_map(move |list| {
        let events = list.happen(&mut new.clone(), |_| true, |_, _, _| true);
        let mut steps = Steps::new(new.clone());
        // None is refused: the same have happened to the same machine.
        let _ = events.into_iter().try_for_each(|event| steps.apply(event).unwrap_or(Ok(())));
        steps
    })
}
