//! The tests' own kernel module: callers of the kernel's OOM killer that no program can be.

use std::ffi::CString;
use std::fs::File;
use std::path::Path;

use nix::errno::Errno;

use super::places;
use crate::outcome::{Doing, Outcome};
use crate::sys;

const FILE: &str = "/proc/lms_callers";

/// Loads it.
pub fn load() -> Outcome {
    let file = File::open(places::CALLERS).doing(format_args!("open {} (does the test module:: pass?)", places::CALLERS))?;
    sys::load_module(&file, &CString::default()).doing("load the tests' module")
}

/// Whether it is loaded.
pub fn is_loaded() -> bool {
    Path::new("/sys/module/lms_callers").exists()
}

/// Unloads it; it lets go of all that it holds.
pub fn unload() -> Result<(), Errno> {
    sys::unload_module(c"lms_callers")
}

/// Gives it a command, as `tests/vm/kmod/lms_callers.c` describes them.
pub fn command(command: &str) -> Outcome {
    std::fs::write(FILE, command).doing(format_args!("write {command:?} to {FILE}"))
}

/// One of the numbers that it tells.
pub fn number(key: &str) -> Outcome<u64> {
    let text = std::fs::read_to_string(FILE).doing(format_args!("read {FILE}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).ok_or_else(|| format!("{FILE} has no {key}: {text:?}"))
}
