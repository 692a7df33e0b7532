//! Faults of ops: a SIGSEGV handler that lets the window go on, and passes on what is not ours.

use super::{
    program,
    signals::Chain,
    window::{self, Op},
};
use crate::arch::NotAvailable;
use core::ffi::{c_int, c_void};
use libc::SIGSEGV;

/// The ops that can fault, at their first instruction. A fault anywhere else is not ours.
static OPS: [Op; 7] = [
    window::xsave,
    window::xsavec,
    window::xsaveopt,
    window::fxsave,
    window::xrstor,
    window::fxrstor,
    program::write_sse,
];

/// What the program had installed.
static CHAIN: Chain = Chain::new();

/// Installs the handler, once for the process.
///
/// The handler that was there stays in force for every fault that is not an op's. One that is installed later
/// takes ours away, unless it passes on in turn.
///
/// # Errors
/// [`NotAvailable::SignalHandler`].
pub(super) fn install() -> Result<(), NotAvailable> {
    // SAFETY: (a) it takes no lock, allocates nothing, and keeps errno.
    unsafe { CHAIN.install(SIGSEGV, on_sigsegv, 0) }.map_err(NotAvailable::SignalHandler)
}

pub(super) extern "C" fn on_sigsegv(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives both to a handler with SA_SIGINFO, for as long as it runs (sigaction(2)). Nothing
    // else has a reference to them.
    let (code, registers) =
        unsafe { ((*info).si_code, &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs) };
    // Codes of faults are positive. kill(2) and the like can hit while RIP is at an op, too.
    let is_fault = code > 0;
    if is_fault && leave_op(registers) {
        return;
    }
    // SAFETY: (a) `signal`, `info` and `context` are what the kernel gave us.
    unsafe { CHAIN.pass_on(is_fault, signal, info, context) };
}

/// Whether an address is an op's, where a fault is a result and nobody's mistake.
pub(crate) fn is_op(rip: usize) -> bool {
    OPS.iter().any(|op| *op as usize == rip)
}

/// If an op's first instruction faulted: goes on behind the op, with the vector in R10 and CR2 in R11.
fn leave_op(registers: &mut [libc::greg_t; 23]) -> bool {
    let rip = registers[libc::REG_RIP as usize] as usize;
    // #GP and #PF are the op's own. The kernel can force a SIGSEGV for reasons of its own, with RIP there by chance.
    let is_fault = matches!(registers[libc::REG_TRAPNO as usize], 13 | 14);
    let is_op = is_fault && is_op(rip);
    if is_op {
        registers[libc::REG_R10 as usize] = registers[libc::REG_TRAPNO as usize];
        registers[libc::REG_R11 as usize] = registers[libc::REG_CR2 as usize];
        // The return address is on top of the stack still; RET takes it, as the processor's shadow stack wants.
        registers[libc::REG_RIP as usize] = window::give_up as *const () as usize as libc::greg_t;
    }
    is_op
}
