//! `fpuswitch explore`.

mod corpus;
mod json;
mod plain;

use crate::{Named, Status, bug::NamedBug, complain, print};
use clap::{ValueEnum, builder::PossibleValue};
use fpuswitch::{
    check::{Explored, Group, Judge, Planted, Scope, Violation, corpus::Tier, serve},
    fpu::{
        PkruMode, Policy,
        policy::{Builtin, TrapRestore},
    },
    registers::UserFrames,
};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The policy: eager, eager-owner, trap-restore, full-lazy, deferred, owner-slot, lazy-save, entry-exit,
    /// call-boundary or use-class. Without: owner-slot, and for a bug of the corpus the one that it names. trap-restore
    /// loads at switch-in behind one slice with a use here, not behind six, which takes many times the states.
    #[arg(long, value_name = "NAME")]
    policy: Option<Named>,
    /// CPUs, 1 to 3.
    #[arg(long, value_name = "N", default_value_t = 2)]
    cpus: usize,
    /// User tasks at a time, 1 to 3.
    #[arg(long, value_name = "N", default_value_t = 2)]
    tasks: usize,
    /// What can happen beside the core, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',')]
    groups: Vec<Groups>,
    /// Threads that search. With more than one, the list of a violation need not be a shortest one. Without: as many
    /// as there are cores, and one for the bugs of the corpus.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// A bug of the corpus, by its name or its number: explore the mechanism with its defect, and the groups that it
    /// needs. Where it shows on bytes alone, its list happens on software registers instead.
    #[arg(
        long, value_name = "ID", conflicts_with_all = ["cpus", "tasks", "groups", "threads", "pkru_in_xsave"]
    )]
    defect: Option<NamedBug>,
    /// All bugs of the corpus, a line each, and what of the catalogue is not in it.
    #[arg(
        long, conflicts_with_all = ["defect", "serve", "events", "cpus", "tasks", "groups", "threads", "pkru_in_xsave"]
    )]
    corpus: bool,
    /// Count as a violation what user code and readers of its state see, and nothing else.
    #[arg(long)]
    user_code: bool,
    /// Keep PKRU inside XSAVE images instead of switching it eagerly. Not under a policy that traps.
    #[arg(long)]
    pkru_in_xsave: bool,
    /// Serve a page there, such as localhost:3000, on which states and operations can be followed one by one.
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["json", "events"])]
    serve: Option<String>,
    /// Print JSON: one object, or with --corpus one a line.
    #[arg(long)]
    json: bool,
    /// Write the events of a violation to a file, which `run` replays.
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
}

/// Groups chosen by name.
#[derive(Clone, Copy)]
enum Groups {
    One(Group),
    All,
}

impl ValueEnum for Groups {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [Groups; Group::ALL.len() + 1] = {
            let mut all = [Groups::All; Group::ALL.len() + 1];
            let mut n = 0;
            while n < Group::ALL.len() {
                all[n] = Groups::One(Group::ALL[n]);
                n += 1;
            }
            all
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::One(group) => group.name(),
            Self::All => "all",
        }))
    }
}

impl Arguments {
    fn judge(&self) -> Judge {
        if self.user_code { Judge::UserCode } else { Judge::Invariants }
    }

    fn scope(&self) -> Scope {
        let groups = self.groups.iter().flat_map(|groups| match groups {
            Groups::One(group) => std::slice::from_ref(group),
            Groups::All => &Group::ALL,
        });
        let threads = self.threads.map_or_else(cores, usize::from);
        let pkru_mode = if self.pkru_in_xsave { PkruMode::InXsave } else { PkruMode::Eager };
        let (cpus, tasks, judge) = (self.cpus, self.tasks, self.judge());
        Scope { cpus, tasks, groups: groups.copied().collect(), pkru_mode, judge, threads }
    }

    fn policy(&self) -> Builtin {
        let of_bug = self.defect.map(|NamedBug(bug)| bug.policy);
        self.policy.map(|Named(policy)| policy).or(of_bug).unwrap_or(Builtin::OwnerSlot)
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub(crate) fn explore(arguments: &Arguments) -> Status {
    if arguments.corpus {
        return corpus::all(arguments);
    }
    let policy = Explored::from(arguments.policy());
    match (&arguments.serve, arguments.defect) {
        (None, None) => plain::explore(policy, arguments),
        (None, Some(NamedBug(bug))) => corpus::one(bug, arguments),
        (Some(address), None) => serve_at(address, policy, &arguments.scope()),
        (Some(address), Some(NamedBug(bug))) if bug.tier == Tier::Explorer => {
            let scope = fpuswitch::check::corpus::scope(bug, arguments.judge());
            serve_at(address, Planted { policy, defect: bug.defect }, &scope)
        }
        (Some(_), Some(_)) => complain("--serve", &NothingToExplore),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("this bug shows on bytes alone, which are not explored: expected --defect without --serve")]
struct NothingToExplore;

fn serve_at<P: Policy + Send + Sync + 'static>(address: &str, policy: P, scope: &Scope) -> Status {
    let name = policy.name();
    let ready = |address| print(format_args!("{name}, {scope}: http://{address}/, until Ctrl-C\n"));
    match serve(policy, scope, address, ready) {
        Ok(()) => Status::Fine,
        Err(error) => complain(&format!("--serve {address}"), &error),
    }
}

/// Writes the events of a violation to the file that was asked for, and says how they are replayed.
fn write_events<R: UserFrames, P: Policy>(violation: &Violation<R, P>, arguments: &Arguments) -> Status {
    let Some(file) = &arguments.events else { return Status::Fine };
    if let Err(error) = std::fs::write(file, violation.event_file()) {
        return complain(&file.display().to_string(), &error);
    }
    if !arguments.json {
        print(format_args!("{}", Replay { arguments, file }));
    }
    Status::Fine
}

/// How a written list is replayed.
struct Replay<'a> {
    arguments: &'a Arguments,
    file: &'a Path,
}

impl std::fmt::Display for Replay<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let policy = self.arguments.policy();
        write!(f, "Replay it with: fpuswitch run --policy {}", policy.name())?;
        if policy.name() == TrapRestore::default().name() {
            write!(f, " --slices 0")?;
        }
        if let Some(NamedBug(bug)) = self.arguments.defect {
            write!(f, " --defect {}", bug.id)?;
        }
        if self.arguments.pkru_in_xsave {
            write!(f, " --pkru-in-xsave")?;
        }
        writeln!(f, " {}", self.file.display())
    }
}
