//! Reads the same stretch of the disk over and over: page cache that comes and goes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

use super::bystanders;
use super::start::Words;
use crate::guest::places;
use crate::outcome::{Doing, Outcome};

/// `mib=`: maps so much of the disk and works on it: every page is touched through the mapping and
/// read twice, over and over, so that any kernel takes all of it for the working set.
pub fn run_mapped(words: &Words) -> Outcome<ExitCode> {
    let mib = words.number("mib", 48)?;
    let disk = File::open(places::DISK).doing(format_args!("open {}", places::DISK))?;
    let mapped = crate::sys::map(&disk, (mib as usize) << 20).doing("map the disk")?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let sum: u64 = mapped.iter().step_by(4096).map(|byte| u64::from(*byte)).sum();
        std::hint::black_box(sum);
        for at in 0..mib {
            for _ in 0..2 {
                disk.read_exact_at(&mut buffer, at << 20).doing("read the disk")?;
            }
        }
    }
}

/// `mib=`: how long the stretch is; `from=`: where it begins, MiB. Each MiB is read twice in a row, so that the kernel
/// takes it for part of the working set; its loss then counts as pressure. With `then=hold` it is read once, and the disk kept open.
pub fn run(words: &Words) -> Outcome<ExitCode> {
    let mib = words.number("mib", 48)?;
    let from = words.number("from", 0)?;
    let disk = File::open(places::DISK).doing(format_args!("open {}", places::DISK))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        for at in from..from + mib {
            for _ in 0..2 {
                disk.read_exact_at(&mut buffer, at << 20).doing("read the disk")?;
            }
        }
        if words.text("then") == "hold" {
            return Ok(bystanders::sleep());
        }
    }
}
