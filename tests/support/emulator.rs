//! What CPUs, and QEMU's software CPU, do otherwise than the manual: the tests leave it out there, and say so.

use fpuswitch::{
    Rfbm,
    registers::{HostCpu, HostRegs, RegisterFile},
    xstate::{Component, CpuidReader, SaveInstruction},
};

/// Whether this is QEMU's software CPU. It takes reserved bits of MXCSR, and moves MXCSR only with SSE, not with AVX.
pub(crate) fn is_qemu_tcg() -> bool {
    const HYPERVISOR: u32 = 1 << 31;
    let Ok(cpu) = HostCpu::new() else { return false };
    cpu.cpuid(1, 0).ecx & HYPERVISOR != 0 && {
        let name = cpu.cpuid(0x4000_0000, 0);
        twelve([name.ebx, name.ecx, name.edx]) == *b"TCGTCGTCGTCG"
    }
}

/// FOP, FIP and FDP: where they are in x87's bytes, and in an area.
pub(crate) const LAST_X87_INSTRUCTION: core::ops::Range<usize> = 6..24;

/// Whether FXRSTOR and FXSAVE keep FOP, FIP and FDP. AMD's CPUs do not while no exception is pending: older ones leave
/// what was there, those with RstrFpErrPtrs (seen on a Zen 3) put zeros there. QEMU's do not at all.
///
/// # Panics
/// Any other CPU does not: then it is not the CPU.
pub(crate) fn keeps_x87_pointers() -> bool {
    let Ok(host) = HostRegs::new() else { return true };
    let mut host = host.with_save_instruction(SaveInstruction::Fxsave).expect("every CPU has it");
    let mut image = host.new_image();
    let pointers = b"\x5a\x05FIP!\0\0\0\0FDP!\0\0\0\0";
    image.area_mut().bytes_mut()[LAST_X87_INSTRUCTION].copy_from_slice(pointers);
    host.restore(Rfbm::ALL, &image).expect("nothing that is looked at");
    let keeps = host.read_back(Component::X87).expect("x87")[LAST_X87_INSTRUCTION] == *pointers;
    assert!(keeps || is_qemu_tcg() || is_amd(), "x87's pointers were lost");
    keeps
}

fn is_amd() -> bool {
    let Ok(cpu) = HostCpu::new() else { return false };
    let vendor = cpu.cpuid(0, 0);
    [*b"AuthenticAMD", *b"HygonGenuine"].contains(&twelve([vendor.ebx, vendor.edx, vendor.ecx]))
}

fn twelve(registers: [u32; 3]) -> [u8; 12] {
    std::array::from_fn(|n| registers[n / 4].to_le_bytes()[n % 4])
}
