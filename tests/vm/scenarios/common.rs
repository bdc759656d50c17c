//! What many scenarios share: a policy for thrashing groups, and groups that thrash.

use crate::guest::group::{Group, MIB};
use crate::guest::work::Work;
use crate::outcome::Outcome;

/// One rule called `thrash`: a group below /t that stalls dies.
pub const THRASH: &str = "
version: 1
rules:
  - name: thrash
    watch: /t/*
    when:
      - psi: full 100ms/500ms
";

/// Limits that a [`hog`] can't live within: memory.high of 32 MiB, no swap.
pub fn narrow(path: &str) -> Outcome<Group> {
    Group::new(path)?.high(32 * MIB)?.no_swap()
}

/// Starts a process that wants twice what [`narrow`] gives and stalls from then on.
pub fn hog(group: &Group) -> Outcome<Work> {
    Work::start(group, "hog mib=64")
}

/// A group with somebody in it who holds a few MiB and wants nothing.
pub fn neighbour(path: &str) -> Outcome<(Group, Work)> {
    let group = Group::new(path)?;
    let work = Work::holding(&group, 8)?;
    Ok((group, work))
}
