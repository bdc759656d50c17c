//! A glance below a group that is about to die: may somebody in there have to live of whom the tree
//! has not been told?
//!
//! The scout takes groups in: it opens, watches and holds each, behind everything else that it was
//! asked for. Where thousands of groups come and go below the victim that takes seconds, in which
//! whoever makes them keeps the rescue waiting. A glance takes nothing in, and has a thread of its
//! own. It goes over all names, which tell what the policy excludes by its group; of each group that
//! the tree does not have, it reads whether anybody is in it (cgroup.events), and only where
//! somebody is, its processes. So empty groups cost it little, however many somebody makes: where
//! the pids controller tells that nobody is below a group ([`census`]), their names alone are read,
//! and those of groups below them are not, since nobody in there could die. And whoever makes them
//! does not keep it from a processor: for the first [`FIRST`] of a look its thread runs before
//! ordinary ones.
//!
//! Only one outcome lets a victim die on a glance: everything was read within [`LOOK_LIMIT`] of the
//! question, by the policy that is still in force, and nobody was found who has to live. If
//! somebody was found, something could not be read, or the time did not suffice, the glance says
//! nothing: unless the scout is done with the victim by the end of [`LOOK_LIMIT`], the victim is
//! spared for ten seconds ([`Glances::doubt`]). A glance is of its moment, as every look is: who
//! comes into the victim after its names were read is not seen.

use std::collections::{HashSet, VecDeque};
use std::ffi::{CStr, CString, OsStr};
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
/// For so long at the beginning of a look the thread runs before ordinary ones. Not for longer: who
/// has many victims looked at must not get the processor for all others in that way.
const FIRST: Duration = Duration::from_millis(250);
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

/// A group that the tree does not have, in which somebody is.
#[derive(Debug)]
struct Unknown {
    path: GroupPath,
    class: GroupClass,
}

/// How a look's thread runs: before ordinary ones, then like them.
struct Pace {
    first_until: Option<Instant>,
    by: Instant,
}

impl Pace {
    fn begin(by: Instant) -> Pace {
        // Without the right to it the look takes its turn.
        let first = crate::sys::run_before_others().is_ok();
        Pace { first_until: first.then(|| Instant::now() + FIRST), by }
    }

    /// Whether the time is over; to be asked again and again.
    fn is_over(&mut self) -> bool {
        let now = Instant::now();
        if self.first_until.take_if(|until| now >= *until).is_some() {
            let _ = crate::sys::run_like_others();
        }
        now >= self.by
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        if self.first_until.is_some() {
            let _ = crate::sys::run_like_others();
        }
    }
}

fn look(root: &Arc<Root>, ask: &Ask, processes: &mut Processes) -> Seen {
    let mut pace = Pace::begin(ask.by);
    let Ok(top) = ask.group.reopen_dir() else { return Seen::Unfinished };
    let mut buffer = ReadBuf::new();
    let unknown = match names(&top, ask, &mut pace, &mut buffer) {
        None => return Seen::Unfinished,
        Some(Names::MustLive) => return Seen::Somebody,
        Some(Names::Unknown(unknown)) => unknown,
    };
    for Unknown { path, class } in unknown {
        if pace.is_over() {
            return Seen::Unfinished;
        }
        let group = match Group::open(root, None, path) {
            Ok(group) => group,
            Err(errno) if is_gone(errno) => continue,
            Err(_) => return Seen::Somebody,
        };
        match group.read(File::Type, &mut buffer, parse::kind) {
            // Its processes are listed at the root of its threaded subtree, which is looked at for
            // itself.
            Ok(Some(Kind::Threaded)) => continue,
            Ok(_) => {}
            Err(error) if error.is_gone() => continue,
            Err(_) => return Seen::Somebody,
        }
        let facts = processes.facts(&group, &ask.policy, &class.comm_excludes, false, &mut buffer);
        let unkillable = facts.has_unkillable && ask.spare_unkillable;
        if facts.has_init || facts.has_unknown || unkillable || !facts.comm_hits.is_empty() {
            return Seen::Somebody;
        }
    }
    if pace.is_over() { Seen::Unfinished } else { Seen::Nobody }
}

fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NODEV | Errno::NOTDIR)
}

/// What the names tell.
#[derive(Debug)]
enum Names {
    /// One is excluded, or it can't be told whether anybody is in one.
    MustLive,
    /// None is; these are of groups that the tree does not have, with somebody in them.
    Unknown(Vec<Unknown>),
}

/// A directory whose names are still to be read.
struct Left {
    /// From the top.
    relative: Vec<u8>,
    path: GroupPath,
    class: GroupClass,
    /// Nobody is in it or below it: only the names matter.
    empty: bool,
}

/// A group in the directory that is being read.
struct Entry {
    name: CString,
    path: GroupPath,
    class: GroupClass,
    is_known: bool,
}

/// Goes over all names below `top`; `None`: they could not be read in time.
fn names(top: &OwnedFd, ask: &Ask, pace: &mut Pace, buffer: &mut ReadBuf) -> Option<Names> {
    let mut unknown = Vec::new();
    let mut left = vec![Left { relative: Vec::new(), path: ask.group.path.clone(), class: ask.class, empty: false }];
    while let Some(here) = left.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = if here.relative.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(&here.relative)) };
        let directory = match openat(top, place, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(errno) if is_gone(errno) => continue,
            Err(_) => return None,
        };
        let before = census(&directory, buffer);
        let Some(entries) = entries(&directory, &here, ask, pace)? else { return Some(Names::MustLive) };
        if before.is_some() && census(&directory, buffer) == before {
            continue;
        }
        for Entry { name, path, class, is_known } in entries {
            if pace.is_over() {
                return None;
            }
            let mut empty = here.empty;
            if !empty && !is_known {
                match is_populated(&directory, &name) {
                    Ok(Some(true)) => unknown.push(Unknown { path: path.clone(), class }),
                    Ok(Some(false)) => empty = true,
                    Err(errno) if is_gone(errno) => empty = true,
                    Ok(None) | Err(_) => return Some(Names::MustLive),
                }
            }
            // A directory has a link for its name, one for itself and one for each directory in it,
            // if the file system counts them.
            let is_childless = statat(directory.as_fd(), &name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| stat.st_nlink == 2);
            if !is_childless {
                let mut relative = here.relative.clone();
                if !relative.is_empty() {
                    relative.push(b'/');
                }
                relative.extend_from_slice(name.to_bytes());
                left.push(Left { relative, path, class, empty });
            }
        }
    }
    Some(Names::Unknown(unknown))
}

/// The groups in a directory; `Some(None)`: one is excluded. `None`: they could not be read in time.
fn entries(directory: &OwnedFd, here: &Left, ask: &Ask, pace: &mut Pace) -> Option<Option<Vec<Entry>>> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(directory).ok()? {
        if pace.is_over() {
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
        let path = here.path.child(name.to_bytes());
        let class = ask.policy.classify(path.as_bytes(), Some(&here.class));
        if class.excluded.is_some() {
            return Some(None);
        }
        let is_known = ask.known.contains(&GroupId(entry.ino()));
        entries.push(Entry { name: name.to_owned(), path, class, is_known });
    }
    Some(Some(entries))
}

/// The threads directly in a group, if the pids controller counts nobody else in it and below.
///
/// A thread is counted before it is listed (pids_can_fork) and longer than that (pids_release). One
/// that leaves the group is counted elsewhere shortly before it is listed elsewhere
/// (pids_can_attach), and would hide somebody below for that moment: so the same is asked again when
/// all names have been read, and believed if both answers agree.
fn census(directory: &OwnedFd, buffer: &mut ReadBuf) -> Option<Vec<u8>> {
    let open = |file: &CStr| openat(directory, file, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    // Not there where the controller is not handed down this far.
    let counted = parse::value(buffer.pread(open(c"pids.current").ok()?).ok()?).ok()?;
    let listed = buffer.pread(open(c"cgroup.threads").ok()?).ok()?;
    let (mut count, mut all_shown) = (0, true);
    for line in listed.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        count += 1;
        // Of another pid namespace: such lists look alike, whoever is in them.
        all_shown &= line != b"0";
    }
    (count == counted && all_shown).then(|| listed.to_vec())
}

/// Whether anybody is in a group of a directory, or below it; `None`: the file does not say.
fn is_populated(directory: &OwnedFd, name: &CStr) -> Result<Option<bool>, Errno> {
    // Far longer than the file, which gives itself whole to one reading.
    let mut text = [0; 256];
    let file = [name.to_bytes(), b"/cgroup.events"].concat();
    let fd = openat(directory, file, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let length = loop {
        match rustix::io::read(&fd, &mut text) {
            Err(Errno::INTR) => {}
            length => break length?,
        }
    };
    Ok(parse::populated(&text[..length]).ok().flatten())
}

#[cfg(test)]
mod tests;
