//! Which group oomwarden itself runs in, so that it is never a victim.
//!
//! /proc/self/cgroup names a path, but in a cgroup namespace, or with a root that is itself a subtree, the path means
//! something else; so the group is only believed when our pid stands in its cgroup.procs. If it can't be found, nothing may
//! be killed.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open};

use crate::cgroup::GroupId;
use crate::cgroup::group::{Group, ReadBuf};
use crate::cgroup::parse::{self, Process};
use crate::cgroup::path::GroupPath;
use crate::sense::tree::Tree;

/// What is known of our own group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// This one.
    Inside(GroupId),
    /// It is not below the watched root.
    Outside,
    /// It can't be told: everything might be ours.
    Unknown,
}

/// Looks up our own group, and again when we were moved.
#[derive(Debug)]
pub struct Finder {
    file: OwnedFd,
    last: Vec<u8>,
    own: Own,
}

impl Finder {
    /// Opens /proc/self/cgroup.
    ///
    /// # Errors
    /// The errno.
    pub fn open() -> rustix::io::Result<Finder> {
        let file = open("/proc/self/cgroup", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Finder { file, last: Vec::with_capacity(4096), own: Own::Unknown })
    }

    /// Our own group now. Allocates only when we were moved since.
    pub fn find(&mut self, tree: &Tree, buffer: &mut ReadBuf) -> Own {
        match buffer.pread(&self.file) {
            Ok(text) if text == self.last => {}
            Ok(text) => {
                self.last.clear();
                self.last.extend_from_slice(text);
                let named = parse::own_group(text).map(GroupPath::from_bytes);
                self.own = look(tree, named.as_ref(), buffer);
                // Not found is looked for again at the next judgement.
                if self.own == Own::Unknown {
                    self.last.clear();
                }
            }
            Err(_) => self.own = Own::Unknown,
        }
        self.own
    }
}

/// Whether our pid stands in a group's list; `None` if the list can't tell.
fn holds_us(group: &Group, buffer: &mut ReadBuf) -> Option<bool> {
    let me = rustix::process::getpid().as_raw_nonzero().get();
    let (mut found, mut hidden) = (false, false);
    let result = group.each_process(buffer, |process| {
        found |= process == Process::Pid(me);
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

fn look(tree: &Tree, named: Option<&GroupPath>, buffer: &mut ReadBuf) -> Own {
    let at = |path: &GroupPath| tree.slot_at(path).and_then(|slot| tree.get(slot));
    if let Some(node) = named.and_then(at) {
        if holds_us(&node.group, buffer) == Some(true) {
            return Own::Inside(node.group.id);
        }
    }
    let mut doubt = false;
    for node in tree.slots().filter_map(|slot| tree.get(slot)) {
        match holds_us(&node.group, buffer) {
            Some(true) => return Own::Inside(node.group.id),
            Some(false) => {}
            None => doubt |= !node.threaded,
        }
    }
    if doubt { Own::Unknown } else { Own::Outside }
}
