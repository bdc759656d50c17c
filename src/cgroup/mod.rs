//! Facts of one control group: files read through descriptors that are held, parsed into numbers.
//!
//! A group is its kernfs id plus a directory descriptor ([`group::Group`]), since a path, a descriptor's number and a pid
//! can all be recycled. Nothing here decides, and nothing allocates once a group is open.

pub mod buffer;
pub mod group;
pub mod parse;
pub mod path;
pub mod root;

/// A group's kernfs id: the inode number of its directory. Never reused while the machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

/// A limit file's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `max`: none is set.
    Unlimited,
    /// Bytes.
    Bytes(u64),
}

impl Limit {
    /// The bytes, if one is set.
    #[must_use]
    pub fn bytes(self) -> Option<u64> {
        match self {
            Limit::Unlimited => None,
            Limit::Bytes(bytes) => Some(bytes),
        }
    }
}
