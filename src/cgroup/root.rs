//! The cgroup root: is it cgroup v2, with the memory controller, and may we use it?

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, FsType, fstatfs};
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;

use super::buffer::ReadBuf;

/// TMPFS_MAGIC of linux/magic.h: what stands at /sys/fs/cgroup on v1 and hybrid machines.
const TMPFS: FsType = FsType(0x0102_1994);

/// Why a directory can't serve as the cgroup root.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// It can't be opened.
    #[error("{}: cannot open the cgroup root: {source}: mount cgroup2 there, or name its place with --cgroup-root", path.display())]
    Open {
        /// Its path.
        path: PathBuf,
        /// The errno.
        source: Errno,
    },
    /// It is not cgroup v2 at all, or the v1/hybrid layout.
    #[error("{}: not a cgroup v2 hierarchy ({layout}): boot with systemd.unified_cgroup_hierarchy=1, or name a cgroup2 mount with --cgroup-root", path.display())]
    NotCgroup2 {
        /// Its path.
        path: PathBuf,
        /// What it looks like.
        layout: &'static str,
    },
    /// The memory controller is not there.
    #[error(
        "{}: the memory controller is not available here: it may be in a v1 hierarchy (boot with cgroup_no_v1=memory), disabled (remove \
         cgroup_disable=memory), or not delegated (write +memory to the parent's cgroup.subtree_control)",
        path.display()
    )]
    NoMemory {
        /// Its path.
        path: PathBuf,
    },
    /// A file of it can't be read.
    #[error("{}/{file}: {source}: check the rights of the user that oomwarden runs as", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Which file.
        file: &'static str,
        /// The errno.
        source: Errno,
    },
}

/// An open cgroup root.
#[derive(Debug)]
pub struct Root {
    /// Where it was opened.
    pub path: PathBuf,
    /// The directory.
    pub dir: OwnedFd,
}

impl Root {
    /// Opens `path` and checks that it is cgroup v2 with the memory controller.
    ///
    /// # Errors
    /// What is missing and what to do.
    pub fn open(path: &Path) -> Result<Arc<Root>, RootError> {
        let dir = open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|source| RootError::Open { path: path.into(), source })?;
        let kind = fstatfs(&dir).map_err(|errno| RootError::Open { path: path.into(), source: Errno::from_raw_os_error(errno as i32) })?;
        if kind.filesystem_type() != CGROUP2_SUPER_MAGIC {
            return Err(RootError::NotCgroup2 { path: path.into(), layout: layout(path, kind.filesystem_type()) });
        }
        let file = "cgroup.controllers";
        let read_error = |source| RootError::Read { path: path.into(), file, source };
        let controllers = openat(&dir, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(read_error)?;
        let mut buffer = ReadBuf::new();
        let text = buffer.pread(&controllers).map_err(read_error)?;
        if !text.split(u8::is_ascii_whitespace).any(|controller| controller == b"memory") {
            return Err(RootError::NoMemory { path: path.into() });
        }
        Ok(Arc::new(Root { path: path.into(), dir }))
    }
}

/// The layout of what is not cgroup v2, in words.
fn layout(path: &Path, kind: FsType) -> &'static str {
    if kind == TMPFS && path.join("unified").is_dir() {
        "a hybrid layout: the memory controller is in a v1 hierarchy"
    } else if kind == TMPFS && path.join("memory").is_dir() {
        "a v1 layout"
    } else {
        "another kind of file system"
    }
}
