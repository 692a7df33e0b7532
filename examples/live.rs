use fpuswitch::{fpu::policy::*, live::*};
use std::time::Instant;
fn go<P: Policy + Send + 'static>(p: P, gate: Gate) {
    let name = p.name();
    let m = match Machine::start(p, Config { cpus: 1, gate, ..Config::default() }) {
        Ok(m) => m,
        Err(e) => {
            println!("{name}: {e}");
            return;
        }
    };
    let handles: Vec<_> = (0..2)
        .map(|i| {
            m.spawn(move || {
                let t = Instant::now();
                for _ in 0..1_000_000 {
                    syscall(Call::Null);
                }
                let null = t.elapsed().as_nanos() as f64 / 1e6;
                let t = Instant::now();
                for _ in 0..1_000_000 {
                    yield_now();
                }
                (i, null, t.elapsed().as_nanos() as f64 / 2e6)
            })
            .unwrap()
        })
        .collect();
    for h in handles {
        println!("{name}: {:?}", h.join().unwrap());
    }
    match m.gate() {
        GateReport::Bare(p) => println!("  bare {p:?}"),
        GateReport::Parked(w) => println!("  parked: {w}"),
        g => println!("  {g:?}"),
    }
    println!("  {:?}", m.shutdown());
}
fn main() {
    for gate in [Gate::Auto, Gate::Parked] {
        for p in Builtin::ALL.into_iter().filter(|_| false) {
            go(p, gate);
        }
        go(OwnerSlot, gate);
        go(Eager, gate);
        go(EagerOwner, gate);
        go(Deferred, gate);
        go(LazySave, gate);
        go(EntryExit, gate);
        go(CallBoundary, gate);
        go(FullLazy, gate);
    }
}
