//! User code for measurements: registers of an in-use class, held while a thread calls the kernel or is preempted.
//!
//! A program that measures from outside of this crate would need asm for it, and Rust code between a fill and a call may
//! change the class.

use super::{
    Call, JoinHandle, LiveError, Spawn, enter_from_asm, form::Form, image::LiveImage, preempt_self,
    preemptible, syscall,
};
use crate::{Component, ComponentSet, Value, registers::Image};
use core::{arch::naked_asm, time::Duration};
use std::time::Instant;

/// Registers with something in some components, and the initial configuration in all others. The control words are the
/// default.
#[derive(Clone, Debug)]
pub struct Registers {
    image: LiveImage,
    mask: u64,
    has_header: bool,
}

impl Registers {
    /// Registers that have those of `components` in use that are switched here, but for x87: its stack has to be empty where
    /// Rust code runs.
    ///
    /// # Errors
    /// [`LiveError::Registers`].
    pub fn of_class(components: ComponentSet) -> Result<Self, LiveError> {
        let form = Form::of_this_cpu()?;
        let mut image = LiveImage::new(form);
        // Its last two bits would be rounding control.
        let value = Value::new(76).unwrap_or(Value::KERNEL);
        for component in (components & form.components()).without(Component::X87).iter() {
            let written = image.set(component, value);
            debug_assert_eq!(written, Ok(()), "it is one of the form's");
        }
        Ok(Self { image, mask: form.components().bits(), has_header: form.has_header() })
    }

    /// Fills the registers. They stay so as long as the code that runs next uses none.
    #[inline]
    pub fn fill(&self) {
        // SAFETY: (a) an image is one that its form's restore takes. (b) No call is made.
        unsafe { fill_and_call(self.image.as_ptr(), self.mask, 0, 0, self.has_header.into()) };
    }

    /// Fills the registers, and calls the kernel `times` times without touching them.
    ///
    /// # Panics
    /// As [`yield_now`](super::yield_now).
    #[inline]
    pub fn call(&self, call: Call, times: u64) {
        super::machine::refuse_others();
        let (area, call) = (self.image.as_ptr(), call.number());
        // SAFETY: (a) as for `fill`. (b) This is a green thread, in no panic, and calls of this type are those of every
        // machine.
        unsafe { fill_and_call(area, self.mask, call, times, self.has_header.into()) };
    }

    /// Fills the registers, and preempts the calling thread `times` times by a signal.
    ///
    /// # Panics
    /// Outside of a green thread.
    pub fn preempt(&self, times: u64) {
        // SAFETY: (a) signals are sent, and nothing else done: no allocation, no lock, no thread-local but errno, which is
        // not read. (b) Nothing panics.
        unsafe {
            preemptible(|| {
                self.fill();
                for _ in 0..times {
                    let _ = preempt_self();
                }
            });
        }
    }
}

/// Makes a thread that calls the kernel `times` times for nothing, and says how long that took.
/// [Promised](Spawn::promise_default_control_words), the gate does not look at its control words.
///
/// # Errors
/// As [`Spawn::spawn`].
pub fn null_calls(spawn: Spawn, is_promised: bool, times: u64) -> Result<JoinHandle<Duration>, LiveError> {
    let spawn = match is_promised {
        // SAFETY: (a) the closure is Rust code.
        true => unsafe { spawn.promise_default_control_words() },
        false => spawn,
    };
    spawn.spawn(move || {
        let start = Instant::now();
        for _ in 0..times {
            syscall(Call::Null);
        }
        start.elapsed()
    })
}

/// # Safety
/// (a) A restore of `mask` takes the area: XRSTOR if it has a header, else FXRSTOR. It brings the default control words.
/// (b) If `times` is not 0, the caller is a green thread, and `call` means nothing worse than a yield to its kernel.
#[unsafe(naked)]
unsafe extern "sysv64" fn fill_and_call(area: *const u8, mask: u64, call: u64, times: u64, has_header: u64) {
    naked_asm!(
        // RBX = how often, R12 = the call; RSP is at a multiple of 16 behind three pushes.
        "push rbx",
        "push r12",
        "push rbp",
        "mov rbx, rcx",
        "mov r12, rdx",
        "mov eax, esi",
        "mov rdx, rsi",
        "shr rdx, 32",
        "test r8, r8",
        "jz 2f",
        "xrstor64 [rdi]",
        "jmp 3f",
        "2:",
        "fxrstor64 [rdi]",
        "3:",
        "test rbx, rbx",
        "jz 5f",
        "4:",
        "mov rdi, r12",
        "xor esi, esi",
        "call {enter}",
        "dec rbx",
        "jnz 4b",
        "5:",
        "pop rbp",
        "pop r12",
        "pop rbx",
        "ret",
        enter = sym enter_from_asm,
    )
}
