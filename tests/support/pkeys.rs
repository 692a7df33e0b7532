//! Protection keys for real: the register, and pages that have a key of their own.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(unsafe_code, reason = "RDPKRU and WRPKRU, and the system calls of protection keys")]

use fpuswitch::{registers::HostCpu, xstate::CpuidReader};
use std::{
    arch::{asm, x86_64::__cpuid_count},
    io, ptr,
};

/// Linux: `si_code` of a SIGSEGV by a key that PKRU denies (include/uapi/asm-generic/siginfo.h).
pub(crate) const SEGV_PKUERR: libc::c_int = 4;

/// Why there are no keys, where there are none.
pub(crate) fn missing() -> Option<&'static str> {
    // CPUID.7.0:ECX.OSPKE: RDPKRU and WRPKRU are there, and the system uses them.
    let is_there = __cpuid_count(0, 0).eax >= 7 && __cpuid_count(7, 0).ecx >> 4 & 1 == 1;
    (!is_there).then_some("the CPU has no protection keys, or the system does not use them")
}

/// The same, and why no XSAVE image holds PKRU, where none does. Then a signal takes it away: Linux gives each handler the
/// default, and what the thread had comes back with the frame. QEMU makes CPUs that have keys without XSAVE; newer kernels do
/// without keys there (86049b4cf7a4).
pub(crate) fn missing_in_images() -> Option<&'static str> {
    let is_in_xcr0 = || HostCpu::new().is_ok_and(|cpu| cpu.xcr0() >> 9 & 1 == 1);
    let is_lost =
        || (!is_in_xcr0()).then_some("PKRU is not in XCR0, so that neither images nor signal frames have it");
    missing().or_else(is_lost)
}

pub(crate) fn rdpkru() -> u32 {
    let pkru;
    // SAFETY: only called where `missing` is none; elsewhere #UD ends the process. `nostack`: nothing is pushed.
    unsafe { asm!("rdpkru", in("ecx") 0, out("eax") pkru, out("edx") _, options(nostack)) };
    pkru
}

/// # Safety
/// Key 0 stays allowed, and nothing that is accessed has another that is not.
pub(crate) unsafe fn wrpkru(pkru: u32) {
    // SAFETY: by the caller. `nostack`: nothing is pushed. Not `nomem`, so that no access to memory is moved over it.
    unsafe { asm!("wrpkru", in("eax") pkru, in("ecx") 0, in("edx") 0, options(nostack)) };
}

/// Both bits of a key.
pub(crate) const fn denied(key: u8) -> u32 {
    3 << (2 * key)
}

/// The bit of a key that denies writes alone.
pub(crate) const fn write_denied(key: u8) -> u32 {
    2 << (2 * key)
}

/// Everything denied but key 0.
pub(crate) const ALL_DENIED: u32 = !denied(0);

/// A page of zeros, or several, and a key that nothing else has. Both are given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Page {
    address: usize,
    bytes: usize,
    key: u8,
}

impl Page {
    pub(crate) const BYTES: usize = 4096;

    /// # Errors
    /// The system's: there are 15 keys.
    pub(crate) fn new() -> io::Result<Self> {
        Self::of_bytes(Self::BYTES)
    }

    /// The same with that many bytes.
    ///
    /// # Errors
    /// Likewise.
    pub(crate) fn of_bytes(bytes: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: it takes numbers (pkey_alloc(2)). The key is allowed for the calling thread.
        let key = unsafe { libc::syscall(libc::SYS_pkey_alloc, 0, 0) };
        let key = u8::try_from(key).map_err(|_| io::Error::last_os_error())?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping.
        let address = unsafe { libc::mmap(ptr::null_mut(), bytes, access, flags, -1, 0) };
        let page = Self { address: address as usize, bytes, key };
        // SAFETY: a mapping of ours, or an address that the system refuses (pkey_mprotect(2)).
        let protected =
            unsafe { libc::syscall(libc::SYS_pkey_mprotect, address, bytes, access, libc::c_int::from(key)) };
        if protected == 0 { Ok(page) } else { Err(io::Error::last_os_error()) }
    }

    pub(crate) fn key(&self) -> u8 {
        self.key
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where the page's words are.
    pub(crate) fn words(&self) -> *mut u32 {
        self.address as *mut u32
    }

    /// Has the kernel read the first word for the calling thread, or write one there, in a system call: whether it could.
    pub(crate) fn is_allowed_in_kernel(&self, write: bool) -> bool {
        let (mut pipe, word) = ([0; 2], 0x1234_5678_u32);
        // SAFETY: room for two descriptors (pipe(2)).
        assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
        // SAFETY: the word is there, and so is the page; whether it may be accessed is for the system to find.
        let (done, error) = unsafe {
            let done = if write {
                assert_eq!(libc::write(pipe[1], (&raw const word).cast(), 4), 4);
                libc::read(pipe[0], self.words().cast(), 4)
            } else {
                libc::write(pipe[1], self.words().cast(), 4)
            };
            let error = io::Error::last_os_error().raw_os_error();
            libc::close(pipe[0]);
            libc::close(pipe[1]);
            (done, error)
        };
        assert!(done == 4 || (done, error) == (-1, Some(libc::EFAULT)), "{done}: {error:?}");
        done == 4
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the page is ours, and borrowed by nobody; then no page has the key.
        unsafe {
            libc::munmap(self.address as *mut _, self.bytes);
            libc::syscall(libc::SYS_pkey_free, libc::c_int::from(self.key));
        }
    }
}
