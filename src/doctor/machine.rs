//! What the checks look at, gathered once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use procfs::FromRead;
use procfs::process::{MountInfo, MountInfos, Status};
use rustix::fs::{Access, AtFlags, CWD};

use crate::cgroup::path::GroupPath;
use crate::sense::kernel_log::KernelLog;

/// More groups than this are not counted.
const MOST_GROUPS: usize = 100_000;

/// Questions that files can't answer.
#[derive(Clone, Copy, Debug)]
pub struct Probes {
    /// Whether this directory is in a cgroup2 file system.
    pub is_cgroup2: fn(&Path) -> io::Result<bool>,
    /// Arms a PSI trigger by writing this text to this file, and lets go of it.
    pub arm_trigger: fn(&Path, &str) -> io::Result<()>,
    /// Whether we may write to this file; it is not opened.
    pub may_write: fn(&Path) -> io::Result<()>,
    /// Opens a pidfd of ourselves.
    pub pidfd: fn() -> io::Result<()>,
    /// Opens the kernel's log, and says by which way; given /proc.
    pub kernel_log: fn(&Path) -> io::Result<&'static str>,
    /// Whether a directory has one of these extended attributes.
    pub marks: fn(&Path, &[&str]) -> bool,
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct System {
    /// The root directory, for the files of others.
    pub root: PathBuf,
    /// /proc
    pub proc: PathBuf,
    /// The cgroup root.
    pub cgroup_root: PathBuf,
    /// Our own process.
    pub pid: u32,
    /// See there.
    pub probes: Probes,
}

impl System {
    /// This machine.
    #[must_use]
    pub fn here(cgroup_root: PathBuf) -> System {
        let probes = Probes { is_cgroup2, arm_trigger, may_write, pidfd, kernel_log, marks };
        System { root: PathBuf::from("/"), proc: PathBuf::from("/proc"), cgroup_root, pid: std::process::id(), probes }
    }
}

/// What was gathered.
#[derive(Debug)]
pub struct Machine {
    /// Where it was gathered.
    pub system: System,
    /// Whether the cgroup root is one.
    pub is_cgroup2: bool,
    /// Directories of all groups, the root first; empty if the root is none.
    pub groups: Vec<PathBuf>,
    /// Every mount, as far as readable.
    pub mounts: Vec<MountInfo>,
    /// /proc/self/status.
    pub status: Option<Status>,
    /// Text of /proc/self/limits.
    pub limits: Option<String>,
    /// Version of the kernel: `(6, 12)`.
    pub kernel: Option<(u32, u32)>,
}

impl Machine {
    /// Gathers. What can't be read is left out; the checks say so.
    #[must_use]
    pub fn look(system: &System) -> Machine {
        let is_cgroup2 = (system.probes.is_cgroup2)(&system.cgroup_root).unwrap_or(false);
        let myself = system.proc.join("self");
        Machine {
            is_cgroup2,
            groups: if is_cgroup2 { groups_below(&system.cgroup_root) } else { Vec::new() },
            mounts: mounts(&myself.join("mountinfo")),
            status: parsed(&myself.join("status")),
            limits: read(&myself.join("limits")),
            kernel: read(&system.proc.join("sys/kernel/osrelease")).and_then(|release| version(&release)),
            system: system.clone(),
        }
    }

    /// Text of a file below /proc, trimmed.
    #[must_use]
    pub fn proc(&self, path: &str) -> Option<String> {
        read(&self.system.proc.join(path))
    }

    /// Text of a file of the cgroup root.
    #[must_use]
    pub fn root_file(&self, name: &str) -> Option<String> {
        read(&self.system.cgroup_root.join(name))
    }

    /// Whether a word stands on the kernel's command line.
    #[must_use]
    pub fn boot_option(&self, word: &str) -> bool {
        self.proc("cmdline").is_some_and(|line| line.split_whitespace().any(|option| option == word))
    }

    /// Whether the kernel is at least this version; `None` if it isn't known.
    #[must_use]
    pub fn kernel_at_least(&self, major: u32, minor: u32) -> Option<bool> {
        self.kernel.map(|kernel| kernel >= (major, minor))
    }

    /// Whether we have a capability, by its number in linux/capability.h.
    #[must_use]
    pub fn has_capability(&self, number: u32) -> Option<bool> {
        Some(self.status.as_ref()?.capeff >> number & 1 == 1)
    }

    /// A limit of ours, by its name in /proc/self/limits: the soft and the hard one. `u64::MAX` is unlimited, `None` not readable.
    #[must_use]
    pub fn limit(&self, name: &str) -> Option<(u64, u64)> {
        let values = self.limits.as_ref()?.lines().find_map(|line| line.strip_prefix(name))?;
        let mut values = values.split_whitespace().map(|value| if value == "unlimited" { Ok(u64::MAX) } else { value.parse() });
        Some((values.next()?.ok()?, values.next()?.ok()?))
    }

    /// A group's directory as a path below the root, fit for a terminal.
    #[must_use]
    pub fn group_path(&self, directory: &Path) -> GroupPath {
        let below = directory.strip_prefix(&self.system.cgroup_root).unwrap_or(directory);
        GroupPath::from_bytes(below.as_os_str().as_encoded_bytes())
    }
}

/// Text of a file, trimmed; `None` if it can't be read.
pub(super) fn read(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn parsed<T: FromRead>(path: &Path) -> Option<T> {
    T::from_read(File::open(path).ok()?).ok()
}

/// Line by line, so that a mount with a name that is no text hides only itself.
fn mounts(path: &Path) -> Vec<MountInfo> {
    let text = read(path).unwrap_or_default();
    let one = |line: &str| MountInfos::from_read(line.as_bytes()).ok().and_then(|mounts| mounts.0.into_iter().next());
    text.lines().filter_map(one).map(|mount| MountInfo { mount_point: unescaped(&mount.mount_point), ..mount }).collect()
}

/// mountinfo writes blanks in paths as `\040` and the like.
fn unescaped(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    PathBuf::from(text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\"))
}

/// `6.12.117+deb13-cloud-amd64` is (6, 12).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The root and every directory below it. Groups come and go meanwhile: what is gone is left out.
fn groups_below(root: &Path) -> Vec<PathBuf> {
    let mut groups = vec![root.to_owned()];
    let mut next = 0;
    while next < groups.len() && groups.len() < MOST_GROUPS {
        if let Ok(entries) = fs::read_dir(&groups[next]) {
            let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            groups.extend(directories.map(|entry| entry.path()));
        }
        next += 1;
    }
    groups.truncate(MOST_GROUPS);
    groups
}

fn is_cgroup2(path: &Path) -> io::Result<bool> {
    Ok(nix::sys::statfs::statfs(path)?.filesystem_type() == nix::sys::statfs::CGROUP2_SUPER_MAGIC)
}

fn arm_trigger(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().read(true).write(true).open(path)?.write_all(text.as_bytes())
}

fn may_write(path: &Path) -> io::Result<()> {
    // by the effective ids, as an open would be
    Ok(rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS)?)
}

fn pidfd() -> io::Result<()> {
    rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?;
    Ok(())
}

fn kernel_log(_proc: &Path) -> io::Result<&'static str> {
    Ok(KernelLog::open()?.way())
}

fn marks(path: &Path, names: &[&str]) -> bool {
    let mut value = [0; 16];
    let is_set = |name: &&str| match rustix::fs::getxattr(path, *name, &mut value[..]) {
        Ok(_) => true,
        Err(errno) => errno == rustix::io::Errno::RANGE,
    };
    names.iter().any(is_set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (release, expected) in [
            ("6.12.117+deb13-cloud-amd64", Some((6, 12))),
            ("5.4.0-1", Some((5, 4))),
            ("5.10", Some((5, 10))),
            ("6", None),
            ("", None),
            ("x.y", None),
            ("99999999999.1", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }

    #[test]
    fn the_probes_of_this_machine() {
        assert!(!is_cgroup2(Path::new("/proc")).unwrap());
        assert!(is_cgroup2(Path::new("/nonexistent")).is_err());
        assert!(may_write(Path::new("/dev/null")).is_ok());
        assert!(may_write(Path::new("/nonexistent")).is_err());
        assert!(pidfd().is_ok());
    }
}
