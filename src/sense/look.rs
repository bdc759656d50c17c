//! Looking at groups: every system call of keeping the tree true that may wait for a lock of the cgroup file system.
//!
//! An open in a group's directory waits behind a mkdir there, and a mkdir may wait for memory. So the daemon has a thread of
//! its own for this ([`super::scout`]); a scan at the start, `plan` and `explain` look in place. Whoever looks knows no tree:
//! a task says all that it takes, and what is found goes back as [`Finding`]s, in the order in which it was seen.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use inotify::WatchDescriptor;
use rustix::fs::{Dir, FileType, Mode, OFlags, openat};
use rustix::io::Errno;

use super::counters;
use super::watch::Adder;
use crate::cgroup::GroupId;
use crate::cgroup::group::{File, Group, JUDGED, ReadBuf};
use crate::cgroup::parse::{self, Events, Kind};
use crate::cgroup::path::GroupPath;
use crate::cgroup::root::Root;
use crate::policy::model::{AmongGroups, EntrySet, GroupClass, Policy, Trigger, Victim};

/// Files of an ancestor of what is judged: its limits.
const LIMITS: [File; 3] = [File::Max, File::High, File::Current];

/// What a policy makes of a group.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// What the policy says of it.
    pub class: GroupClass,
    /// Rules of which it, or an ancestor, is a subject.
    pub covered: EntrySet,
    /// A rule rests on its counters.
    pub noticed: bool,
    /// A judgement may read it: a subject, or who may die with one, or may be named to die, or is below such a group.
    pub judged: bool,
    /// It, or an ancestor, is named to die by a rule about others than its subject.
    pub named: bool,
    /// It, or an ancestor, may be named by a rule that answers holds: what is held of it is read once before it is needed.
    pub warm: bool,
}

impl Standing {
    /// Of the group at `path`, whose parent stands like `above`. `warm` are the rules that answer holds.
    #[must_use]
    pub fn of(policy: &Policy, path: &GroupPath, above: Option<&Standing>, warm: &EntrySet) -> Standing {
        let class = policy.classify(path.as_bytes(), above.map(|above| &above.class));
        let covered = above.map_or(EntrySet::EMPTY, |above| above.covered).union(&class.subject_of);
        let noticed = |rule: usize| {
            policy.rules.get(rule).is_some_and(|rule| rule.when.iter().any(|when| matches!(when, Trigger::Psi(_) | Trigger::Event(_))))
        };
        let named = above.is_some_and(|above| above.named) || !class.among.is_empty();
        // A rule that names whom to kill reads nobody else below its subject (`Court::gather_from`).
        let takes_what_it_covers = |rule: usize| {
            policy.rules.get(rule).is_some_and(|rule| match &rule.victim {
                Victim::Subject => true,
                Victim::Among(among) => matches!(among.groups, AmongGroups::Leaves),
            })
        };
        Standing {
            class,
            covered,
            noticed: covered.iter().any(noticed),
            judged: named || !class.subject_of.is_empty() || covered.iter().any(takes_what_it_covers),
            named,
            warm: above.is_some_and(|above| above.warm) || class.among.iter().any(|rule| warm.contains(rule)),
        }
    }
}

/// Something to look at.
#[derive(Debug)]
pub enum Task {
    /// Who stands under a name? Answered by [`Finding::Found`] or [`Finding::Absent`] (or neither: it is who is known), then
    /// [`Finding::Looked`].
    Look {
        /// The group above.
        parent: Arc<Group>,
        /// What the policy makes of that.
        above: Standing,
        /// The name.
        name: Vec<u8>,
        /// Who stood there when this was asked.
        known: Option<GroupId>,
        /// When a creation was seen.
        born: Option<Duration>,
    },
    /// Who is gone, who is new? Ends with [`Finding::Scanned`], which carries the second value.
    Scan(Vec<Visit>, Option<GroupId>),
    /// Hold all that is held of a group.
    Settle(Settle),
    /// Open a group's files anew: they died or appeared with a controller.
    Reopen(Settle),
    /// Say so when everything before this is done.
    Echo(Echo),
    /// Close what is held of a group that left the tree, and take a watch back.
    Forget(Option<Arc<Group>>, Option<WatchDescriptor>),
    /// Another policy, or other rules that answer holds.
    Policy(Arc<Policy>, EntrySet),
}

/// What an echo means to who asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// All children of the group that were made so far are found; open their files anew.
    Children(GroupId),
    /// A closer look at this group, asked for by a judgement, is done.
    Inspected(GroupId),
}

/// A known group that a scan comes by.
#[derive(Debug)]
pub struct Visit {
    /// The group.
    pub group: Arc<Group>,
    /// What the policy makes of it.
    pub standing: Standing,
    /// It has no watch; one may have become free.
    pub unwatched: bool,
    /// Its children, if they are to be listed.
    pub children: Option<Vec<GroupId>>,
}

/// What is to be held of a group.
#[derive(Debug)]
pub struct Settle {
    /// The group.
    pub group: Arc<Group>,
    /// What the policy makes of it.
    pub standing: Standing,
    /// Ancestors that no judgement reads but for their limits.
    pub above: Vec<Arc<Group>>,
    /// Its counters are to be taken as they are.
    pub baseline: bool,
    /// It has children.
    pub has_children: bool,
    /// A judgement waits for this: the descriptors kept back for notices may be used too.
    pub urgent: bool,
}

/// What was seen.
#[derive(Debug)]
pub enum Finding {
    /// A group that was not known.
    Found(Box<Found>),
    /// Nobody stands under this name.
    Absent(GroupId, Vec<u8>),
    /// The group is gone.
    Removed(GroupId),
    /// The group has got a watch.
    Watched(GroupId, WatchDescriptor),
    /// All is held that is to be held of the group.
    Settled(GroupId, Seen),
    /// The same with all files opened anew.
    Reopened(Arc<Group>, Seen),
    /// The group's files could not be opened anew, although it may be there: what is held of it may be dead.
    NotReopened(GroupId),
    /// A group is there and could not be looked at.
    Incomplete,
    /// A [`Task::Look`] is done.
    Looked,
    /// A [`Task::Scan`] is done.
    Scanned(Option<GroupId>),
    /// As asked.
    Echo(Echo),
}

/// A group that was not known.
#[derive(Debug)]
pub struct Found {
    /// It.
    pub group: Arc<Group>,
    /// The group above; `None` for the root.
    pub parent: Option<GroupId>,
    /// When its creation was seen.
    pub born: Option<Duration>,
    /// Its watch, unless there are no more.
    pub watch: Option<WatchDescriptor>,
    /// What its counters said, if its creation was not seen; `None` if they could not be read.
    pub events: Option<Events>,
}

/// What was learned of a group while its files were opened.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// It is threaded; `None` if that could not be told.
    pub threaded: Option<bool>,
    /// It has memory files; `None` if that could not be told.
    pub has_memory: Option<bool>,
    /// Its counters, if they were asked for and could be read.
    pub events: Option<Events>,
}

/// How many descriptors groups may hold, and how many they do.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// At most.
    pub limit: usize,
    /// Now.
    pub used: usize,
}

/// What a descriptor is for. What gives notice goes before what merely saves opening a file for each use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Notice,
    Reading,
}

impl Budget {
    fn allows(&self, need: Need) -> bool {
        let limit = match need {
            Need::Notice => self.limit,
            Need::Reading => self.limit / 2,
        };
        self.used < limit
    }
}

/// Whoever looks.
#[derive(Debug)]
pub struct Looker {
    root: Arc<Root>,
    policy: Arc<Policy>,
    warm: EntrySet,
    /// `None`: watches are scarce and shared with a running daemon, so who looks once takes none.
    watches: Option<Adder>,
    /// Descriptors.
    pub budget: Budget,
    buffer: ReadBuf,
}

/// Where findings go.
type Out<'a> = &'a mut dyn FnMut(Finding);

/// A name that is still to be looked at: the group above, what the policy makes of that, the name.
type Name = (Arc<Group>, Standing, Vec<u8>);

impl Looker {
    /// Holds at most so many descriptors of groups open.
    #[must_use]
    pub fn new(root: Arc<Root>, policy: Arc<Policy>, watches: Option<Adder>, descriptors: usize) -> Looker {
        let budget = Budget { limit: descriptors, used: 0 };
        Looker { root, policy, warm: EntrySet::EMPTY, watches, budget, buffer: ReadBuf::new() }
    }

    /// The root group.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn root(&mut self) -> io::Result<Found> {
        let group = Group::open(&self.root, None, GroupPath::root())?;
        let standing = Standing::of(&self.policy, &group.path, None, &self.warm);
        Ok(self.take_in(group, None, &standing, None))
    }

    /// Does a task.
    pub fn perform(&mut self, task: Task, out: Out<'_>) {
        match task {
            Task::Look { parent, above, name, known, born } => {
                self.look((parent, above, name), known.as_slice(), born, out);
                out(Finding::Looked);
            }
            Task::Scan(visits, purpose) => {
                self.scan(visits, out);
                out(Finding::Scanned(purpose));
            }
            Task::Settle(settle) => {
                let seen = self.settle(&settle);
                out(Finding::Settled(settle.group.id, seen));
            }
            Task::Reopen(settle) => self.reopen(settle, out),
            Task::Echo(echo) => out(Finding::Echo(echo)),
            Task::Forget(group, watch) => {
                if let Some((watches, watch)) = self.watches.as_mut().zip(watch) {
                    watches.remove(watch);
                }
                self.budget.used = self.budget.used.saturating_sub(group.map_or(0, |group| group.descriptors()));
            }
            Task::Policy(policy, warm) => (self.policy, self.warm) = (policy, warm),
        }
    }

    /// Looks at what stands under a name and at everything below it. `known` are groups that need not be told of.
    fn look(&mut self, name: Name, known: &[GroupId], born: Option<Duration>, out: Out<'_>) {
        let mut left = vec![name];
        while let Some((parent, above, name)) = left.pop() {
            let Ok(c_name) = CString::new(&*name) else { continue };
            let path = parent.path.child(&name);
            let group = match Group::open(&self.root, Some((&parent, &c_name)), path) {
                Ok(group) if known.contains(&group.id) => continue,
                Ok(group) => group,
                Err(Errno::NOENT | Errno::NODEV | Errno::NOTDIR) => {
                    out(Finding::Absent(parent.id, name));
                    continue;
                }
                // Out of descriptors or memory: it is there, so the timer looks again.
                Err(_) => {
                    out(Finding::Incomplete);
                    continue;
                }
            };
            let standing = Standing::of(&self.policy, &group.path, Some(&above), &self.warm);
            let found = self.take_in(group, Some(parent.id), &standing, born);
            let group = Arc::clone(&found.group);
            out(Finding::Found(Box::new(found)));
            // Once its watch is set: who comes later is told by a notice.
            left.extend(self.children(&group, out).into_iter().map(|name| (Arc::clone(&group), standing, name)));
        }
    }

    /// Sets a new group's watch and opens what gives notice.
    fn take_in(&mut self, mut group: Group, parent: Option<GroupId>, standing: &Standing, born: Option<Duration>) -> Found {
        let watch = self.watch(&group);
        if !(standing.judged && self.budget.allows(Need::Reading)) && parent.is_some() {
            group.release_dir();
        }
        self.budget.used += group.descriptors();
        self.hold_notices(&group, standing, Need::Reading);
        let events = match born {
            Some(_) => Some(Events::default()),
            None if standing.noticed => self.baseline(&group, false),
            None => None,
        };
        Found { group: Arc::new(group), parent, born, watch, events }
    }

    fn watch(&mut self, group: &Group) -> Option<WatchDescriptor> {
        let watches = self.watches.as_mut()?;
        // Where it fails for another reason than ENOSPC the group is gone, and its removal will be told.
        match group.dir() {
            Some(dir) => watches.add(dir).ok(),
            None => watches.add(&group.reopen_dir().ok()?).ok(),
        }
    }

    /// Comes by known groups: first who is gone, then who is new in those that are there.
    fn scan(&mut self, mut visits: Vec<Visit>, out: Out<'_>) {
        let mut gone = HashSet::new();
        visits.retain(|Visit { group, .. }| {
            let there = group.path.is_root() || !group.is_removed();
            if !there {
                gone.insert(group.id);
                out(Finding::Removed(group.id));
            }
            there
        });
        for Visit { group, standing, unwatched, children } in visits {
            if unwatched && let Some(watch) = self.watch(&group) {
                out(Finding::Watched(group.id, watch));
            }
            let Some(mut known) = children else { continue };
            known.retain(|child| !gone.contains(child));
            for name in self.children(&group, out) {
                // Not born before our eyes: what its counters say by now may be old.
                self.look((Arc::clone(&group), standing, name), &known, None, out);
            }
        }
    }

    /// The names of a group's children.
    fn children(&self, group: &Group, out: Out<'_>) -> Vec<Vec<u8>> {
        child_names(group).unwrap_or_else(|| {
            if !group.is_removed() {
                out(Finding::Incomplete);
            }
            Vec::new()
        })
    }

    fn hold_notices(&mut self, group: &Group, standing: &Standing, reading: Need) {
        if standing.noticed {
            self.hold(group, File::EventsLocal, Need::Notice, standing.warm);
            if group.held(File::EventsLocal).is_none() {
                self.hold(group, File::Events, Need::Notice, standing.warm);
            }
            // Tells of the first process, with which it gets its triggers.
            if !standing.class.subject_of.is_empty() {
                self.hold(group, File::GroupEvents, Need::Notice, standing.warm);
            }
        }
        if standing.judged {
            self.hold(group, File::Current, reading, standing.warm);
        }
    }

    fn settle(&mut self, settle: &Settle) -> Seen {
        let Settle { group, standing, .. } = settle;
        let need = if settle.urgent { Need::Notice } else { Need::Reading };
        self.hold_notices(group, standing, need);
        if standing.judged {
            for file in JUDGED {
                self.hold(group, file, need, standing.warm);
            }
            for ancestor in &settle.above {
                for file in LIMITS {
                    self.hold(ancestor, file, need, standing.warm);
                }
            }
        }
        let events = if settle.baseline { self.baseline(group, settle.has_children) } else { None };
        let buffer = &mut self.buffer;
        let threaded = group.read(File::Type, buffer, parse::kind).ok().map(|kind| kind == Some(Kind::Threaded));
        let has_memory = if group.path.is_root() || group.held(File::Current).is_some() {
            Some(true)
        } else {
            group.read(File::Current, buffer, parse::value).ok().map(|current| current.is_some())
        };
        Seen { threaded, has_memory, events }
    }

    fn reopen(&mut self, settle: Settle, out: Out<'_>) {
        let group = match Group::open(&self.root, None, settle.group.path.clone()) {
            Ok(group) if group.id == settle.group.id => group,
            // It was removed, which is told elsewhere.
            Ok(_) | Err(Errno::NOENT | Errno::NODEV | Errno::NOTDIR) => return,
            // Out of descriptors or memory.
            Err(_) => return out(Finding::NotReopened(settle.group.id)),
        };
        self.budget.used += group.descriptors();
        let group = Arc::new(group);
        let seen = self.settle(&Settle { group: Arc::clone(&group), baseline: true, ..settle });
        out(Finding::Reopened(group, seen));
    }

    /// The counters as they are. Those of a group that has none yet are all zero.
    fn baseline(&mut self, group: &Group, has_children: bool) -> Option<Events> {
        counters::read(group, has_children, &mut self.buffer).ok().map(Option::unwrap_or_default)
    }

    /// Holds a file; `warm`: the kernel makes a file's buffer at its first reading, so it is read before others see it.
    fn hold(&mut self, group: &Group, file: File, need: Need, warm: bool) {
        if group.held(file).is_none()
            && self.budget.allows(need)
            && group.hold(file, warm.then_some(&mut self.buffer)).is_ok()
            && group.held(file).is_some()
        {
            self.budget.used += 1;
        }
    }
}

/// The names of a group's children, or `None` if it can't be listed.
fn child_names(group: &Group) -> Option<Vec<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |dir: &OwnedFd| openat(dir, c".", flags, Mode::empty());
    let listing = match group.dir() {
        Some(dir) => open(dir),
        None => group.reopen_dir().and_then(|dir| open(&dir)),
    };
    let entries = listing.and_then(|fd| Dir::new(fd).map_err(|_| Errno::NOMEM)).ok()?;
    let mut names = Vec::new();
    for entry in entries {
        // A list that breaks off in the middle is no list.
        let entry = entry.ok()?;
        let name = entry.file_name().to_bytes();
        if entry.file_type() == FileType::Directory && name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Some(names)
}
