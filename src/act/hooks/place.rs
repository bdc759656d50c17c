//! Where hooks stand: in a group of their own beside the daemon's, where the group that oomwarden was started in is delegated to it.
//!
//! A hook in the daemon's own group shares its limit and its protection, and what the kernel does when that group runs out of
//! memory hits both. A group below with the memory controller needs all processes of the group above to be in leaves
//! (cgroup-v2.rst, "No Internal Process Constraint"), so the daemon moves itself too:
//!
//! ```text
//! oomwarden.service          the base: user.delegate=1
//! |- daemon                  all of memory.min and memory.low of the base
//! `- hooks                   what its limit leaves beside the daemon
//! ```
//!
//! Only a group that is marked as delegated (xattr `user.delegate`, systemd's CGROUP_DELEGATION) and holds nobody else is divided: any
//! other belongs to who made it. The xattr `user.oomwarden_hooks` on `hooks` says that oomwarden
//! made the group or took it over empty, also in a former run: no process of a group without it is
//! ended as a hook's, or spared as one. Opens and writes files of groups, which may block.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{XattrFlags, fgetxattr, getxattr, setxattr};
use rustix::io::Errno;

use crate::cgroup::group::Group;
use crate::cgroup::parse;

/// The daemon's group below the base.
pub const DAEMON: &str = "daemon";
/// The hooks' group beside it.
pub const HOOKS: &str = "hooks";
/// systemd's own, for ExecReload= and the like in a delegated unit.
const CONTROL: &str = ".control";
/// The mark of a delegated group.
const DELEGATED: &CStr = c"user.delegate";
/// The mark of the hooks' group.
const OURS: &CStr = c"user.oomwarden_hooks";
/// The value of both.
const YES: &[u8] = b"1";
/// What hooks leave of a limit to the daemon, at most half of it.
const KEPT_BYTES: u64 = 64 << 20;

/// How long the end waits for killed hooks to be gone, and how often it looks.
const PATIENCE: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A divided group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    base: PathBuf,
}

impl Place {
    /// Divides the group that this process is in, and moves the process into its part. `mounts` are places where cgroup v2 may be mounted.
    ///
    /// # Errors
    /// Why hooks share the daemon's group, in words. Then everything is as it was.
    pub fn make(mounts: &[&Path]) -> Result<Place, String> {
        let (_, own) = own_directory(mounts).ok_or("oomwarden's own group is not found below the cgroup root")?;
        let inside = own.file_name().is_some_and(|name| name == DAEMON);
        let place = match own.parent().filter(|parent| inside && is_delegated(parent)) {
            Some(base) => Place { base: base.to_owned() },
            None => Place { base: own },
        };
        place.examine()?;
        place.divide().map_err(|(file, error)| {
            place.undo();
            format!("{}: {error}", file.display())
        })?;
        Ok(place)
    }

    /// The directory of the hooks' group.
    #[must_use]
    pub fn hooks(&self) -> PathBuf {
        self.base.join(HOOKS)
    }

    /// Whether the base is oomwarden's to divide.
    fn examine(&self) -> Result<(), String> {
        let base = self.base.display();
        if !is_delegated(&self.base) {
            return Err(format!("{base} is not delegated to oomwarden (systemd: Delegate=memory; elsewhere the xattr user.delegate=1)"));
        }
        let read = |file: &str| fs::read_to_string(self.base.join(file)).map_err(|error| format!("{base}/{file}: {error}"));
        if !read("cgroup.controllers")?.split_whitespace().any(|controller| controller == "memory") {
            return Err(format!("{base} lacks the memory controller"));
        }
        let own = std::process::id().to_string();
        for procs in ["cgroup.procs", "daemon/cgroup.procs"] {
            let others = match fs::read_to_string(self.base.join(procs)) {
                Ok(text) => text.split_whitespace().any(|pid| pid != own),
                // The second need not be there yet.
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => return Err(format!("{base}/{procs}: {error}")),
            };
            if others {
                return Err(format!("{base}/{procs} has other processes than oomwarden"));
            }
        }
        if !is_marked(&self.hooks(), OURS) {
            // Of the group and all below it.
            let populated = match fs::read_to_string(self.hooks().join("cgroup.events")) {
                Ok(text) => !text.contains("populated 0"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => return Err(format!("{base}/{HOOKS}/cgroup.events: {error}")),
            };
            if populated {
                return Err(format!("{base}/{HOOKS} has processes of somebody else: end or move them, and start oomwarden anew"));
            }
        }
        let entries = fs::read_dir(&self.base).map_err(|error| format!("{base}: {error}"))?;
        let foreign = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .find(|entry| ![DAEMON, HOOKS, CONTROL].iter().any(|ours| entry.file_name() == *ours));
        foreign.map_or(Ok(()), |entry| Err(format!("{base} has a group of somebody else: {}", entry.file_name().display())))
    }

    fn divide(&self) -> Result<(), (PathBuf, io::Error)> {
        make(&self.base.join(DAEMON))?;
        let hooks = self.hooks();
        let made = make(&hooks)?;
        if let Err(errno) = setxattr(&hooks, OURS, YES, XattrFlags::empty()) {
            if made {
                // Without the mark nobody else will.
                let _ = fs::remove_dir(&hooks);
            }
            return Err((hooks, errno.into()));
        }
        let write = |file: &str, value: &str| {
            let path = self.base.join(file);
            fs::write(&path, value).map_err(|error| (path, error))
        };
        write("daemon/cgroup.procs", "0")?;
        write("cgroup.subtree_control", "+memory")?;
        let read = |file: &str| fs::read_to_string(self.base.join(file)).unwrap_or_default().trim().to_owned();
        for file in ["memory.min", "memory.low"] {
            // Else hooks would use up a part of what protects the daemon.
            let value = read(file);
            if !matches!(value.as_str(), "" | "0") {
                write(&format!("{DAEMON}/{file}"), &value)?;
            }
        }
        for file in ["memory.max", "memory.high"] {
            let value = read(file).parse().map_or_else(|_| "max".to_owned(), |limit| left_to_hooks(limit).to_string());
            write(&format!("{HOOKS}/{file}"), &value)?;
        }
        Ok(())
    }

    /// Ends whoever is in the hooks' group.
    pub fn clear(&self) {
        clear(&self.hooks());
    }

    /// Puts everything back, as far as possible: whoever starts oomwarden in this group again must be able to enter it. The helper must be
    /// gone.
    pub fn undo(&self) {
        let ours = is_marked(&self.hooks(), OURS);
        self.clear();
        let is_empty = || fs::read_to_string(self.hooks().join("cgroup.events")).map_or(true, |text| text.contains("populated 0"));
        let since = Instant::now();
        while ours && !is_empty() && since.elapsed() < PATIENCE {
            std::thread::sleep(LOOK_EVERY);
        }
        // Each may fail where the steps before were not taken; what stays hurts nobody but the next start in this very group.
        let _ = fs::write(self.base.join("cgroup.subtree_control"), "-memory");
        let _ = fs::write(self.base.join("cgroup.procs"), "0");
        let _ = fs::remove_dir(self.base.join(DAEMON));
        if ours {
            let _ = fs::remove_dir(self.hooks());
        }
    }
}

/// Makes a group; whether it was not there before.
fn make(group: &Path) -> Result<bool, (PathBuf, io::Error)> {
    match fs::create_dir(group) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err((group.to_owned(), error)),
    }
}

/// Moves this process into a group.
///
/// # Errors
/// As writing.
pub fn enter(group: &Path) -> io::Result<()> {
    fs::write(group.join("cgroup.procs"), "0")
}

/// Kills all processes of a hooks' group (of no other), the caller too if it is one of them
/// (cgroup.kill, since 5.14). Before that the session of each hook has to do.
pub fn clear(group: &Path) {
    if is_marked(group, OURS) {
        let _ = fs::write(group.join("cgroup.kill"), "1");
    }
}

/// How much of a limit hooks may use.
fn left_to_hooks(limit: u64) -> u64 {
    limit - KEPT_BYTES.min(limit / 2)
}

fn is_delegated(group: &Path) -> bool {
    is_marked(group, DELEGATED)
}

fn is_marked(group: &Path, mark: &CStr) -> bool {
    let mut value = [0; 8];
    // ENODATA: no mark. Before 5.7 groups have no such attributes.
    getxattr(group, mark, &mut value).is_ok_and(|length| value.get(..length) == Some(YES))
}

/// Whether a group is one that oomwarden made for its hooks; `None` if that can't be told. Looks no
/// name up and allocates nothing.
#[must_use]
pub fn is_for_hooks(group: &Group) -> Option<bool> {
    let mut value = [0; 8];
    match group.readable_dir().and_then(|directory| fgetxattr(&directory, OURS, &mut value)) {
        Ok(length) => Some(value.get(..length) == Some(YES)),
        // No mark, or none of these at all; the group is gone.
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE | Errno::NOENT | Errno::NODEV) => Some(false),
        Err(_) => None,
    }
}

/// The mount, and the directory of the group that this process is in.
#[must_use]
pub fn own_directory(mounts: &[&Path]) -> Option<(PathBuf, PathBuf)> {
    let named = fs::read("/proc/self/cgroup").ok()?;
    let path = parse::own_group(&named)?;
    let path = Path::new(OsStr::from_bytes(path.strip_prefix(b"/")?));
    let own = std::process::id().to_string();
    // In a cgroup namespace, or with a subtree as the root, the name may mean something else.
    let holds_us = |directory: &Path| {
        fs::read_to_string(directory.join("cgroup.procs")).is_ok_and(|text| text.split_whitespace().any(|pid| pid == own))
    };
    let is_found = |mount: &&&Path| holds_us(&mount.join(path));
    let mount = mounts.iter().find(is_found)?;
    // Without a slash at the end.
    Some((mount.to_path_buf(), mount.join(path).components().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_keeps_its_share_of_a_limit() {
        assert_eq!(left_to_hooks(1 << 30), (1 << 30) - KEPT_BYTES);
        assert_eq!([left_to_hooks(100), left_to_hooks(KEPT_BYTES), left_to_hooks(0)], [50, KEPT_BYTES / 2, 0]);
    }

    /// Ordinary directories that stand in for groups.
    fn base(procs: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("cgroup.procs", procs),
            ("cgroup.controllers", "cpu memory pids\n"),
            ("cgroup.subtree_control", ""),
            ("memory.min", "16777216\n"),
            ("memory.low", "0\n"),
            ("memory.max", "1073741824\n"),
            ("memory.high", "max\n"),
        ] {
            fs::write(dir.path().join(file), text).unwrap();
        }
        dir
    }

    fn mark(dir: &Path) {
        rustix::fs::setxattr(dir, DELEGATED, b"1", rustix::fs::XattrFlags::empty()).unwrap();
    }

    fn own() -> String {
        format!("{}\n", std::process::id())
    }

    #[test]
    fn a_delegated_group_is_divided_and_its_protection_is_the_daemons() {
        let dir = base(&own());
        mark(dir.path());
        let place = Place { base: dir.path().to_owned() };
        place.examine().unwrap();
        place.divide().unwrap();
        let read = |file: &str| fs::read_to_string(dir.path().join(file)).unwrap();
        assert_eq!(read("daemon/cgroup.procs"), "0");
        assert_eq!(read("cgroup.subtree_control"), "+memory");
        assert_eq!(read("daemon/memory.min"), "16777216");
        assert_eq!((read("hooks/memory.max"), read("hooks/memory.high")), (((1 << 30) - KEPT_BYTES).to_string(), "max".to_owned()));
        assert!(!dir.path().join("daemon/memory.low").exists() && !dir.path().join("hooks/memory.min").exists());
    }

    #[test]
    fn what_is_not_ours_alone_is_left_as_it_is() {
        let why = |prepare: &dyn Fn(&Path)| {
            let dir = base(&own());
            prepare(dir.path());
            Place { base: dir.path().to_owned() }.examine().unwrap_err()
        };
        assert!(why(&|_| {}).contains("not delegated"));
        let marked = |prepare: &'static dyn Fn(&Path)| {
            why(&move |dir| {
                mark(dir);
                prepare(dir);
            })
        };
        let others = marked(&|dir| fs::write(dir.join("cgroup.procs"), format!("1\n{}", own())).unwrap());
        assert!(others.contains("other processes"), "{others}");
        assert!(marked(&|dir| fs::create_dir(dir.join("web")).unwrap()).contains("somebody else: web"));
        assert!(marked(&|dir| fs::write(dir.join("cgroup.controllers"), "pids\n").unwrap()).contains("lacks the memory controller"));
        let another = marked(&|dir| {
            fs::create_dir(dir.join(DAEMON)).unwrap();
            fs::write(dir.join("daemon/cgroup.procs"), "1\n").unwrap();
        });
        assert!(another.contains("daemon/cgroup.procs has other processes"), "{another}");
        let strangers = marked(&|dir| {
            fs::create_dir(dir.join(HOOKS)).unwrap();
            fs::write(dir.join("hooks/cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        });
        assert!(strangers.contains("hooks has processes of somebody else"), "{strangers}");
        let wrong = base(&own());
        rustix::fs::setxattr(wrong.path(), DELEGATED, b"0", rustix::fs::XattrFlags::empty()).unwrap();
        assert!(!is_delegated(wrong.path()));
    }

    /// Only what bears our mark is ended and removed.
    #[test]
    fn a_group_of_somebody_else_is_never_killed() {
        let dir = base(&own());
        mark(dir.path());
        let place = Place { base: dir.path().to_owned() };
        fs::create_dir(place.hooks()).unwrap();
        let kill = place.hooks().join("cgroup.kill");
        fs::write(&kill, "").unwrap();
        // What follows on a step of the division that failed.
        place.undo();
        place.clear();
        clear(&place.hooks());
        assert_eq!(fs::read_to_string(&kill).unwrap(), "", "it was killed");
        place.divide().unwrap();
        place.clear();
        assert_eq!(fs::read_to_string(&kill).unwrap(), "1", "it is ours since it was empty when it was taken over");
    }

    #[test]
    fn what_systemd_and_an_earlier_daemon_left_is_no_hindrance() {
        let dir = base("");
        mark(dir.path());
        for left in [DAEMON, HOOKS, CONTROL] {
            fs::create_dir(dir.path().join(left)).unwrap();
        }
        fs::write(dir.path().join("daemon/cgroup.procs"), own()).unwrap();
        let place = Place { base: dir.path().to_owned() };
        place.examine().unwrap();
        place.divide().unwrap();
    }
}
