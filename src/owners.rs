//! Who else may change what stands at a path: for files that oomwarden obeys (a policy, a hook's program, what it left for its own
//! next start) and for places where it makes files.
//!
//! A path is followed component by component, as the kernel does it, and each directory on the way is looked at: who may write to
//! one can put something else in the place of what it holds. Others than root and oomwarden's own user may write nowhere, with
//! these exceptions:
//!
//! - a directory with the sticky bit (`/tmp`), as long as the entry belongs to root or to us, since others can't replace it there;
//! - a directory on a mount that is read-only for us: Kubernetes mounts a ConfigMap so, with mode 0777;
//! - the group of a file or directory may write if it is root's group, or, where we are not root, our own primary group (many
//!   distributions give each user one). With an ACL it may not: the group's bits then say what others may do at the most.
//!
//! What a process holds open (`/dev/stdin`, `/proc/PID/fd/N`) was chosen by who started us, so its way is not looked at, only the
//! file. Neither are the file's contents: a script is judged, not the interpreter that it names.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat, StatVfsMountFlags, fchmod, fstat, fstatvfs, getxattr_query, open, openat, readlinkat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket_with};

use crate::cgroup::path::Escaped;

/// Connections that may wait to be accepted; as many as the standard library lets.
const BACKLOG: i32 = 128;
/// As many symlinks as the kernel follows.
const MOST_LINKS: usize = 40;
/// PROC_SUPER_MAGIC of linux/magic.h.
const PROC: u64 = 0x9fa0;
/// PIPEFS_MAGIC: a pipe without a name.
const PIPEFS: u64 = 0x5049_5045;
/// What the kernel shows for an owner that this user namespace does not know, if it was not set to anything else.
const OVERFLOW_UID: u32 = 65534;

fn shown(path: &Path) -> Escaped<'_> {
    Escaped(path.as_os_str().as_bytes())
}

/// Who we are, for whom files are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Us {
    /// Our user.
    pub uid: u32,
    /// Our primary group.
    pub gid: u32,
    /// The owner of everything that our user namespace does not know: outside of it, root for one.
    unmapped: Option<u32>,
}

impl Us {
    /// This process.
    #[must_use]
    pub fn now() -> Us {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let overflow = std::fs::read_to_string("/proc/sys/kernel/overflowuid").ok().and_then(|text| text.trim().parse().ok());
        let unmapped = Some(overflow.unwrap_or(OVERFLOW_UID)).filter(|uid| !map.is_empty() && !is_mapped(&map, *uid));
        Us { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw(), unmapped }
    }

    fn trusts(&self, uid: u32) -> bool {
        uid == 0 || uid == self.uid
    }

    /// Whether only trusted users are in the group, as far as can be told.
    fn trusts_group(&self, gid: u32) -> bool {
        gid == 0 || (self.uid != 0 && gid == self.gid)
    }
}

/// Whether a user namespace with this uid_map knows a user.
fn is_mapped(map: &str, uid: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().map(|word| word.parse::<u64>().ok());
        let (begin, _, count) = (numbers.next().flatten(), numbers.next(), numbers.next().flatten());
        begin.zip(count).is_some_and(|(begin, count)| (begin..begin.saturating_add(count)).contains(&u64::from(uid)))
    })
}

/// What others may do there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It is theirs.
    Owner,
    /// Its mode lets them write.
    Mode,
    /// An ACL may.
    Acl,
}

/// Somebody else may change it, or it can't be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Unsafe {
    /// The system refused, or there is nothing.
    #[error("{}: {source}", shown(path))]
    Io {
        /// The path that was asked about.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else may write there.
    #[error("{0}")]
    Writable(Box<Writable>),
}

impl Unsafe {
    /// Nothing is there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Unsafe::Io { source, .. } if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
    }
}

/// What somebody else may write to.
#[derive(Debug)]
pub struct Writable {
    path: PathBuf,
    what: &'static str,
    owner: u32,
    group: u32,
    mode: u32,
    why: Why,
    us: Us,
}

impl fmt::Display for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Writable { path, what, owner, group, mode, why, us } = self;
        let path = shown(path);
        let mode = mode & 0o7777;
        match why {
            Why::Owner if us.unmapped == Some(*owner) => write!(
                f,
                "the {what} {path} belongs to a user outside of this user namespace, who may change it: give it to one inside, or use a copy"
            ),
            Why::Owner => {
                let ours = if us.uid == 0 { String::new() } else { format!(" or to user {}", us.uid) };
                write!(f, "the {what} {path} belongs to user {owner} (mode {mode:04o}), who may change it: give it to root{ours} (chown)")
            }
            Why::Mode => write!(
                f,
                "others than its owner may write to the {what} {path} (mode {mode:04o}, owner {owner}, group {group}): \
                 take that right away (chmod go-w {path})"
            ),
            Why::Acl => write!(
                f,
                "an ACL may let others write to the {what} {path} (mode {mode:04o}, owner {owner}, group {group}): \
                 take it away (setfacl -b {path}; chmod go-w {path})"
            ),
        }
    }
}

/// Where a path ends.
#[derive(Debug)]
pub struct End {
    /// Opened with O_PATH.
    pub fd: OwnedFd,
    /// What it is.
    pub stat: Stat,
    /// Its name without symlinks.
    pub real: PathBuf,
    /// A process holds it open, and the path led there by that.
    pub handed_over: bool,
}

impl End {
    /// Whether it is of this kind.
    #[must_use]
    pub fn is(&self, kind: FileType) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == kind
    }
}

/// Follows a path, symlinks too; an error if others may put something else on the way. The last one is not judged itself.
///
/// # Errors
/// See [`Unsafe`].
pub fn follow(path: &Path) -> Result<End, Unsafe> {
    match Walk::to(path, Judging::Way).map_err(|step| step.about(path))? {
        Reached::End(end) => Ok(end),
        Reached::Free { .. } => Err(Step::from(Errno::NOENT).about(path)),
    }
}

/// Opens a file to which lines are appended, or makes it with this mode. Log directories may be others' to write to, so only what
/// would have us write elsewhere is refused: a symlink that is theirs, a file that is theirs, another name of some other file.
///
/// # Errors
/// See [`Unsafe`].
pub fn append(path: &Path, mode: u32) -> Result<File, Unsafe> {
    let failed = |step: Step| step.about(path);
    // Nonblocking for those who name a FIFO: a line without a reader is lost, the recorder is not.
    let flags = OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let (file, handed_over) = match Walk::to(path, Judging::Links).map_err(failed)? {
        Reached::End(end) => {
            let name = by_descriptor(&end.fd);
            let file = open(&name, flags | OFlags::RDWR, Mode::empty()).or_else(|_| open(&name, flags | OFlags::WRONLY, Mode::empty()));
            (file.map_err(Step::from).map_err(failed)?, end.handed_over)
        }
        Reached::Free { dir, name } => {
            let flags = flags | OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW;
            (openat(&dir, &*name, flags, Mode::from_raw_mode(mode)).map_err(Step::from).map_err(failed)?, false)
        }
    };
    let (stat, us) = (fstat(&file).map_err(Step::from).map_err(failed)?, Us::now());
    let kind = FileType::from_raw_mode(stat.st_mode);
    let nobodys = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) || kind_of_fs(&file) == Some(PIPEFS);
    if !handed_over && !nobodys {
        if !us.trusts(stat.st_uid) {
            return Err(failed(refused(&stat, path, "file", Why::Owner, us)));
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if kind == FileType::RegularFile && stat.st_nlink > 1 {
            directory(parent)?;
        }
    }
    Ok(file.into())
}

/// A file that oomwarden obeys: nobody else may change it or put another in its place.
///
/// # Errors
/// See [`Unsafe`].
pub fn file(path: &Path) -> Result<End, Unsafe> {
    let end = follow(path)?;
    opened(&end.fd, &end.real, end.handed_over)?;
    Ok(end)
}

/// The same of a file that is open already, to which [`follow`] led.
///
/// # Errors
/// See [`Unsafe`].
pub fn opened(file: impl AsFd, path: &Path, handed_over: bool) -> Result<(), Unsafe> {
    let file = file.as_fd();
    let stat = fstat(file).map_err(|errno| Step::from(errno).about(path))?;
    match FileType::from_raw_mode(stat.st_mode) {
        // Only root makes device files, and what is written to one is not what is read from it.
        FileType::CharacterDevice | FileType::BlockDevice => Ok(()),
        // The other end is whoever made it, for this.
        FileType::Fifo if handed_over || kind_of_fs(file) == Some(PIPEFS) => Ok(()),
        _ => judge(file, &stat, path, "file", Us::now()).map_err(|step| step.about(path)),
    }
}

/// A directory whose files oomwarden obeys, or in which it makes some: nobody else may add, remove or rename anything there, be it
/// sticky or not. One on a read-only mount is taken as it is.
///
/// # Errors
/// See [`Unsafe`]; ENOTDIR where it is none.
pub fn directory(path: &Path) -> Result<End, Unsafe> {
    let end = follow(path)?;
    if !end.is(FileType::Directory) {
        return Err(Step::from(Errno::NOTDIR).about(path));
    }
    if !is_read_only(&end.fd) {
        judge_directory(&end.fd, &end.stat, &end.real, Us::now()).map_err(|step| step.about(path))?;
    }
    Ok(end)
}

/// The directory in which a socket or the like is made: others may be able to add names there, if it is sticky, but not to replace ours.
///
/// # Errors
/// See [`Unsafe`].
pub fn place(path: &Path) -> Result<(), Unsafe> {
    let end = follow(path)?;
    let sticky = end.stat.st_mode & libc::S_ISVTX != 0 && Us::now().trusts(end.stat.st_uid);
    if sticky || is_read_only(&end.fd) {
        return Ok(());
    }
    judge_directory(&end.fd, &end.stat, &end.real, Us::now()).map_err(|step| step.about(path))
}

/// Makes a directory for our own files, and those above it, as needed: open to others for reading whatever the umask says.
///
/// # Errors
/// What the system says.
pub fn make_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

/// Listens at a new Unix socket that has this mode from the first moment at which somebody can connect.
///
/// # Errors
/// What the system says: EADDRINUSE where the name is taken.
pub fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The name is made with the mode of the socket itself; nobody but us may connect before the end.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    // By descriptor: the name may be another's by now, where others may write.
    let ours = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fstat(&ours)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket || stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "somebody else took its name"));
    }
    std::fs::set_permissions(by_descriptor(&ours), std::fs::Permissions::from_mode(mode))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// Whether somebody listens at the Unix socket of this name. Waits for nobody: a connect to one who
/// was stopped and whose queue is full would block.
///
/// # Errors
/// What the system says where that can't be told.
pub fn somebody_listens(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        // EAGAIN: somebody does, and can't keep up.
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        // Left behind, or gone.
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// The name of a descriptor, for calls that take none of O_PATH.
fn by_descriptor(fd: impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into()
}

/// An error without the path that was asked about.
enum Step {
    Errno(io::Error),
    Writable(Box<Writable>),
}

impl Step {
    fn about(self, path: &Path) -> Unsafe {
        match self {
            Step::Errno(source) => Unsafe::Io { path: path.to_owned(), source },
            Step::Writable(writable) => Unsafe::Writable(writable),
        }
    }
}

impl From<Errno> for Step {
    fn from(errno: Errno) -> Step {
        Step::Errno(errno.into())
    }
}

impl From<io::Error> for Step {
    fn from(error: io::Error) -> Step {
        Step::Errno(error)
    }
}

/// What is looked at on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judging {
    /// All that others may change.
    Way,
    /// Only whose the symlinks are.
    Links,
}

/// Where a path leads.
enum Reached {
    /// Something is there.
    End(End),
    /// Nothing has this name yet.
    Free { dir: OwnedFd, name: OsString },
}

/// The way along a path.
struct Walk {
    us: Us,
    judging: Judging,
    dir: OwnedFd,
    shown: PathBuf,
    handed_over: bool,
}

fn top() -> Result<OwnedFd, Errno> {
    open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

impl Walk {
    fn to(path: &Path, judging: Judging) -> Result<Reached, Step> {
        let absolute = std::path::absolute(path)?;
        Walk { us: Us::now(), judging, dir: top()?, shown: PathBuf::from("/"), handed_over: false }.follow(&absolute)
    }

    fn follow(mut self, path: &Path) -> Result<Reached, Step> {
        let mut names: VecDeque<OsString> = names(path).collect();
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            if name == ".." {
                self.dir = openat(&self.dir, "..", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
                self.shown.pop();
                continue;
            }
            let entry = match openat(&self.dir, &*name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
                Ok(entry) => entry,
                Err(Errno::NOENT) if names.is_empty() => return Ok(Reached::Free { dir: self.dir, name }),
                Err(errno) => return Err(errno.into()),
            };
            let stat = fstat(&entry)?;
            self.judge_entry(&name, &stat)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                (self.dir, self.handed_over) = (entry, false);
                self.shown.push(name);
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::LOOP.into());
            }
            if kind_of_fs(entry.as_fd()) == Some(PROC) && name != "self" && name != "thread-self" {
                // Its text is for people; where it leads only the kernel knows.
                self.handed_over = self.shown.file_name() == Some(OsStr::new("fd"));
                self.dir = openat(&self.dir, &*name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
                self.shown.push(name);
                continue;
            }
            let target = readlinkat(&self.dir, &*name, Vec::new())?;
            let target = Path::new(OsStr::from_bytes(target.to_bytes()));
            if target.is_absolute() {
                (self.dir, self.shown) = (top()?, PathBuf::from("/"));
            }
            let rest = std::mem::take(&mut names);
            names = self::names(target).chain(rest).collect();
        }
        let stat = fstat(&self.dir)?;
        Ok(Reached::End(End { fd: self.dir, stat, real: self.shown, handed_over: self.handed_over }))
    }

    /// Whether others may put something else in the place of an entry of the directory.
    fn judge_entry(&self, name: &OsStr, entry: &Stat) -> Result<(), Step> {
        let stat = fstat(&self.dir)?;
        let is_link = FileType::from_raw_mode(entry.st_mode) == FileType::Symlink;
        if is_read_only(&self.dir) || (self.judging == Judging::Links && !is_link) {
            return Ok(());
        }
        let owner_is_fine = self.us.trusts(stat.st_uid) || self.us.unmapped == Some(stat.st_uid);
        if self.judging == Judging::Way && (stat.st_mode & libc::S_ISVTX == 0 || !owner_is_fine) {
            return judge_directory(&self.dir, &stat, &self.shown, self.us);
        }
        if self.us.trusts(entry.st_uid) || self.us.unmapped == Some(entry.st_uid) {
            return Ok(());
        }
        let what = match FileType::from_raw_mode(entry.st_mode) {
            FileType::Directory => "directory",
            FileType::Symlink => "symlink",
            _ => "file",
        };
        Err(refused(entry, &self.shown.join(name), what, Why::Owner, self.us))
    }
}

/// The components of a path; it is absolute, or a symlink's text.
fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn refused(stat: &Stat, path: &Path, what: &'static str, why: Why, us: Us) -> Step {
    let (owner, group, mode) = (stat.st_uid, stat.st_gid, stat.st_mode);
    Step::Writable(Box::new(Writable { path: path.to_owned(), what, owner, group, mode, why, us }))
}

fn judge_directory(dir: impl AsFd, stat: &Stat, path: &Path, us: Us) -> Result<(), Step> {
    // In a user namespace `/` itself may belong to somebody outside. What it leads to is still judged by its own owner.
    let us_here = if us.unmapped == Some(stat.st_uid) { Us { uid: stat.st_uid, ..us } } else { us };
    judge(dir, stat, path, "directory", us_here)
}

fn judge(fd: impl AsFd, stat: &Stat, path: &Path, what: &'static str, us: Us) -> Result<(), Step> {
    if !us.trusts(stat.st_uid) {
        return Err(refused(stat, path, what, Why::Owner, us));
    }
    if stat.st_mode & 0o020 == 0 && stat.st_mode & 0o002 == 0 {
        return Ok(());
    }
    if stat.st_mode & 0o002 != 0 || !us.trusts_group(stat.st_gid) {
        return Err(refused(stat, path, what, Why::Mode, us));
    }
    // A descriptor of O_PATH has no attributes by itself; by its name in /proc it has.
    match getxattr_query(by_descriptor(fd), "system.posix_acl_access") {
        Ok(0) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Ok(_) | Err(_) => Err(refused(stat, path, what, Why::Acl, us)),
    }
}

fn is_read_only(fd: impl AsFd) -> bool {
    fstatvfs(fd).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn kind_of_fs(fd: impl AsFd) -> Option<u64> {
    rustix::fs::fstatfs(fd).ok().and_then(|fs| u64::try_from(fs.f_type).ok())
}

#[cfg(test)]
pub(crate) mod tests;
