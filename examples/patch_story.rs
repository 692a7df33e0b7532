//! The 2016 patch series in one page: what four policies do at each step of six short stories.
//!
//! `cargo run --example patch_story`. `eager-owner` is what Linux had, `owner-slot` is the series.

use fpuswitch::{
    Event, EventFile,
    check::{self, Spec},
    fpu::{Policy, policy::Builtin},
    machine::{Machine, Outcome},
    registers::{AbstractRegs, RegisterFile},
};
use std::{error::Error, fmt};

const POLICIES: [Builtin; 4] = [Builtin::Eager, Builtin::EagerOwner, Builtin::Deferred, Builtin::OwnerSlot];

/// Every story begins with A (T0) in user mode on c0, its registers written, another user task B (T1), and a
/// kernel thread (T2).
const BEGINNING: &str = "
    spawn T0
    spawn T1
    kernel-thread T2
    in c0 T0
    return c0 T0
    user-write c0 AVX 7
";

/// Title, and what happens: events, a step of the story behind the last event of each.
const STORIES: [(&str, &str); 6] = [
    (
        "A waits for the disk, nobody else wants the CPU",
        "entry c0 system-call
         out c0
         idle c0                  # A waits: A -> idle
         in c0 T0                 # idle -> A
         return c0 T0             # A returns to user",
    ),
    (
        "A kernel thread runs in between",
        "entry c0 interrupt
         out c0
         in c0 T2                 # A -> kernel thread
         out c0
         in c0 T0                 # kernel thread -> A
         return c0 T0             # A returns to user",
    ),
    (
        "A blocks again before it leaves the kernel",
        "entry c0 system-call
         out c0
         in c0 T1                 # A waits for B: A -> B
         return c0 T1             # B returns to user
         entry c0 system-call
         out c0
         in c0 T0                 # B -> A
         out c0
         in c0 T1                 # nothing there yet: A -> B
         return c0 T1             # B returns to user",
    ),
    (
        "The kernel hashes three blocks with vector instructions",
        "entry c0 system-call
         kernel-fpu-begin c0 task
         kernel-fpu-end c0        # first kernel FPU section
         kernel-fpu-begin c0 task
         kernel-fpu-end c0        # second
         kernel-fpu-begin c0 task
         kernel-fpu-end c0        # third
         return c0 T0             # A returns to user",
    ),
    (
        "A moves to another CPU, runs there, and comes back",
        "entry c0 interrupt
         out c0
         idle c0                  # A leaves c0
         migrate T0 c1
         in c1 T0                 # A comes to c1
         return c1 T0             # A returns to user
         user-write c1 AVX 8
         entry c1 interrupt
         out c1
         idle c1                  # A leaves c1
         migrate T0 c0
         in c0 T0                 # A comes to c0, whose registers are old
         return c0 T0             # A returns to user",
    ),
    (
        "A debugger writes A's registers while A is stopped",
        "entry c0 exception
         out c0
         idle c0                  # A stops at a breakpoint
         read T0 AVX              # the debugger reads
         write T0 AVX 9           # and writes the image
         in c0 T0                 # A is let go
         return c0 T0             # A returns to user",
    ),
];

struct Simulation {
    machine: Machine<AbstractRegs, Builtin>,
    spec: Spec,
}

impl Simulation {
    fn new(policy: Builtin) -> Self {
        let spec = Spec::new(AbstractRegs::default().enabled());
        Self { machine: Machine::new(policy, 2), spec }
    }

    /// Lets an event happen; every invariant holds behind it.
    fn apply(&mut self, event: Event) -> Result<Outcome, Box<dyn Error>> {
        let outcome = self.machine.apply(event)?;
        self.spec.apply(event);
        check::check(&self.machine, &self.spec)?;
        Ok(outcome)
    }
}

/// Saves, restores, and restores skipped.
#[derive(Clone, Copy, Default)]
struct Work([u32; 3]);

impl Work {
    fn add(&mut self, outcome: &Outcome) {
        let more = [outcome.saves(), outcome.restores(), outcome.restores_skipped()];
        self.0.iter_mut().zip(more).for_each(|(count, more)| *count += more);
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.0.iter().zip(["save", "restore", "(skip)"]);
        let words: Vec<_> = words.filter(|(count, _)| **count > 0).map(|(_, word)| word).collect();
        f.pad(&if words.is_empty() { "·".to_string() } else { words.join(" ") })
    }
}

fn row(what: &str, cells: impl Iterator<Item = String>) {
    let cells: String = cells.collect();
    println!("{what:46}{}", cells.trim_end());
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut totals = [Work::default(); POLICIES.len()];
    row("", POLICIES.iter().map(|policy| format!("{:14}", policy.name())));
    for (title, story) in STORIES {
        println!("{title}");
        let mut simulations = POLICIES.map(Simulation::new);
        for (_, event) in BEGINNING.parse::<EventFile>()?.events {
            for simulation in &mut simulations {
                let _ = simulation.apply(event)?;
            }
        }
        let mut step = [Work::default(); POLICIES.len()];
        for line in story.lines() {
            let (event, caption) = line.split_once('#').unwrap_or((line, ""));
            let event: Event = event.parse()?;
            for (policy, simulation) in simulations.iter_mut().enumerate() {
                let outcome = simulation.apply(event)?;
                step[policy].add(&outcome);
                totals[policy].add(&outcome);
            }
            if !caption.is_empty() {
                row(&format!("  {}", caption.trim()), step.iter().map(|work| format!("{work:14}")));
                step = Default::default();
            }
        }
    }
    let [eager, eager_owner, deferred, owner_slot] =
        totals.map(|Work([saves, restores, _])| (saves, restores));
    row("in all: saves/restores", totals.iter().map(|Work([s, r, _])| format!("{:14}", format!("{s}/{r}"))));
    // The series saves no more than a policy that never looks at the owner, and restores less than all others.
    assert!(owner_slot.0 == deferred.0 && owner_slot.0 < eager_owner.0 && eager_owner.0 == eager.0);
    assert!(owner_slot.1 < deferred.1 && owner_slot.1 < eager_owner.1 && eager_owner.1 < eager.1);
    Ok(())
}
