//! One rung as it went: what a ladder leaves behind for the record.

use std::time::Duration;

/// A rung's name in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RungName {
    /// SIGTERM and grace.
    Term,
    /// SIGKILL.
    Kill,
    /// Waiting for `populated 0`.
    Verify,
}

/// How a rung ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RungOutcome {
    /// It did what it is for.
    Done,
    /// The victim is empty, or gone.
    Empty,
    /// The trouble is over.
    Recovered,
    /// Its time ran out.
    Deadline,
    /// The system refused: an errno.
    Errno(i32),
    /// The daemon was told to stop.
    Interrupted,
    /// The kernel was about to kill: the kill could not wait.
    Overtaken,
    /// Deeds were paused.
    Paused,
}

/// One rung as it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RungRecord {
    /// Which.
    pub name: RungName,
    /// How it ended.
    pub outcome: RungOutcome,
    /// Begin, counted from the notice.
    pub at: Duration,
    /// How long it took.
    pub took: Duration,
    /// Processes signalled by it, where it signals.
    pub processes: Option<u32>,
}
