//! Findings as rows, pictures and traces for people.

#[cfg(feature = "pictures")]
mod break_even;
#[cfg(feature = "pictures")]
mod canvas;
#[cfg(feature = "pictures")]
mod columns;
#[cfg(feature = "pictures")]
mod cost_plot;
#[cfg(feature = "pictures")]
mod holders;
#[cfg(feature = "pictures")]
mod perfetto;
mod steps;
#[cfg(feature = "pictures")]
mod timeline_svg;

#[cfg(feature = "pictures")]
pub use break_even::BreakEven;
#[cfg(feature = "pictures")]
pub use canvas::PictureError;
#[cfg(feature = "pictures")]
pub use cost_plot::cost_plot;
#[cfg(feature = "pictures")]
pub use perfetto::perfetto;
pub use steps::{Step, Steps};
#[cfg(feature = "pictures")]
pub use timeline_svg::timeline_svg;
