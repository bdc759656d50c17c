//! `oomwarden schema`: JSON Schema of the policy.

use super::output;

/// Prints the schema. The exit code.
#[must_use]
pub fn run() -> u8 {
    output::json(&crate::policy::schema())
}
