//! What an XSAVE image is made of. Data only, no unsafe, every target.
//!
//! State components have the numbers of the manual (Intel SDM volume 1, section 13.1 "XSAVE-supported
//! features and state-component bitmaps").

mod bitmaps;
mod component;

pub use bitmaps::{Rfbm, XcompBv, XstateBv};
pub use component::{Component, ComponentSet, UnknownComponent};
