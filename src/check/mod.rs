//! Is the machine right? An independent reference model, and the invariants.

#[cfg(feature = "explore")]
pub mod corpus;
#[cfg(feature = "explore")]
mod explore;
#[cfg(feature = "explore")]
mod group;
mod invariants;
mod minimise;
mod outcome;
#[cfg(feature = "explore")]
mod planted;
mod random;
mod seen;
mod spec;
mod steps;
mod violation;

#[cfg(feature = "explore")]
pub use corpus::corpus;
#[cfg(feature = "explore")]
pub use explore::{
    Counts, ExploreError, Explored, Judge, Progress, Scope, ScopeError, ServeError, beginning, explore,
    explore_with, serve,
};
#[cfg(feature = "explore")]
pub use group::{Group, UnknownGroup};
pub use invariants::{Breach, Invariant, check};
pub use minimise::minimise;
pub use outcome::check_outcome;
#[cfg(feature = "explore")]
pub use planted::Planted;
pub use random::{RandomEvents, any_event, choices};
pub use seen::check_seen;
pub use spec::{Spec, State};
pub use steps::{Step, Steps};
pub use violation::Violation;

#[cfg(feature = "proptest")]
mod strategies;
#[cfg(feature = "proptest")]
pub use strategies::{damaged_images, images, machines, programs, random_events, refused_images, values};

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
