//! Targets without XSAVE.

/// See the x86-64 version; here it cannot be made.
#[derive(Debug)]
pub(crate) enum SaveRestore {}

impl SaveRestore {
    pub(crate) fn new() -> Option<Self> {
        None
    }

    pub(crate) fn save(&mut self, _: u32) {
        match *self {}
    }

    pub(crate) fn save_and_restore(&mut self, _: u32) {
        match *self {}
    }
}
