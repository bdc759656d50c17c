//! The node's memory: /proc/meminfo through a held descriptor.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use crate::cgroup::group::ReadBuf;
use crate::cgroup::parse;
use crate::decide::facts::NodeFacts;

/// A held /proc/meminfo.
#[derive(Debug)]
pub struct Node(OwnedFd);

impl Node {
    /// Opens /proc/meminfo.
    ///
    /// # Errors
    /// The errno.
    pub fn open() -> Result<Node, Errno> {
        open("/proc/meminfo", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(Node)
    }

    /// What the node has now. What could not be read is `None`, and a total of 0, of which no share is ever reached.
    pub fn read(&self, buffer: &mut ReadBuf) -> NodeFacts {
        let read = buffer.pread(&self.0).ok().and_then(|text| parse::meminfo(text).ok()).unwrap_or_default();
        NodeFacts {
            total_bytes: read.total.unwrap_or(0),
            available_bytes: read.available,
            swap_total_bytes: read.swap_total.unwrap_or(0),
            swap_free_bytes: read.swap_free,
            shmem_bytes: read.shmem,
            slab_bytes: read.slab,
            slab_unreclaimable_bytes: read.slab_unreclaimable,
            lms: None,
        }
    }
}
