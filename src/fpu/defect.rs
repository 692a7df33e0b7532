//! Planted errors: what a checker must find.

/// An error in the mechanism that can be switched on, so that a checker can show that it would find it.
///
/// A policy asks for one with [`Policy::defect`](super::Policy::defect), which is the constant `None` for
/// every policy that is not a [`Planted`](crate::check::Planted): the tests of it are compiled away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Defect {
    /// A kernel FPU section does not clear the owner of the registers that it clobbers.
    KernelFpuKeepsOwner,
    /// A write to the image of another task does not reset its last_cpu (089f9fba56fa, 2012).
    WriteKeepsLastCpu,
}
