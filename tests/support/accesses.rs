//! Accesses of user code that may be denied: a fault is a result.

#![allow(unsafe_code, reason = "accesses that fault, and a signal handler")]

use crate::pkeys::Page;
use std::{arch::naked_asm, mem, ptr};

/// What the system says of a fault.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) address: usize,
    pub(crate) code: libc::c_int,
    /// Of the page, where the code is that of a protection key.
    pub(crate) key: u32,
}

/// What a probe returns that has faulted; the others return a word.
const FAULTED: u64 = u64::MAX;

/// Reads a page's first word. Without [`install`] before, a fault ends the process.
///
/// # Errors
/// The fault.
pub(crate) fn load(page: &Page) -> Result<u32, Fault> {
    let mut fault = Fault::default();
    // SAFETY: the page is there for as long as it is borrowed, and is accessed by instructions alone, not by references.
    let word = unsafe { loads(page.words(), 0, &mut fault) };
    if word == FAULTED { Err(fault) } else { Ok(word as u32) }
}

/// Writes a page's first word, likewise.
///
/// # Errors
/// The fault.
pub(crate) fn store(page: &Page, word: u32) -> Result<(), Fault> {
    let mut fault = Fault::default();
    // SAFETY: as for `load`.
    if unsafe { stores(page.words(), word, &mut fault) } == FAULTED { Err(fault) } else { Ok(()) }
}

/// RDI = address, RDX = the fault's place; EAX = the word. The first instruction is the access, and behind it the handler can
/// return to the caller.
///
/// # Safety
/// The word may be read, or the access faults.
#[unsafe(naked)]
unsafe extern "sysv64" fn loads(address: *const u32, _: u32, fault: *mut Fault) -> u64 {
    naked_asm!("mov eax, [rdi]", "ret")
}

/// The same, and ESI = the word that is written.
///
/// # Safety
/// The word may be written, or the access faults.
#[unsafe(naked)]
unsafe extern "sysv64" fn stores(address: *mut u32, word: u32, fault: *mut Fault) -> u64 {
    naked_asm!("mov [rdi], esi", "xor eax, eax", "ret")
}

/// Installs the handler, for the whole process: before anybody whose handler passes faults on.
pub(crate) fn install() {
    // SAFETY: a complete action. The handler has the form that SA_SIGINFO asks for, and touches what the probe gave it.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        assert_eq!(libc::sigaction(libc::SIGSEGV, &action, ptr::null_mut()), 0);
    }
}

/// `si_pkey` of a `siginfo_t`, which `libc` has no name for.
const KEY_AT: usize = 32;

extern "C" fn on_fault(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system gives both to a handler with SA_SIGINFO, for as long as it runs.
    let (info, registers) = unsafe { (&*info, &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs) };
    let at = registers[libc::REG_RIP as usize] as usize;
    if at != loads as *const () as usize && at != stores as *const () as usize {
        // SAFETY: a mistake: it happens again, and ends the process.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        return;
    }
    // SAFETY: the fields of a fault. RDX is the place that the probe was given, and RSP points to its return address.
    unsafe {
        let fault = registers[libc::REG_RDX as usize] as *mut Fault;
        let key = ptr::from_ref(info).cast::<u8>().add(KEY_AT).cast::<u32>().read();
        fault.write(Fault { address: info.si_addr() as usize, code: info.si_code, key });
        registers[libc::REG_RAX as usize] = FAULTED as i64;
        registers[libc::REG_RIP as usize] = *(registers[libc::REG_RSP as usize] as *const i64);
        registers[libc::REG_RSP as usize] += 8;
    }
}
