//! Whose group is it that stands at the other end of a socket?
//!
//! The kernel names the process that connected. Its group is where /proc/PID/cgroup says and where cgroup.procs confirms it;
//! a path alone would be wrong where only a part of the tree is mounted. The answer counts only if the process, held by a
//! pidfd, is alive afterwards: then no pid was recycled meanwhile. cgroup-v2.rst, unix(7).

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cgroup::GroupId;
use crate::cgroup::parse;
use crate::sys::{peer_credentials, peer_pidfd};

/// Why nobody can be told which group a peer is in.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The kernel does not say who it is.
    #[error("who connected can't be told: {0}")]
    Unknown(#[from] Errno),
    /// Its pid means nothing here.
    #[error("who connected is in a pid namespace that can't be seen from here")]
    Hidden,
    /// It ended, or moved, while it was looked at.
    #[error("process {0} ended or moved while it was looked at")]
    Gone(i32),
    /// A file about it can't be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Its group is none of those that are mounted here.
    #[error("process {0} is in no group that can be seen from here")]
    Outside(i32),
}

/// Who connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The user, when it connected.
    pub uid: u32,
    /// The group that the process is in, then those above it up to the top.
    pub groups: Box<[GroupId]>,
}

/// Finds out about peers.
#[derive(Debug)]
pub struct Peers {
    proc: PathBuf,
    mount: PathBuf,
}

impl Peers {
    /// For a cgroup file system of which `root` is a directory.
    ///
    /// # Errors
    /// When `root` or a directory above it can't be looked at.
    pub fn below(root: &Path) -> io::Result<Peers> {
        let mut mount = root.canonicalize()?;
        let device = fs::metadata(&mount)?.dev();
        // Paths in /proc/PID/cgroup are counted from the top.
        while let Some(parent) = mount.parent()
            && fs::metadata(parent)?.dev() == device
        {
            mount = parent.to_owned();
        }
        Ok(Peers { proc: "/proc".into(), mount })
    }

    /// For a tree of files that stands in for the cgroup file system, and one for /proc.
    #[cfg(test)]
    pub(super) fn in_place_of(proc: PathBuf, mount: PathBuf) -> Peers {
        Peers { proc, mount }
    }

    /// Who connected `socket`.
    ///
    /// # Errors
    /// Why it can't be told.
    pub fn peer(&self, socket: impl AsFd) -> Result<Peer, PeerError> {
        let (pid, uid) = peer_credentials(socket.as_fd())?;
        let id = Pid::from_raw(pid).filter(|_| pid > 0).ok_or(PeerError::Hidden)?;
        let pidfd = match peer_pidfd(socket.as_fd()) {
            Ok(pidfd) => pidfd,
            Err(Errno::NOPROTOOPT) => pidfd_open(id, PidfdFlags::empty()).map_err(|_| PeerError::Gone(pid))?,
            Err(_) => return Err(PeerError::Gone(pid)),
        };
        let groups = self.groups_of(pid)?;
        if is_alive(&pidfd) { Ok(Peer { uid, groups }) } else { Err(PeerError::Gone(pid)) }
    }

    fn groups_of(&self, pid: i32) -> Result<Box<[GroupId]>, PeerError> {
        let file = self.proc.join(pid.to_string()).join("cgroup");
        let text = fs::read(&file).map_err(|source| PeerError::Read { path: file, source })?;
        let path = parse::own_group(&text).ok_or(PeerError::Outside(pid))?;
        let path = Path::new(std::ffi::OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)));
        // Above what our own namespace shows.
        if path.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            return Err(PeerError::Outside(pid));
        }
        let mut directory = self.mount.join(path);
        let mut groups = Vec::with_capacity(8);
        let mut confirmed = false;
        loop {
            if !confirmed {
                match lists(&directory, pid) {
                    Ok(true) => confirmed = true,
                    Ok(false) => return Err(PeerError::Gone(pid)),
                    // A threaded group has no such list: its domain has.
                    Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                    Err(_) => return Err(PeerError::Outside(pid)),
                }
            }
            let group = fs::metadata(&directory).map_err(|source| PeerError::Read { path: directory.clone(), source })?;
            groups.push(GroupId(group.ino()));
            if directory == self.mount || !directory.pop() {
                break;
            }
        }
        if confirmed { Ok(groups.into()) } else { Err(PeerError::Outside(pid)) }
    }
}

/// Whether the group's list has the process.
fn lists(directory: &Path, pid: i32) -> io::Result<bool> {
    let text = fs::read(directory.join("cgroup.procs"))?;
    Ok(text.split(|byte| *byte == b'\n').any(|line| parse::process(line) == Ok(parse::Process::Pid(pid))))
}

fn is_alive(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A tree /a/b of ordinary files, and a /proc in which process 7 is in `group`.
    fn tree(group: &str, procs: &str) -> (tempfile::TempDir, Peers) {
        let dir = tempfile::tempdir().unwrap();
        let peers = Peers { proc: dir.path().join("proc"), mount: dir.path().join("cgroup") };
        fs::create_dir_all(peers.mount.join("a/b")).unwrap();
        fs::create_dir_all(peers.proc.join("7")).unwrap();
        fs::write(peers.proc.join("7/cgroup"), format!("12:memory:/x\n0::{group}\n")).unwrap();
        fs::write(peers.mount.join("a/b/cgroup.procs"), procs).unwrap();
        (dir, peers)
    }

    #[test]
    fn a_process_belongs_to_its_group_and_to_all_above() {
        let (_dir, peers) = tree("/a/b", "5\n7\n");
        let id = |path: &str| GroupId(fs::metadata(peers.mount.join(path)).unwrap().ino());
        assert_eq!(*peers.groups_of(7).unwrap(), [id("a/b"), id("a"), GroupId(fs::metadata(&peers.mount).unwrap().ino())]);
    }

    #[test]
    fn who_is_not_listed_where_it_should_be_is_in_no_group() {
        let (_dir, peers) = tree("/a/b", "5\n77\n");
        assert!(matches!(peers.groups_of(7), Err(PeerError::Gone(7))));
        for outside in ["/../elsewhere", "/a/c", "/"] {
            let (_dir, peers) = tree(outside, "7\n");
            assert!(matches!(peers.groups_of(7), Err(PeerError::Outside(7))), "{outside}");
        }
    }

    #[test]
    fn the_peer_of_a_socket_is_this_process_and_it_lives() {
        let (one, _other) = UnixStream::pair().unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        assert_eq!(peer_credentials(one.as_fd()).unwrap().0, me);
        assert!(is_alive(&pidfd_open(Pid::from_raw(me).unwrap(), PidfdFlags::empty()).unwrap()));
    }
}
