//! The story of the patch on real registers: which restores do not happen, and that nobody notices.
//!
//! `cargo run --example lazy_restore`. Every save and restore below is an instruction of this machine's CPU; each simulated
//! CPU has registers of its own (`fpuswitch::registers::HostRegs`).

use fpuswitch::{
    Component, CpuId, Current, Event, EventFile,
    check::{self, Spec},
    fpu::{Load, policy::OwnerSlot},
    machine::Machine,
    registers::{HostRegs, RegisterFile},
};
use std::error::Error;

/// A is T0, B is T1, and K is T2, a kernel thread. Headings end in a colon.
const STORY: &str = "
    A computes:
        spawn T0; spawn T1; kernel-thread T2; in c0 T0; return c0 T0; user-write c0 AVX 7; user-write c0 SSE 8
    A waits for the disk, the CPU is idle:
        entry c0 system-call; out c0; idle c0; in c0 T0; return c0 T0
    A waits, and kernel thread K runs in between:
        entry c0 interrupt; out c0; in c0 T2; out c0; in c0 T0; return c0 T0
    The kernel hashes two blocks with vector instructions while A waits:
        entry c0 system-call; kernel-fpu-begin c0 task; kernel-fpu-end c0
        kernel-fpu-begin c0 task; kernel-fpu-end c0; return c0 T0
    B gets the CPU, and uses the registers:
        entry c0 interrupt; out c0; in c0 T1; return c0 T1; user-write c0 AVX 99
        entry c0 system-call; out c0; in c0 T0; return c0 T0
";

fn main() -> Result<(), Box<dyn Error>> {
    let registers = match HostRegs::new() {
        Ok(registers) => registers,
        Err(error) => {
            println!("SKIPPED: {error}");
            return Ok(());
        }
    };
    println!(
        "Real registers, saved with {}. AVX: the first bytes of the upper half of YMM0.\n",
        registers.save_instruction()
    );
    let mut machine = Machine::with_registers(OwnerSlot, 1, registers.clone());
    let mut spec = Spec::new(registers.enabled());
    let (mut restored, mut skipped) = (0, 0);

    for line in STORY.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.ends_with(':') {
            println!("{line}");
            continue;
        }
        let events: EventFile = line.replace("; ", "\n").parse()?;
        for (_, event) in events.events {
            let outcome = machine.apply(event)?;
            spec.apply(event);
            check::check(&machine, &spec)?;
            restored += outcome.restores();
            skipped += outcome.restores_skipped();

            let cpu = machine.cpu(CpuId(0)).ok_or("a machine has a CPU")?;
            let upper = cpu.regs().read_back(Component::AVX)?;
            let not_done =
                if outcome.load == Some(Load::Skipped) { "  <- no restore: they are A's still" } else { "" };
            println!(
                "    {:30} {:28} AVX {:02x?}{not_done}",
                event.to_string(),
                outcome.to_string(),
                &upper[..4]
            );

            // What A sees when it gets to user mode is what it wrote.
            if let (Event::Return(..), Current::Task(task)) = (event, cpu.current()) {
                let seen = cpu.regs().get(Component::AVX);
                assert_eq!(spec.state(task).and_then(|state| state.value(Component::AVX)), Some(seen));
            }
        }
    }
    println!("\n{restored} restores done, {skipped} not done; every value as its program left it.");
    assert!(skipped > 0 && restored > 0);
    Ok(())
}
