//! Stories: events as text, and what each policy decides at every step.
//!
//! A line of a story is an event, or several, and behind `|` what [`Outcome`](fpuswitch::machine::Outcome)
//! prints: once, if the policies of [`COLUMNS`] decide alike, or five times, in their order. The same stories happen
//! under all other policies of the crate, whose decisions have stories of their own (`policies.rs`). A line without
//! `|` is only there to get on. Every invariant, and what the programs see, is checked after every event. User code
//! that writes its registers where the first-use trap is armed has its first use before.

use super::{Checked, events, register_files::on_every_register_file};
use fpuswitch::{
    ComponentSet,
    fpu::{Policy, policy::Builtin},
    machine::Outcome,
    registers::{RegisterFile, UserFrames},
};

/// T0 has run user code on c0, has 7 in AVX, and is in the kernel now; T1 is new, and T2 a kernel thread.
pub(crate) const T0_RAN: &str =
    "spawn T0; spawn T1; kernel-thread T2; in c0 T0; return c0 T0; user-write c0 AVX 7
    entry c0 interrupt";

/// The same, and T0 is switched out.
pub(crate) const T0_OUT: &str =
    "spawn T0; spawn T1; kernel-thread T2; in c0 T0; return c0 T0; user-write c0 AVX 7
    entry c0 interrupt; out c0; idle c0";

/// The policies that decide without a trap and save nothing at the entry.
pub(crate) const COLUMNS: [Builtin; 5] =
    [Builtin::Eager, Builtin::EagerOwner, Builtin::Deferred, Builtin::OwnerSlot, Builtin::LazySave];

/// How often registers were saved and restored.
pub(crate) type Costs = (u32, u32);

/// Lets a story happen under one policy, whose decisions are in that column if they are in any, and returns what
/// each event did.
#[track_caller]
pub(crate) fn tell<P: Policy, R: UserFrames + Clone>(
    checked: &mut Checked<P, R>,
    column: Option<usize>,
    story: &str,
) -> Vec<Outcome> {
    let mut told = Vec::new();
    let name = checked.machine.policy().name();
    for line in story.lines() {
        let (text, cells) = line.split_once('|').map_or((line, None), |(text, cells)| (text, Some(cells)));
        for event in events(text) {
            let outcome = match checked.apply_through_trap(event) {
                Ok(outcome) => outcome,
                Err(stopped) => panic!("{name}: {event}: {stopped}"),
            };
            told.push(outcome);
            let (Some(column), Some(cells)) = (column, cells) else { continue };
            let cells: Vec<_> = cells.split('|').map(str::trim).collect();
            let expected = if let [all] = cells[..] { all } else { cells[column] };
            assert_eq!(outcome.to_string(), expected, "{event} under {name}");
        }
    }
    told
}

/// Lets a story happen behind `before` under every policy and on every register file, which must make no
/// difference, and returns what the story cost under each policy of [`COLUMNS`].
#[track_caller]
pub(crate) fn tell_all(before: &str, story: &str) -> [Costs; 5] {
    tell_where(ComponentSet::EMPTY, before, story)
}

/// The same on the register files that have `needed` enabled: the story is about these.
#[track_caller]
pub(crate) fn tell_where(needed: ComponentSet, before: &str, story: &str) -> [Costs; 5] {
    let costs = Builtin::ALL.map(|policy| {
        let column = COLUMNS.iter().position(|other| *other == policy);
        let mut told = Vec::new();
        on_every_register_file!(|regs| if regs.enabled() & needed == needed {
            let mut checked = Checked::on(regs, policy, 2);
            checked.run(before);
            told.push(tell(&mut checked, column, story));
        });
        for other in &told {
            assert_eq!(other, &told[0], "{}: register files differ", policy.name());
        }
        let cost = |(saves, restores), done: &Outcome| (saves + done.saves(), restores + done.restores());
        (column, told[0].iter().fold((0, 0), cost))
    });
    let of = |wanted| costs.iter().find(|(column, _)| *column == Some(wanted)).map(|(_, cost)| *cost);
    [0, 1, 2, 3, 4].map(|column| of(column).expect("every column is a policy of the crate"))
}
