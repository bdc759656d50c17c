//! What a judgement looks at.

use crate::cgroup::group::ReadBuf;
use crate::sense::process::Processes;
use crate::sense::tree::Tree;
use crate::sense::trend::Trends;

/// What a judgement looks at.
#[derive(Debug)]
pub struct Sight<'a> {
    /// The groups.
    pub tree: &'a Tree,
    /// Processes of groups that might die.
    pub processes: &'a mut Processes,
    /// Growth and pressure over the last seconds.
    pub trends: &'a Trends,
    /// For reading files of groups.
    pub buffer: &'a mut ReadBuf,
}
