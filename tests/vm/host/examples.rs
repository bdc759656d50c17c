//! The examples for application writers, built to run anywhere.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::tools;
use crate::outcome::{Doing, Outcome};

/// `examples/c/cache.c`, linked statically.
pub fn cache() -> Outcome<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/c/cache.c");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples");
    std::fs::create_dir_all(&directory).doing(format_args!("create {}", directory.display()))?;
    let program = directory.join("cache");
    tools::output(
        Command::new(tools::find("gcc")?).args(["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o"]).arg(&program).arg(source),
    )?;
    Ok(program)
}
