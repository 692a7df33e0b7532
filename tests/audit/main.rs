//! The audit of a kernel path, on functions written in asm, on Rust functions, and on addresses of nothing.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(unsafe_code, reason = "functions of which every instruction is known are written in asm")]

mod flow;
mod indirect;
mod instructions;
mod known;
mod places;
mod rust;

use fpuswitch::live::audit::{FpuFree, KernelPath, NotFpuFree, Reason, assert_fpu_free};

/// Functions of these instructions and no other, with an unwind entry, which `naked_asm` does not give. None of them
/// is ever called.
macro_rules! asm_functions {
    ($($name:ident: $($part:expr),+ $(, @$($operand:ident = sym $function:path),+)?;)+) => { $(
        #[unsafe(naked)]
        extern "C" fn $name() {
            core::arch::naked_asm!(".cfi_startproc", $($part,)+ ".cfi_endproc", $($($operand = sym $function),+)?)
        }
    )+ };
}
pub(crate) use asm_functions;

asm_functions! {
    does_nothing: "ret";
    loads_one: "fld1", "ret";
}

fn audit(function: extern "C" fn()) -> Result<FpuFree, NotFpuFree> {
    assert_fpu_free(&KernelPath::new(function as *const ()))
}

fn reason(function: extern "C" fn()) -> Reason {
    audit(function).expect_err("the function ought to fail").reason
}

fn touches_fpu(result: Result<FpuFree, NotFpuFree>) -> bool {
    matches!(result.map_err(|error| error.reason), Err(Reason::Feature(_) | Reason::Register(_)))
}
