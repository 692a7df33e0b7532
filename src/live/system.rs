//! What is asked of Linux.

use super::LiveError;
use std::io;

/// Numbers of arch_prctl(2), arch/x86/include/uapi/asm/prctl.h.
const ARCH_SET_GS: libc::c_long = 0x1001;
const ARCH_GET_GS: libc::c_long = 0x1004;
const ARCH_GET_XCOMP_PERM: libc::c_long = 0x1022;

/// Points the calling thread's GS to `to`, and returns where it pointed.
pub(super) fn replace_gs(to: usize) -> Result<usize, LiveError> {
    let mut previous = 0_usize;
    // SAFETY: ARCH_GET_GS writes one word to where its argument points (arch_prctl(2)).
    let got = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_GET_GS, &raw mut previous) };
    // SAFETY: ARCH_SET_GS takes an address in user space. Nothing of Rust or of the C library on x86-64 Linux uses GS.
    let set = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, to) };
    if got == 0 && set == 0 { Ok(previous) } else { Err(last_error("arch_prctl")) }
}

/// What the last system call of this thread failed with.
pub(super) fn last_error(what: &'static str) -> LiveError {
    LiveError::System { what, error: io::Error::last_os_error().raw_os_error().unwrap_or(0) }
}

/// How many memory mappings a process may have (proc(5), /proc/sys/vm/max_map_count); 0 if it cannot be read.
pub(super) fn max_map_count() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// The calling OS thread, as Linux names it.
pub(super) fn os_thread() -> i32 {
    // SAFETY: it takes nothing and cannot fail (gettid(2)).
    unsafe { libc::gettid() }
}

/// The bytes of a page.
pub(super) fn page_bytes() -> usize {
    // SAFETY: it takes a number (sysconf(3)), and knows this one.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Whether the process may use tile data: it asked for it (arch_prctl(2), ARCH_REQ_XCOMP_PERM). Older systems do not know
/// the question, and have no tiles.
pub(super) fn permits_tiles() -> bool {
    let mut permitted = 0_u64;
    // SAFETY: it writes one word.
    let answered = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_GET_XCOMP_PERM, &raw mut permitted) };
    answered == 0 && permitted >> 18 & 1 == 1
}
