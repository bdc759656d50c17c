//! Memory control groups: made and limited by way of cgroups-rs, read raw (reading through it swallows errors).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cgroups_rs::fs::cgroup::Cgroup;
use cgroups_rs::fs::hierarchies;
use cgroups_rs::fs::memory::MemController;

use super::wait::{self, SOON};
use crate::guest::places;
use crate::outcome::{Doing, Outcome};

/// Bytes in a MiB.
pub const MIB: u64 = 1 << 20;

/// A group, known by its directory. Cheap to clone; dropping it removes nothing.
#[derive(Clone, Debug)]
pub struct Group {
    directory: PathBuf,
}

impl Group {
    /// Makes a group below the root, with missing parents, and gives them the memory and pids controllers.
    /// `path` is like `t/a`.
    pub fn new(path: &str) -> Outcome<Group> {
        let controllers = Some(vec!["memory".to_owned(), "pids".to_owned()]);
        Cgroup::new_with_specified_controllers(hierarchies::auto(), path, controllers).doing(format_args!("create the group {path}"))?;
        let group = Group { directory: Path::new(places::CGROUP).join(path) };
        // cgroups-rs swallows what goes wrong while it hands down controllers.
        ensure!(group.directory.join("memory.current").exists(), "the group {path} has no memory controller");
        Ok(group)
    }

    /// A child whose name may be any bytes.
    pub fn child(&self, name: impl AsRef<OsStr>) -> Outcome<Group> {
        let child = self.named(name);
        self.set("cgroup.subtree_control", "+memory +pids")?;
        std::fs::create_dir(&child.directory).doing(format_args!("create the group {child}"))?;
        Ok(child)
    }

    /// A child without touching anything.
    pub fn named(&self, name: impl AsRef<OsStr>) -> Group {
        Group { directory: self.directory.join(name.as_ref()) }
    }

    /// The group in a directory that exists.
    pub fn at(directory: impl Into<PathBuf>) -> Group {
        Group { directory: directory.into() }
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its path as policies name it, from the cgroup root; bytes that are not UTF-8 replaced.
    pub fn path(&self) -> String {
        let below = self.directory.strip_prefix(places::CGROUP).unwrap_or(&self.directory);
        format!("/{}", below.to_string_lossy())
    }

    /// memory.max.
    pub fn max(self, bytes: u64) -> Outcome<Group> {
        self.limit(|memory| memory.set_limit(bytes as i64))
    }

    /// memory.high.
    pub fn high(self, bytes: u64) -> Outcome<Group> {
        self.limit(|memory| {
            memory.set_mem(cgroups_rs::fs::memory::SetMemory {
                low: None,
                high: Some(cgroups_rs::fs::MaxValue::Value(bytes as i64)),
                min: None,
                max: None,
            })
        })
    }

    /// memory.swap.max 0.
    pub fn no_swap(self) -> Outcome<Group> {
        self.limit(|memory| memory.set_memswap_limit(0))
    }

    fn limit(self, set: impl Fn(&MemController) -> Result<(), cgroups_rs::fs::error::Error>) -> Outcome<Group> {
        let below = self.directory.strip_prefix(places::CGROUP).doing("find the group below the root")?;
        let name = below.to_str();
        match name {
            Some(name) => {
                let cgroup = Cgroup::load(hierarchies::auto(), name);
                let memory: &MemController = cgroup.controller_of().ok_or("cgroups-rs finds no memory controller")?;
                set(memory).doing(format_args!("limit the group {self}"))?;
            }
            None => return Err(format!("cgroups-rs takes only UTF-8 names, not {self}: use set()")),
        }
        Ok(self)
    }

    /// Writes a file of the group.
    pub fn set(&self, file: &str, value: &str) -> Outcome {
        std::fs::write(self.directory.join(file), value).doing(format_args!("write {value:?} to {file} of {self}"))
    }

    /// Reads a file of the group.
    pub fn read(&self, file: &str) -> Outcome<String> {
        std::fs::read_to_string(self.directory.join(file)).doing(format_args!("read {file} of {self}"))
    }

    /// A file that is one number; `max` reads as the largest.
    pub fn number(&self, file: &str) -> Outcome<u64> {
        let text = self.read(file)?;
        match text.trim() {
            "max" => Ok(u64::MAX),
            number => number.parse().doing(format_args!("understand {file} of {self}: {number:?}")),
        }
    }

    /// One key of a file of `key value` lines.
    pub fn key(&self, file: &str, key: &str) -> Outcome<u64> {
        let text = self.read(file)?;
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
            .ok_or_else(|| format!("{file} of {self} has no {key}: {text:?}"))
    }

    /// A counter of memory.events.
    pub fn event(&self, counter: &str) -> Outcome<u64> {
        self.key("memory.events", counter)
    }

    /// Stall since the group was made, microseconds: `kind` is `some` or `full`.
    pub fn stall(&self, kind: &str) -> Outcome<u64> {
        let text = self.read("memory.pressure")?;
        text.lines()
            .find(|line| line.starts_with(kind))
            .and_then(|line| line.rsplit_once("total=")?.1.parse().ok())
            .ok_or_else(|| format!("memory.pressure of {self} has no {kind}: {text:?}"))
    }

    /// Whether any process lives in it or below.
    pub fn populated(&self) -> Outcome<bool> {
        Ok(self.key("cgroup.events", "populated")? == 1)
    }

    /// The processes directly in it.
    pub fn processes(&self) -> Outcome<Vec<u32>> {
        Ok(self.read("cgroup.procs")?.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// memory.current in bytes.
    pub fn usage(&self) -> Outcome<u64> {
        self.number("memory.current")
    }

    /// Its identity: the inode number of its directory.
    pub fn id(&self) -> Outcome<u64> {
        Ok(std::fs::metadata(&self.directory).doing(format_args!("look at {self}"))?.ino())
    }

    /// Kills everything in it and below by the kernel's own means.
    pub fn kill(&self) -> Outcome {
        self.set("cgroup.kill", "1")
    }

    /// Removes it. A group can be busy for a moment after its last process was collected.
    pub fn remove(&self) -> Outcome {
        wait::until(&format!("{self} can be removed"), SOON, || Ok(std::fs::remove_dir(&self.directory).is_ok()))
    }

    /// Waits until nobody lives in it.
    pub fn wait_empty(&self) -> Outcome {
        wait::until(&format!("{self} is empty"), SOON, || Ok(!self.populated()?))
    }

    /// Waits until it uses at least so much memory, swap included.
    pub fn wait_usage(&self, bytes: u64) -> Outcome {
        wait::until(&format!("{self} uses {} MiB", bytes / MIB), SOON, || {
            Ok(self.usage()? + self.number("memory.swap.current").unwrap_or(0) >= bytes)
        })
    }

    /// Waits until a counter of memory.events is above `value`.
    pub fn wait_event(&self, counter: &str, value: u64) -> Outcome {
        wait::until(&format!("{counter} of {self} rises above {value}"), SOON, || Ok(self.event(counter)? > value))
    }
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.path())
    }
}

/// A name that is not UTF-8 or otherwise awkward.
pub fn bytes(name: &[u8]) -> OsString {
    OsString::from_vec(OsStr::from_bytes(name).as_bytes().to_vec())
}
