//! The locks that keep a second oomwarden off.
//!
//! One is the tree's: two that end groups of the same tree would each take the other's deeds for trouble of its own. It is named after
//! device and inode of the root's directory, the same in every mount and container, and does not depend on `--state`. Who only
//! observes takes no part in it. The other one is that of a directory for `--state`, whose files two of them would overwrite.
//!
//! A lock is flock(2) on a file that nobody else can open (0600), in a directory where nobody else may write: who could open it could
//! hold it, and so keep oomwarden from starting. For the same reason it is not on the group's directory, which everybody may
//! open, and no abstract socket.

use std::fmt;
use std::fs;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use procfs::{LockKind, LockType};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fchmod, fstat, open, openat, statat, unlinkat};
use rustix::io::Errno;

use crate::cgroup::path::Escaped;
use crate::cgroup::root::Root;
use crate::owners::{self, Unsafe, Us};

/// Where root's lock of a tree lies. A container needs the host's directory there, or can't see others' locks.
pub const DIRECTORY: &str = "/run/oomwarden";
/// The lock of a directory for `--state`.
pub const NAME: &str = "lock";
/// How often a file that is no lock of ours is replaced before that is an error.
const ATTEMPTS: u32 = 8;
/// How often it is tried to be the one who replaces it, 5 ms apart.
const TURNS: u32 = 400;
/// The most that is read of what the holder wrote.
const MOST_BYTES: u64 = 4096;

/// What a holder writes into its lock, for whoever is refused.
#[derive(Clone, Debug)]
pub struct About<'a> {
    /// `--cgroup-root`.
    pub root: &'a Path,
    /// `--state`.
    pub state: &'a Path,
    /// The control socket.
    pub control: &'a str,
}

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<fs::File>,
    path: PathBuf,
}

impl Lock {
    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What became of the lock of a tree.
#[derive(Debug)]
pub enum OfTree {
    /// It is held.
    Held(Lock),
    /// There is no place for it where only this user may write: why.
    NoPlace(String),
}

/// Who holds a lock, as far as can be told.
#[derive(Debug, Default)]
pub struct Holder {
    pid: Option<i32>,
    wrote: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}")?,
            None => f.write_str("a process that can't be seen from here")?,
        }
        let command = self.pid.and_then(command_line);
        match (command, self.wrote.is_empty()) {
            (Some(command), true) => write!(f, " (`{command}`)"),
            (Some(command), false) => write!(f, " (`{command}`; {})", self.wrote),
            (None, false) => write!(f, " ({})", self.wrote),
            (None, true) => Ok(()),
        }
    }
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another oomwarden acts in the tree.
    #[error(
        "{holder} acts in the tree {} already: stop it first, name another --cgroup-root, or only look on with --observe (lock {})",
        root.display(),
        path.display()
    )]
    OfTree {
        /// The root.
        root: PathBuf,
        /// The lock's file.
        path: PathBuf,
        /// Who.
        holder: Holder,
    },
    /// Another oomwarden keeps its files there.
    #[error("{holder} has its files in --state {}: stop it first, or give this one a --state of its own", directory.display())]
    OfState {
        /// The directory.
        directory: PathBuf,
        /// Who.
        holder: Holder,
    },
    /// The place for the tree's lock is of no use.
    #[error(
        "the lock that keeps a second oomwarden off this tree: {why}; it needs {DIRECTORY} (with systemd RuntimeDirectory=oomwarden, in a \
         container a directory of the host mounted there)"
    )]
    Place {
        /// Why.
        #[source]
        why: Unsafe,
    },
    /// The directory of `--state` is of no use.
    #[error("name a directory with --state in which oomwarden may write and others may not, or mend this one: {why}")]
    State {
        /// Why.
        #[source]
        why: Unsafe,
    },
}

/// The name of the file for a tree.
fn name_of(root: &Stat) -> String {
    format!("tree-{:x}-{}.lock", root.st_dev, root.st_ino)
}

/// Takes the lock of the tree at `root`.
///
/// # Errors
/// Another oomwarden holds it; for root also when there is no place for it.
pub fn of_tree(root: &Root, about: &About<'_>) -> Result<OfTree, LockError> {
    let us = Us::now();
    let stat = fstat(&root.dir).map_err(|errno| place(&root.path, errno.into()))?;
    tree_in(&places(us.uid, std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)), us, &name_of(&stat), about)
}

fn place(path: &Path, source: io::Error) -> LockError {
    LockError::Place { why: Unsafe::Io { path: path.to_owned(), source } }
}

/// A directory for the lock of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    path: PathBuf,
    /// It is only made below a directory that is fit for it; this one need not be.
    make: bool,
}

/// Where the lock of a tree may lie, in this order; the first that is fit for it counts.
fn places(uid: u32, runtime: Option<PathBuf>) -> Vec<Place> {
    let of = |path: PathBuf, make| Place { path, make };
    let shared = of(DIRECTORY.into(), uid == 0);
    if uid == 0 {
        return vec![shared];
    }
    let own = runtime.into_iter().chain([PathBuf::from(format!("/run/user/{uid}"))]).map(|dir| of(dir.join("oomwarden"), true));
    // A service of this user, with RuntimeDirectory=, has the first one.
    [shared].into_iter().chain(own).chain([of(format!("/tmp/oomwarden-{uid}").into(), true)]).collect()
}

fn tree_in(places: &[Place], us: Us, name: &str, about: &About<'_>) -> Result<OfTree, LockError> {
    let mut unfit = Vec::new();
    for Place { path, make } in places {
        let opened = open_directory(path, *make, us)
            .and_then(|dir| acquire(&dir, path, name, about).map_err(|source| Unsafe::Io { path: path.join(name), source }));
        match opened {
            Ok(Ok(lock)) => return Ok(OfTree::Held(lock)),
            Ok(Err(holder)) => return Err(LockError::OfTree { root: about.root.to_owned(), path: path.join(name), holder }),
            Err(why) if us.uid == 0 => return Err(LockError::Place { why }),
            Err(why) => unfit.push(why.to_string()),
        }
    }
    Ok(OfTree::NoPlace(unfit.join("; ")))
}

/// Takes the lock of a directory for `--state`, which is made as needed.
///
/// # Errors
/// Another oomwarden holds it, or others may write to the directory.
pub fn of_state(directory: &Path, about: &About<'_>) -> Result<Lock, LockError> {
    let unfit = |why| LockError::State { why };
    let failed = |source| unfit(Unsafe::Io { path: directory.to_owned(), source });
    owners::make_directory(directory).map_err(failed)?;
    close_to_others(directory);
    let end = owners::directory(directory).map_err(unfit)?;
    let dir = open(&end.real, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    let dir = dir.map_err(|errno| failed(errno.into()))?;
    match acquire(&dir, directory, NAME, about) {
        Ok(Ok(lock)) => Ok(lock),
        Ok(Err(holder)) => Err(LockError::OfState { directory: directory.to_owned(), holder }),
        Err(source) => Err(unfit(Unsafe::Io { path: directory.join(NAME), source })),
    }
}

/// Opens a directory for locks, made as needed: ours or root's, and nobody else may write there.
fn open_directory(path: &Path, make: bool, us: Us) -> Result<OwnedFd, Unsafe> {
    let failed = |source: io::Error| Unsafe::Io { path: path.to_owned(), source };
    if make {
        match fs::DirBuilder::new().mode(if us.uid == 0 { 0o755 } else { 0o700 }).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
    }
    close_to_others(path);
    owners::directory(path)?;
    open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| failed(errno.into()))
}

/// Takes the right to write away from others in a directory that is ours and holds nothing but our files: a volume that Kubernetes made
/// for us (emptyDir) has mode 0777. Whether it is fit is judged afterwards.
fn close_to_others(path: &Path) {
    let close = || -> io::Result<()> {
        let dir = open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let stat = fstat(&dir)?;
        let is_open = stat.st_mode & 0o022 != 0 && stat.st_mode & libc::S_ISVTX == 0;
        if !is_open || stat.st_uid != Us::now().uid {
            return Ok(());
        }
        for entry in fs::read_dir(path)? {
            if !is_ours(entry?.file_name().as_encoded_bytes()) {
                return Ok(());
            }
        }
        fchmod(&dir, Mode::from_raw_mode(stat.st_mode & 0o7755))?;
        Ok(())
    };
    // Where it can't be done the directory is refused for what it is.
    let _ = close();
}

/// Whether a file of this name is one of those that oomwarden makes in its own directories.
fn is_ours(name: &[u8]) -> bool {
    const NAMES: [&str; 5] = [NAME, super::pause::NAME, super::policy::NAME, super::oom_group::NAME, "control.sock"];
    let plain = name.strip_prefix(b".").unwrap_or(name);
    let plain = plain.strip_suffix(b".new").or_else(|| plain.strip_suffix(b".bad")).unwrap_or(plain);
    NAMES.iter().any(|known| known.as_bytes() == plain)
        || plain == b"pressure.sock"
        || (plain.starts_with(b"tree-") && plain.ends_with(b".lock"))
}

/// Locks the file of this name in a directory of ours, or tells who has it. What is no lock file of ours there, or could be held by
/// somebody else, is replaced: its mode says so, which is therefore left as it is until then.
fn acquire(dir: &OwnedFd, directory: &Path, name: &str, about: &About<'_>) -> io::Result<Result<Lock, Holder>> {
    let us = Us::now();
    for _ in 0..ATTEMPTS {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match openat(dir, name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => file,
            // A symlink, a socket.
            Err(Errno::LOOP | Errno::NXIO) => {
                let there = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
                if let Some(there) = there.ok().filter(|there| FileType::from_raw_mode(there.st_mode) != FileType::RegularFile) {
                    take_away(dir, name, &there)?;
                }
                continue;
            }
            Err(errno) => return Err(errno.into()),
        };
        let stat = fstat(&file)?;
        if stat.st_nlink == 0 {
            // Taken away meanwhile.
            continue;
        }
        if !is_lock_file(&stat, us) {
            take_away(dir, name, &stat)?;
            continue;
        }
        // That of an older version, which others may have open.
        let is_open_to_others = stat.st_mode & 0o077 != 0;
        match Flock::lock(fs::File::from(file), FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                if !is_at(dir, name, &stat) {
                    continue;
                }
                if is_open_to_others {
                    // Who has it open could lock it between two runs, and keep the next one out.
                    take_away(dir, name, &stat)?;
                    continue;
                }
                // For people only: the lock is as good without it.
                let _ = write_about(&mut file, about);
                return Ok(Ok(Lock { _file: file, path: directory.join(name) }));
            }
            Err((mut file, nix::Error::EWOULDBLOCK)) => {
                let pid = file.metadata().ok().and_then(|metadata| holder(&metadata));
                // One who is gone left the lock to a process that inherited the descriptor, which
                // may be anybody's.
                if is_open_to_others && !pid.is_some_and(|pid| is_trusted(pid, us)) {
                    take_away(dir, name, &stat)?;
                    continue;
                }
                return Ok(Err(Holder { pid, wrote: read_about(&mut file) }));
            }
            Err((_, errno)) => return Err(errno.into()),
        }
    }
    Err(io::Error::other("something else takes its name again and again"))
}

fn is_lock_file(stat: &Stat, us: Us) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_uid == us.uid && stat.st_nlink == 1
}

/// Whether this is what has the name.
fn is_at(dir: &OwnedFd, name: &str, stat: &Stat) -> bool {
    let there = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    there.is_ok_and(|there| (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino))
}

/// A process that is alive, and root's or ours.
fn is_trusted(pid: i32, us: Us) -> bool {
    fs::metadata(format!("/proc/{pid}")).is_ok_and(|process| process.uid() == 0 || process.uid() == us.uid)
}

/// Takes the name away from what has it, if that is still this one. Several that start at the same
/// time do it one after the other, or one might take away the new file that another has just
/// locked.
fn take_away(dir: &OwnedFd, name: &str, stat: &Stat) -> io::Result<()> {
    let _turn = turn(dir, &format!(".{name}.new"))?;
    if is_at(dir, name, stat) {
        unlinkat(dir, name, AtFlags::empty())?;
    }
    Ok(())
}

/// Locks a file that only this version makes and that nobody else could ever open; it stays there.
fn turn(dir: &OwnedFd, name: &str) -> io::Result<Flock<fs::File>> {
    let us = Us::now();
    for _ in 0..TURNS {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match openat(dir, name, flags, Mode::RUSR | Mode::WUSR) {
            Err(errno) if !matches!(errno, Errno::LOOP | Errno::NXIO) => return Err(errno.into()),
            file => file.ok(),
        };
        let stat = file.as_ref().map(fstat).transpose()?;
        let (Some(file), Some(stat)) = (file, stat.filter(|stat| is_lock_file(stat, us) && stat.st_mode & 0o077 == 0)) else {
            // Planted while others could write to the directory.
            unlinkat(dir, name, AtFlags::empty())?;
            continue;
        };
        match Flock::lock(fs::File::from(file), FlockArg::LockExclusiveNonblock) {
            Ok(lock) if is_at(dir, name, &stat) => return Ok(lock),
            Err((_, errno)) if errno != nix::Error::EWOULDBLOCK => return Err(errno.into()),
            // Another one is at it, for a moment.
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    Err(io::Error::other(format!("another oomwarden has {name} locked and does not go on: end it")))
}

fn write_about(file: &mut fs::File, about: &About<'_>) -> io::Result<()> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    file.set_len(0)?;
    file.rewind()?;
    write!(
        file,
        "pid {} on {}, --cgroup-root {}, --state {}, --control {}",
        std::process::id(),
        host.trim(),
        about.root.display(),
        about.state.display(),
        about.control
    )
}

fn read_about(file: &mut fs::File) -> String {
    let mut text = Vec::new();
    // What can't be read is left out.
    let _ = file.take(MOST_BYTES).read_to_end(&mut text);
    Escaped(&text).to_string()
}

/// The pid of who holds the lock of a file, by /proc/locks. Who is in another pid namespace can't be seen there.
fn holder(file: &fs::Metadata) -> Option<i32> {
    let device = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let holds = |lock: &procfs::Lock| {
        lock.lock_type == LockType::FLock
            && matches!(lock.kind, LockKind::Write)
            && lock.inode == file.ino()
            && (lock.devmaj, lock.devmin) == device
    };
    let lock = procfs::locks().ok()?.into_iter().find(holds)?;
    lock.pid.filter(|pid| *pid > 0)
}

/// The pid of who holds the lock at this path. `None`: nobody, or somebody who can't be seen from here.
#[must_use]
pub fn holder_at(path: &Path) -> Option<i32> {
    holder(&fs::symlink_metadata(path).ok()?)
}

/// Where the lock of the tree at `root` may lie, root's first.
pub fn paths_of(root: &Root) -> impl Iterator<Item = PathBuf> {
    let name = fstat(&root.dir).ok().map(|stat| name_of(&stat));
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let places = places(0, None).into_iter().chain(places(Us::now().uid, runtime));
    name.into_iter().flat_map(move |name| places.clone().map(move |place| place.path.join(&name)))
}

/// The command that a process was started with, for people. `None`: it is gone, or may not be looked at.
#[must_use]
pub fn command_line(pid: i32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok().filter(|line| !line.is_empty())?;
    let words = line.strip_suffix(b"\0").unwrap_or(&line).split(|byte| *byte == 0);
    Some(words.map(|word| Escaped(word).to_string()).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests;
