//! What a single instruction may be.

use super::{asm_functions, audit, reason, touches_fpu};
use fpuswitch::live::audit::Reason;

macro_rules! table {
    ($table:ident: $($name:ident $instruction:literal,)+) => {
        asm_functions! { $($name: $instruction, "ret";)+ }
        const $table: &[(&str, extern "C" fn())] = &[$(($instruction, $name)),+];
    };
}

table! { TOUCHES:
    fld1 "fld1",
    fninit "fninit",
    fwait "fwait",
    fnstcw "fnstcw word ptr [rdi]",
    fldcw "fldcw word ptr [rdi]",
    fcmovb "fcmovb st, st(1)",
    emms "emms",
    movq_mmx "movq mm0, rax",
    ldmxcsr "ldmxcsr dword ptr [rdi]",
    stmxcsr "stmxcsr dword ptr [rdi]",
    fxsave "fxsave [rdi]",
    fxrstor "fxrstor [rdi]",
    xsave "xsave [rdi]",
    xsavec "xsavec [rdi]",
    xsaveopt "xsaveopt [rdi]",
    xrstor "xrstor [rdi]",
    xgetbv "xgetbv",
    movaps "movaps xmm0, xmm1",
    movups "movups xmmword ptr [rdi], xmm15",
    pextrq "pextrq rax, xmm0, 1",
    cvttsd2si "cvttsd2si rax, xmm0",
    maskmovdqu "maskmovdqu xmm0, xmm1",
    vzeroupper "vzeroupper",
    vzeroall "vzeroall",
    vpaddd "vpaddd ymm0, ymm1, ymm2",
    vpcmpeqd "vpcmpeqd k1, zmm16, zmm17",
    kmovq "kmovq k1, rax",
    kxorw "kxorw k0, k0, k0",
    tilezero "tilezero tmm0",
    tilerelease "tilerelease",
}

table! { LEAVES:
    syscall "syscall",
    sysenter "sysenter",
    int_80 "int 0x80",
    iretq "iretq",
    retf "retf",
    hlt "hlt",
    cli "cli",
    input "in al, dx",
    output "out dx, al",
    outs "outsb",
    mov_cr0 "mov rax, cr0",
    clts "clts",
    wrmsr "wrmsr",
    swapgs "swapgs",
}

table! { OTHER:
    cpuid "cpuid",
    xbegin "xbegin 2f\n2:",
    monitorx "monitorx",
    rdpmc "rdpmc",
}

table! { ALLOWED:
    add "add rax, [rdi + 8*rsi + 16]",
    imul "imul rax, rcx",
    div "div rcx",
    cmov "cmovb rax, rcx",
    lock_cmpxchg "lock cmpxchg [rdi], rsi",
    cmpxchg16b "lock cmpxchg16b [rdi]",
    xadd "lock xadd [rdi], rax",
    bswap "bswap rax",
    movbe "movbe rax, [rdi]",
    andn "andn rax, rcx, rdx",
    tzcnt "tzcnt rax, rcx",
    lzcnt "lzcnt rax, rcx",
    popcnt "popcnt rax, rcx",
    shlx "shlx rax, rcx, rdx",
    mulx "mulx rax, rcx, rdx",
    adcx "adcx rax, rcx",
    crc32 "crc32 rax, rcx",
    rep_movsb "rep movsb",
    rep_stosq "rep stosq",
    pushfq "pushfq",
    popfq "popfq",
    enter "enter 16, 0",
    leave "leave",
    read_fs "mov rax, fs:[0]",
    write_gs "mov gs:[8], rax",
    rdgsbase "rdgsbase rax",
    endbr64 "endbr64",
    nopw "nop word ptr [rax + rax]",
    pause "pause",
    rdtsc "rdtsc",
    rdtscp "rdtscp",
    rdrand "rdrand rax",
    rdpid "rdpid rax",
    mfence "mfence",
    lfence "lfence",
    sfence "sfence",
    movnti "movnti [rdi], rax",
    prefetcht0 "prefetcht0 byte ptr [rdi]",
    prefetchw "prefetchw byte ptr [rdi]",
    rdpkru "rdpkru",
    wrpkru "wrpkru",
}

asm_functions! {
    no_instruction: ".byte 0x06", "ret";
    ends_in_ud2: "ud2", "fld1";
    breaks: "int3", "ret";
    cut_short: ".byte 0x48, 0xb8";
}

#[test]
fn what_touches_fpu_state_fails() {
    for (instruction, function) in TOUCHES {
        let result = audit(*function);
        assert!(touches_fpu(result.clone()), "{instruction}: {result:?}");
    }
}

#[test]
fn what_leaves_for_the_system_fails() {
    for (instruction, function) in LEAVES {
        assert_eq!(reason(*function), Reason::System, "{instruction}");
    }
}

#[test]
fn what_is_of_no_integer_feature_fails() {
    for (instruction, function) in OTHER {
        assert!(matches!(reason(*function), Reason::Feature(_)), "{instruction}");
    }
}

#[test]
fn integer_instructions_pass() {
    for (instruction, function) in ALLOWED {
        let proof = audit(*function).unwrap_or_else(|error| panic!("{instruction}: {error}"));
        assert_eq!((proof.instructions(), proof.functions()), (2, 1), "{instruction}");
    }
}

#[test]
fn a_path_ends_at_what_always_faults() {
    assert_eq!(audit(ends_in_ud2).unwrap().instructions(), 1);
}

#[test]
fn a_breakpoint_hides_what_it_is_put_on() {
    assert_eq!(reason(breaks), Reason::Breakpoint);
}

#[test]
fn bytes_that_are_no_instruction_fail() {
    assert_eq!(reason(no_instruction), Reason::NoInstruction);
    assert_eq!(reason(cut_short), Reason::NoInstruction);
}

#[test]
fn the_report_names_function_place_and_instruction() {
    asm_functions! { late: "mov eax, 1", "fld1", "ret"; }
    let error = audit(late).unwrap_err();
    assert_eq!(error.address, late as *const () as usize + 5);
    assert_eq!(error.offset_bytes, 5);
    assert_eq!(error.instruction.as_deref(), Some("fld1"));
    let text = error.to_string();
    assert!(text.contains("::late+0x5"), "{text}");
    assert!(text.contains("`fld1`: belongs to FPU: keep to words"), "{text}");
}
