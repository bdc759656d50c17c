//! Processes with thousands of open files. They are closed when the process dies, after its memory
//! has gone.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use super::bystanders;
use super::start::Words;
use crate::outcome::{Doing, Outcome};
use crate::sys;

/// What a process is called that has all open, or watches.
pub const OPEN: &str = "files-open";

/// Opens `mib=` files of one MiB in memory and then `of=` empty ones in the directory `at=`, and
/// sleeps as [`OPEN`]. At its end the kernel closes the last one first, so that the memory comes
/// back last of all.
pub fn open(words: &Words) -> Outcome<ExitCode> {
    let at = Path::new(words.raw("at").ok_or("open-files needs at=DIRECTORY")?);
    let content = vec![1_u8; 1 << 20];
    let mut files = Vec::new();
    for _ in 0..words.number("mib", 0)? {
        let file = rustix::fs::memfd_create("content", rustix::fs::MemfdFlags::empty()).doing("create a file in memory")?;
        files.push(File::from(file));
        if let Some(file) = files.last_mut() {
            file.write_all(&content).doing("fill a file in memory")?;
        }
    }
    drop(content);
    let own = std::process::id();
    for number in 0..words.number("of", 1000)? {
        files.push(File::create(at.join(format!("{own}-{number}"))).doing("create a file")?);
    }
    std::fs::write("/proc/self/comm", OPEN).doing("take another name")?;
    std::hint::black_box(&files);
    Ok(bystanders::sleep())
}

/// Wants to be told of each file that is closed on the mount `at=`, however many, and never
/// listens: whoever closes a file takes memory for an event. Sleeps as [`OPEN`].
pub fn watch(words: &Words) -> Outcome<ExitCode> {
    let at = words.raw("at").ok_or("watch needs at=DIRECTORY")?;
    let watcher = sys::watch_closes(Path::new(at)).doing("watch a mount")?;
    std::fs::write("/proc/self/comm", OPEN).doing("take another name")?;
    std::hint::black_box(&watcher);
    Ok(bystanders::sleep())
}
