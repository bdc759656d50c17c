//! How a command ends: exit codes, and why it did not do what it was asked for, in one message.
//!
//! - [`policy`]: a policy as a command needs it, or why there is none.

pub mod policy;

use tracing::Level;

use crate::journal_stream;

/// Done.
pub const DONE: u8 = 0;
/// Failed at run time.
pub const FAILED: u8 = 1;
/// Wrong usage or a bad policy.
pub const USAGE: u8 = 2;
/// The machine lacks something that is required.
pub const UNSUPPORTED: u8 = 3;

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
