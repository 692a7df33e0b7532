//! The command that is run while recording.

use super::{PAUSE, RecordError};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    ffi::OsString,
    io,
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

/// A command that runs, or none.
#[derive(Debug)]
pub(super) struct Workload {
    running: Option<(PathBuf, Child)>,
}

impl Workload {
    /// Starts `command`, unless it is empty. It must not write into a recording on standard output.
    pub(super) fn start(command: &[OsString], stdout_is_taken: bool) -> Result<Self, RecordError> {
        let Some((program, arguments)) = command.split_first() else { return Ok(Self { running: None }) };
        let mut starting = Command::new(program);
        starting.args(arguments);
        if stdout_is_taken {
            starting.stdout(io::stderr());
        }
        let child =
            starting.spawn().map_err(|source| RecordError::Command { command: program.into(), source })?;
        Ok(Self { running: Some((program.into(), child)) })
    }

    /// Whether there is a command, and it has ended.
    pub(super) fn has_ended(&mut self) -> Result<bool, RecordError> {
        Ok(self.look()?.is_some())
    }

    /// Asks the command to end, if it has not.
    pub(super) fn terminate(&mut self) {
        let Some((_, child)) = &mut self.running else { return };
        // It has no other pid while it is not waited for. An error means that it has ended.
        if let (Ok(None), Some(pid)) = (child.try_wait(), Pid::from_raw(child.id() as i32)) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Waits for the command, and gives up when `stop` says so.
    pub(super) fn wait(&mut self, stop: &AtomicBool) -> Result<Option<ExitStatus>, RecordError> {
        loop {
            let exit = self.look()?;
            if exit.is_some() || self.running.is_none() || stop.load(Ordering::Relaxed) {
                return Ok(exit);
            }
            thread::sleep(PAUSE);
        }
    }

    fn look(&mut self) -> Result<Option<ExitStatus>, RecordError> {
        let Some((command, child)) = &mut self.running else { return Ok(None) };
        child.try_wait().map_err(|source| RecordError::Command { command: command.clone(), source })
    }
}
