//! From YAML text to a checked, compiled policy. Touches nothing of the system.

pub(crate) mod diagnostic;
pub mod files;
pub mod globs;
mod locate;
pub mod model;
mod pattern;
mod quoting;
pub mod source;
mod tree;
