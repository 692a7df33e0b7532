//! The instructions that save.

use super::{Format, Layout, XsaveFeatures};
use core::fmt;

/// The instruction that saves registers to an area.
///
/// # Reference
/// Intel SDM volume 1, sections 10.5 "FXSAVE and FXRSTOR Instructions", 13.7 "Operation of XSAVE", 13.9
/// "Operation of XSAVEOPT" and 13.10 "Operation of XSAVEC".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SaveInstruction {
    /// x87 and SSE, without a header.
    Fxsave,
    /// The standard format, every component that is asked for.
    Xsave,
    /// The standard format; parts in their initial configuration, or unchanged since the last XRSTOR, are left
    /// out. It is fooled by an image that was edited in between.
    Xsaveopt,
    /// The compacted format; parts in their initial configuration are left out.
    Xsavec,
}

impl SaveInstruction {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Fxsave, Self::Xsave, Self::Xsaveopt, Self::Xsavec];

    /// The one to use on a CPU with `layout`: XSAVEC, else XSAVE, else FXSAVE. Never XSAVEOPT.
    pub fn best(layout: &Layout) -> Self {
        [Self::Xsavec, Self::Xsave].into_iter().find(|save| save.is_on(layout)).unwrap_or(Self::Fxsave)
    }

    /// Whether a CPU with `layout` has it.
    pub fn is_on(self, layout: &Layout) -> bool {
        match self {
            Self::Fxsave => true,
            Self::Xsave => layout.has_xsave(),
            Self::Xsaveopt => layout.features().contains(XsaveFeatures::XSAVEOPT),
            Self::Xsavec => layout.features().contains(XsaveFeatures::XSAVEC),
        }
    }

    /// The form that it writes.
    pub fn format(self) -> Format {
        match self {
            Self::Fxsave => Format::Fxsave,
            Self::Xsave | Self::Xsaveopt => Format::Standard,
            Self::Xsavec => Format::Compacted,
        }
    }

    /// The manual's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fxsave => "FXSAVE",
            Self::Xsave => "XSAVE",
            Self::Xsaveopt => "XSAVEOPT",
            Self::Xsavec => "XSAVEC",
        }
    }
}

impl fmt::Display for SaveInstruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
