//! Which group oomwarden itself runs in, so that it is never a victim.
//!
//! /proc/PID/cgroup names a path, but in a cgroup namespace, or with a root that is itself a subtree, the path means
//! something else; so the group is only believed when the pid stands in its cgroup.procs. If it can't be found, nothing may
//! be killed. Once it is known to be outside of the tree, a group that comes later and can't be read casts doubt on itself alone.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open};

use crate::act::hooks::place;
use crate::cgroup::GroupId;
use crate::cgroup::group::{Group, ReadBuf};
use crate::cgroup::parse::{self, Process};
use crate::cgroup::path::GroupPath;
use crate::sense::tree::{Slot, Tree};

/// What is known of our own group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// This one.
    Inside(GroupId),
    /// It is not below the watched root, unless it is one of those that [`Finder::doubts`].
    Outside,
    /// It can't be told: everything might be ours.
    Unknown,
}

/// Looks up our own group, and again when we were moved.
#[derive(Debug)]
pub struct Finder {
    pid: i32,
    file: OwnedFd,
    last: Vec<u8>,
    own: Own,
    seen: u64,
    /// Groups that came since we were known to be outside and whose processes could not be read: each might be ours.
    doubtful: Vec<GroupId>,
    /// Where the group of our hooks stands if our own is the daemon's half of a divided one
    /// ([`crate::act::hooks::place`]).
    beside: Option<GroupPath>,
    /// The group that was found there last, and whether it bears our hooks' mark, if that could be
    /// told: its name proves nothing.
    hooks: Option<(GroupId, Option<bool>)>,
}

/// Room for doubtful groups before the first [`Finder::reserve`].
const DOUBTFUL: usize = 64;

impl Finder {
    /// For the group that we run in: opens /proc/self/cgroup.
    ///
    /// # Errors
    /// The errno.
    pub fn open() -> rustix::io::Result<Finder> {
        Finder::at("/proc/self/cgroup", rustix::process::getpid().as_raw_nonzero().get())
    }

    /// For the group that another oomwarden runs in.
    ///
    /// # Errors
    /// The errno; ENOENT when there is no such process.
    pub fn of(pid: i32) -> rustix::io::Result<Finder> {
        Finder::at(&format!("/proc/{pid}/cgroup"), pid)
    }

    fn at(path: &str, pid: i32) -> rustix::io::Result<Finder> {
        let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Finder {
            pid,
            file,
            last: Vec::with_capacity(4096),
            own: Own::Unknown,
            seen: 0,
            doubtful: Vec::with_capacity(DOUBTFUL),
            beside: None,
            hooks: None,
        })
    }

    /// Makes room for doubts about so many groups. Not on the kill path.
    pub fn reserve(&mut self, groups: usize) {
        self.doubtful.reserve(groups.saturating_sub(self.doubtful.len()));
    }

    /// Whether a group might be ours although our own was found to be outside: it must live, and nobody else for its sake.
    #[must_use]
    pub fn doubts(&self, group: GroupId) -> bool {
        self.own == Own::Outside && self.doubtful.contains(&group)
    }

    /// The group in which our hooks run beside us, as it was when [`Finder::find`] was asked last: it and all below it are ours too.
    #[must_use]
    pub fn hooks(&self, tree: &Tree) -> Option<Slot> {
        self.hooks.filter(|(_, marked)| *marked != Some(false)).and_then(|(id, _)| tree.slot_of(id))
    }

    /// Looks at the group beside ours until it bears the mark of our hooks: a reload that brings the
    /// first hook may divide the group without moving us, and a group is marked a moment after it was
    /// made. One that could not be looked at yet may be ours.
    fn look_beside(&mut self, tree: &Tree, may_open: bool) {
        let node = self.beside.as_ref().and_then(|path| tree.slot_at(path)).and_then(|slot| tree.get(slot));
        let Some(node) = node else {
            self.hooks = None;
            return;
        };
        let known = self.hooks.filter(|(id, _)| *id == node.group.id).and_then(|(_, marked)| marked);
        if known != Some(true) {
            let found = if may_open { place::is_for_hooks(&node.group) } else { None };
            self.hooks = Some((node.group.id, found.or(known)));
        }
    }

    /// Whether the last answer still holds for an unchanged path: inside, as long as that group is there; outside, as long as no group has
    /// come in which we are. Whoever is moved has another path, so one that can't be read changes nothing for the others.
    fn is_settled(&mut self, tree: &Tree, buffer: &mut ReadBuf) -> bool {
        match self.own {
            Own::Inside(id) => tree.slot_of(id).is_some(),
            Own::Outside => self.is_still_outside(tree, buffer),
            Own::Unknown => false,
        }
    }

    /// Looks at the groups that came since this was asked last, and again at those that could not be read then.
    fn is_still_outside(&mut self, tree: &Tree, buffer: &mut ReadBuf) -> bool {
        let Finder { pid, seen, doubtful, .. } = self;
        let mut found = false;
        doubtful.retain(|id| {
            let Some(node) = tree.slot_of(*id).and_then(|slot| tree.get(slot)) else { return false };
            let holds = holds(&node.group, *pid, buffer);
            found |= holds == Some(true);
            holds.is_none() && !node.threaded
        });
        for node in tree.slots().filter_map(|slot| tree.get(slot)).filter(|node| node.arrival > *seen) {
            match holds(&node.group, *pid, buffer) {
                Some(true) => found = true,
                Some(false) => {}
                None if node.threaded => {}
                None if doubtful.len() < doubtful.capacity() => doubtful.push(node.group.id),
                // More than can be kept in mind: where we are is looked for from the beginning.
                None => return false,
            }
        }
        *seen = tree.arrivals();
        !found
    }

    /// Our own group now. Allocates only when we were moved since.
    pub fn find(&mut self, tree: &Tree, buffer: &mut ReadBuf) -> Own {
        let changed = match buffer.pread(&self.file) {
            Ok(text) if text == self.last => Ok(false),
            Ok(text) => {
                self.last.clear();
                self.last.extend_from_slice(text);
                Ok(true)
            }
            Err(errno) => Err(errno),
        };
        match changed {
            // Unchanged, and the group is still the one that we found.
            Ok(false) if self.is_settled(tree, buffer) => {}
            Ok(_) => {
                let named = parse::own_group(&self.last).map(GroupPath::from_bytes);
                self.own = look(tree, named.as_ref(), self.pid, buffer);
                self.beside = hooks_beside(tree, self.own);
                self.seen = tree.arrivals();
                self.doubtful.clear();
                // Not found is looked for again at the next judgement.
                if self.own == Own::Unknown {
                    self.last.clear();
                }
            }
            // What was known stays so for the next time.
            Err(_) => return Own::Unknown,
        }
        self.look_beside(tree, buffer.may_open());
        self.own
    }
}

/// Where the hooks' group would stand beside the daemon's.
fn hooks_beside(tree: &Tree, own: Own) -> Option<GroupPath> {
    let Own::Inside(id) = own else { return None };
    let path = &tree.get(tree.slot_of(id)?)?.group.path;
    let base = path.as_bytes().strip_suffix(place::DAEMON.as_bytes())?.strip_suffix(b"/")?;
    let base = if base.is_empty() { GroupPath::root() } else { GroupPath::from_bytes(base) };
    Some(base.child(place::HOOKS.as_bytes()))
}

/// Whether a pid stands in a group's list; `None` if the list can't tell.
fn holds(group: &Group, pid: i32, buffer: &mut ReadBuf) -> Option<bool> {
    let (mut found, mut hidden) = (false, false);
    let result = group.each_process(buffer, |process| {
        found |= process == Process::Pid(pid);
        hidden |= process == Process::Hidden;
        !found
    });
    match result {
        _ if found => Some(true),
        Ok(()) if !hidden => Some(false),
        Err(error) if error.is_gone() => Some(false),
        _ => None,
    }
}

fn look(tree: &Tree, named: Option<&GroupPath>, pid: i32, buffer: &mut ReadBuf) -> Own {
    let at = |path: &GroupPath| tree.slot_at(path).and_then(|slot| tree.get(slot));
    if let Some(node) = named.and_then(at)
        && holds(&node.group, pid, buffer) == Some(true)
    {
        return Own::Inside(node.group.id);
    }
    // Where nothing may be opened, who is not in the tree might be there.
    let mut doubt = named.is_some_and(|path| if buffer.may_open() { tree.is_unseen(path) } else { tree.slot_at(path).is_none() });
    for node in tree.slots().filter_map(|slot| tree.get(slot)) {
        match holds(&node.group, pid, buffer) {
            Some(true) => return Own::Inside(node.group.id),
            Some(false) => {}
            None => doubt |= !node.threaded,
        }
    }
    if doubt { Own::Unknown } else { Own::Outside }
}

#[cfg(test)]
mod tests;
