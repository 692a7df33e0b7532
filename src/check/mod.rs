//! Is the machine right? An independent reference model, and the invariants.

#[cfg(feature = "explore")]
pub mod corpus;
#[cfg(feature = "explore")]
mod group;
mod invariants;
mod outcome;
#[cfg(feature = "explore")]
mod planted;
mod random;
mod spec;
mod steps;
mod violation;

#[cfg(feature = "explore")]
pub use group::Group;
pub use invariants::{Breach, Invariant, check};
pub use outcome::check_outcome;
#[cfg(feature = "explore")]
pub use planted::Planted;
pub use random::{RandomEvents, any_event, choices};
pub use spec::{Spec, State};
pub use steps::{Step, Steps};
pub use violation::Violation;

#[cfg(feature = "proptest")]
mod strategies;
#[cfg(feature = "proptest")]
pub use strategies::random_events;

use crate::{
    fpu::{CALL_KEEPS, Policy, policy::Calls},
    registers::RegisterFile,
};

/// The reference model for machines with registers like `regs` under `policy`, which says what a system call keeps.
pub fn spec_for<R: RegisterFile, P: Policy>(regs: &R, policy: &P) -> Spec {
    let spec = match policy.form().calls {
        Calls::KeepAll => Spec::new(regs.enabled()),
        Calls::KeepControl => Spec::with_calls_that_keep(regs.enabled(), CALL_KEEPS),
    };
    spec.with_dynamic(regs.dynamic())
}
