//! The CPU that this runs on against its description in `cpus/`.

use super::cpus::CPUS;
use fpuswitch::{
    ComponentSet,
    registers::{HostCpu, HostRegs},
    xstate::{CpuidDump, Layout},
};
use std::env;

/// Names the file of `cpus/`, where this runs on a CPU that has one.
const NAME: &str = "FPUSWITCH_CPU";

/// And so are the software registers that its own are compared with here.
#[test]
fn hardware_the_cpu_is_the_one_described() {
    let Ok(name) = env::var(NAME) else {
        println!("HARDWARE described: SKIPPED: {NAME} names no CPU");
        return;
    };
    let (_, text) = CPUS.iter().find(|(known, _)| *known == name).expect("a file of cpus/");
    let described = Layout::from_cpuid(&text.parse::<CpuidDump>().expect("a description"));
    let cpu = HostCpu::new().expect("an x86-64 Linux host");
    // MXCSR_MASK is not from CPUID: the image of an FXSAVE has it.
    let [described, found] = [described, Layout::from_cpuid(&cpu)]
        .map(|layout| layout.expect("no contradiction").with_mxcsr_mask(u32::MAX));
    assert_eq!(found, described, "{name}");

    // x87 to Hi16_ZMM, and PKRU: what is compared with software registers of this layout.
    let compared = ComponentSet::from_bits(0x2ff);
    let host = HostRegs::new().expect("an x86-64 Linux host");
    assert_eq!(host.layout().with_mxcsr_mask(u32::MAX), described.restricted_to(compared), "{name}");
    println!("HARDWARE described: ran");
}
