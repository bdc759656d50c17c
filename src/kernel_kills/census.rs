//! How many processes the kernel's OOM killer ended, and in which groups: by counters, which nobody can forge and no flood
//! of log lines can hide.
//!
//! The machine's count is `oom_kill` of /proc/vmstat; below a delegated subtree it is that of the subtree's memory.events. Where
//! the kills happened is found from the top: memory.events of a group counts everything below it, so only the children of those that
//! rose are looked at. What a removed group had counted stays in its parent's count. A kill by a limit raises `oom` besides,
//! at the group whose limit it is; one for the machine's shortage does not.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Dir, FileType, Mode, OFlags, open, openat};
use rustix::io::Errno;

use crate::cgroup::GroupId;
use crate::cgroup::group::{File, Group, ReadBuf};
use crate::cgroup::parse;
use crate::cgroup::path::GroupPath;
use crate::cgroup::root::Root;

/// The inode number of the root of the whole hierarchy.
const TOP_ID: u64 = 1;
/// Deeper, and for more children, it is only told that the kill was somewhere below.
const DEEPEST: usize = 32;
const MOST_CHILDREN: usize = 4096;
/// Groups with counts that are remembered.
const REMEMBERED: usize = 16 * 1024;
/// A limit that was reached before this has nothing to do with a kill now.
const LIMIT_FRESH: Duration = Duration::from_secs(5);

/// Kills in one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rise {
    /// The group.
    pub group: GroupPath,
    /// How many of its processes.
    pub kills: u64,
    /// They were in a group below this one that is gone, or could not be looked at.
    pub below: bool,
    /// A limit in the same top-level group was reached: that is why, and not the machine's shortage.
    pub limited: bool,
    /// Whether all of the group was killed (memory.oom.group); `None` if the counters can't tell.
    pub whole: Option<bool>,
}

/// Counts of a group, everything below it included, but for `own`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    kills: u64,
    own: u64,
    oom: u64,
    whole: u64,
}

/// What was counted.
#[derive(Debug)]
pub struct Census {
    root: Arc<Root>,
    total: OwnedFd,
    is_top: bool,
    known: HashMap<GroupId, Counts>,
    limited: HashMap<GroupId, Duration>,
    buffer: ReadBuf,
}

impl Census {
    /// Opens the count. The groups are first looked at by [`Census::begin`].
    ///
    /// # Errors
    /// The errno of /proc/vmstat, or of the subtree's memory.events.
    pub fn open(root: Arc<Root>) -> Result<Census, Errno> {
        let is_top = rustix::fs::fstat(&root.dir)?.st_ino == TOP_ID;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let total = if is_top {
            open("/proc/vmstat", flags, Mode::empty())?
        } else {
            openat(&root.dir, File::Events.name(), flags, Mode::empty())?
        };
        Ok(Census { root, total, is_top, known: HashMap::new(), limited: HashMap::new(), buffer: ReadBuf::new() })
    }

    /// Whether this is the whole machine, and not a subtree.
    #[must_use]
    pub fn is_top(&self) -> bool {
        self.is_top
    }

    /// How many processes were killed so far, since the machine (or the subtree) began; `None` if it can't be read.
    pub fn total(&mut self) -> Option<u64> {
        let mut total = None;
        let each = |line: &[u8]| {
            total = line.strip_prefix(b"oom_kill ").and_then(|count| std::str::from_utf8(count).ok()?.trim().parse().ok());
            total.is_none()
        };
        self.buffer.each_line(&self.total, each).ok()?;
        total
    }

    /// Takes all counts as they are.
    pub fn begin(&mut self, now: Duration) {
        self.known.clear();
        drop(self.rises(now));
        self.limited.clear();
    }

    /// The groups right below the root, or the root itself where it counts: whose memory.events rises with every kill below.
    #[must_use]
    pub fn tops(&self) -> Vec<Group> {
        let Ok(root) = Group::open(&self.root, None, GroupPath::root()) else { return Vec::new() };
        if !self.is_top {
            return vec![root];
        }
        children(&root).iter().filter_map(|name| child(&self.root, &root, name)).collect()
    }

    /// Where kills happened since this was asked last.
    pub fn rises(&mut self, now: Duration) -> Vec<Rise> {
        if self.known.len() > REMEMBERED {
            // Most of them are gone. What the others count is taken as it is: this time kills are told without a group.
            self.begin(now);
            return Vec::new();
        }
        let mut rises = Vec::new();
        for top in self.tops() {
            let Some(counts) = self.counts(&top) else { continue };
            let before = self.before(&top);
            if counts.oom > before.oom {
                self.limited.insert(top.id, now);
            }
            let limited = self.limited.get(&top.id).is_some_and(|at| now.saturating_sub(*at) < LIMIT_FRESH);
            let whole = (counts.whole == before.whole).then_some(false);
            self.descend(&top, counts, limited, whole, 0, &mut rises);
        }
        rises
    }

    fn before(&self, group: &Group) -> Counts {
        self.known.get(&group.id).copied().unwrap_or_default()
    }

    fn counts(&mut self, group: &Group) -> Option<Counts> {
        let all = group.read(File::Events, &mut self.buffer, parse::events).ok()??;
        // Kernels before 5.2 don't tell apart and have no such file. A failed reading says nothing of the kind.
        let local = group.read(File::EventsLocal, &mut self.buffer, parse::events).ok()?;
        let kills = all.oom_kill?;
        let own = local.and_then(|local| local.oom_kill).unwrap_or(kills);
        Some(Counts { kills, own, oom: all.oom.unwrap_or(0), whole: all.oom_group_kill.unwrap_or(0) })
    }

    /// Looks for the kills of a group among its children; gives how many there were.
    fn descend(&mut self, group: &Group, counts: Counts, limited: bool, whole: Option<bool>, depth: usize, rises: &mut Vec<Rise>) -> u64 {
        let before = self.before(group);
        if counts == before {
            return 0;
        }
        self.known.insert(group.id, counts);
        let kills = counts.kills.saturating_sub(before.kills);
        if kills == 0 {
            return 0;
        }
        let own = counts.own.saturating_sub(before.own).min(kills);
        let mut elsewhere = kills - own;
        if elsewhere > 0 && depth < DEEPEST {
            for name in children(group) {
                let Some(child) = child(&self.root, group, &name) else { continue };
                let Some(counts) = self.counts(&child) else { continue };
                elsewhere = elsewhere.saturating_sub(self.descend(&child, counts, limited, whole, depth + 1, rises));
            }
        }
        let whole = if counts.whole > before.whole { Some(true) } else { whole };
        for (kills, below) in [(own, false), (elsewhere, true)] {
            if kills > 0 {
                rises.push(Rise { group: group.path.clone(), kills, below, limited, whole: if below { None } else { whole } });
            }
        }
        kills
    }
}

/// The group called `name`, if it is there and a group.
fn child(root: &Arc<Root>, parent: &Group, name: &[u8]) -> Option<Group> {
    let path = parent.path.child(name);
    Group::open(root, Some((parent, &CString::new(name).ok()?)), path).ok()
}

/// Names of a group's children.
fn children(group: &Group) -> Vec<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = group.dir().and_then(|dir| openat(dir, c".", flags, Mode::empty()).ok());
    let Some(entries) = directory.and_then(|fd| Dir::new(fd).ok()) else { return Vec::new() };
    let is_group = |entry: &rustix::fs::DirEntry| {
        let name = entry.file_name().to_bytes();
        entry.file_type() == FileType::Directory && name != b"." && name != b".."
    };
    let names = entries.map_while(Result::ok).filter(is_group).map(|entry| entry.file_name().to_bytes().to_vec());
    names.take(MOST_CHILDREN).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn write(root: &Path, path: &str, kills: u64, own: u64, oom: u64, whole: u64) {
        let dir = root.join(path);
        fs::create_dir_all(&dir).unwrap();
        let text = |kills| format!("low 0\nhigh 0\nmax 0\noom {oom}\noom_kill {kills}\noom_group_kill {whole}\n");
        fs::write(dir.join("memory.events"), text(kills)).unwrap();
        fs::write(dir.join("memory.events.local"), text(own)).unwrap();
    }

    fn census(root: &Path) -> Census {
        let dir = open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let mut census = Census::open(Arc::new(Root { path: root.into(), dir })).unwrap();
        census.begin(Duration::ZERO);
        census
    }

    fn rise(group: &str, kills: u64, below: bool, limited: bool, whole: Option<bool>) -> Rise {
        Rise { group: GroupPath::from_bytes(group.as_bytes()), kills, below, limited, whole }
    }

    #[test]
    fn a_subtrees_count_is_its_own() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "", 7, 0, 0, 0);
        let mut census = census(dir.path());
        assert!(!census.is_top());
        assert_eq!(census.total(), Some(7));
        fs::write(dir.path().join("memory.events"), "low 0\n").unwrap();
        assert_eq!(census.total(), None);
    }

    #[test]
    fn kills_are_found_where_they_happened_and_only_new_ones() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "", 3, 0, 1, 0);
        write(dir.path(), "a", 3, 0, 1, 0);
        write(dir.path(), "a/b", 3, 3, 0, 0);
        let mut census = census(dir.path());
        assert_eq!(census.rises(NOW), []);
        write(dir.path(), "", 6, 0, 2, 0);
        write(dir.path(), "a", 6, 1, 2, 0);
        write(dir.path(), "a/b", 5, 5, 0, 0);
        assert_eq!(census.rises(NOW), [rise("/a/b", 2, false, true, Some(false)), rise("/a", 1, false, true, Some(false))]);
        assert_eq!(census.rises(NOW), []);
    }

    #[test]
    fn kills_below_are_not_a_groups_own_because_its_own_count_could_not_be_read() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "", 0, 0, 0, 0);
        write(dir.path(), "a", 0, 0, 0, 0);
        write(dir.path(), "a/b", 0, 0, 0, 0);
        let mut census = census(dir.path());
        write(dir.path(), "", 1, 0, 1, 0);
        write(dir.path(), "a", 1, 0, 1, 0);
        write(dir.path(), "a/b", 1, 1, 0, 0);
        let local = dir.path().join("a/memory.events.local");
        fs::write(&local, "garbled").unwrap();
        assert_eq!(census.rises(NOW), [rise("/", 1, true, true, None)], "somewhere below");
    }

    #[test]
    fn what_a_group_that_is_gone_had_counted_is_below_its_parent() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "", 0, 0, 0, 0);
        write(dir.path(), "a", 0, 0, 0, 0);
        let mut census = census(dir.path());
        write(dir.path(), "", 2, 0, 0, 0);
        write(dir.path(), "a", 2, 0, 0, 0);
        assert_eq!(census.rises(NOW), [rise("/a", 2, true, false, None)]);
    }

    #[test]
    fn a_group_that_came_meanwhile_counts_from_zero_and_one_killed_whole_is_known() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "", 1, 0, 1, 0);
        let mut census = census(dir.path());
        write(dir.path(), "", 5, 0, 2, 1);
        write(dir.path(), "new", 4, 4, 1, 1);
        assert_eq!(census.rises(NOW), [rise("/new", 4, false, true, Some(true))]);
    }

    #[test]
    fn a_limit_that_was_reached_long_ago_explains_nothing() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "", 0, 0, 0, 0);
        let mut census = census(dir.path());
        write(dir.path(), "", 0, 0, 1, 0);
        assert_eq!(census.rises(NOW), []);
        write(dir.path(), "", 1, 1, 1, 0);
        assert_eq!(census.rises(NOW + LIMIT_FRESH), [rise("/", 1, false, false, Some(false))]);
    }
}
