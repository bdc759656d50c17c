//! Moments that one process writes down for another: pairs of numbers in a file, the first a time of the monotonic clock. The file is
//! as large as it gets before the first is written, so that a shortage of memory keeps none out.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::outcome::{Doing, Outcome};

/// Pairs that there is room for; later ones take the place of the first.
const ROOM: u64 = 8192;
/// Bytes of a pair.
const PAIR: u64 = 16;

/// The monotonic clock, in nanoseconds.
pub fn now() -> Outcome<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).doing("read the clock")?;
    Ok(Duration::from(now).as_nanos() as u64)
}

/// Where they are written.
pub struct Stamps {
    file: File,
    len: u64,
}

impl Stamps {
    /// A new file.
    pub fn create(path: &OsStr) -> Outcome<Stamps> {
        let file = File::create(path).doing(format_args!("create {}", path.display()))?;
        file.write_all_at(&[0; (ROOM * PAIR) as usize], 0).doing("make room for stamps")?;
        Ok(Stamps { file, len: 0 })
    }

    /// One more.
    pub fn add(&mut self, at: u64, what: u64) -> Outcome {
        let mut pair = [0; PAIR as usize];
        pair[..8].copy_from_slice(&at.to_ne_bytes());
        pair[8..].copy_from_slice(&what.to_ne_bytes());
        self.file.write_all_at(&pair, self.len % ROOM * PAIR).doing("write a stamp")?;
        self.len += 1;
        Ok(())
    }
}

/// All pairs so far, by their times.
pub fn read(path: &Path) -> Outcome<Vec<(u64, u64)>> {
    let bytes = std::fs::read(path).doing(format_args!("read {}", path.display()))?;
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_ne_bytes).unwrap_or(0);
    let pairs = bytes.chunks_exact(PAIR as usize).map(|pair| (number(&pair[..8]), number(&pair[8..])));
    let mut pairs: Vec<_> = pairs.filter(|(at, _)| *at != 0).collect();
    pairs.sort_unstable();
    Ok(pairs)
}
