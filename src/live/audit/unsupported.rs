//! Targets whose machine code is not known here.

use super::{FpuFree, KernelPath, NotFpuFree, Reason};
use std::vec::Vec;

/// See the x86-64 version; here nothing is proven.
pub(super) fn walk(_: &KernelPath) -> Result<FpuFree, NotFpuFree> {
    Err(NotFpuFree {
        address: 0,
        function: None,
        offset_bytes: 0,
        source_line: None,
        instruction: None,
        callers: Vec::new(),
        reason: Reason::Target,
    })
}
