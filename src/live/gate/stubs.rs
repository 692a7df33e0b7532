//! The code of the gate that is in no function's body: in asm, each routine with its contract.

use super::{Context, FCW, Gate, MXCSR, MXCSR_CONTROL, call, check, form, leave};
use core::{arch::naked_asm, mem::offset_of};

/// Looks whether the control words are the default, and puts them aside if not; ends with `$done` on every path.
/// Clobbers RCX.
macro_rules! control_words {
    ($done:literal) => {
        concat!(
            "stmxcsr gs:[{seen_mxcsr}]\n",
            "fnstcw gs:[{seen_fcw}]\n",
            "mov ecx, gs:[{seen_mxcsr}]\n",
            // The sticky flags do not count.
            "and ecx, {control}\n",
            "cmp word ptr gs:[{seen_fcw}], {fcw}\n",
            "jne 21f\n",
            "cmp ecx, {mxcsr}\n",
            "jne 20f\n",
            $done,
            "\n",
            "20:\n",
            "mov ecx, gs:[{seen_mxcsr}]\n",
            "mov gs:[{user_mxcsr}], ecx\n",
            "ldmxcsr gs:[{default_mxcsr}]\n",
            "mov byte ptr gs:[{leave}], {leave_mxcsr}\n",
            $done,
            "\n",
            // FXSAVE and FNINIT do not wait: FLDCW would raise what is pending.
            "21:\n",
            "mov rcx, gs:[{aside}]\n",
            "fxsave64 [rcx]\n",
            "mov byte ptr gs:[{leave}], {leave_legacy}\n",
            "fninit\n",
            "ldmxcsr gs:[{default_mxcsr}]\n",
            $done,
            "\n",
        )
    };
}

pub(in crate::live) use control_words;

/// Whether an address is in one of the two stubs where user code is said to run and does not.
pub(in crate::live) fn is_stub(rip: usize) -> bool {
    let in_stub = |stub: unsafe extern "C" fn()| rip.wrapping_sub(stub as *const () as usize) < STUB_BYTES;
    in_stub(exit_stub) || in_stub(preempted)
}

/// How long the code of [`exit_stub`] and [`preempted`] is at most: they are padded to it.
pub(in crate::live) const STUB_BYTES: usize = 192;

/// EXIT: from the kernel to user code, and the only code in which user code is said to run and does not yet.
///
/// | | | |
/// |---|---|---|
/// | in | RAX | the value for user code |
/// | in | GS | the gate; its context is the thread |
/// | out | RAX | the same; RSP the thread's, behind its resume address, to which this jumps |
/// | clobbered | RCX, RDX, RSI, flags | |
/// | preserved | | all other registers; those of the components are the thread's afterwards |
#[unsafe(naked)]
pub(in crate::live) unsafe extern "C" fn exit_stub() {
    naked_asm!(
        "2:",
        // 1. RCX = the thread, RSP = its stack.
        "mov rcx, gs:[{context}]",
        "mov rsp, [rcx + {rsp}]",
        "cmp byte ptr gs:[{leave}], 0",
        "jne 4f",
        // 2. RDX = where it goes on. JMP and not RET, which would be predicted wrong.
        "3:",
        "pop rdx",
        "mov byte ptr gs:[{in_user}], 1",
        "jmp rdx",
        // 3. Something is to be put back first.
        "4:",
        "cmp byte ptr gs:[{leave}], {leave_legacy}",
        "ja 6f",
        "je 5f",
        "ldmxcsr gs:[{user_mxcsr}]",
        "mov byte ptr gs:[{leave}], 0",
        "jmp 3b",
        "5:",
        "mov rcx, gs:[{aside}]",
        "fxrstor64 [rcx]",
        "mov byte ptr gs:[{leave}], 0",
        "jmp 3b",
        // 4. The parked gate: RSI keeps the value, EDX:EAX = the components.
        "6:",
        "mov rcx, gs:[{parked}]",
        "cmp byte ptr gs:[{form}], {fxsave}",
        "je 7f",
        "mov rsi, rax",
        "mov eax, gs:[{mask}]",
        "mov edx, gs:[{mask} + 4]",
        "xrstor64 [rcx]",
        "mov rax, rsi",
        "jmp 3b",
        "7:",
        "fxrstor64 [rcx]",
        "jmp 3b",
        ".org 2b + {bytes}, 0xcc",
        context = const offset_of!(Gate, context),
        rsp = const offset_of!(Context, rsp),
        leave = const offset_of!(Gate, leave),
        leave_legacy = const leave::LEGACY,
        in_user = const offset_of!(Gate, in_user),
        user_mxcsr = const offset_of!(Gate, user_mxcsr),
        aside = const offset_of!(Gate, aside),
        parked = const offset_of!(Gate, parked),
        form = const offset_of!(Gate, form),
        fxsave = const form::FXSAVE,
        mask = const offset_of!(Gate, mask),
        bytes = const STUB_BYTES,
    )
}

/// ENTER: from user code to the kernel, behind [`Gate::exit`].
///
/// | | | |
/// |---|---|---|
/// | in | RAX, RDX | the call and its argument |
/// | in | RSP | one of the stacks above |
/// | in | GS | the gate; `in_user` is clear |
/// | out | RAX, RDX | the same; RSP the kernel's |
/// | clobbered | RCX, RSI, RDI, flags | |
/// | preserved | | all other registers; of the components, all but MXCSR and x87 control, which are the default |
#[unsafe(naked)]
pub(in crate::live) unsafe extern "C" fn enter_stub() {
    naked_asm!(
        // 1. The thread's stack is put aside, the kernel's taken.
        "mov rcx, gs:[{context}]",
        "mov [rcx + {rsp}], rsp",
        "mov rsp, gs:[{kernel_rsp}]",
        "cmp byte ptr gs:[{check}], {promised}",
        "je 2f",
        "ja 5f",
        // 2. Control words as Rust code wants them.
        control_words!("jmp gs:[{kernel_rip}]"),
        "2:",
        "jmp gs:[{kernel_rip}]",
        // 3. The parked gate: RSI and RDI keep call and argument, EDX:EAX = the components.
        "5:",
        "mov rcx, gs:[{parked}]",
        "cmp byte ptr gs:[{form}], {fxsave}",
        "je 6f",
        "mov rsi, rax",
        "mov rdi, rdx",
        "mov eax, gs:[{mask}]",
        "mov edx, gs:[{mask} + 4]",
        "xsave64 [rcx]",
        "mov rax, rsi",
        "mov rdx, rdi",
        "jmp 7f",
        "6:",
        "fxsave64 [rcx]",
        "7:",
        "fninit",
        "ldmxcsr gs:[{default_mxcsr}]",
        "jmp gs:[{kernel_rip}]",
        context = const offset_of!(Gate, context),
        rsp = const offset_of!(Context, rsp),
        kernel_rsp = const offset_of!(Gate, kernel_rsp),
        kernel_rip = const offset_of!(Gate, kernel_rip),
        check = const offset_of!(Gate, check),
        promised = const check::PROMISED,
        seen_mxcsr = const offset_of!(Gate, seen_mxcsr),
        seen_fcw = const offset_of!(Gate, seen_fcw),
        control = const MXCSR_CONTROL as i32,
        mxcsr = const MXCSR,
        fcw = const FCW,
        user_mxcsr = const offset_of!(Gate, user_mxcsr),
        default_mxcsr = const offset_of!(Gate, default_mxcsr),
        leave = const offset_of!(Gate, leave),
        leave_mxcsr = const leave::MXCSR,
        leave_legacy = const leave::LEGACY,
        aside = const offset_of!(Gate, aside),
        parked = const offset_of!(Gate, parked),
        form = const offset_of!(Gate, form),
        fxsave = const form::FXSAVE,
        mask = const offset_of!(Gate, mask),
    )
}

/// PREEMPTED: where a thread goes on that a signal handler stopped.
///
/// | | | |
/// |---|---|---|
/// | in | RSP | below the red zone of the code that was stopped, with its RIP on top |
/// | in | | everything else as that code left it |
/// | out | | everything as that code left it; this returns to it |
///
/// All integer registers and the flags are kept on the thread's stack: 17 words and the resume address.
#[unsafe(naked)]
pub(in crate::live) unsafe extern "C" fn preempted() {
    naked_asm!(
        "2:",
        "mov byte ptr gs:[{in_user}], 0",
        "pushfq",
        ".irp reg, rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15",
        "push \\reg",
        ".endr",
        // The kernel's flags: direction, alignment check and nested task clear. Bit 1 is always set.
        "push 0x202",
        "popfq",
        "mov rax, {call}",
        "xor edx, edx",
        "lea rcx, [rip + 3f]",
        "push rcx",
        "jmp {enter}",
        "3:",
        ".irp reg, r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax",
        "pop \\reg",
        ".endr",
        "popfq",
        "ret {red_zone}",
        ".org 2b + {bytes}, 0xcc",
        in_user = const offset_of!(Gate, in_user),
        call = const call::PREEMPTED,
        enter = sym enter_stub,
        red_zone = const RED_ZONE_BYTES,
        bytes = const STUB_BYTES,
    )
}

/// What code may use below its stack pointer (System V ABI, section 3.2.2 "The Stack Frame").
pub(in crate::live) const RED_ZONE_BYTES: usize = 128;
/// What a preempted thread has on its stack below the red zone.
pub(in crate::live) const PREEMPTED_BYTES: usize = 18 * 8;

/// ROOT: where a new thread begins. Backtraces end here: the frame pointer is 0, and the return address undefined.
///
/// | | | |
/// |---|---|---|
/// | in | RSP | the entry function and its argument |
#[unsafe(naked)]
pub(in crate::live) unsafe extern "C" fn root() {
    naked_asm!(
        ".cfi_startproc",
        ".cfi_undefined rip",
        "pop rcx",
        "pop rdi",
        "xor ebp, ebp",
        "call rcx",
        "ud2",
        ".cfi_endproc",
    )
}

/// Puts a new thread's stack in order, and returns its stack pointer.
///
/// # Safety
/// (a) The bytes below `base`, 64 at least, are the thread's and nobody's yet; `base` is a multiple of 16.
pub(in crate::live) unsafe fn new_stack(
    base: usize,
    entry: unsafe extern "C" fn(*mut ()) -> !,
    argument: *mut (),
) -> usize {
    // Behind three pops RSP is at a multiple of 16 again, where the CALL wants it.
    let words = [root as *const () as usize, entry as *const () as usize, argument as usize, 0, 0];
    let rsp = base - size_of_val(&words);
    // SAFETY: by (a), 40 bytes that are the thread's, at a multiple of 8.
    unsafe { core::ptr::with_exposed_provenance_mut::<[usize; 5]>(rsp).write(words) };
    rsp
}
