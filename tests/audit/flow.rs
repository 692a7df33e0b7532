//! Direct calls and jumps: where the walk goes, and where it ends.

use super::{asm_functions, audit, does_nothing, loads_one, reason, touches_fpu};
use fpuswitch::live::audit::{KernelPath, Reason, assert_fpu_free};

asm_functions! {
    both_sides: "test edi, edi", "jz 2f", "ret", "2:", "ret";
    taken_side: "test edi, edi", "jz 2f", "ret", "2:", "fld1", "ret";
    other_side: "test edi, edi", "jz 2f", "fld1", "2:", "ret";
    counted: "jrcxz 2f", "3:", "loop 3b", "2:", "ret";
    jumped_over: "jmp 2f", "fld1", "2:", "ret";
    calls_good: "call {f}", "ret", @f = sym does_nothing;
    calls_bad: "call {f}", "ret", @f = sym loads_one;
    bad_behind_call: "call {f}", "fld1", "ret", @f = sym does_nothing;
    calls_itself: "test edi, edi", "jz 2f", "call {f}", "2:", "ret", @f = sym calls_itself;
    tail_calls_good: "jmp {f}", "fld1", @f = sym does_nothing;
    tail_calls_bad: "jmp {f}", @f = sym loads_one;
    maybe_tail_calls_bad: "test edi, edi", "jz {f}", "ret", @f = sym loads_one;
    stops: "ud2";
    ends_in_call: "call {f}", @f = sym stops;
    ends_in_call_and_padding: "call {f}", "nop", "nop word ptr [rax + rax]", "int3", @f = sym stops;
    ends_in_bad_call: "call {f}", "int3", @f = sym loads_one;
    calls_into_itself: "call 2f", "ud2", "2:", "ret";
    resumes: "lea rax, [rip + 2f]", "mov [rdi], rax", "ret", "2:", "ret";
    resumes_badly: "lea rax, [rip + 2f]", "mov [rdi], rax", "ret", "2:", "fld1", "ret";
    unreached: "ret", "2:", "fld1", "ret";
    endless: "2:", "pause", "jmp 2b";
    long: ".rept 20001", "nop", ".endr", "ret";
    almost_long: ".rept 19999", "nop", ".endr", "ret";
}

core::arch::global_asm!(
    ".pushsection .text.audit_runs_off,\"ax\",@progbits",
    ".type audit_runs_off, @function",
    "audit_runs_off:",
    ".cfi_startproc",
    "nop",
    ".cfi_endproc",
    ".size audit_runs_off, . - audit_runs_off",
    ".type audit_run_into, @function",
    "audit_run_into:",
    ".cfi_startproc",
    "fld1",
    "ret",
    ".cfi_endproc",
    ".size audit_run_into, . - audit_run_into",
    ".popsection",
);

unsafe extern "C" {
    fn audit_runs_off();
    fn audit_run_into();
}

#[test]
fn conditional_jumps_go_both_ways() {
    assert_eq!(audit(both_sides).unwrap().instructions(), 4);
    assert_eq!(audit(counted).unwrap().instructions(), 3);
    assert!(touches_fpu(audit(taken_side)));
    assert!(touches_fpu(audit(other_side)));
}

#[test]
fn jumps_leave_out_what_they_jump_over() {
    assert_eq!(audit(jumped_over).unwrap().instructions(), 2);
    assert_eq!(audit(unreached).unwrap().instructions(), 1);
    assert_eq!(audit(endless).unwrap().instructions(), 2);
}

#[test]
fn calls_are_walked_and_so_is_what_is_behind() {
    let proof = audit(calls_good).unwrap();
    assert_eq!((proof.instructions(), proof.functions()), (3, 2));
    assert_eq!(audit(calls_itself).unwrap().functions(), 1);
    assert_eq!(audit(calls_bad).unwrap_err().address, loads_one as *const () as usize);
    assert_eq!(audit(bad_behind_call).unwrap_err().offset_bytes, 5);
}

#[test]
fn the_report_names_the_functions_that_lead_there() {
    asm_functions! {
        inner: "nop", "jmp {f}", @f = sym loads_one;
        outer: "test edi, edi", "jz 2f", "call {f}", "2:", "ret", @f = sym inner;
    }
    let error = audit(outer).unwrap_err();
    assert_eq!(error.callers.len(), 2);
    assert!(error.callers[0].contains("::inner") && error.callers[1].contains("::outer"), "{error}");
    assert!(error.to_string().contains("; it comes from "), "{error}");
}

#[test]
fn a_jump_out_of_the_function_is_a_call_that_ends_the_path() {
    assert_eq!(audit(tail_calls_good).unwrap().functions(), 2);
    assert_eq!(audit(tail_calls_bad).unwrap_err().address, loads_one as *const () as usize);
    assert_eq!(audit(maybe_tail_calls_bad).unwrap_err().address, loads_one as *const () as usize);
}

#[test]
fn nothing_is_behind_a_call_at_the_end() {
    assert_eq!(audit(ends_in_call).unwrap().instructions(), 2);
    assert_eq!(audit(ends_in_call_and_padding).unwrap().instructions(), 2);
    assert!(touches_fpu(audit(ends_in_bad_call)));
}

#[test]
fn code_that_runs_off_its_end_is_followed() {
    let error = assert_fpu_free(&KernelPath::new(audit_runs_off as *const ())).unwrap_err();
    assert_eq!(error.address, audit_run_into as *const () as usize);
}

#[test]
fn a_call_into_the_middle_of_its_own_function_fails() {
    assert_eq!(reason(calls_into_itself), Reason::CallIntoItself);
}

#[test]
fn a_label_that_lea_names_is_a_way_in() {
    assert_eq!(audit(resumes).unwrap().instructions(), 4);
    assert!(touches_fpu(audit(resumes_badly)));
}

#[test]
fn a_path_without_end_fails() {
    assert_eq!(audit(almost_long).unwrap().instructions(), 20_000);
    assert_eq!(reason(long), Reason::TooLong { limit: 20_000 });
}
