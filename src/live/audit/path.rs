//! What is to be walked, and where the walk need not go on.

use std::vec::Vec;

/// The machine code of a kernel path: where it begins, and what is known of the functions it comes to.
///
/// Functions are given by address (`function as *const ()`), which is compared and never used as a pointer: each has
/// to exist once, as generic and inline functions need not. What is said of them is believed:
///
/// | | walked | behind a call of it | behind a jump to it |
/// |---|---|---|---|
/// | [`door`](Self::door) | no | goes on | ends |
/// | [`site`](Self::site) | no | goes on | ends |
/// | [`diverging`](Self::diverging) | no | ends | ends |
/// | any other | yes | goes on | ends |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelPath {
    entries: Vec<usize>,
    doors: Vec<usize>,
    sites: Vec<usize>,
    diverging: Vec<usize>,
}

impl KernelPath {
    /// A path that begins at a function.
    pub fn new(function: *const ()) -> Self {
        Self {
            entries: Vec::from([function.addr()]),
            doors: Vec::new(),
            sites: Vec::new(),
            diverging: Vec::new(),
        }
    }

    /// One more way in: a function, or an address inside one, such as where a gate resumes.
    #[must_use]
    pub fn entry(mut self, code: *const ()) -> Self {
        self.entries.push(code.addr());
        self
    }

    /// A function that saves the registers' owner before it does anything. It keeps to the ABI.
    #[must_use]
    pub fn door(mut self, function: *const ()) -> Self {
        self.doors.push(function.addr());
        self
    }

    /// Asm that moves the registers on purpose: a save, a restore, the way out. One that is called
    /// keeps to the ABI as to general registers.
    #[must_use]
    pub fn site(mut self, function: *const ()) -> Self {
        self.sites.push(function.addr());
        self
    }

    /// A function that never returns: a panic, an abort.
    #[must_use]
    pub fn diverging(mut self, function: *const ()) -> Self {
        self.diverging.push(function.addr());
        self
    }
}

/// What a path says of an address.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing: it is walked.
    Walked,
    /// A door.
    Door,
    /// A site.
    Site,
    /// Never returns.
    Diverging,
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
impl KernelPath {
    /// The ways in.
    pub(super) fn entries(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().map(|&code| code as u64)
    }

    /// What was said of the function at an address. If it was several things, that which goes on least: it is said
    /// of a function that does all of them.
    pub(super) fn kind(&self, address: u64) -> Kind {
        let in_list = |functions: &[usize]| functions.iter().any(|&function| function as u64 == address);
        if in_list(&self.diverging) {
            Kind::Diverging
        } else if in_list(&self.sites) {
            Kind::Site
        } else if in_list(&self.doors) {
            Kind::Door
        } else {
            Kind::Walked
        }
    }
}
