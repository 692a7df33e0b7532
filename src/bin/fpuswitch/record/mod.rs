//! `fpuswitch record`: what the running kernel does, as ftrace text.
//!
//! ```text
//! tracefs.rs (found or mounted) → instance.rs (events, functions, buffers) → order.rs (lines by time) → sink.rs (file, gzip)
//! ```
//!
//! Everything that is changed on the system is in an [`Instance`](instance::Instance) or a
//! [`Tracefs`](tracefs::Tracefs), which undo it when dropped: at the end, on an error, on a panic, and on the
//! signals that ask to end, which only set a flag.

mod error;
mod instance;
mod order;
mod sink;
mod tracefs;
mod workload;

use crate::{Status, complain};
use error::RecordError;
use instance::{Functions, Given, Instance, Loss};
use signal_hook::{
    consts::{
        SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU,
        SIGXFSZ,
    },
    flag,
};
use sink::{Sink, Target};
use std::{
    ffi::OsString,
    fmt, io,
    path::{Path, PathBuf},
    process::{self, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tracefs::Tracefs;
use workload::Workload;

/// Between two looks at an empty buffer, and at whether the command has ended.
const PAUSE: Duration = Duration::from_millis(50);

/// The signals that end a program by default, but for those that mean a crash: here they end the recording.
const ENDING: [i32; 12] = [
    SIGINT,
    SIGTERM,
    SIGHUP,
    SIGQUIT,
    SIGUSR1,
    SIGUSR2,
    SIGALRM,
    SIGVTALRM,
    SIGPROF,
    SIGXCPU,
    SIGIO,
    rustix::process::Signal::POWER.as_raw(),
];

/// Added to the recorder's nice value: it has to keep up with everybody else.
const FAVOURED: i32 = -10;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Stop after N seconds; a command that still runs by then is waited for, but not recorded any more.
    #[arg(long, value_name = "N", value_parser = seconds)]
    seconds: Option<Duration>,
    /// Where the text goes: compressed if the name ends in .gz; - for standard output.
    #[arg(long, value_name = "FILE", default_value = "recording.txt.gz")]
    out: PathBuf,
    /// The kernel's buffer, in KiB a CPU. It has to hold what happens while the text is written.
    #[arg(long, value_name = "KIB", default_value_t = 16384, value_parser = clap::value_parser!(u32).range(64..=4 << 20))]
    buffer_kb: u32,
    /// A command to run while recording, as the same user.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0);
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or("expected a number of seconds above 0")
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Time,
    Command,
    Signal,
}

/// A recording that is complete.
#[derive(Debug)]
struct Recorded {
    ended: Ended,
    lines: u64,
    duration: Duration,
    losses: Vec<Loss>,
    cpus: usize,
}

pub(crate) fn record(arguments: &Arguments) -> Status {
    run(arguments).unwrap_or_else(|error| complain("record", &error))
}

fn run(arguments: &Arguments) -> Result<Status, RecordError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in ENDING {
        flag::register(signal, Arc::clone(&stop)).map_err(RecordError::Signals)?;
    }
    // Nobody looks at this flag: the write that was too much fails, and the command does not inherit a handler.
    flag::register(SIGXFSZ, Arc::default()).map_err(RecordError::Signals)?;
    let target = Target::open(&arguments.out)?;
    let mut instance = Instance::new(Tracefs::find_or_mount()?, &format!("fpuswitch-{}", process::id()))?;
    let given = instance.set_up(arguments.buffer_kb)?;
    tell(&given);
    instance.start()?;
    let mut workload = Workload::start(&arguments.command, target.is_stdout())?;
    // Behind the start of the command, which would inherit it. Without it, a busy system loses events.
    let _ = rustix::process::nice(FAVOURED);
    let begun = target.begin(&header(&given, arguments.buffer_kb));
    let recorded = begun.and_then(|sink| follow(arguments, &stop, &mut instance, &mut workload, sink));
    // Nothing is left of the recording in the kernel while the command goes on.
    let left = instance.leave().map_or_else(|error| complain("record", &error), |()| Status::Fine);
    if !matches!(recorded, Ok(Recorded { ended: Ended::Time | Ended::Command, .. })) {
        workload.terminate();
    }
    stop.store(false, Ordering::Relaxed);
    let exit = workload.wait(&stop);
    match recorded {
        Ok(recorded) => Ok(left.max(report(arguments, &recorded, exit?))),
        // The reader has just gone away, as `head` does.
        Err(RecordError::Output { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(left),
        Err(error) => Err(error),
    }
}

/// Records until the end.
fn follow(
    arguments: &Arguments,
    stop: &AtomicBool,
    instance: &mut Instance,
    workload: &mut Workload,
    mut sink: Sink,
) -> Result<Recorded, RecordError> {
    let begin = Instant::now();
    let mut order = order::Order::default();
    // The kernel gives at most two pages at a time.
    let mut text = vec![0; 16 << 10];
    let mut last_look = begin;
    let ended = loop {
        let read = instance.read(&mut text)?;
        sink.write(|out| order.push(&text[..read], out))?;
        if stop.load(Ordering::Relaxed) {
            break Ended::Signal;
        } else if arguments.seconds.is_some_and(|most| begin.elapsed() >= most) {
            break Ended::Time;
        } else if read == 0 {
            thread::sleep(PAUSE);
        } else if last_look.elapsed() < PAUSE {
            continue;
        }
        last_look = Instant::now();
        if workload.has_ended()? {
            // Ctrl-C reaches both.
            break if stop.load(Ordering::Relaxed) { Ended::Signal } else { Ended::Command };
        }
    };
    instance.stop()?;
    let duration = begin.elapsed();
    loop {
        match instance.read(&mut text)? {
            0 => break,
            read => sink.write(|out| order.push(&text[..read], out))?,
        }
    }
    sink.write(|out| order.finish(out))?;
    sink.finish()?;
    let (losses, cpus) = instance.losses()?;
    Ok(Recorded { ended, lines: order.lines, duration, losses, cpus })
}

/// The first lines of a recording, by which replay knows it.
fn header(given: &Given, buffer_kb: u32) -> String {
    let tracer = if matches!(given.functions, Functions::Traced { .. }) { "function" } else { "nop" };
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "# tracer: {tracer}\n#\n# fpuswitch {} on Linux {}, clock mono, {buffer_kb} KiB a CPU\n#\n",
        env!("CARGO_PKG_VERSION"),
        release.trim(),
    )
}

/// Says what the recording will lack.
fn tell(given: &Given) {
    let Given { functions, missing_events } = given;
    if !missing_events.is_empty() {
        eprintln!("events that this kernel does not have: {}", missing_events.join(", "));
    }
    match functions {
        Functions::Traced { missing } if missing.is_empty() => {}
        _ => eprintln!("{functions}"),
    }
}

impl fmt::Display for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WITHOUT: &str = "the recording has no lines of returns to user mode and of kernel FPU sections; \
                               replay infers some of them and counts those apart";
        match self {
            Self::Traced { missing } => {
                write!(f, "functions that this kernel does not let trace: {}", missing.join(", "))
            }
            Self::NoTracer => write!(f, "no function tracer (CONFIG_FUNCTION_TRACER): {WITHOUT}"),
            Self::Refused(error) => write!(f, "the kernel refuses its function tracer ({error}): {WITHOUT}"),
            Self::Without(function) => {
                write!(
                    f,
                    "this kernel does not let trace {function}, without which other functions mislead: {WITHOUT}"
                )
            }
        }
    }
}

fn report(arguments: &Arguments, recorded: &Recorded, exit: Option<ExitStatus>) -> Status {
    let Recorded { ended, lines, duration, losses, cpus } = recorded;
    let out = arguments.out.display();
    let why = match ended {
        Ended::Time => "the time is up",
        Ended::Command => "the command has ended",
        Ended::Signal => "asked to end",
    };
    eprintln!("{out}: {lines} lines, {:.1} s on {cpus} CPUs: {why}", duration.as_secs_f64());
    let mut status = Status::Fine;
    for Loss { cpu, events } in losses {
        status = Status::Finding;
        eprintln!("CPU {cpu} lost {events} events");
    }
    if !losses.is_empty() {
        let more = arguments.buffer_kb.saturating_mul(4);
        eprintln!(
            "replay knows less behind each loss: record again with --buffer-kb {more}, or less at a time"
        );
    }
    if let Some(exit) = exit.filter(|exit| !exit.success()) {
        status = Status::Finding;
        let command = Path::new(&arguments.command[0]).display();
        eprintln!("{command} failed: {exit}");
    }
    if arguments.out != Path::new("-") {
        let own = std::env::args_os().next().unwrap_or_else(|| "fpuswitch".into());
        eprintln!("to replay it: {} replay {out}", own.display());
    }
    status
}
