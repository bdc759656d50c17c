//! Why a command did not do what it was asked for: one message, and the exit code that goes with it.

use tracing::Level;

use crate::journal_stream;

/// A failure.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// What, where, and what to do.
    pub message: String,
}

impl Failure {
    /// With its code.
    pub fn new(code: u8, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }

    /// Says it on standard error; the exit code.
    pub fn report(&self) -> u8 {
        journal_stream::say(Level::ERROR, &self.message);
        self.code
    }
}
