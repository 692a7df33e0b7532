//! A user-space simulator of FPU context switching.
//!
//! Tasks, per-CPU owner slots and the images in memory; several switching policies on one protocol; an
//! independent reference model beside them; and recordings of the real Linux kernel to hold them against.
//!
//! Start with [`machine`], which is driven by [`Event`]s, or with [`fpu`], the protocol itself. [`registers`] has what
//! it runs on: small numbers, the XSAVE feature set in software, or the real registers of the host. [`xstate`] stands
//! alone: XSAVE images as debuggers and sandboxes hold them, without unsafe code.
//!
//! ```
//! use fpuswitch::{CpuId, EntryKind, Event, KernelContext, TaskId};
//! use fpuswitch::{fpu::{Load, policy::OwnerSlot}, machine::Machine, registers::AbstractRegs};
//!
//! let (cpu, a) = (CpuId(0), TaskId::first(0));
//! let mut machine = Machine::<AbstractRegs, _>::new(OwnerSlot, 1);
//! for event in [Event::Spawn(a), Event::ScheduleIn(cpu, a), Event::Return(cpu, a)] {
//!     let _ = machine.apply(event)?;
//! }
//! // A enters the kernel and waits; the CPU is idle; A comes back.
//! let wait = [Event::Entry(cpu, EntryKind::SystemCall), Event::ScheduleOut(cpu), Event::ScheduleIn(cpu, a)];
//! for event in wait {
//!     let _ = machine.apply(event)?;
//! }
//! // Nobody used the registers in between: the restore is skipped.
//! assert_eq!(machine.apply(Event::Return(cpu, a))?.load, Some(Load::Skipped));
//!
//! // Kernel code uses them: the state is saved once, and loaded at the next return.
//! let _ = machine.apply(Event::Entry(cpu, EntryKind::Interrupt))?;
//! assert_eq!(machine.apply(Event::KernelFpuBegin(cpu, KernelContext::SoftIrq))?.saves(), 1);
//! let _ = machine.apply(Event::KernelFpuEnd(cpu))?;
//! assert_eq!(machine.apply(Event::Return(cpu, a))?.load, Some(Load::Restored));
//! # Ok::<(), fpuswitch::EventError>(())
//! ```
//!
//! # Features
//! - `replay` (default): read ftrace recordings, and compare. Needs `host`.
//! - `host`: the real registers of an x86-64 Linux host, and what its instructions cost. Needs `std`.
//! - `live`: green threads on the registers of the host (`live::Machine`), and proof that a kernel path leaves those alone
//!   (`live::audit`). Needs `host`.
//! - `pictures`: timelines and costs as SVG, timelines for the Perfetto UI. Needs `replay`.
//! - `explore`: exhaustive exploration of a policy ([`check`]), and the corpus of historic bugs. Needs `std`.
//! - `cli`: the `fpuswitch` binary.
//! - `proptest`: strategies for the property tests of a policy, register file or image code of one's own ([`check`]).
//!   Needs `std`.
//! - `std`: implied by the features that need it. Without any (`default-features = false`) the crate is `no_std` +
//!   `alloc`, and needs `thiserror` and `bitflags`.
#![no_std]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

#[cfg(feature = "host")]
mod arch;
pub mod check;
#[cfg(feature = "host")]
pub mod costs;
mod error;
mod event;
pub mod fpu;
mod ids;
#[cfg(all(feature = "live", target_arch = "x86_64", target_os = "linux"))]
pub mod live;
#[cfg(all(feature = "live", not(all(target_arch = "x86_64", target_os = "linux"))))]
#[path = "live/unsupported.rs"]
pub mod live;
pub mod machine;
pub mod registers;
#[cfg(feature = "replay")]
pub mod replay;
#[cfg(feature = "pictures")]
pub mod report;
mod value;
#[cfg(feature = "explore")]
mod walk;
pub mod xstate;

pub use error::{Current, EventError};
pub use event::{
    EntryKind, Event, EventFile, EventFileError, FrameChange, KernelContext, ParseEventError, Verb,
};
pub use ids::{CpuId, IdError, TaskId};
pub use value::{PageAccess, Pkru, Value, ValueError};
// One of its examples needs `live`.
#[cfg(all(doctest, feature = "live", target_arch = "x86_64", target_os = "linux"))]
#[doc = include_str!("../README.md")]
mod readme {}

pub use xstate::{Component, ComponentSet, Rfbm, UnknownComponent};
