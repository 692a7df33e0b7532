//! The register files on which the tests of the protocol run: the list is here, and nowhere else.

use fpuswitch::{
    registers::SoftRegs,
    xstate::{CpuidDump, Layout},
};

/// Evaluates a body on every register file there is, each given as a reference to blank registers.
///
/// A macro, as they are of different types, and for the same reason no closure: `?` and `return` leave the test.
/// It prints whose turn it is, so that the last such line in the output of a test that failed names the one.
/// The real registers are left out where there are none, or no AVX, which stories write:
/// `hardware_does_what_abstract_registers_do` says so, and runs without AVX.
macro_rules! on_every_register_file {
    (|$regs:ident| $body:expr) => {
        on_every_register_file!(@on $regs, $body, fpuswitch::registers::AbstractRegs::default());
        for soft in $crate::support::register_files::software_cpus() {
            on_every_register_file!(@on $regs, $body, soft);
        }
        #[cfg(feature = "host")]
        if let Some(host) = $crate::support::register_files::host() {
            on_every_register_file!(@on $regs, $body, host);
        }
    };
    (@on $regs:ident, $body:expr, $blank:expr) => {{
        let $regs = &$blank;
        println!("on {}", std::any::type_name_of_val($regs));
        $body
    }};
}

pub(crate) use on_every_register_file;

/// The real registers, if they have all that stories write.
#[cfg(feature = "host")]
pub(crate) fn host() -> Option<fpuswitch::registers::HostRegs> {
    use fpuswitch::{Component, registers::RegisterFile};
    let host = fpuswitch::registers::HostRegs::new().ok()?;
    host.enabled().contains(Component::AVX).then_some(host)
}

/// CPUs that differ in what they have: AVX-512 and PKRU, whose failed restores tear the registers; no PKRU, no
/// XSAVEC, no XGETBV(1); MPX; tiles.
pub(crate) fn software_cpus() -> [SoftRegs; 4] {
    let cpu = |text: &str| {
        let dump: CpuidDump = text.parse().expect("a description");
        SoftRegs::new(&Layout::from_cpuid(&dump).expect("no contradiction"))
    };
    [
        SoftRegs::default().with_torn_restores(true),
        cpu(include_str!("../../cpus/qemu-haswell.txt")),
        cpu(include_str!("../../cpus/qemu-max.txt")),
        cpu(include_str!("../../cpus/sapphire-rapids.txt")).with_torn_restores(true),
    ]
}
