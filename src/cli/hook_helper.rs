//! `oomwarden hook-helper`: what the daemon starts to run hooks; of no use to people.

use super::failure::Failure;
use super::{DONE, FAILED, USAGE};
use crate::act::hooks::helper;

/// Serves the daemon at the other end of standard input.
#[must_use]
pub fn run() -> u8 {
    match helper::run() {
        Ok(()) => DONE,
        Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => {
            Failure { code: USAGE, message: "hook-helper is started by `oomwarden run`, not by hand".to_owned() }.report()
        }
        Err(error) => Failure { code: FAILED, message: format!("hook helper: {error}") }.report(),
    }
}
