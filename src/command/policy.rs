//! A policy as a command needs it: read and compiled, or why there is none.

use std::path::{Path, PathBuf};

use super::{FAILED, Failure, USAGE};
use crate::policy::refusal::BAD_POLICY;
use crate::policy::{Loaded, ReadError, Source, files, load};
use crate::sandbox;

/// Reads the policy in these files, or the built-in one if there are none.
///
/// # Errors
/// What is wrong.
pub fn read_policy(paths: &[PathBuf]) -> Result<Loaded, Failure> {
    compile(&sources_of(paths)?)
}

/// The texts of the policy in these files, or the built-in one if there are none.
///
/// # Errors
/// Why they can't be read.
pub fn sources_of(paths: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    if paths.is_empty() {
        return Ok(vec![Source::builtin()]);
    }
    files::read_sources(paths).map_err(|error| unreadable(&error))
}

/// Compiles them.
///
/// # Errors
/// All that is wrong with them.
pub fn compile(sources: &[Source]) -> Result<Loaded, Failure> {
    load(sources).map_err(|diagnostics| {
        let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        Failure::new(USAGE, format!("{BAD_POLICY}\n{}", lines.join("\n")))
    })
}

/// A policy that can't be read, with the unit's setting by which that may be so.
#[must_use]
pub fn unreadable(error: &ReadError) -> Failure {
    let path = match error {
        ReadError::Io { path, .. } => path.as_path(),
        _ => Path::new(""),
    };
    Failure::new(FAILED, sandbox::explained(path, error))
}
