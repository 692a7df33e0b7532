//! The corpus of historic bugs: each searched for, as docs/corpus.md and the lists of events in corpus/ have it.
//!
//! `cargo run --release --features explore --example corpus` writes these files anew, and with `--check` behind `--` it only
//! compares them. Every bug is searched for twice: with every invariant, and with what user code sees alone.

use fpuswitch::{
    check::{
        Judge,
        corpus::{Bug, Finding, OUT_OF_SCOPE, Tier, bugs, find, scope},
    },
    fpu::{Policy, policy::Builtin},
};
use std::{
    error::Error,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

const HEADER: &str = "\
| number | bug | year | system | source | invariant | tier | policy | events | as user code sees it | states |
|---|---|---|---|---|---|---|---|---|---|---|
";

/// A bug, searched for with every invariant, and with what user code sees alone.
pub(crate) struct Searched {
    pub(crate) bug: &'static Bug,
    found: Finding,
    /// `None` where nothing is explored.
    seen: Option<Finding>,
}

impl Searched {
    pub(crate) fn new(bug: &'static Bug) -> Self {
        let explores = bug.tier == Tier::Explorer && !bug.harmless;
        Self { bug, found: find(bug, Judge::Invariants), seen: explores.then(|| find(bug, Judge::UserCode)) }
    }

    /// Whether the search says of the bug what the corpus does.
    pub(crate) fn is_as_said(&self) -> bool {
        self.found.invariant() == (!self.bug.harmless).then_some(self.bug.invariant)
    }

    /// The row of the table.
    pub(crate) fn row(&self) -> String {
        let Bug { id, number, system, source, what, invariant, tier, .. } = self.bug;
        let (year, policy) = (year(self.bug), self.bug.policy.name());
        let events = self.found.length();
        let seen = match &self.seen {
            Some(seen) if seen.breach.is_some() => seen.length().to_string(),
            Some(_) => "–".into(),
            None => String::new(),
        };
        let states = if *tier == Tier::Explorer { self.found.states.to_string() } else { String::new() };
        let tier = match tier {
            Tier::Explorer => "explorer",
            Tier::Software => "software",
            Tier::Host => "host",
        };
        format!(
            "| {number} | `{id}`: {what} | {year} | {system} | {source} | {invariant} | {tier} | `{policy}` | {events} | {seen} \
             | {states} |\n"
        )
    }

    /// The file of its events, and what ought to be in it; `None` where the list was written by hand, or nothing was found.
    pub(crate) fn list(&self) -> Option<(PathBuf, String)> {
        let explored = self.bug.tier == Tier::Explorer && !self.bug.harmless;
        let Bug { id, what, invariant, .. } = self.bug;
        let policy = self.bug.policy.name();
        let counting = match self.bug.policy {
            Builtin::TrapRestore => ", which loads at switch-in behind the first slice with a use",
            _ => "",
        };
        let mut list = format!(
            "# {}.\n# Breaks {invariant} behind the last event, under {policy}{counting}.\n",
            capital(what)
        );
        self.found.events.iter().for_each(|event| list += &format!("{event}\n"));
        (explored && self.found.breach.is_some()).then(|| (root().join(format!("corpus/{id}.events")), list))
    }
}

fn year(bug: &Bug) -> String {
    if bug.year == 0 { "–".into() } else { bug.year.to_string() }
}

fn capital(what: &str) -> String {
    let (first, rest) = what.split_at(what.chars().next().map_or(0, char::len_utf8));
    first.to_uppercase() + rest
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All of them, in the order of the catalogue, with as many threads as there are cores.
fn search() -> Vec<Searched> {
    let next = AtomicUsize::new(0);
    let work = || -> Vec<_> {
        let mut found = Vec::new();
        while let at = next.fetch_add(1, Ordering::Relaxed)
            && let Some(bug) = bugs().get(at)
        {
            found.push((at, Searched::new(bug)));
        }
        found
    };
    let mut found: Vec<_> = thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a search ends")).collect()
    });
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, searched)| searched).collect()
}

/// The text of docs/corpus.md.
fn text(all: &[Searched]) -> String {
    let (harmless, wrong): (Vec<_>, Vec<_>) = all.iter().partition(|searched| searched.bug.harmless);
    let explored = wrong.iter().filter(|searched| searched.seen.is_some()).count();
    let latent = wrong.iter().filter(|searched| match &searched.seen {
        Some(seen) => seen.breach.is_none(),
        None => false,
    });
    let mut text = format!(
        "# The corpus\n\n{INTRODUCTION}\n{HEADER}{rows}\n\
         {count} bugs; {explored} are found by exploration, {by_hand} by a list on registers with bytes. Of the explored ones, {latent} \
         are not seen to reach user code in the scope in which they are searched for.\n\n{COLUMNS}",
        rows = wrong.iter().map(|searched| searched.row()).collect::<String>(),
        count = wrong.len(),
        by_hand = wrong.len() - explored,
        latent = latent.count(),
    );
    text += "\n## What is harmless\n\n\
        Changes that look like errors and are none. Every state is gone through, and nothing is found.\n\n\
        | change | system | what it is | policy | scope | states |\n|---|---|---|---|---|---|\n";
    for Searched { bug, found, .. } in harmless {
        let scope = scope(bug, Judge::Invariants);
        let Bug { id, what, system, source, .. } = bug;
        let policy = bug.policy.name();
        let _ = writeln!(
            text,
            "| `{id}`: {what} | {system} | {source} | `{policy}` | {scope} | {} |",
            found.states
        );
    }
    text += "\n## What is not in it\n\n\
        Bugs of the catalogue that are none here.\n\n| number | bug | why not |\n|---|---|---|\n";
    for (number, what, why) in OUT_OF_SCOPE {
        let _ = writeln!(text, "| {number} | {what} | {why} |");
    }
    text + COMMANDS
}

const INTRODUCTION: &str = "\
Bugs that kernels and runtimes had in switching FPU state. Each is an error in the mechanism that can be switched on
(`fpu::Defect`), and a list of events in `corpus/` behind whose last one an invariant is broken. `check::corpus` has them for programs;
`tests/corpus.rs` lets the lists happen on every register file that has what they name. This page and the lists are made by
`examples/corpus.rs`, and `tests/corpus_table.rs` holds them against it.
";

const COLUMNS: &str = "\
## What the columns say

| column | |
|---|---|
| number | of the catalogue; `pattern` is an error that several bugs have in common, letters tell apart bugs of one kind |
| bug | the name, which is that of its file in `corpus/` too, and what goes wrong |
| year | when it was found or mended; – where there is no such year |
| system, source | whose bug it was; a commit, a CVE, or where to look |
| invariant | what is broken behind the last event ([protocol.md](protocol.md#invariants)) |
| tier | *explorer*: on abstract registers, found by exploring every state, and shown on all register files that have the components. *software*: only where registers have bytes. *host*: on real registers too |
| policy | the one that it is planted under. `trap-restore` is explored with a count of one ([testing.md](testing.md#every-state)) |
| events | the length of a list with the fewest operations, with every invariant checked behind every event. Of the tiers software and host: of the list that was written by hand |
| as user code sees it | the length of a list with the fewest operations behind which user code finds what it ought not to, or a reader of its state does (`Judge::UserCode`); – where the search ends without it, which is [no proof](testing.md#which-states-are-told-apart). Nothing where nothing is explored |
| states | how many states were gone through until it was found, with one thread, with every invariant. Nothing where nothing is explored |

The scope is two CPUs and two slots for user tasks, with the core and the groups of events that the bug needs (`corpus::scope`).

## How long a list is

What counts is what happens behind the [beginning](testing.md#every-state) of every exploration (`corpus::length`): a switch from one task to
another counts as one event, and so does a kernel FPU section; an attempt to write or to read a signal frame counts with the
delivery or the fault-in that leads to it; what user code writes, and what becomes of frames in memory, counts nothing. The files have every event.
";

const COMMANDS: &str = "
## Commands

| | |
|---|---|
| `cargo run --release --features explore --example corpus` | searches for every bug, and writes this page and the lists anew |
| `cargo run --release --features explore --example corpus -- --check` | only compares them |
| `cargo test --release --features explore --test corpus --test corpus_table` | the lists on every register file, and this page |
";

/// The files that are made here, with what ought to be in them, and whether every search ended as the corpus says.
pub(crate) fn files() -> (Vec<(PathBuf, String)>, bool) {
    let all = search();
    let page = (root().join("docs/corpus.md"), text(&all));
    let lists = all.iter().filter_map(Searched::list);
    let is_as_said = all.iter().all(Searched::is_as_said);
    for searched in all.iter().filter(|searched| !searched.is_as_said()) {
        eprintln!(
            "{}: {:?}, not {}",
            searched.bug.id,
            searched.found.breach.as_ref(),
            searched.bug.invariant
        );
    }
    ([page].into_iter().chain(lists).collect(), is_as_said)
}

/// The names of those files that have something else in them.
pub(crate) fn others(files: &[(PathBuf, String)]) -> Vec<String> {
    let differs = |(path, text): &&(PathBuf, String)| fs::read_to_string(path).ok().as_ref() != Some(text);
    files.iter().filter(differs).map(|(path, _)| path.display().to_string()).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let only_compares = std::env::args().skip(1).any(|argument| argument == "--check");
    let (files, is_as_said) = files();
    let others = others(&files);
    if only_compares {
        if !others.is_empty() {
            return Err(format!("not as the code makes them: {}", others.join(", ")).into());
        }
    } else {
        for (path, text) in &files {
            fs::write(path, text)?;
        }
        println!("{} files, {} of them changed", files.len(), others.len());
    }
    assert!(is_as_said, "a bug is not found, or breaks something else");
    Ok(())
}
