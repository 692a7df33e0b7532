//! Findings as rows, pictures and traces for people.

mod break_even;
mod canvas;
mod columns;
mod cost_plot;
mod holders;
mod perfetto;
mod timeline_svg;

pub use break_even::BreakEven;
pub use canvas::PictureError;
pub use cost_plot::cost_plot;
pub use perfetto::perfetto;
pub use timeline_svg::timeline_svg;
