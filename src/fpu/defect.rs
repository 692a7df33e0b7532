//! Planted errors: what a checker must find.

/// An error in the mechanism that can be switched on, so that a checker can show that it would find it.
///
/// A [`Planted`](crate::check::Planted) policy asks for one, and the slot of each CPU keeps it
/// ([`OwnerSlot::with_defect`](super::OwnerSlot::with_defect)). Exists with the feature `explore` only; without it, the
/// comparisons are with a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    not(feature = "explore"),
    allow(unreachable_pub, dead_code, reason = "part of the interface with the feature only")
)]
pub enum Defect {
    /// A kernel FPU section does not clear the owner of the registers that it clobbers.
    KernelFpuKeepsOwner,
    /// A write to the image of another task does not reset its last_cpu (089f9fba56fa, 2012).
    WriteKeepsLastCpu,
}
