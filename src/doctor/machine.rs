//! What the checks look at, gathered once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use procfs::FromRead;
use procfs::process::{MountInfo, MountInfos, Status};
use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;

use super::unit::Unit;
use crate::cgroup::path::GroupPath;
use crate::kernel_kills::log::KernelLog;

/// CAP_DAC_OVERRIDE as a bit.
const DAC_OVERRIDE: u64 = 1 << 1;
/// Numbers of capabilities in linux/capability.h.
const SYS_RESOURCE: u32 = 24;
const SYSLOG: u32 = 34;
/// In microseconds: windows without CAP_SYS_RESOURCE are multiples of that.
const UNPRIVILEGED_WINDOW: u64 = 2_000_000;

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
    /// A field of a kernel module's file that is compressed, by modinfo(8).
    pub modinfo: fn(&Path, &str) -> io::Result<String>,
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
    /// The process that is judged: our own, or a unit's.
    pub pid: u32,
    /// The unit whose rights are judged; `None`: our own are.
    pub unit: Option<Unit>,
    /// See there.
    pub probes: Probes,
}

impl System {
    /// This machine.
    #[must_use]
    pub fn here(cgroup_root: PathBuf) -> System {
        let probes = Probes { is_cgroup2, arm_trigger, may_write, pidfd, kernel_log, marks, modinfo };
        System { root: PathBuf::from("/"), proc: PathBuf::from("/proc"), cgroup_root, pid: std::process::id(), unit: None, probes }
    }
}

impl System {
    /// The same, seen with the rights of a service. One that does not run has no process.
    #[must_use]
    pub fn with_unit(mut self, unit: Option<Unit>) -> System {
        if let Some(unit) = &unit {
            self.pid = unit.pid().unwrap_or(0);
        }
        self.unit = unit;
        self
    }
}

/// Who is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// The effective user; `None`: it can't be told.
    pub uid: Option<u32>,
    /// Effective capabilities, a bit each.
    pub capabilities: u64,
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
    /// Of the process that is judged.
    pub rights: Option<Rights>,
    /// Text of its /proc/PID/limits.
    pub limits: Option<String>,
    /// Version of the kernel: `(6, 12)`.
    pub kernel: Option<(u32, u32)>,
}

impl Machine {
    /// Gathers. What can't be read is left out; the checks say so.
    #[must_use]
    pub fn look(system: &System) -> Machine {
        let mut machine = Machine::without_groups(system);
        if machine.is_cgroup2 {
            machine.groups = groups_below(&system.cgroup_root);
        }
        machine
    }

    /// As [`Machine::look`], but for the groups, of which there may be many.
    #[must_use]
    pub fn without_groups(system: &System) -> Machine {
        let is_cgroup2 = (system.probes.is_cgroup2)(&system.cgroup_root).unwrap_or(false);
        let idle = system.unit.as_ref().filter(|unit| unit.pid().is_none());
        let myself = system.proc.join(who(system));
        let rights = match idle {
            Some(unit) => Some(Rights { uid: unit.uid(), capabilities: unit.capabilities() }),
            None => parsed(&myself.join("status")).map(|status: Status| Rights { uid: Some(status.euid), capabilities: status.capeff }),
        };
        Machine {
            is_cgroup2,
            groups: Vec::new(),
            mounts: mounts(&myself.join("mountinfo")),
            rights,
            limits: idle.map_or_else(|| read(&myself.join("limits")), |unit| Some(unit.limits())),
            kernel: read(&system.proc.join("sys/kernel/osrelease")).and_then(|release| version(&release)),
            system: system.clone(),
        }
    }

    /// The directory below /proc of the process that is judged, or of ourselves where there is
    /// none.
    #[must_use]
    pub fn who(&self) -> String {
        who(&self.system)
    }

    /// Whether the one who is judged may write to this file; it is not opened.
    ///
    /// # Errors
    /// Why not.
    pub fn may_write(&self, file: &Path) -> io::Result<()> {
        let Some(unit) = &self.system.unit else { return (self.system.probes.may_write)(file) };
        let metadata = fs::metadata(file)?;
        let root = &self.system.cgroup_root;
        let is_group = file.starts_with(root);
        if is_group && (self.mount_of(root).is_some_and(is_read_only) || unit.pid().is_none() && unit.has_read_only_groups()) {
            return Err(Errno::ROFS.into());
        }
        let Some(rights) = self.rights else { return Err(Errno::ACCESS.into()) };
        let is_owner = rights.uid == Some(metadata.uid());
        let allowed = if is_owner { 0o200 } else { 0o002 };
        if rights.capabilities & DAC_OVERRIDE != 0 || metadata.mode() & allowed != 0 { Ok(()) } else { Err(Errno::ACCESS.into()) }
    }

    /// Whether the kernel accepts a PSI trigger of the one who is judged.
    ///
    /// # Errors
    /// Why not.
    pub fn arm_trigger(&self, file: &Path, text: &str) -> io::Result<()> {
        let arm = || (self.system.probes.arm_trigger)(file, text);
        if self.system.unit.is_none() {
            return arm();
        }
        self.may_write(file)?;
        let window = text.trim_end_matches('\0').rsplit(' ').next().and_then(|window| window.parse::<u64>().ok()).unwrap_or(0);
        if self.has_capability(SYS_RESOURCE) != Some(true) && !window.is_multiple_of(UNPRIVILEGED_WINDOW) {
            return Err(Errno::INVAL.into());
        }
        match arm() {
            // It is ourselves who may not try.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            answer => answer,
        }
    }

    /// By which way the one who is judged may read the kernel's log.
    ///
    /// # Errors
    /// Why not.
    pub fn kernel_log(&self) -> io::Result<&'static str> {
        if self.system.unit.is_none() {
            return (self.system.probes.kernel_log)(&self.system.proc);
        }
        let is_open = self.proc("sys/kernel/dmesg_restrict").as_deref() == Some("0");
        match self.has_capability(SYSLOG) {
            Some(true) => Ok("CAP_SYSLOG"),
            _ if is_open => Ok("everybody"),
            _ => Err(Errno::PERM.into()),
        }
    }

    /// The cgroup2 mount that a directory is in, as the one who is judged sees it.
    #[must_use]
    pub fn mount_of(&self, directory: &Path) -> Option<&MountInfo> {
        // of several mounts on one another the last is seen; of nested ones the deepest
        let covers = |mount: &&MountInfo| mount.fs_type == "cgroup2" && directory.starts_with(&mount.mount_point);
        self.mounts.iter().filter(covers).max_by_key(|mount| mount.mount_point.components().count())
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
        Some(self.rights?.capabilities >> number & 1 == 1)
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

fn who(system: &System) -> String {
    system.unit.as_ref().and_then(Unit::pid).map_or_else(|| "self".to_owned(), |pid| pid.to_string())
}

fn is_read_only(mount: &MountInfo) -> bool {
    mount.mount_options.contains_key("ro") || mount.super_options.contains_key("ro")
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

fn modinfo(module: &Path, field: &str) -> io::Result<String> {
    // Where it is, whoever called us with whatever PATH.
    let program =
        ["/sbin/modinfo", "/usr/sbin/modinfo", "/bin/modinfo", "/usr/bin/modinfo"].into_iter().find(|path| Path::new(path).exists());
    let output = Command::new(program.unwrap_or("modinfo")).args(["-F", field]).arg(module).output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("modinfo: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
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
        assert!(modinfo(Path::new("/nonexistent"), "version").is_err());
    }
}
