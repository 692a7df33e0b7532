//! Addresses at which there is no function: errors, whatever they are.

use super::{asm_functions, does_nothing};
use fpuswitch::live::audit::{KernelPath, Reason, assert_fpu_free};
use std::ptr;

static DATA: u64 = 0xc3c3_c3c3_c3c3_c3c3;

fn reason_at(address: usize) -> Reason {
    assert_fpu_free(&KernelPath::new(ptr::without_provenance(address))).unwrap_err().reason
}

#[test]
fn what_is_no_code_fails() {
    let (local, heap) = (DATA, Box::new(DATA));
    let nowhere = [0, 1, 1 << 46, 1 << 47, 1 << 63, 0xffff_8000_0000_0000, 0xffff_ffff_ff60_0000, usize::MAX];
    let data = [ptr::from_ref(&DATA), ptr::from_ref(&local), ptr::from_ref(&*heap)];
    for address in nowhere.into_iter().chain(data.map(<*const u64>::addr)) {
        assert_eq!(reason_at(address), Reason::NotCode, "{address:#x}");
        let (good, bad) = (does_nothing as *const (), ptr::without_provenance(address));
        let beside = KernelPath::new(good).entry(bad);
        assert_eq!(assert_fpu_free(&beside).unwrap_err().address, address);
        let known = KernelPath::new(good).door(bad).site(bad).diverging(bad);
        assert!(assert_fpu_free(&known).is_ok());
    }
}

#[test]
fn a_jump_to_no_code_fails() {
    asm_functions! {
        jumps: "jmp [rip + 2f]", ".pushsection .rodata,\"a\",@progbits", ".balign 8", "2: .quad 1", ".popsection";
    }
    let error = assert_fpu_free(&KernelPath::new(jumps as *const ())).unwrap_err();
    assert_eq!((error.address, error.reason), (1, Reason::NotCode));
}

#[test]
fn code_that_was_made_at_run_time_fails() {
    const RET: u8 = 0xc3;
    let map = |protection, sharing| {
        // SAFETY: a new mapping, at an address that the system chooses.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), 4096, protection, sharing | libc::MAP_ANONYMOUS, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        start
    };
    let start = map(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC, libc::MAP_PRIVATE);
    // SAFETY: the mapping can be written, and nobody else knows it.
    unsafe { start.cast::<u8>().write(RET) };
    assert_eq!(reason_at(start.addr()), Reason::NotCode, "it can be written");
    // SAFETY: the mapping is this test's own.
    assert_eq!(unsafe { libc::mprotect(start, 4096, libc::PROT_READ | libc::PROT_EXEC) }, 0);
    assert_eq!(reason_at(start.addr()), Reason::NoUnwindEntry);
    assert_eq!(
        reason_at(map(libc::PROT_EXEC, libc::MAP_PRIVATE).addr()),
        Reason::NotCode,
        "it cannot be read"
    );
    let shared = map(libc::PROT_READ | libc::PROT_EXEC, libc::MAP_SHARED);
    assert_eq!(reason_at(shared.addr()), Reason::NotCode, "another process may write it");
}

#[test]
fn any_address_in_a_function_gives_an_answer() {
    // What is found in the middle of an instruction may be anything; it is looked at, and nothing more.
    for offset in 0..64 {
        let _ = assert_fpu_free(&KernelPath::new((assert_fpu_free as *const ()).wrapping_byte_add(offset)));
    }
}
