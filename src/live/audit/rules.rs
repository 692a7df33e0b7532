//! What an instruction on the path may be.

use super::Reason;
use iced_x86::{CpuidFeature, FlowControl, Instruction, InstructionInfo, Mnemonic, Register};
use std::format;

/// Features whose instructions touch general registers, flags, segment bases and memory alone; and PKRU, which is
/// switched by the path itself.
fn is_integer(feature: CpuidFeature) -> bool {
    use CpuidFeature as F;
    matches!(
        feature,
        F::INTEL8086
            | F::INTEL186
            | F::INTEL286
            | F::INTEL386
            | F::INTEL486
            | F::X64
            | F::ADX
            | F::BMI1
            | F::BMI2
            | F::CET_IBT
            | F::CMOV
            | F::CMPXCHG16B
            | F::CX8
            | F::FSGSBASE
            | F::LZCNT
            | F::MOVBE
            | F::MULTIBYTENOP
            | F::PAUSE
            | F::PKU
            | F::POPCNT
            | F::PREFETCHW
            | F::RDPID
            | F::RDRAND
            | F::RDSEED
            | F::RDTSCP
            | F::TSC
    )
}

/// What came with SSE and touches no register of its own. They raise no #NM, either.
///
/// # Reference
/// Intel SDM volume 3, table 14-1 (which SSE instructions CR0.TS and CR0.EM concern).
fn is_sse_by_name_only(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Crc32
            | M::Lfence
            | M::Mfence
            | M::Movnti
            | M::Prefetchnta
            | M::Prefetcht0
            | M::Prefetcht1
            | M::Prefetcht2
            | M::Sfence
    )
}

/// Whether a register is FPU state.
fn is_fpu(register: Register) -> bool {
    register.is_vector_register()
        || register.is_st()
        || register.is_mm()
        || register.is_k()
        || register.is_tmm()
        || register.is_bnd()
}

/// Holds an instruction against the rules.
pub(super) fn check(instruction: &Instruction, info: &InstructionInfo) -> Result<(), Reason> {
    if let Some(used) = info.used_registers().iter().find(|used| is_fpu(used.register())) {
        return Err(Reason::Register(format!("{:?}", used.register())));
    }
    if instruction.mnemonic() == Mnemonic::Int3 {
        return Err(Reason::Breakpoint);
    }
    let is_system = match instruction.flow_control() {
        FlowControl::Interrupt => true,
        FlowControl::Return => instruction.mnemonic() != Mnemonic::Ret,
        _ => matches!(instruction.mnemonic(), Mnemonic::Syscall | Mnemonic::Sysenter),
    };
    if is_system || instruction.is_privileged() {
        return Err(Reason::System);
    }
    // Waits for the x87 FPU's exceptions, though the 8086 had it.
    if instruction.mnemonic() == Mnemonic::Wait {
        return Err(Reason::Feature(format!("{:?}", CpuidFeature::FPU)));
    }
    let foreign = instruction.cpuid_features().iter().find(|&&feature| !is_integer(feature));
    match foreign {
        Some(feature) if !is_sse_by_name_only(instruction.mnemonic()) => {
            Err(Reason::Feature(format!("{feature:?}")))
        }
        _ => Ok(()),
    }
}
