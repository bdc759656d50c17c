//! A glance below a group that is about to die: may somebody in there have to live of whom the tree has not been told?
//!
//! The scout takes groups in: it opens, watches and holds each, behind everything else that it was asked for. Where thousands of groups come and go
//! below the victim that takes seconds, in which whoever makes them keeps the rescue waiting. A glance takes nothing in, and has a thread of its
//! own. It goes over the names, which alone tell what the policy excludes, and then over the processes of groups that the tree does not
//! have. What it has found by the time that the look may take is enough to decide ([`Glances::may_spare`]): nobody is killed of whom it is not
//! known by then whether they must live.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use super::process::Processes;
use super::tree::{Slot, Tree};
use crate::cgroup::GroupId;
use crate::cgroup::buffer::ReadBuf;
use crate::cgroup::group::Group;
use crate::cgroup::path::GroupPath;
use crate::cgroup::root::Root;
use crate::policy::model::{GroupClass, Policy};
use crate::threads;

/// How long a closer look may take.
pub const LOOK_LIMIT: Duration = Duration::from_secs(1);
/// For so many groups it is remembered what was seen.
const REMEMBERED: usize = 64;
/// For so long a group is spared of which it could not be told whether it may die, unless the scout is done with it before.
const DOUBTED: Duration = Duration::from_secs(10);

/// What was seen below a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// All names, and none is excluded. With `guarded` some of those that the tree does not have may be, for the sake of a process.
    Names {
        /// See above.
        guarded: bool,
    },
    /// All names and processes: nobody of whom the tree has not been told has to live.
    Nobody,
    /// Somebody has to live, or could not be looked at.
    Somebody,
}

/// What is asked.
struct Ask {
    group: Arc<Group>,
    class: GroupClass,
    policy: Arc<Policy>,
    /// The groups below it that the tree has.
    known: HashSet<GroupId>,
    /// A process with oom_score_adj -1000 spares what it is in.
    spare_unkillable: bool,
    by: Instant,
}

/// The warden's end.
#[derive(Debug)]
pub struct Glances {
    asks: Sender<Ask>,
    answers: Receiver<(GroupId, Seen)>,
    /// Groups that were asked about, and when; what was seen last, if anything.
    seen: VecDeque<(GroupId, Duration, Option<Seen>)>,
    /// Groups of which it could not be told in time whether they may die, and until when that counts.
    doubted: VecDeque<(GroupId, Duration)>,
}

impl Glances {
    /// Starts the thread. `mail` is written whenever something was seen.
    ///
    /// # Errors
    /// When /proc can't be opened, or the thread not be started.
    pub fn start(root: Arc<Root>, mail: Arc<EventFd>) -> io::Result<Glances> {
        let (asks, inbox) = channel::<Ask>();
        let (outbox, answers) = channel();
        let mut processes = Processes::open()?;
        threads::watched("glance", 256 * 1024, move |_| {
            for ask in &inbox {
                let mut tell = |seen| {
                    // The warden's end is gone: so is the need.
                    let _ = outbox.send((ask.group.id, seen));
                    // Only full when the warden has not read for ages; it will.
                    let _ = mail.write(1);
                };
                look(&root, &ask, &mut processes, &mut tell);
            }
            Ok(())
        })?;
        Ok(Glances { asks, answers, seen: VecDeque::with_capacity(REMEMBERED), doubted: VecDeque::with_capacity(REMEMBERED) })
    }

    /// Has a group looked at, unless it is being looked at. `spare_unkillable` is the rule's.
    pub fn ask(&mut self, now: Duration, tree: &Tree, top: Slot, spare_unkillable: bool) {
        let Some(node) = tree.get(top) else { return };
        let id = node.group.id;
        let under_way = |(group, since, seen): &(GroupId, Duration, Option<Seen>)| {
            *group == id && now < *since + LOOK_LIMIT && !matches!(seen, Some(Seen::Nobody | Seen::Somebody))
        };
        if self.seen.iter().any(under_way) {
            return;
        }
        self.seen.retain(|(group, ..)| *group != id);
        remember(&mut self.seen, (id, now, None));
        let (mut known, mut next) = (HashSet::new(), tree.next_in_preorder(top, top));
        while let Some(slot) = next {
            known.extend(tree.get(slot).map(|node| node.group.id));
            next = tree.next_in_preorder(top, slot);
        }
        let (group, class, policy) = (Arc::clone(&node.group), node.class, tree.policy());
        // The thread lives as long as this end does, or is dead and said to be.
        let _ = self.asks.send(Ask { group, class, policy, known, spare_unkillable, by: Instant::now() + LOOK_LIMIT });
    }

    /// Takes in what was seen; gives a group for which the look is done, and nobody in it has to live.
    pub fn take(&mut self) -> Option<GroupId> {
        loop {
            let (group, now_seen) = self.answers.try_recv().ok()?;
            if let Some((_, _, seen)) = self.seen.iter_mut().find(|(other, ..)| *other == group) {
                *seen = Some(now_seen);
            }
            if now_seen == Seen::Nobody {
                return Some(group);
            }
        }
    }

    /// The time for a look at `top` is over: whether somebody in it may have to live. What can't be told spares.
    #[must_use]
    pub fn may_spare(&self, tree: &Tree, top: Slot) -> bool {
        let Some(node) = tree.get(top) else { return true };
        let seen = self.seen.iter().find(|(group, ..)| *group == node.group.id).and_then(|(_, _, seen)| *seen);
        match seen {
            Some(Seen::Nobody | Seen::Names { guarded: false }) => false,
            Some(Seen::Somebody) => true,
            Some(Seen::Names { guarded: true }) | None => {
                !node.class.comm_excludes.is_empty() || tree.policy().may_exclude_below(node.group.path.as_bytes())
            }
        }
    }

    /// From now on this group is spared for a while.
    pub fn doubt(&mut self, now: Duration, group: GroupId) {
        self.trust(group);
        remember(&mut self.doubted, (group, now + DOUBTED));
    }

    /// Whether the group is spared because it could not be told whether it may die.
    #[must_use]
    pub fn doubts(&self, now: Duration, group: GroupId) -> bool {
        self.doubted.iter().any(|(other, until)| *other == group && now < *until)
    }

    /// Whether any group is.
    #[must_use]
    pub fn doubts_any(&self, now: Duration) -> bool {
        self.doubted.iter().any(|(_, until)| now < *until)
    }

    /// The scout is done with the group: what the tree says of it counts.
    pub fn trust(&mut self, group: GroupId) {
        self.doubted.retain(|(other, _)| *other != group);
    }
}

fn remember<T>(queue: &mut VecDeque<T>, one: T) {
    if queue.len() >= REMEMBERED {
        queue.pop_front();
    }
    queue.push_back(one);
}

/// A group that the tree does not have.
type Unknown = (GroupPath, GroupClass);

fn look(root: &Arc<Root>, ask: &Ask, processes: &mut Processes, tell: &mut dyn FnMut(Seen)) {
    let Ok(top) = ask.group.reopen_dir() else { return };
    let Some(names) = names(&top, ask) else { return };
    let unknown = match names {
        Names::Excluded => return tell(Seen::Somebody),
        Names::Unknown(unknown) => unknown,
    };
    tell(Seen::Names { guarded: unknown.iter().any(|(_, class)| !class.comm_excludes.is_empty()) });
    let mut buffer = ReadBuf::new();
    for (path, class) in unknown {
        if Instant::now() >= ask.by {
            return;
        }
        let group = match Group::open(root, None, path) {
            Ok(group) => group,
            Err(Errno::NOENT | Errno::NODEV | Errno::NOTDIR) => continue,
            Err(_) => return tell(Seen::Somebody),
        };
        let facts = processes.facts(&group, &ask.policy, &class.comm_excludes, false, &mut buffer);
        let unkillable = facts.has_unkillable && ask.spare_unkillable;
        if facts.has_init || facts.has_unknown || unkillable || !facts.comm_hits.is_empty() {
            return tell(Seen::Somebody);
        }
    }
    tell(Seen::Nobody);
}

/// What the names tell.
#[derive(Debug)]
enum Names {
    /// One is excluded.
    Excluded,
    /// None is; these are of groups that the tree does not have.
    Unknown(Vec<Unknown>),
}

/// Goes over all names below `top`; `None`: they could not be read in time.
fn names(top: &OwnedFd, ask: &Ask) -> Option<Names> {
    let mut unknown = Vec::new();
    let mut left = vec![(Vec::new(), ask.group.path.clone(), ask.class)];
    while let Some((relative, path, class)) = left.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let here = if relative.is_empty() { Path::new(".") } else { Path::new(std::ffi::OsStr::from_bytes(&relative)) };
        let directory = match openat(top, here, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::NODEV | Errno::NOTDIR) => continue,
            Err(_) => return None,
        };
        for entry in Dir::read_from(&directory).ok()? {
            if Instant::now() >= ask.by {
                return None;
            }
            let entry = match entry {
                Ok(entry) => entry,
                // Removed while it was read.
                Err(Errno::NOENT | Errno::NODEV) => break,
                Err(_) => return None,
            };
            let name = entry.file_name();
            if entry.file_type() != FileType::Directory || matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let path = path.child(name.to_bytes());
            let class = ask.policy.classify(path.as_bytes(), Some(&class));
            if class.excluded.is_some() {
                return Some(Names::Excluded);
            }
            if !ask.known.contains(&GroupId(entry.ino())) {
                unknown.push((path.clone(), class));
            }
            // A directory has a link for its name, one for itself and one for each directory in it, if the file system counts them.
            let childless = statat(directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| stat.st_nlink == 2);
            if !childless {
                let mut below = relative.clone();
                if !below.is_empty() {
                    below.push(b'/');
                }
                below.extend_from_slice(name.to_bytes());
                left.push((below, path, class));
            }
        }
    }
    Some(Names::Unknown(unknown))
}

#[cfg(test)]
mod tests;
