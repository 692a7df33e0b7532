//! User code in asm: fills every register from an image, gives up the CPU, and looks at what it finds.
#![allow(unsafe_code, reason = "user code in asm, and the areas that it works on")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

use fpuswitch::{
    ComponentSet, Rfbm, Value,
    live::{
        self, Call, enter_from_asm,
        preempt::{Signal, Target},
        yield_now,
    },
    registers::{HostRegs, Program, RegisterFile},
    xstate::{AlignedBytes, Area, Layout, SaveInstruction},
};
use std::{
    arch::naked_asm,
    mem::{self, offset_of},
    ptr,
    sync::OnceLock,
};

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
    has_xsave: u64,
    ranges: *const [usize; 2],
    range_count: usize,
    /// How often the registers are looked at, at least once; each time behind what is done.
    turns: u64,
    /// What is done: the call, how far is counted, or what rt_tgsigqueueinfo(2) takes.
    call: u64,
    count: u64,
    signal: SelfSignal,
    shift_bytes: u64,
}

/// The arguments of the system call by which an OS thread preempts what runs on it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct SelfSignal {
    process: i64,
    os_thread: i64,
    number: i64,
    info: *const libc::siginfo_t,
}

// SAFETY: what it points to lives for ever, and is only read.
unsafe impl Send for SelfSignal {}

impl SelfSignal {
    const NONE: Self = Self { process: 0, os_thread: 0, number: 0, info: ptr::null() };

    /// What [`Target::preempt`] sends, as its receiver gets it: this OS thread, which is no CPU, sends one to itself, and
    /// takes it before any handler does.
    pub(crate) fn capture() -> Self {
        let number = Signal::DEFAULT;
        let target =
            Target::this(Signal::install(number).expect("a signal that preempts")).expect("a target");
        // SAFETY: zeros are a set and a `siginfo_t`; all calls are given places of ours (sigsetops(3),
        // pthread_sigmask(3), sigwaitinfo(2)).
        let info = unsafe {
            let (mut set, mut info) = (mem::zeroed(), Box::new(mem::zeroed()));
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, number);
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut());
            target.preempt().expect("a signal to this OS thread");
            assert_eq!(libc::sigwaitinfo(&set, &raw mut *info), number);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, ptr::null_mut());
            info
        };
        Self { number: number.into(), info: Box::leak(info), ..Self::NONE }
    }

    /// The same to the calling OS thread.
    pub(crate) fn to_here(self) -> Self {
        // SAFETY: both take nothing and cannot fail (getpid(2), gettid(2)).
        let (process, os_thread) = unsafe { (libc::getpid(), libc::gettid()) };
        Self { process: process.into(), os_thread: os_thread.into(), ..self }
    }
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
        self.survives_calls(call, 1)
    }

    /// Fills the registers, and then calls the kernel and compares again and again, until they differ.
    pub(crate) fn survives_calls(&mut self, call: Call, turns: u64) -> bool {
        let call = match call {
            Call::Null => 0,
            Call::Yield => 1,
        };
        // SAFETY: the operand is complete; calls 0 and 1 are `Call`'s.
        unsafe { fill_call_compare(&Operand { call, turns, ..self.operand() }) == 0 }
    }

    /// Fills the registers, waits for a notification by the call that `park` makes, and compares.
    pub(crate) fn survives_park(&mut self) -> bool {
        // SAFETY: the operand is complete; whoever wakes the thread does it as for `park`.
        unsafe { fill_call_compare(&Operand { call: 2, ..self.operand() }) == 0 }
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

    /// The same with signals to this OS thread, each of which preempts the thread if it may be preempted.
    pub(crate) fn survives_signals(&mut self, signal: SelfSignal, turns: u64) -> bool {
        // SAFETY: the operand is complete.
        unsafe { fill_signal_compare(&Operand { signal, turns, ..self.operand() }) == 0 }
    }

    /// Fills the registers, counts down, and compares. With preemption on, other threads may run meanwhile.
    ///
    /// Each time at another place of the stack, relative to the 64 bytes that the system aligns a signal's frame to.
    pub(crate) fn survives_turns(&mut self, count: u64) -> bool {
        self.shift_bytes = (self.shift_bytes + 8) % 64;
        // SAFETY: the operand is complete.
        unsafe { fill_count_compare(&Operand { count, ..self.operand() }) == 0 }
    }

    /// Fills the registers, which have the default control words, and yields like a function, which keeps those alone.
    pub(crate) fn yields(&mut self) {
        // SAFETY: the operand is complete.
        unsafe { fill_yield_compare(&self.operand()) };
    }

    /// What was found in the registers the last time.
    pub(crate) fn found(&self) -> Area<&[u8]> {
        Area::over(self.found.as_ref(), &self.layout).expect("a whole area")
    }

    /// Leaves the pattern in all registers but the control words, as kernel code may that uses them.
    pub(crate) fn clobber(&mut self) {
        // SAFETY: the operand is complete; it counts for no time.
        unsafe { fill_count_compare(&Operand { count: 1, ..self.operand() }) };
    }

    /// What was found, where it was not what was filled in.
    pub(crate) fn difference(&self) -> String {
        let want = Area::over(self.bytes.as_ref(), &self.layout).expect("a whole area");
        let found = self.found();
        let differs =
            |component: &fpuswitch::Component| want.component(*component) != found.component(*component);
        ComponentSet::from_bits(self.rfbm)
            .iter()
            .filter(differs)
            .map(|component| format!("{component} "))
            .collect()
    }

    fn operand(&mut self) -> Operand {
        Operand {
            bytes: self.bytes.as_ref().as_ptr(),
            found: self.found.as_mut().as_mut_ptr(),
            rfbm: self.rfbm,
            has_xsave: u64::from(self.layout.has_xsave()),
            ranges: self.ranges.as_ptr(),
            range_count: self.ranges.len(),
            turns: 1,
            call: 0,
            count: 1,
            signal: SelfSignal::NONE,
            shift_bytes: self.shift_bytes,
        }
    }
}

/// The host's registers, saved in the standard format, or by FXSAVE where there is no other.
pub(crate) fn host() -> HostRegs {
    let regs = HostRegs::new().expect("the host's registers");
    let best = match regs.save_instruction() {
        SaveInstruction::Fxsave => SaveInstruction::Fxsave,
        _ => SaveInstruction::Xsave,
    };
    let instruction = *INSTRUCTION.get_or_init(|| best);
    regs.with_save_instruction(instruction)
        .expect("where there is XSAVEC there is XSAVE, and FXSAVE everywhere")
}

/// The instruction that patterns are filled in and compared by.
static INSTRUCTION: OnceLock<SaveInstruction> = OnceLock::new();

/// Has the live threads of this process saved with that instruction, and patterns be of what it saves.
pub(crate) fn save_with(instruction: SaveInstruction) {
    // SAFETY: (a) threads have nothing in other registers but where they call functions.
    unsafe { live::save_with(instruction) }.expect("an instruction of this CPU, and no machine before");
    let patterns = match instruction {
        SaveInstruction::Fxsave => SaveInstruction::Fxsave,
        _ => SaveInstruction::Xsave,
    };
    INSTRUCTION.set(patterns).expect("no pattern before");
}

/// In RDI the operand; out RAX the turns that were left when the registers differed, 0 if they never did. RBX = operand,
/// R12 = turns left, when the middle runs; it may change the other integer registers.
macro_rules! fill_and_compare {
    ($($middle:literal),+; $($operand:tt)+) => {
        naked_asm!(
            "push rbx",
            "push r12",
            "push rbp",
            // The caller's registers may hold other control words than the pattern's: they come back at the end.
            "sub rsp, 16",
            "stmxcsr [rsp]",
            "fnstcw [rsp + 8]",
            "mov rbx, rdi",
            "mov r12, [rbx + {turns}]",
            "mov rcx, [rbx + {bytes}]",
            "mov eax, [rbx + {rfbm}]",
            "mov edx, [rbx + {rfbm} + 4]",
            "cmp qword ptr [rbx + {has_xsave}], 0",
            "je 20f",
            "xrstor64 [rcx]",
            "jmp 21f",
            "20:",
            "fxrstor64 [rcx]",
            "21:",
            $($middle,)+
            "mov rcx, [rbx + {found}]",
            "mov eax, [rbx + {rfbm}]",
            "mov edx, [rbx + {rfbm} + 4]",
            "cmp qword ptr [rbx + {has_xsave}], 0",
            "je 22f",
            "xsave64 [rcx]",
            "jmp 23f",
            "22:",
            "fxsave64 [rcx]",
            "23:",
            // RDX = range, R8 = ranges left.
            "mov rdx, [rbx + {ranges}]",
            "mov r8, [rbx + {range_count}]",
            "24:",
            "mov rsi, [rbx + {bytes}]",
            "add rsi, [rdx]",
            "mov rdi, [rbx + {found}]",
            "add rdi, [rdx]",
            "mov rcx, [rdx + 8]",
            "shr rcx, 2",
            "repe cmpsd",
            "jne 25f",
            "add rdx, 16",
            "dec r8",
            "jnz 24b",
            // The registers are as they were filled.
            "dec r12",
            "jnz 21b",
            "25:",
            "mov rax, r12",
            "fninit",
            "fldcw [rsp + 8]",
            "ldmxcsr [rsp]",
            "add rsp, 16",
            "pop rbp",
            "pop r12",
            "pop rbx",
            "ret",
            bytes = const offset_of!(Operand, bytes),
            found = const offset_of!(Operand, found),
            rfbm = const offset_of!(Operand, rfbm),
            has_xsave = const offset_of!(Operand, has_xsave),
            ranges = const offset_of!(Operand, ranges),
            range_count = const offset_of!(Operand, range_count),
            turns = const offset_of!(Operand, turns),
            $($operand)+
        )
    };
}

/// # Safety
/// (a) The caller is a green thread. (b) The operand is complete, and its call keeps all registers.
#[unsafe(naked)]
unsafe extern "sysv64" fn fill_call_compare(operand: *const Operand) -> u64 {
    fill_and_compare!(
        "mov rdi, [rbx + {call}]", "xor esi, esi", "call {enter}";
        call = const offset_of!(Operand, call),
        enter = sym enter_from_asm
    )
}

/// # Safety
/// (a) The operand is complete, with a signal.
#[unsafe(naked)]
unsafe extern "sysv64" fn fill_signal_compare(operand: *const Operand) -> u64 {
    fill_and_compare!(
        "mov rdi, [rbx + {signal} + {process}]",
        "mov rsi, [rbx + {signal} + {os_thread}]",
        "mov rdx, [rbx + {signal} + {number}]",
        "mov r10, [rbx + {signal} + {info}]",
        "mov eax, {system_call}",
        "syscall";
        signal = const offset_of!(Operand, signal),
        process = const offset_of!(SelfSignal, process),
        os_thread = const offset_of!(SelfSignal, os_thread),
        number = const offset_of!(SelfSignal, number),
        info = const offset_of!(SelfSignal, info),
        system_call = const libc::SYS_rt_tgsigqueueinfo
    )
}

/// # Safety
/// (a) The operand is complete.
#[unsafe(naked)]
unsafe extern "sysv64" fn fill_count_compare(operand: *const Operand) -> u64 {
    fill_and_compare!(
        "sub rsp, [rbx + {shift_bytes}]",
        "mov rcx, [rbx + {count}]",
        "26:",
        "dec rcx",
        "jnz 26b",
        "add rsp, [rbx + {shift_bytes}]";
        count = const offset_of!(Operand, count),
        shift_bytes = const offset_of!(Operand, shift_bytes)
    )
}

/// # Safety
/// (a) The caller is a green thread. (b) The operand is complete, and fills in the default control words.
#[unsafe(naked)]
unsafe extern "sysv64" fn fill_yield_compare(operand: *const Operand) -> u64 {
    extern "sysv64" fn like_a_function() {
        yield_now();
    }
    fill_and_compare!("call {yield_now}"; yield_now = sym like_a_function)
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
