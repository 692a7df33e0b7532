//! Green threads on the real registers.

#[path = "../support/accesses.rs"]
mod accesses;
mod child;
mod control_words;
#[path = "../support/emulator.rs"]
mod emulator;
mod errors;
mod faults;
mod kernel_threads;
mod parking;
#[path = "../support/pkeys.rs"]
mod pkeys;
mod pkru;
mod placement;
mod preempted_code;
mod preemption;
mod scale;
mod signals;
#[path = "../support/live_steps.rs"]
mod steps;
mod support;
mod threads;
mod wrong_keys;

use fpuswitch::{
    Value,
    fpu::policy::OwnerSlot,
    live::{Call, Config, Gate, GateReport, Machine, preemptible},
};
use std::time::{Duration, Instant};
use steps::Pattern;

/// Threads whose registers are full keep them, whoever else runs, however they lose the CPU.
#[test]
fn hardware_threads_keep_their_registers() {
    for gate in [Gate::Auto, Gate::Parked] {
        let tick = Some(Duration::from_micros(200));
        let machine = Machine::start(OwnerSlot, Config { cpus: 2, gate, tick, ..Config::default() })
            .expect("a machine");
        let run = |number: u8| {
            let mut pattern = Pattern::new(Value::new(number).expect("a small number"));
            for _ in 0..2_000 {
                assert!(pattern.survives(Call::Yield), "{}", pattern.difference());
            }
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(100) {
                #[expect(unsafe_code, reason = "a region that may be preempted")]
                // SAFETY: the region is asm that touches registers and memory of its own.
                let survived = unsafe { preemptible(|| pattern.survives_turns(100_000)) };
                assert!(survived, "{}", pattern.difference());
            }
        };
        let threads: Vec<_> = (0..=8).map(|n| machine.spawn(move || run(n)).expect("a thread")).collect();
        for thread in threads {
            thread.join().expect("no difference");
        }
        assert!(gate == Gate::Auto || matches!(machine.gate(), GateReport::ParkedAsked));
        let counts = machine.shutdown();
        assert!(counts.preemptions > 0 && counts.saves > 2_000, "{counts:?}");
    }
    println!("HARDWARE live-registers: ran");
}
