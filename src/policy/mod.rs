//! From YAML text to a checked, compiled policy. Touches nothing of the system.

pub mod globs;
pub mod model;
