//! Where tracefs is. A mount of one's own, and only for the recording, if it is nowhere.

use super::RecordError;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::{
    fs::{DirBuilder, remove_dir},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process,
};

/// Where systems mount it (Documentation/trace/ftrace.rst, "The File System").
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The root of tracefs. Unmounts it in the end if it was mounted for this.
#[derive(Debug)]
pub(super) struct Tracefs {
    root: PathBuf,
    is_ours: bool,
}

impl Tracefs {
    /// Finds tracefs, or mounts it on a temporary directory that only this user can enter.
    pub(super) fn find_or_mount() -> Result<Self, RecordError> {
        match PLACES.iter().map(Path::new).find(|place| place.join("instances").is_dir()) {
            Some(place) => Ok(Self::at(place)),
            None => {
                Self::mount_on(&std::env::temp_dir().join(format!("fpuswitch-tracefs-{}", process::id())))
            }
        }
    }

    /// Takes a directory that is there and stays there.
    pub(super) fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf(), is_ours: false }
    }

    fn mount_on(directory: &Path) -> Result<Self, RecordError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::PermissionDenied => RecordError::refused(directory, source),
            _ => RecordError::NoTracefs { source },
        };
        // Fails if somebody else has put something there.
        DirBuilder::new().mode(0o700).create(directory).map_err(failed)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        if let Err(error) = mount("tracefs", directory, "tracefs", flags, None) {
            let _ = remove_dir(directory);
            return Err(failed(error.into()));
        }
        Ok(Self { root: directory.to_path_buf(), is_ours: true })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Leaves the mount as it is for good, and tells where, if it is this one's.
    pub(super) fn keep(&mut self) -> Option<PathBuf> {
        std::mem::take(&mut self.is_ours).then(|| self.root.clone())
    }

    /// Undoes the mount, if it is this one's.
    pub(super) fn leave(&mut self) -> Result<(), RecordError> {
        if !std::mem::take(&mut self.is_ours) {
            return Ok(());
        }
        unmount(&self.root, UnmountFlags::DETACH)
            .map_err(io::Error::from)
            .and_then(|()| remove_dir(&self.root))
            .map_err(|source| RecordError::StillMounted { path: self.root.clone(), source })
    }
}

impl Drop for Tracefs {
    fn drop(&mut self) {
        if let Err(error) = self.leave() {
            crate::complain("record", &error);
        }
    }
}
