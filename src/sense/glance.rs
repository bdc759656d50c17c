//! A glance below a group that is about to die: may somebody in there have to live of whom the tree
//! has not been told?
//!
//! The scout takes groups in: it opens, watches and holds each, behind everything else that it was
//! asked for. Where thousands of groups come and go below the victim that takes seconds, in which
//! whoever makes them keeps the rescue waiting. A glance takes nothing in, and has a thread of its
//! own. It goes over all names, which tell what the policy excludes by its group; then, of each
//! group that the tree does not have, it reads whether anybody is in it (cgroup.events), and only
//! where somebody is, its processes. So empty groups cost it little, however many somebody makes.
//!
//! Only one outcome lets a victim die on a glance: everything was read within [`LOOK_LIMIT`] of the
//! question, by the policy that is still in force, and nobody was found who has to live. If
//! somebody was found, something could not be read, or the time did not suffice, the glance says
//! nothing: unless the scout is done with the victim by the end of [`LOOK_LIMIT`], the victim is
//! spared for ten seconds ([`Glances::doubt`]). A glance is of its moment, as every look is: who
//! comes into the victim after its names were read is not seen.

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
use crate::cgroup::group::{File, Group};
use crate::cgroup::parse::{self, Kind};
use crate::cgroup::path::GroupPath;
use crate::cgroup::root::Root;
use crate::policy::model::{GroupClass, Policy};
use crate::threads;

/// How long a closer look may take.
pub const LOOK_LIMIT: Duration = Duration::from_secs(1);
/// How long after [`LOOK_LIMIT`] an answer that was given within it is still used: the warden may
/// be in the middle of a turn.
const SLACK: Duration = Duration::from_millis(500);
/// So many groups are asked about at a time, and so many are spared because they could not be
/// looked at.
const REMEMBERED: usize = 64;
/// For so long a group is spared of which it could not be told whether it may die, unless the scout
/// is done with it before.
const DOUBTED: Duration = Duration::from_secs(10);

/// What a glance came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// All names and processes were read: nobody of whom the tree has not been told has to live.
    Nobody,
    /// Somebody has to live, or could not be looked at.
    Somebody,
    /// Not everything could be read in time.
    Unfinished,
}

/// What is asked.
struct Ask {
    number: u64,
    group: Arc<Group>,
    class: GroupClass,
    policy: Arc<Policy>,
    /// The groups below it that the tree has.
    known: HashSet<GroupId>,
    /// A process with oom_score_adj -1000 spares what it is in.
    spare_unkillable: bool,
    by: Instant,
}

/// A question that has no answer yet, or one that lets nobody die.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// Echoed in the answer: one to any other question about the group is of another policy, or of
    /// other groups.
    number: u64,
    group: GroupId,
    since: Duration,
    spare_unkillable: bool,
}

/// The warden's end.
#[derive(Debug)]
pub struct Glances {
    asks: Sender<Ask>,
    /// Numbers of questions to which the answer is [`Seen::Nobody`].
    answers: Receiver<u64>,
    open: VecDeque<Open>,
    /// How many questions there were.
    count: u64,
    /// Groups of which it could not be told in time whether they may die, and until when that
    /// counts.
    doubted: Vec<(GroupId, Duration)>,
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
                if look(&root, &ask, &mut processes) == Seen::Nobody {
                    // The warden's end is gone: so is the need.
                    let _ = outbox.send(ask.number);
                    // Only full when the warden has not read for ages; it will.
                    let _ = mail.write(1);
                }
            }
            Ok(())
        })?;
        Ok(Glances::over(asks, answers))
    }

    fn over(asks: Sender<Ask>, answers: Receiver<u64>) -> Glances {
        let (open, doubted) = (VecDeque::with_capacity(REMEMBERED), Vec::with_capacity(REMEMBERED));
        Glances { asks, answers, open, count: 0, doubted }
    }

    /// Has a group looked at, unless it is being looked at or was a moment ago. `spare_unkillable`
    /// is the rule's.
    pub fn ask(&mut self, now: Duration, tree: &Tree, top: Slot, spare_unkillable: bool) {
        let Some(node) = tree.get(top) else { return };
        let policy = tree.policy();
        // An answer serves every rule that waits for a look at the group, so it goes by the
        // strictest.
        let spare_unkillable = spare_unkillable || policy.rules.iter().any(|rule| rule.spare_unkillable);
        let Some(number) = self.open(now, node.group.id, spare_unkillable) else { return };
        let (mut known, mut next) = (HashSet::new(), tree.next_in_preorder(top, top));
        while let Some(slot) = next {
            known.extend(tree.get(slot).map(|node| node.group.id));
            next = tree.next_in_preorder(top, slot);
        }
        let (group, class) = (Arc::clone(&node.group), node.class);
        // The thread lives as long as this end does, or is dead and said to be.
        let _ = self.asks.send(Ask { number, group, class, policy, known, spare_unkillable, by: Instant::now() + LOOK_LIMIT });
    }

    /// The number of a new question about a group; `None` while an earlier one is good for it. One
    /// to which somebody was found stays open until its time is over: the same look is not taken
    /// anew for every notice.
    fn open(&mut self, now: Duration, group: GroupId, spare_unkillable: bool) -> Option<u64> {
        let serves = |open: &Open| open.group == group && now < open.since + LOOK_LIMIT && (open.spare_unkillable || !spare_unkillable);
        if self.open.iter().any(serves) {
            return None;
        }
        self.open.retain(|open| open.group != group);
        if self.open.len() >= REMEMBERED {
            self.open.pop_front();
        }
        self.count += 1;
        self.open.push_back(Open { number: self.count, group, since: now, spare_unkillable });
        Some(self.count)
    }

    /// A group for which the look is done, in time, and nobody in it has to live.
    pub fn take(&mut self, now: Duration) -> Option<GroupId> {
        loop {
            let number = self.answers.try_recv().ok()?;
            let Some(at) = self.open.iter().position(|open| open.number == number) else { continue };
            if let Some(open) = self.open.remove(at).filter(|open| now < open.since + LOOK_LIMIT + SLACK) {
                return Some(open.group);
            }
        }
    }

    /// Another policy took over: what was asked by the old one is of no use.
    pub fn policy_replaced(&mut self) {
        self.open.clear();
    }

    /// It can't be told whether somebody in the group has to live: from now on it is spared for a
    /// while. `false` where so many are that there is no room to remember it; then it must not be
    /// passed over, but be looked at again.
    #[must_use]
    pub fn doubt(&mut self, now: Duration, group: GroupId) -> bool {
        self.doubted.retain(|(other, until)| *other != group && now < *until);
        let room = self.doubted.len() < REMEMBERED;
        if room {
            self.doubted.push((group, now + DOUBTED));
        }
        room
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

/// A group that the tree does not have.
#[derive(Debug)]
struct Unknown {
    path: GroupPath,
    class: GroupClass,
    /// The place of the one that it stands in, if the tree does not have that either.
    parent: Option<usize>,
}

fn look(root: &Arc<Root>, ask: &Ask, processes: &mut Processes) -> Seen {
    let Ok(top) = ask.group.reopen_dir() else { return Seen::Unfinished };
    let unknown = match names(&top, ask) {
        None => return Seen::Unfinished,
        Some(Names::Excluded) => return Seen::Somebody,
        Some(Names::Unknown(unknown)) => unknown,
    };
    let mut buffer = ReadBuf::new();
    // Of each, in the order of `unknown`: whether nobody is in it, nor below it.
    let mut empty: Vec<bool> = Vec::with_capacity(unknown.len());
    for Unknown { path, class, parent } in unknown {
        if Instant::now() >= ask.by {
            return Seen::Unfinished;
        }
        if parent.is_some_and(|parent| empty.get(parent).is_some_and(|empty| *empty)) {
            empty.push(true);
            continue;
        }
        let group = match Group::open(root, None, path) {
            Ok(group) => group,
            Err(errno) if is_gone(errno) => {
                empty.push(true);
                continue;
            }
            Err(_) => return Seen::Somebody,
        };
        match group.read(File::GroupEvents, &mut buffer, parse::populated) {
            Ok(Some(Some(true))) => empty.push(false),
            Ok(Some(Some(false))) => {
                empty.push(true);
                continue;
            }
            Err(error) if error.is_gone() => {
                empty.push(true);
                continue;
            }
            Ok(_) | Err(_) => return Seen::Somebody,
        }
        match group.read(File::Type, &mut buffer, parse::kind) {
            // Its processes are listed at the root of its threaded subtree, which is looked at for
            // itself.
            Ok(Some(Kind::Threaded)) => continue,
            Ok(_) => {}
            Err(_) => return Seen::Somebody,
        }
        let facts = processes.facts(&group, &ask.policy, &class.comm_excludes, false, &mut buffer);
        let unkillable = facts.has_unkillable && ask.spare_unkillable;
        if facts.has_init || facts.has_unknown || unkillable || !facts.comm_hits.is_empty() {
            return Seen::Somebody;
        }
    }
    if Instant::now() >= ask.by { Seen::Unfinished } else { Seen::Nobody }
}

fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NODEV | Errno::NOTDIR)
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
    let mut left = vec![(Vec::new(), ask.group.path.clone(), ask.class, None)];
    while let Some((relative, path, class, place)) = left.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let here = if relative.is_empty() { Path::new(".") } else { Path::new(std::ffi::OsStr::from_bytes(&relative)) };
        let directory = match openat(top, here, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(errno) if is_gone(errno) => continue,
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
            let here = (!ask.known.contains(&GroupId(entry.ino()))).then(|| {
                unknown.push(Unknown { path: path.clone(), class, parent: place });
                unknown.len() - 1
            });
            // A directory has a link for its name, one for itself and one for each directory in it,
            // if the file system counts them.
            let childless = statat(directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| stat.st_nlink == 2);
            if !childless {
                let mut below = relative.clone();
                if !below.is_empty() {
                    below.push(b'/');
                }
                below.extend_from_slice(name.to_bytes());
                left.push((below, path, class, here));
            }
        }
    }
    Some(Names::Unknown(unknown))
}

#[cfg(test)]
mod tests;
