//! Neighbours: those that do nothing, and those that do what neighbours do.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::start::Words;
use crate::outcome::{Doing, Outcome};

/// For ever.
pub fn sleep() -> ExitCode {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Burns a processor.
pub fn spin() -> ExitCode {
    let mut number = 0_u64;
    loop {
        number = std::hint::black_box(number.wrapping_add(1));
    }
}

/// Takes `mib=` of memory and gives it back, over and over: small, but charged all the time.
pub fn churn(words: &Words) -> Outcome<ExitCode> {
    let bytes = (words.number("mib", 4)? as usize) << 20;
    loop {
        // Beyond what the allocator would ever keep for itself, so each round is mapped and unmapped; only the first part is touched.
        let mut memory = vec![0_u8; 64 << 20];
        for page in memory[..bytes].chunks_mut(4096) {
            page[0] = 1;
        }
        std::hint::black_box(&memory);
        drop(memory);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Reads memory.pressure of the group `of=` in a tight loop.
pub fn read_pressure(words: &Words) -> Outcome<ExitCode> {
    let group = words.raw("of").ok_or("read-pressure needs of=DIRECTORY")?;
    let file = std::fs::File::open(Path::new(group).join("memory.pressure")).doing("open memory.pressure")?;
    let mut buffer = [0; 256];
    while file.read_at(&mut buffer, 0).is_ok() {}
    Ok(sleep())
}

/// Puts a thread of its own into the threaded group `to=` and lets it sleep there; the first thread fills `mib=` and keeps touching.
pub fn thread_in(words: &Words) -> Outcome<ExitCode> {
    let group = Path::new(words.raw("to").ok_or("thread-in needs to=DIRECTORY")?).join("cgroup.threads");
    let (sender, moved) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(sender.send(std::fs::write(group, "0")));
        sleep()
    });
    moved.recv().doing("start a thread")?.doing("move a thread")?;
    super::hog::run(words)
}
