//! The programs of the host that are needed, and what to say when one is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::outcome::{Doing, Outcome};

/// Where `program` is.
pub fn find(program: &str) -> Outcome<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin"), PathBuf::from("/bin")]);
    places
        .map(|place| place.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| format!("{program} is not installed: run `make vm-deps` as root, or set OOMWARDEN_VM=skip to leave these tests out"))
}

/// Runs a program to its end and gives its standard output.
pub fn output(command: &mut Command) -> Outcome<Vec<u8>> {
    let output = command.output().doing(format_args!("run {command:?}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let why: Vec<&str> = why.lines().filter(|line| !line.trim().is_empty()).collect();
    Err(format!("{command:?} failed ({}): {}", output.status, why.last().unwrap_or(&"it said nothing")))
}

/// The shared libraries that the loader would map for `binary`, the loader itself included; none for a static binary.
pub fn libraries(binary: &Path) -> Outcome<Vec<PathBuf>> {
    const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
    let listing = Command::new(LOADER).arg("--list").arg(binary).output().doing(format_args!("run {LOADER}"))?;
    let listing = String::from_utf8_lossy(&listing.stdout);
    // Lines: `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)`, `/lib64/ld-linux-x86-64.so.2 (0x...)`.
    let absolute = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    if let Some(missing) = listing.lines().find(|line| line.contains("not found")) {
        return Err(format!("{} needs a library that is missing here: {}", binary.display(), missing.trim()));
    }
    Ok(listing.lines().filter_map(absolute).collect())
}
