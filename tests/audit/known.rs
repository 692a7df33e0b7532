//! What the path says of functions: doors, sites, functions that never return, further ways in.

use super::{asm_functions, loads_one, touches_fpu};
use fpuswitch::live::audit::{FpuFree, KernelPath, NotFpuFree, Reason, assert_fpu_free};

asm_functions! {
    calls: "call {f}", "ret", @f = sym loads_one;
    calls_and_touches: "call {f}", "fld1", "ret", @f = sym loads_one;
    jumps: "jmp {f}", @f = sym loads_one;
    calls_through_pointer: "mov rbx, [rip + {f}@GOTPCREL]", "call rbx", "call rbx", "ret", @f = sym loads_one;
    has_a_second_way_in: "ret", "fld1", "ret";
}

core::arch::global_asm!(
    ".pushsection .text.audit_no_entry,\"ax\",@progbits",
    ".type audit_no_entry, @function",
    "audit_no_entry:",
    "endbr64",
    "ret",
    ".size audit_no_entry, . - audit_no_entry",
    ".popsection",
);

unsafe extern "C" {
    fn audit_no_entry();
}

asm_functions! { calls_no_entry: "call {f}", "ret", @f = sym audit_no_entry; }

type Say = fn(KernelPath, *const ()) -> KernelPath;
const RETURNING: [Say; 2] = [KernelPath::door, KernelPath::site];
const ALL: [Say; 3] = [KernelPath::door, KernelPath::site, KernelPath::diverging];

fn audit_with(function: extern "C" fn(), say: Say, of: *const ()) -> Result<FpuFree, NotFpuFree> {
    assert_fpu_free(&say(KernelPath::new(function as *const ()), of))
}

#[test]
fn what_is_known_is_not_walked() {
    let of = loads_one as *const ();
    for say in ALL {
        assert_eq!(audit_with(calls, say, of).unwrap().functions(), 1);
        assert_eq!(audit_with(jumps, say, of).unwrap().functions(), 1);
        assert!(
            touches_fpu(audit_with(calls, say, of.wrapping_byte_add(1))),
            "only the function's own address counts"
        );
    }
}

#[test]
fn doors_and_sites_return_and_what_diverges_does_not() {
    let of = loads_one as *const ();
    for say in RETURNING {
        assert_eq!(audit_with(calls_and_touches, say, of).unwrap_err().offset_bytes, 5);
    }
    assert_eq!(audit_with(calls_and_touches, KernelPath::diverging, of).unwrap().instructions(), 1);
    let both = KernelPath::new(calls_and_touches as *const ()).door(of).site(of).diverging(of);
    assert_eq!(assert_fpu_free(&both).unwrap().instructions(), 1);
}

#[test]
fn doors_and_sites_keep_to_the_abi() {
    for say in RETURNING {
        let of = loads_one as *const ();
        assert_eq!(audit_with(calls_through_pointer, say, of).unwrap().instructions(), 4);
    }
}

#[test]
fn functions_without_an_unwind_entry_have_to_be_known() {
    let of = audit_no_entry as *const ();
    let error = assert_fpu_free(&KernelPath::new(of)).unwrap_err();
    assert_eq!(error.reason, Reason::NoUnwindEntry);
    assert!(error.function.unwrap().contains("audit_no_entry"));
    let error = assert_fpu_free(&KernelPath::new(calls_no_entry as *const ())).unwrap_err();
    assert_eq!(error.reason, Reason::NoUnwindEntry);
    for say in ALL {
        assert_eq!(audit_with(calls_no_entry, say, of).unwrap().functions(), 1);
    }
}

#[test]
fn every_way_in_is_walked() {
    let path = KernelPath::new(has_a_second_way_in as *const ());
    assert_eq!(assert_fpu_free(&path).unwrap().instructions(), 1);
    let error =
        assert_fpu_free(&path.entry((has_a_second_way_in as *const ()).wrapping_byte_add(1))).unwrap_err();
    assert_eq!(error.offset_bytes, 1);
}
