//! How many groups and triggers there are.

/// How many groups and triggers there are, and how they are sensed.
#[derive(Clone, Copy, Debug)]
pub struct Census {
    /// Groups in the tree.
    pub groups: usize,
    /// Those that are read on a timer.
    pub timed_groups: usize,
    /// PSI triggers that are armed.
    pub armed: usize,
    /// Triggers that the kernel refused, read on a timer.
    pub timed_triggers: usize,
}
