//! inotify over group directories: one watch a group, taken back when the group goes.
//!
//! The kernel sends no IN_DELETE_SELF for a removed group and keeps its watch for ever, so removing the watch when the
//! parent reports the deletion is ours to do. Notices are merged and rate-limited by the kernel: one says "look again",
//! never how often something happened.
//!
//! Watches are set and taken back by whoever looks at groups ([`Adder`]), which may block; notices are read by the warden
//! ([`Watches`]), which does not. So a notice may be read before it is known whose it is: it is kept until somebody claims
//! the watch, or the kernel says that the watch is no more.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};

use crate::cgroup::GroupId;

/// A handful of events a turn, so that a storm of groups can't keep the warden from a trigger: room for at least one
/// with the longest name.
const BUFFER_BYTES: usize = 2048;

/// Notices that are kept for watches that nobody has claimed yet; beyond that everything is looked at.
const UNCLAIMED: usize = 1024;

/// The files whose changes say something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileName {
    /// memory.events, memory.events.local
    Events,
    /// cgroup.events
    Populated,
    /// cgroup.type
    Type,
    /// cgroup.subtree_control
    SubtreeControl,
    /// memory.oom.group
    OomGroup,
    /// cgroup.pressure
    PressureSwitch,
}

impl FileName {
    fn of(name: &[u8]) -> Option<FileName> {
        match name {
            b"memory.events" | b"memory.events.local" => Some(FileName::Events),
            b"cgroup.events" => Some(FileName::Populated),
            b"cgroup.type" => Some(FileName::Type),
            b"cgroup.subtree_control" => Some(FileName::SubtreeControl),
            b"memory.oom.group" => Some(FileName::OomGroup),
            b"cgroup.pressure" => Some(FileName::PressureSwitch),
            _ => None,
        }
    }
}

/// What happened in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A child of this name was created.
    Created(Vec<u8>),
    /// A child of this name was removed.
    Removed(Vec<u8>),
    /// A file changed.
    Changed(FileName),
}

/// One notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Something happened in a group.
    In(GroupId, Happening),
    /// Notices were lost: anything may have happened.
    Overflow,
}

/// Sets watches and takes them back.
#[derive(Debug)]
pub struct Adder(inotify::Watches);

impl Adder {
    /// Watches the directory behind `dir`. A directory that is watched already keeps its watch.
    ///
    /// # Errors
    /// ENOSPC when fs.inotify.max_user_watches is used up; ENOENT when the group is gone.
    pub fn add(&mut self, dir: &OwnedFd) -> io::Result<WatchDescriptor> {
        let mask = WatchMask::CREATE | WatchMask::DELETE | WatchMask::MODIFY | WatchMask::ONLYDIR;
        // Through the descriptor, so that the watch is on this very group whatever stands under its name by now.
        self.0.add(format!("/proc/self/fd/{}", dir.as_raw_fd()), mask)
    }

    /// Takes a watch back.
    pub fn remove(&mut self, descriptor: WatchDescriptor) {
        // Fails only for a watch that the kernel took back already.
        let _ = self.0.remove(descriptor);
    }
}

/// Whose watch is whose, and what happened where nobody knows that yet. Touches nothing.
#[derive(Debug, Default)]
struct Owners {
    known: HashMap<i32, GroupId>,
    unclaimed: HashMap<i32, Vec<Happening>>,
    kept: usize,
}

impl Owners {
    /// A notice for a watch: told, kept, or turned into [`Notice::Overflow`] where there is no room.
    fn heard(&mut self, watch: i32, what: Happening, out: &mut Vec<Notice>) {
        if let Some(owner) = self.known.get(&watch) {
            out.push(Notice::In(*owner, what));
            return;
        }
        let unclaimed = self.unclaimed.entry(watch).or_default();
        if unclaimed.last() == Some(&what) {
            return;
        }
        unclaimed.push(what);
        self.kept += 1;
        if self.kept > UNCLAIMED {
            self.forget_unclaimed();
            out.push(Notice::Overflow);
        }
    }

    /// The watch is this group's: what was kept for it is told now.
    fn claim(&mut self, watch: i32, owner: GroupId, out: &mut Vec<Notice>) {
        self.known.insert(watch, owner);
        let kept = self.unclaimed.remove(&watch).unwrap_or_default();
        self.kept -= kept.len();
        out.extend(kept.into_iter().map(|what| Notice::In(owner, what)));
    }

    /// The watch is no more.
    fn ended(&mut self, watch: i32) {
        self.known.remove(&watch);
        self.kept -= self.unclaimed.remove(&watch).map_or(0, |kept| kept.len());
    }

    fn forget_unclaimed(&mut self) {
        self.unclaimed.clear();
        self.kept = 0;
    }
}

/// The reading end.
#[derive(Debug)]
pub struct Watches {
    inotify: Inotify,
    owners: Owners,
    buffer: Box<[u8]>,
}

impl Watches {
    /// A fresh instance.
    ///
    /// # Errors
    /// EMFILE when instances (fs.inotify.max_user_instances) or descriptors are used up.
    pub fn new() -> io::Result<Watches> {
        Ok(Watches { inotify: Inotify::init()?, owners: Owners::default(), buffer: vec![0; BUFFER_BYTES].into() })
    }

    /// The end that sets watches.
    #[must_use]
    pub fn adder(&self) -> Adder {
        Adder(self.inotify.watches())
    }

    /// The watch is this group's. What happened there since it was set goes to `out`.
    pub fn claim(&mut self, watch: &WatchDescriptor, owner: GroupId, out: &mut Vec<Notice>) {
        self.owners.claim(watch.get_watch_descriptor_id(), owner, out);
    }

    /// Forgets the watches of groups that are gone, whose end may have been among lost notices.
    pub fn forget_all_but(&mut self, is_there: impl Fn(GroupId) -> bool) {
        self.owners.known.retain(|_, owner| is_there(*owner));
    }

    /// How many watches there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.owners.known.len()
    }

    /// Reads what fits one small buffer and hands it over; the rest stays in the kernel's queue for the next turn. Whether
    /// anything was there.
    ///
    /// # Errors
    /// The errno of the read, but for EAGAIN, which means nothing is there.
    pub fn read(&mut self, out: &mut Vec<Notice>) -> io::Result<bool> {
        let Watches { inotify, owners, buffer } = self;
        let events = match inotify.read_events(buffer) {
            Ok(events) => events,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut any = false;
        for event in events {
            any = true;
            let watch = event.wd.get_watch_descriptor_id();
            if event.mask.contains(EventMask::Q_OVERFLOW) {
                // Whatever is kept is part of what is looked at now.
                owners.forget_unclaimed();
                out.push(Notice::Overflow);
                continue;
            }
            if event.mask.contains(EventMask::IGNORED) {
                owners.ended(watch);
                continue;
            }
            let Some(name) = event.name.map(OsStr::as_bytes) else { continue };
            let is_dir = event.mask.contains(EventMask::ISDIR);
            let what = if event.mask.contains(EventMask::CREATE) && is_dir {
                Happening::Created(name.to_vec())
            } else if event.mask.contains(EventMask::DELETE) && is_dir {
                Happening::Removed(name.to_vec())
            } else if event.mask.contains(EventMask::MODIFY)
                && let Some(name) = FileName::of(name)
            {
                Happening::Changed(name)
            } else {
                continue;
            };
            owners.heard(watch, what, out);
        }
        Ok(any)
    }
}

impl AsFd for Watches {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(7);

    fn created(name: &str) -> Happening {
        Happening::Created(name.into())
    }

    #[test]
    fn what_happens_before_a_watch_is_claimed_is_told_then_in_order() {
        let (mut owners, mut out) = (Owners::default(), Vec::new());
        owners.heard(1, created("a"), &mut out);
        owners.heard(2, created("elsewhere"), &mut out);
        owners.heard(1, Happening::Removed(b"a".to_vec()), &mut out);
        assert!(out.is_empty(), "nobody knows whose it is");
        owners.claim(1, GROUP, &mut out);
        assert_eq!(out, [Notice::In(GROUP, created("a")), Notice::In(GROUP, Happening::Removed(b"a".to_vec()))]);
        out.clear();
        owners.heard(1, created("b"), &mut out);
        assert_eq!(out, [Notice::In(GROUP, created("b"))]);
    }

    #[test]
    fn what_was_kept_for_a_watch_that_ended_is_nobodys() {
        let (mut owners, mut out) = (Owners::default(), Vec::new());
        owners.heard(1, created("a"), &mut out);
        owners.ended(1);
        owners.claim(1, GROUP, &mut out);
        assert_eq!((out.len(), owners.kept), (0, 0));
    }

    #[test]
    fn more_than_can_be_kept_is_not_lost_in_silence() {
        let (mut owners, mut out) = (Owners::default(), Vec::new());
        for at in 0..=UNCLAIMED {
            assert!(out.is_empty());
            owners.heard(1, created(&at.to_string()), &mut out);
        }
        assert_eq!((out, owners.kept), (vec![Notice::Overflow], 0));
    }
}
