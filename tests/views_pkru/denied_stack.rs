//! The one difference: a signal whose frame goes to a page that PKRU denies.

use crate::{
    pkeys::{ALL_DENIED, Page, missing_in_images, rdpkru, wrpkru},
    simulated_pkru,
    support::Checked,
};
use fpuswitch::{fpu::policy::OwnerSlot, registers::HostRegs};
use std::{arch::naked_asm, fs, mem, ptr};

/// Allows everything, since its own stack is denied, and returns.
#[unsafe(naked)]
extern "C" fn handler(_: libc::c_int) {
    naked_asm!("xor eax, eax", "xor ecx, ecx", "xor edx, edx", "wrpkru", "ret")
}

/// Takes a signal on `stack` where PKRU denies it. Returns the exit status: 0 if PKRU is as it was behind the handler.
fn take_signal_on(stack: &Page) -> libc::c_int {
    let alternate = libc::stack_t { ss_sp: stack.words().cast(), ss_flags: 0, ss_size: stack.bytes() };
    // SAFETY: a complete action and a stack that lives on; the handler touches that stack alone. Key 0 is allowed in
    // either PKRU, and all else here has it. Everything is async-signal-safe.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK;
        if libc::sigaltstack(&alternate, ptr::null_mut()) != 0
            || libc::sigaction(libc::SIGUSR2, &raw const action, ptr::null_mut()) != 0
        {
            return 2;
        }
        wrpkru(ALL_DENIED);
        libc::raise(libc::SIGUSR2);
    }
    if rdpkru() == ALL_DENIED { 0 } else { 1 }
}

/// The same in a process of its own: its exit status, or the signal that killed it.
fn status_of_process(stack: &Page) -> Result<libc::c_int, libc::c_int> {
    let mut status = 0;
    // SAFETY: the child calls what is async-signal-safe, and ends; waitpid writes one int, to `status`.
    unsafe {
        match libc::fork() {
            0 => libc::_exit(take_signal_on(stack)),
            -1 => panic!("{}", std::io::Error::last_os_error()),
            child => assert_eq!(libc::waitpid(child, &raw mut status, 0), child),
        }
    }
    if libc::WIFSIGNALED(status) { Err(libc::WTERMSIG(status)) } else { Ok(libc::WEXITSTATUS(status)) }
}

/// Version and patch level of the kernel.
fn release() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// From 6.12 on Linux allows itself all keys while it writes a frame (70044df250d0), as the machine does, which asks no key
/// there; earlier kernels are denied, and kill the process.
#[test]
fn hardware_a_frame_goes_to_a_page_that_pkru_denies() {
    if let Some(why) = missing_in_images() {
        return println!("HARDWARE sigframe-denied: SKIPPED: {why}");
    }
    let stack = Page::of_bytes(16 * Page::BYTES).expect("pages with a key");
    let real = status_of_process(&stack);
    let mut checked = Checked::on(&HostRegs::new().expect("the host's registers"), OwnerSlot, 1);
    checked.run(&format!(
        "spawn T0; in c0 T0; return c0 T0; user-pkru c0 {ALL_DENIED:#x}; entry c0 system-call"
    ));
    checked.run(
        "signal-deliver c0; signal-save c0; signal-enter c0; sigreturn c0; sigreturn-load c0; return c0 T0",
    );
    assert_eq!(simulated_pkru(&checked.machine), ALL_DENIED);
    match real {
        Ok(0) => println!("delivered, as in the machine"),
        Err(libc::SIGSEGV) if release() < (6, 12) => println!("killed, as before 70044df250d0"),
        other => panic!("{other:?} on {:?}", release()),
    }
    println!("HARDWARE sigframe-denied: ran");
}
