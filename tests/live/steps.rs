//! User code in asm: fills every register from an image, gives up the CPU, and looks at what it finds.
#![allow(unsafe_code, reason = "user code in asm, and the areas that it works on")]

use fpuswitch::{
    ComponentSet, Rfbm, Value,
    live::{Call, enter_from_asm},
    registers::{HostRegs, Program, RegisterFile},
    xstate::{AlignedBytes, Area, Layout, SaveInstruction},
};
use std::arch::naked_asm;

/// An image that a thread's registers are filled from, and the one that they are found in.
pub(crate) struct Pattern {
    bytes: AlignedBytes,
    found: AlignedBytes,
    layout: Layout,
    rfbm: u64,
    /// What is compared: offset and length, of each part of each component.
    ranges: Vec<[usize; 2]>,
    shift_bytes: u64,
}

/// Where x87 and SSE code is told how to round and which exceptions to raise, and the x87 status.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ControlWords {
    pub(crate) fcw: u16,
    pub(crate) fsw: u16,
    pub(crate) mxcsr: u32,
}

/// What the asm below works on.
#[repr(C)]
struct Operand {
    bytes: *const u8,
    found: *mut u8,
    rfbm: u64,
    ranges: *const [usize; 2],
    range_count: usize,
    call: u64,
    turns: u64,
    has_xsave: u64,
    shift_bytes: u64,
}

impl Pattern {
    /// Every component filled with the pattern of `value`.
    pub(crate) fn new(value: Value) -> Self {
        let mut regs = host();
        regs.run(Program::FillAll(value));
        Self::of(&regs)
    }

    /// What the registers hold.
    pub(crate) fn of(regs: &HostRegs) -> Self {
        let mut image = regs.new_image();
        regs.save(Rfbm::ALL, &mut image);
        Self::over(image.area().bytes(), image.area().layout())
    }

    fn over(area: &[u8], layout: &Layout) -> Self {
        let size = area.len();
        let mut bytes = AlignedBytes::zeroed(size);
        bytes.as_mut().copy_from_slice(area);
        let components = layout.enabled().without(fpuswitch::Component::PKRU);
        // x87 and SSE but for MXCSR_MASK (bytes 28 to 31), the reserved and the unused bytes.
        let mut ranges = vec![[0, 28], [32, 416 - 32]];
        ranges.extend(
            layout
                .places()
                .iter()
                .filter(|place| components.contains(place.component))
                .map(|place| [place.offset_bytes as usize, place.size_bytes as usize]),
        );
        Self {
            bytes,
            found: AlignedBytes::zeroed(size),
            layout: layout.clone(),
            rfbm: components.bits(),
            ranges,
            shift_bytes: 0,
        }
    }

    /// Fills the registers, calls the kernel, and compares: `false` if one byte is another afterwards.
    pub(crate) fn survives(&mut self, call: Call) -> bool {
        let call = match call {
            Call::Null => 0,
            Call::Yield => 1,
        };
        // SAFETY: the operand is complete; calls 0 and 1 are `Call`'s.
        unsafe { fill_call_compare(&self.operand(call, 0)) == 0 }
    }

    /// The same, and waits for a notification meanwhile: the call that `park` makes.
    pub(crate) fn survives_park(&mut self) -> bool {
        // SAFETY: the operand is complete; whoever wakes the thread does it as for `park`.
        unsafe { fill_call_compare(&self.operand(2, 0)) == 0 }
    }

    /// Other control words, and x87 status.
    pub(crate) fn with_control(mut self, words: ControlWords) -> Self {
        let bytes = self.bytes.as_mut();
        bytes[..2].copy_from_slice(&words.fcw.to_le_bytes());
        bytes[2..4].copy_from_slice(&words.fsw.to_le_bytes());
        bytes[24..28].copy_from_slice(&words.mxcsr.to_le_bytes());
        if self.layout.has_xsave() {
            bytes[512] |= 3;
        }
        self
    }

    /// Fills the registers, counts down `turns`, and compares. With preemption on, other threads may run meanwhile.
    ///
    /// Each time at another place of the stack, relative to the 64 bytes that the system aligns a signal's frame to.
    pub(crate) fn survives_turns(&mut self, turns: u64) -> bool {
        self.shift_bytes = (self.shift_bytes + 8) % 64;
        // SAFETY: the operand is complete.
        unsafe { fill_count_compare(&self.operand(0, turns)) == 0 }
    }

    /// What was found, where it was not what was filled in.
    pub(crate) fn difference(&self) -> String {
        let area = |bytes| Area::over(bytes, &self.layout).expect("a whole area");
        let (want, found): (Area<&[u8]>, Area<&[u8]>) =
            (area(self.bytes.as_ref()), area(self.found.as_ref()));
        let differs =
            |component: &fpuswitch::Component| want.component(*component) != found.component(*component);
        ComponentSet::from_bits(self.rfbm)
            .iter()
            .filter(differs)
            .map(|component| format!("{component} "))
            .collect()
    }

    fn operand(&mut self, call: u64, turns: u64) -> Operand {
        Operand {
            bytes: self.bytes.as_ref().as_ptr(),
            found: self.found.as_mut().as_mut_ptr(),
            rfbm: self.rfbm,
            ranges: self.ranges.as_ptr(),
            range_count: self.ranges.len(),
            call,
            turns,
            has_xsave: u64::from(self.layout.has_xsave()),
            shift_bytes: self.shift_bytes,
        }
    }
}

/// The host's registers, saved in the standard format, or by FXSAVE where there is no other.
pub(crate) fn host() -> HostRegs {
    let regs = HostRegs::new().expect("the host's registers");
    match regs.save_instruction() {
        SaveInstruction::Fxsave => regs,
        _ => {
            regs.with_save_instruction(SaveInstruction::Xsave).expect("where there is XSAVEC there is XSAVE")
        }
    }
}

macro_rules! fill_and_compare {
    ($($middle:literal),+ $(; $($operand:tt)+)?) => {
        naked_asm!(
            "push rbx",
            "push r12",
            "push rbp",
            // The caller's registers may hold other control words than the pattern's: they come back at the end.
            "sub rsp, 16",
            "stmxcsr [rsp]",
            "fnstcw [rsp + 8]",
            "mov rbx, rdi",
            "mov r12, [rbx]",
            "mov eax, [rbx + 16]",
            "mov edx, [rbx + 20]",
            "cmp qword ptr [rbx + 56], 0",
            "je 20f",
            "xrstor64 [r12]",
            "jmp 21f",
            "20:",
            "fxrstor64 [r12]",
            "21:",
            $($middle,)+
            "mov r12, [rbx + 8]",
            "mov eax, [rbx + 16]",
            "mov edx, [rbx + 20]",
            "cmp qword ptr [rbx + 56], 0",
            "je 22f",
            "xsave64 [r12]",
            "jmp 23f",
            "22:",
            "fxsave64 [r12]",
            "23:",
            "fninit",
            "fldcw [rsp + 8]",
            "ldmxcsr [rsp]",
            // RAX counts the ranges that differ.
            "xor eax, eax",
            "mov rdx, [rbx + 24]",
            "mov r8, [rbx + 32]",
            "24:",
            "test r8, r8",
            "jz 26f",
            "mov rsi, [rbx]",
            "add rsi, [rdx]",
            "mov rdi, [rbx + 8]",
            "add rdi, [rdx]",
            "mov rcx, [rdx + 8]",
            "shr rcx, 2",
            "cmp rcx, rcx",
            "repe cmpsd",
            "je 25f",
            "inc rax",
            "25:",
            "add rdx, 16",
            "dec r8",
            "jmp 24b",
            "26:",
            "add rsp, 16",
            "pop rbp",
            "pop r12",
            "pop rbx",
            "ret"
            $(, $($operand)+)?
        )
    };
}

/// # Safety
/// (a) The caller is a green thread. (b) The operand is complete, and its call keeps all registers.
#[unsafe(naked)]
unsafe extern "sysv64" fn fill_call_compare(operand: *const Operand) -> u64 {
    fill_and_compare!("mov rdi, [rbx + 40]", "xor esi, esi", "call {enter}"; enter = sym enter_from_asm)
}

/// # Safety
/// (a) The operand is complete.
#[unsafe(naked)]
unsafe extern "sysv64" fn fill_count_compare(operand: *const Operand) -> u64 {
    fill_and_compare!(
        "sub rsp, [rbx + 64]",
        "mov rcx, [rbx + 48]",
        "27:",
        "dec rcx",
        "jnz 27b",
        "add rsp, [rbx + 64]"
    )
}

/// Counts down `turns` with the red zone full of `word`, and returns how many of its 16 words are another afterwards.
///
/// # Safety
/// (a) None.
#[unsafe(naked)]
pub(crate) unsafe extern "sysv64" fn red_zone_after(word: u64, turns: u64) -> u64 {
    naked_asm!(
        "mov rcx, -128",
        "2:",
        "mov [rsp + rcx], rdi",
        "add rcx, 8",
        "jnz 2b",
        "3:",
        "dec rsi",
        "jnz 3b",
        "xor eax, eax",
        "mov rcx, -128",
        "4:",
        "cmp [rsp + rcx], rdi",
        "je 5f",
        "inc eax",
        "5:",
        "add rcx, 8",
        "jnz 4b",
        "ret",
    )
}
