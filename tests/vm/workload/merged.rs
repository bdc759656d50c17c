//! Memory that KSM merges, and the end of that.

use std::process::ExitCode;

use super::bystanders;
use super::start::Words;
use crate::outcome::{Doing, Outcome};
use crate::sys;

/// Where KSM is told to begin (1), or to give each page back a frame of its own (2).
pub const RUN: &str = "/sys/kernel/mm/ksm/run";

/// Fills `mib=` with pages that are all the same, for KSM to merge, and sleeps.
pub fn hold(words: &Words) -> Outcome<ExitCode> {
    let memory = sys::mergeable((words.number("mib", 64)? as usize) << 20).doing("map memory for KSM")?;
    memory.fill(0x5a);
    std::hint::black_box(&memory);
    Ok(bystanders::sleep())
}

/// Fills `mib=` and undoes all merging, which takes as much memory as that had spared.
pub fn undo(words: &Words) -> Outcome<ExitCode> {
    // Given back at its end, so that the shortage ends too.
    let memory = vec![1_u8; (words.number("mib", 16)? as usize) << 20];
    std::hint::black_box(&memory);
    std::fs::write(RUN, "2").doing("undo merging")?;
    Ok(ExitCode::SUCCESS)
}
