//! A buffer of this recording's own in tracefs, with the events and functions that replay reads.

use super::{PAUSE, RecordError, tracefs::Tracefs};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
};

/// Without these there is nothing to compare: who runs, and what the kernel did with the registers.
const NEEDED: [&str; 2] = ["sched/sched_switch", "x86_fpu"];
/// The other events that replay reads.
const EVENTS: [&str; 10] = [
    "sched/sched_process_fork",
    "sched/sched_process_exec",
    "sched/sched_process_exit",
    "sched/sched_migrate_task",
    "raw_syscalls/sys_enter",
    "raw_syscalls/sys_exit",
    "exceptions/page_fault_user",
    "irq_vectors/local_timer_entry",
    "irq_vectors/reschedule_entry",
    "signal/signal_deliver",
];
/// Replay takes function lines to tell of every return to user with the load flag set and of every kernel FPU
/// section, and infers neither then. Each under the names it has had.
const NEEDED_FUNCTIONS: [&[&str]; 3] =
    [&["switch_fpu_return"], &["kernel_fpu_begin_mask", "kernel_fpu_begin"], &["kernel_fpu_end"]];
/// The other functions that replay reads.
const FUNCTIONS: [&[&str]; 10] = [
    &["fpu_flush_thread"],
    &["fpu_clone"],
    &["fpu__drop"],
    &["fpu__clear_user_states"],
    &["fpu__restore_sig"],
    &["copy_fpstate_to_sigframe"],
    &["xstateregs_get"],
    &["xstateregs_set"],
    &["fpu_sync_fpstate"],
    &["fpregs_mark_activate"],
];

/// What the kernel gives of what was asked for.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) functions: Functions,
    /// Events that it does not have.
    pub(super) missing_events: Vec<&'static str>,
}

/// Whether there are function lines.
#[derive(Debug)]
pub(super) enum Functions {
    /// There are, but of functions that this kernel does not have or does not let trace.
    Traced { missing: Vec<&'static str> },
    /// The kernel has no function tracer.
    NoTracer,
    /// It has, but says no.
    Refused(io::Error),
    /// It cannot trace this one, so that the others would mislead.
    Without(&'static str),
}

/// What a CPU's buffer lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) cpu: u32,
    pub(super) events: u64,
}

/// A directory in `instances`. Removed when dropped, which also turns off all that was turned on in it.
#[derive(Debug)]
pub(super) struct Instance {
    directory: PathBuf,
    /// Open while recording; the kernel does not remove an instance with an open file.
    pipe: Option<File>,
    is_there: bool,
    tracefs: Tracefs,
}

impl Instance {
    pub(super) fn new(tracefs: Tracefs, name: &str) -> Result<Self, RecordError> {
        let directory = tracefs.root().join("instances").join(name);
        fs::create_dir(&directory).map_err(|source| RecordError::refused(&directory, source))?;
        Ok(Self { directory, pipe: None, is_there: true, tracefs })
    }

    /// Turns on what is wanted; nothing is recorded yet.
    pub(super) fn set_up(&mut self, buffer_kb: u32) -> Result<Given, RecordError> {
        self.write("tracing_on", "0")?;
        self.write("buffer_size_kb", &buffer_kb.to_string()).map_err(|error| match error {
            RecordError::Refused { source, .. } if source.kind() == ErrorKind::OutOfMemory => {
                RecordError::BufferTooLarge { buffer_kb, source }
            }
            error => error,
        })?;
        self.write("trace_clock", "mono")?;
        for event in NEEDED {
            if !self.has_event(event) {
                return Err(RecordError::NoEvent { event });
            }
        }
        let (present, missing_events) =
            NEEDED.into_iter().chain(EVENTS).partition::<Vec<_>, _>(|event| self.has_event(event));
        for event in present {
            self.write(&enable(event), "1")?;
        }
        Ok(Given { functions: self.trace_functions(), missing_events })
    }

    fn has_event(&self, event: &str) -> bool {
        self.directory.join(enable(event)).exists()
    }

    fn trace_functions(&self) -> Functions {
        self.try_functions().unwrap_or_else(Functions::Refused)
    }

    fn try_functions(&self) -> io::Result<Functions> {
        let tracers = fs::read_to_string(self.directory.join("available_tracers"))?;
        if !tracers.split_whitespace().any(|tracer| tracer == "function") {
            return Ok(Functions::NoTracer);
        }
        let available = self.tracefs.root().join("available_filter_functions");
        let (chosen, missing) = match choose(&available)? {
            Ok(found) => found,
            Err(needed) => return Ok(Functions::Without(needed)),
        };
        // Each in one write: the kernel looks a name up when the space behind it comes.
        let mut filter = OpenOptions::new().append(true).open(self.directory.join("set_ftrace_filter"))?;
        for function in chosen {
            filter.write_all(format!("{function}\n").as_bytes())?;
        }
        drop(filter);
        put(&self.directory.join("current_tracer"), "function")?;
        Ok(Functions::Traced { missing })
    }

    /// Recording begins.
    pub(super) fn start(&mut self) -> Result<(), RecordError> {
        let path = self.directory.join("trace_pipe");
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let pipe = OpenOptions::new().read(true).custom_flags(flags).open(&path);
        self.pipe = Some(pipe.map_err(|source| RecordError::refused(&path, source))?);
        self.write("tracing_on", "1")
    }

    /// Recording ends; what the buffers hold can still be read.
    pub(super) fn stop(&mut self) -> Result<(), RecordError> {
        self.write("tracing_on", "0")
    }

    /// Reads recorded text; 0 if there is none now.
    pub(super) fn read(&mut self, text: &mut [u8]) -> Result<usize, RecordError> {
        let Some(pipe) = &mut self.pipe else { return Ok(0) };
        match pipe.read(text) {
            Ok(read) => Ok(read),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            Err(source) => Err(RecordError::refused(&self.directory.join("trace_pipe"), source)),
        }
    }

    /// What was lost, by CPU, as far as anything was; and how many CPUs there are.
    pub(super) fn losses(&self) -> Result<(Vec<Loss>, usize), RecordError> {
        let path = self.directory.join("per_cpu");
        let failed = |source| RecordError::refused(&path, source);
        let mut cpus = Vec::new();
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let cpu = name.to_str().and_then(|name| name.strip_prefix("cpu")?.parse().ok());
            let Some(cpu) = cpu else { continue };
            let stats = fs::read_to_string(entry.path().join("stats")).map_err(failed)?;
            cpus.push(Loss { cpu, events: lost_events(&stats) });
        }
        let count = cpus.len();
        cpus.retain(|loss| loss.events > 0);
        cpus.sort_by_key(|loss| loss.cpu);
        Ok((cpus, count))
    }

    /// Removes the instance, and the mount if there is one.
    pub(super) fn leave(&mut self) -> Result<(), RecordError> {
        self.pipe = None;
        if std::mem::take(&mut self.is_there) {
            remove(&self.directory).map_err(|source| {
                let path = self.directory.clone();
                // Without its mount, nobody could follow the path.
                match self.tracefs.keep() {
                    None => RecordError::StillThere { path, source },
                    Some(mount) => RecordError::StillThereAndMounted { path, mount, source },
                }
            })?;
        }
        self.tracefs.leave()
    }

    fn write(&self, file: &str, value: &str) -> Result<(), RecordError> {
        let path = self.directory.join(file);
        put(&path, value).map_err(|source| RecordError::refused(&path, source))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Err(error) = self.leave() {
            crate::complain("record", &error);
        }
    }
}

/// Removes an instance. A command that has just been started holds its files until it has closed what it does not
/// inherit, which may be after its start has returned: so it is tried for a while.
fn remove(directory: &Path) -> io::Result<()> {
    for _ in 0..20 {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => thread::sleep(PAUSE),
            removed => return removed,
        }
    }
    fs::remove_dir(directory)
}

fn enable(event: &str) -> String {
    format!("events/{event}/enable")
}

/// Writes to a file that the kernel has made.
fn put(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).truncate(true).open(path)?.write_all(value.as_bytes())
}

/// Of the functions wanted, those in a list of the kernel's, and those that are not.
type Chosen = (Vec<&'static str>, Vec<&'static str>);

/// Chooses from this list; the error is a function that is needed and not in it.
fn choose(available: &Path) -> io::Result<Result<Chosen, &'static str>> {
    let mut present = Vec::new();
    for line in BufReader::new(File::open(available)?).split(b'\n') {
        let line = line?;
        // A function of a module has the module's name behind it.
        let name = line.split(|byte| *byte == b' ').next().unwrap_or_default();
        let all = NEEDED_FUNCTIONS.iter().chain(&FUNCTIONS).copied().flatten();
        present.extend(all.copied().filter(|wanted| wanted.as_bytes() == name));
    }
    let is_missing = |names: &&&[&'static str]| !names.iter().any(|name| present.contains(name));
    if let Some(names) = NEEDED_FUNCTIONS.iter().find(is_missing) {
        return Ok(Err(names[0]));
    }
    let missing = FUNCTIONS.iter().filter(is_missing).map(|names| names[0]).collect();
    Ok(Ok((present, missing)))
}

/// Adds up what `per_cpu/cpuN/stats` tells of events that are in no recording.
fn lost_events(stats: &str) -> u64 {
    let counts = stats.lines().filter_map(|line| {
        let (name, count) = line.split_once(':')?;
        let is_loss = matches!(name, "overrun" | "commit overrun" | "dropped events");
        is_loss.then(|| count.trim().parse::<u64>().ok())?
    });
    counts.sum()
}

#[cfg(test)]
mod tests;
