//! What the tests have in common.

use fpuswitch::{
    fpu::policy::{
        CallBoundary, Deferred, Eager, EagerOwner, EntryExit, FullLazy, LazySave, OwnerSlot, TrapRestore,
        UseClass,
    },
    live::{Config, LiveError, Machine},
};
use std::{
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

/// The policies under which green threads run.
pub(crate) const POLICIES: [&str; 7] =
    ["eager", "eager-owner", "deferred", "owner-slot", "lazy-save", "entry-exit", "call-boundary"];

/// A machine under the policy of that name.
pub(crate) fn start(policy: &str, config: Config) -> Result<Machine, LiveError> {
    match policy {
        "eager" => Machine::start(Eager, config),
        "eager-owner" => Machine::start(EagerOwner, config),
        "deferred" => Machine::start(Deferred, config),
        "owner-slot" => Machine::start(OwnerSlot, config),
        "lazy-save" => Machine::start(LazySave, config),
        "entry-exit" => Machine::start(EntryExit, config),
        "call-boundary" => Machine::start(CallBoundary, config),
        "trap-restore" => Machine::start(TrapRestore::default(), config),
        "full-lazy" => Machine::start(FullLazy, config),
        "use-class" => Machine::start(UseClass, config),
        name => panic!("no policy {name}"),
    }
}

/// A machine with that many CPUs.
pub(crate) fn machine(cpus: u32) -> Machine {
    start("owner-slot", Config { cpus, ..Config::default() }).expect("a machine")
}

/// The OS thread that is calling.
pub(crate) fn os_thread() -> i32 {
    #[expect(unsafe_code, reason = "a system call")]
    // SAFETY: it takes nothing and cannot fail (gettid(2)).
    unsafe {
        libc::gettid()
    }
}

/// Counts how often values are dropped.
#[derive(Clone, Default)]
pub(crate) struct Drops(Arc<AtomicUsize>);

impl Drops {
    pub(crate) fn value(&self) -> Counted {
        Counted(Arc::clone(&self.0))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(SeqCst)
    }
}

pub(crate) struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Which of `child.rs`'s stories a process tells.
pub(crate) const STORY: &str = "FPUSWITCH_LIVE_STORY";

/// Runs one of `child.rs`'s stories in a process of its own.
pub(crate) fn tell(story: &str, variables: &[(&str, &str)]) -> Output {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args(["--ignored", "--exact", "child::story", "--nocapture"]).env(STORY, story);
    command.env_remove("RUST_BACKTRACE");
    command.envs(variables.iter().copied()).output().expect("a process")
}

/// What a process wrote to its standard error output.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
