//! One rung as it went: what a ladder leaves behind for the record.

use std::time::Duration;

/// A rung's name in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RungName {
    /// Whoever can free memory is told, and given time.
    Warn,
    /// The administrator's program.
    Hook,
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
    /// The kill could not wait: the kernel was about to kill, or another rule's verdict named this victim too.
    Overtaken,
    /// What came into the victim meanwhile must live: nothing more is done to it.
    Spared,
    /// Deeds were paused.
    Paused,
    /// A warning that nobody listens to.
    Nobody,
    /// A hook's exit status other than 0.
    Exit(i32),
    /// A hook was ended by this signal.
    Signal(i32),
    /// A hook could not be started, because its helper is gone.
    NoHelper,
}

impl RungRecord {
    /// A rung that took no time, for buffers that are filled beforehand.
    pub const BLANK: RungRecord = RungRecord {
        name: RungName::Kill,
        outcome: RungOutcome::Done,
        at: Duration::ZERO,
        took: Duration::ZERO,
        processes: None,
        listeners: None,
        sent: None,
    };
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
    /// Listeners at the pressure socket that were told, for a warning.
    pub listeners: Option<u32>,
    /// When the last of them was told, or signalled, counted from the notice.
    pub sent: Option<Duration>,
}
