//! A user-space simulator of FPU context switching.
//!
//! Tasks, per-CPU owner slots and the images in memory; several switching policies on one protocol; an
//! independent reference model beside them; and recordings of the real Linux kernel to hold them against.
//!
//! Start with [`machine`], which is driven by [`Event`]s, or with [`fpu`], the protocol itself.
//!
//! # Features
//! - `replay` (default): read ftrace recordings, and compare. Needs `std`.
//! - `cli`: the `fpuswitch` binary.
//! - `std`: implied by the features that need it. Without it the crate is `no_std` + `alloc`.
#![no_std]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

#[cfg(feature = "std")]
mod arch;
pub mod check;
mod error;
mod event;
pub mod fpu;
mod ids;
pub mod machine;
pub mod registers;
#[cfg(feature = "replay")]
pub mod replay;
pub mod report;
mod value;
pub mod xstate;

pub use error::{Current, EventError};
pub use event::{
    EntryKind, Event, EventFile, EventFileError, FrameChange, KernelContext, ParseEventError, Verb,
};
pub use ids::{CpuId, IdError, TaskId};
pub use value::{Pkru, Value, ValueError};
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

pub use xstate::{Component, ComponentSet, UnknownComponent};
