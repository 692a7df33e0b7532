//! Is the machine right? An independent reference model, and the invariants.

mod invariants;
mod planted;
mod spec;

pub use invariants::{Invariant, Violation, check, check_outcome};
pub use planted::Planted;
pub use spec::{Spec, State};
