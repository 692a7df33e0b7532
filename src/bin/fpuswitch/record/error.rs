//! Why nothing was recorded, and what to do.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

/// Why nothing was recorded, or the system is not as it was.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("recording a kernel needs root: run it with sudo")]
    NotRoot { source: io::Error },
    #[error(
        "{}: the kernel refuses this even to root: it is locked down (lockdown=confidentiality; \
         /sys/kernel/security/lockdown shows it), or this is a container, and the recording has to be made outside",
        .path.display()
    )]
    Forbidden { path: PathBuf, source: io::Error },
    #[error("{}: the kernel does not do what a recording needs", .path.display())]
    Refused { path: PathBuf, source: io::Error },
    #[error("tracefs cannot be mounted: record on a kernel with CONFIG_FTRACE and event tracing")]
    NoTracefs { source: io::Error },
    #[error(
        "the kernel has no events {event}: record on x86-64 Linux from 5.16 on, with CONFIG_FTRACE and event tracing"
    )]
    NoEvent { event: &'static str },
    #[error("there is no memory for {buffer_kb} KiB a CPU: give a smaller --buffer-kb")]
    BufferTooLarge { buffer_kb: u32, source: io::Error },
    #[error("{}: cannot write the recording: give another --out", .path.display())]
    Output { path: PathBuf, source: io::Error },
    #[error("{}: cannot run the command", .command.display())]
    Command { command: PathBuf, source: io::Error },
    #[error("cannot prepare for Ctrl-C and other signals")]
    Signals(#[source] io::Error),
    #[error("{} is still there: remove it with rmdir when nobody reads from it", .path.display())]
    StillThere { path: PathBuf, source: io::Error },
    #[error(
        "{path} is still there: when nobody reads from it, rmdir {path}, umount {mount} and rmdir {mount}",
        path = .path.display(),
        mount = .mount.display()
    )]
    StillThereAndMounted { path: PathBuf, mount: PathBuf, source: io::Error },
    #[error("{} is still mounted: umount it, and remove the directory", .path.display())]
    StillMounted { path: PathBuf, source: io::Error },
}

impl RecordError {
    /// The kernel said no to something about `path`.
    pub(super) fn refused(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            ErrorKind::PermissionDenied if rustix::process::geteuid().is_root() => {
                Self::Forbidden { path, source }
            }
            ErrorKind::PermissionDenied => Self::NotRoot { source },
            _ => Self::Refused { path, source },
        }
    }
}
