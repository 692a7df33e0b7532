//! Calls and jumps through pointers and tables.

use super::{asm_functions, audit, does_nothing, loads_one, reason, touches_fpu};
use fpuswitch::live::audit::Reason;

asm_functions! {
    calls_system: "call [rip + {f}@GOTPCREL]", "ret", @f = sym libc::getpid;
    calls_library: "call [rip + {f}@GOTPCREL]", "ret", @f = sym libc::labs;
    calls_library_by_plt: "call {f}@PLT", "ret", @f = sym libc::labs;
    tail_calls_library: "jmp [rip + {f}@GOTPCREL]", @f = sym libc::labs;
    keeps_pointer: "mov rbx, [rip + {f}@GOTPCREL]", "call rbx", "call rbx", "ret", @f = sym libc::labs;
    loses_pointer: "mov rax, [rip + {f}@GOTPCREL]", "call rax", "call rax", "ret", @f = sym libc::labs;
    moves_pointer: "lea rax, [rip + {f}]", "mov r12, rax", "xor eax, eax", "jmp r12", @f = sym does_nothing;
    points_to_bad: "lea rax, [rip + {f}]", "jmp rax", @f = sym loads_one;
    one_of_two: "lea rax, [rip + {f}]", "test edi, edi", "jz 2f", "lea rax, [rip + {g}]", "2:", "jmp rax",
        @f = sym does_nothing, g = sym loads_one;
    changes_pointer: "lea rax, [rip + {f}]", "add rax, rdi", "jmp rax", @f = sym does_nothing;
    changes_half: "lea rax, [rip + {f}]", "mov al, 0", "jmp rax", @f = sym does_nothing;
    maybe_changes: "lea rax, [rip + {f}]", "cmovz rax, rdi", "jmp rax", @f = sym does_nothing;
    exchanges: "lea rax, [rip + {f}]", "xchg rdi, rax", "jmp rax", @f = sym does_nothing;
    calls_register: "call rax", "ret";
    calls_memory: "call [rdi + 24]", "ret";
    calls_far: "call fword ptr [rip + 2f]", "ret", "2:", "nop";
    jumps_register: "jmp rax";
    jumps_memory: "jmp [rdi]";
    jumps_segment: "jmp fs:[rip + {f}@GOTPCREL]", @f = sym libc::labs;
    writable: "call [rip + 2f]", "ret",
        ".pushsection .data,\"aw\",@progbits", "2: .quad {f}", ".popsection", @f = sym does_nothing;
    closed: "call [rip + 2f]", "ret",
        ".pushsection .data.rel.ro,\"aw\",@progbits", ".balign 8", "2: .quad {f}", ".popsection",
        @f = sym does_nothing;
}

// Tables as LLVM makes them; what ends them is no entry: it leads nowhere in the function.
asm_functions! {
    relative: "lea rax, [rip + 2f]", "movsxd rcx, dword ptr [rax + 4*rdi]", "add rcx, rax", "notrack jmp rcx",
        "3:", "inc rax", "4:", "ret",
        ".pushsection .rodata,\"a\",@progbits", ".balign 4",
        "2: .long 3b - 2b, 4b - 2b, 0", ".popsection";
    relative_bad: "lea rax, [rip + 2f]", "movsxd rcx, dword ptr [rax + 4*rdi]", "add rcx, rax", "jmp rcx",
        "3:", "ret", "4:", "fld1", "ret",
        ".pushsection .rodata,\"a\",@progbits", ".balign 4",
        "2: .long 3b - 2b, 3b - 2b, 4b - 2b, 0", ".popsection";
    relative_writable: "lea rax, [rip + 2f]", "movsxd rcx, dword ptr [rax + 4*rdi]", "add rcx, rax", "jmp rcx",
        "3:", "ret",
        ".pushsection .data,\"aw\",@progbits", ".balign 4", "2: .long 3b - 2b, 0", ".popsection";
    base_hoisted: "lea r15, [rip + 2f]", "5:", "movsxd rcx, dword ptr [r15 + 4*rdi]", "add rcx, r15", "jmp rcx",
        "3:", "call {f}", "jmp 5b", "4:", "ret",
        ".pushsection .rodata,\"a\",@progbits", ".balign 4",
        "2: .long 3b - 2b, 4b - 2b, 0", ".popsection", @f = sym does_nothing;
    base_of_another: "lea rax, [rip + 2f]", "lea rdx, [rip + 2f + 4]", "movsxd rcx, dword ptr [rax + 4*rdi]",
        "add rcx, rdx", "jmp rcx", "3:", "ret",
        ".pushsection .rodata,\"a\",@progbits", ".balign 4", "2: .long 3b - 2b, 0", ".popsection";
    first_entry_leads_away: "lea rax, [rip + 2f]", "movsxd rcx, dword ptr [rax + 4*rdi]", "add rcx, rax", "jmp rcx",
        ".pushsection .rodata,\"a\",@progbits", ".balign 4", "2: .long 0", ".popsection";
    // An entry of the second table, taken for one of the first, is 4 bytes off: at the FLD1.
    neighbours: "lea rax, [rip + 2f]", "movsxd rcx, dword ptr [rax + 4*rdi]", "add rcx, rax", "jmp rcx",
        "5:", "lea rax, [rip + 6f]", "movsxd rcx, dword ptr [rax + 4*rdi]", "add rcx, rax", "jmp rcx",
        "fld1", ".byte 0x66, 0x90", "3:", "ret",
        ".pushsection .rodata,\"a\",@progbits", ".balign 4",
        "2: .long 5b - 2b", "6: .long 3b - 6b, 0", ".popsection";
    absolute: "lea rax, [rip + 2f]", "jmp [rax + 8*rdi]", "3:", "inc rax", "4:", "ret",
        ".pushsection .data.rel.ro,\"aw\",@progbits", ".balign 8", "2: .quad 3b, 4b, 0", ".popsection";
    absolute_loaded: "lea rax, [rip + 2f]", "mov rax, [rax + 8*rdi]", "jmp rax", "3:", "ret", "4:", "fld1", "ret",
        ".pushsection .data.rel.ro,\"aw\",@progbits", ".balign 8", "2: .quad 3b, 4b, 0", ".popsection";
    called_table: "lea rax, [rip + 2f]", "call [rax + 8*rdi]", "ret",
        ".pushsection .data.rel.ro,\"aw\",@progbits", ".balign 8", "2: .quad {f}, 0", ".popsection",
        @f = sym does_nothing;
}

#[test]
fn calls_through_the_read_only_got_are_walked() {
    for function in [calls_library, calls_library_by_plt, tail_calls_library, closed] {
        assert_eq!(audit(function).unwrap().functions(), 2);
    }
    let error = audit(calls_system).unwrap_err();
    assert_eq!(error.reason, Reason::System, "{error}");
    assert!(error.function.unwrap().contains("getpid"));
}

#[test]
fn what_can_be_written_is_no_way_on() {
    assert!(matches!(reason(writable), Reason::WritablePointer { .. }));
    assert_eq!(reason(relative_writable), Reason::IndirectJump);
}

#[test]
fn a_register_with_one_address_is_as_good_as_a_name() {
    assert_eq!(audit(keeps_pointer).unwrap().functions(), 2);
    assert_eq!(audit(moves_pointer).unwrap().functions(), 2);
    assert!(touches_fpu(audit(points_to_bad)));
}

#[test]
fn a_register_that_may_hold_another_is_not() {
    assert_eq!(reason(loses_pointer), Reason::IndirectCall);
    for function in [one_of_two, changes_pointer, changes_half, maybe_changes, exchanges] {
        assert_eq!(reason(function), Reason::IndirectJump);
    }
}

#[test]
fn what_only_shows_at_run_time_fails() {
    for function in [calls_register, calls_memory, calls_far, called_table] {
        assert_eq!(reason(function), Reason::IndirectCall);
    }
    for function in [jumps_register, jumps_memory, jumps_segment] {
        assert_eq!(reason(function), Reason::IndirectJump);
    }
}

#[test]
fn every_entry_of_a_jump_table_is_a_way() {
    assert_eq!(audit(relative).unwrap().instructions(), 6);
    assert_eq!(audit(base_hoisted).unwrap().functions(), 2);
    assert_eq!(audit(absolute).unwrap().instructions(), 4);
    assert!(touches_fpu(audit(relative_bad)));
    assert!(touches_fpu(audit(absolute_loaded)));
}

#[test]
fn a_table_ends_where_the_next_begins() {
    assert_eq!(audit(neighbours).unwrap().instructions(), 9);
}

#[test]
fn what_is_like_a_table_and_is_none_fails() {
    assert_eq!(reason(base_of_another), Reason::IndirectJump);
    assert_eq!(reason(first_entry_leads_away), Reason::IndirectJump);
}

#[test]
fn what_else_is_named_in_a_table_does_not_end_it() {
    asm_functions! {
        names_the_middle: "lea rax, [rip + 2f]", "lea rdx, [rip + 2f + 4]", "movsxd rcx, dword ptr [rax + 4*rdi]",
            "add rcx, rax", "jmp rcx", "3:", "ret", "4:", "fld1", "ret",
            ".pushsection .rodata,\"a\",@progbits", ".balign 4",
            "2: .long 3b - 2b, 4b - 2b, 0", ".popsection";
    }
    assert!(touches_fpu(audit(names_the_middle)));
}
