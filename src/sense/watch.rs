//! inotify over group directories: one watch a group, taken back when the group goes.
//!
//! The kernel sends no IN_DELETE_SELF for a removed group and keeps its watch for ever, so removing the watch when the
//! parent reports the deletion is ours to do. Notices are merged and rate-limited by the kernel: one says "look again",
//! never how often something happened.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};

use super::tree::Slot;

/// A handful of events a turn, so that a storm of groups can't keep the warden from a trigger: room for at least one
/// with the longest name.
const BUFFER_BYTES: usize = 2048;

/// One notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A child of this name was created.
    Created(Slot, Vec<u8>),
    /// A child of this name was removed.
    Removed(Slot, Vec<u8>),
    /// A file of the group changed.
    Changed(Slot, Vec<u8>),
    /// The queue overflowed: anything may have happened.
    Overflow,
}

/// The inotify instance and whose watch is whose.
#[derive(Debug)]
pub struct Watches {
    inotify: Inotify,
    owners: HashMap<i32, Slot>,
    buffer: Box<[u8]>,
}

impl Watches {
    /// A fresh instance.
    ///
    /// # Errors
    /// EMFILE when instances (fs.inotify.max_user_instances) or descriptors are used up.
    pub fn new() -> io::Result<Watches> {
        Ok(Watches { inotify: Inotify::init()?, owners: HashMap::new(), buffer: vec![0; BUFFER_BYTES].into() })
    }

    /// Watches the directory behind `dir` for `slot`.
    ///
    /// # Errors
    /// ENOSPC when fs.inotify.max_user_watches is used up; ENOENT when the group is gone.
    pub fn add(&mut self, dir: &OwnedFd, slot: Slot) -> io::Result<WatchDescriptor> {
        let mask = WatchMask::CREATE | WatchMask::DELETE | WatchMask::MODIFY | WatchMask::ONLYDIR;
        // Through the descriptor, so that the watch is on this very group whatever stands under its name by now.
        let descriptor = self.inotify.watches().add(format!("/proc/self/fd/{}", dir.as_raw_fd()), mask)?;
        self.owners.insert(descriptor.get_watch_descriptor_id(), slot);
        Ok(descriptor)
    }

    /// Takes a watch back.
    pub fn remove(&mut self, descriptor: WatchDescriptor) {
        self.owners.remove(&descriptor.get_watch_descriptor_id());
        // Fails only for a watch that the kernel took back already.
        let _ = self.inotify.watches().remove(descriptor);
    }

    /// How many watches there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.owners.len()
    }

    /// Reads what fits one small buffer and hands it over; the rest stays in the kernel's queue for the next turn.
    ///
    /// # Errors
    /// The errno of the read, but for EAGAIN, which means nothing is there.
    pub fn read(&mut self, out: &mut Vec<Notice>) -> io::Result<()> {
        let events = match self.inotify.read_events(&mut self.buffer) {
            Ok(events) => events,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        for event in events {
            if event.mask.contains(EventMask::Q_OVERFLOW) {
                out.push(Notice::Overflow);
                continue;
            }
            let (Some(slot), Some(name)) = (self.owners.get(&event.wd.get_watch_descriptor_id()), event.name) else { continue };
            let name = OsStr::as_bytes(name).to_vec();
            let is_dir = event.mask.contains(EventMask::ISDIR);
            if event.mask.contains(EventMask::CREATE) && is_dir {
                out.push(Notice::Created(*slot, name));
            } else if event.mask.contains(EventMask::DELETE) && is_dir {
                out.push(Notice::Removed(*slot, name));
            } else if event.mask.contains(EventMask::MODIFY) {
                out.push(Notice::Changed(*slot, name));
            }
        }
        Ok(())
    }
}

impl AsFd for Watches {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
