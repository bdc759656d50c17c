//! Users of the low memory signal that are many.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::mman::{MlockAllFlags, mlockall};

use super::bystanders;
use super::lms::{READY, SATISFIED};
use super::start::Words;
use crate::guest::lms::FILE;
use crate::guest::stamps::{self, Stamps};
use crate::outcome::{Doing, Outcome};

/// Watches `files=` descriptors of the file, each opened by itself and for reading only, and stamps in `log=` each time that some of them
/// are told of something: when, and since when at the latest all of them have been. Is called [`READY`] when it watches.
pub fn crowd(words: &Words) -> Outcome<ExitCode> {
    let number = words.number("files", 100)?;
    let mut stamps = Stamps::create(words.raw("log").ok_or("crowd needs log=")?)?;
    let epoll = Epoll::new(EpollCreateFlags::empty()).doing("make an epoll set")?;
    let mut files = Vec::new();
    for at in 0..number {
        let file = File::open(FILE).doing(format_args!("open {FILE} for the {at}th time"))?;
        // Told once of each change, without a read that takes the notice back.
        epoll.add(&file, EpollEvent::new(EpollFlags::EPOLLPRI | EpollFlags::EPOLLET, at)).doing("watch the file")?;
        files.push(file);
    }
    let mut told = vec![0; files.len()];
    let mut events = vec![EpollEvent::empty(); 4096];
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE).doing("lock memory")?;
    std::fs::write("/proc/self/comm", READY).doing("take another name")?;
    loop {
        let length = epoll.wait(&mut events, EpollTimeout::NONE).doing("epoll")?;
        let now = stamps::now()?;
        for event in &events[..length] {
            told[event.data() as usize] = now;
        }
        stamps.add(now, told.iter().copied().min().unwrap_or(0))?;
    }
}

/// Opens the file `files=` times and reads each once. Is called [`SATISFIED`] when it has them all, and sleeps.
pub fn hoarder(words: &Words) -> Outcome<ExitCode> {
    let mut files = Vec::new();
    let mut byte = [0];
    for at in 0..words.number("files", 100)? {
        let file = File::open(FILE).doing(format_args!("open {FILE} for the {at}th time"))?;
        file.read_exact_at(&mut byte, 0).doing("read the file")?;
        files.push(file);
    }
    // Not by way of /proc/self, which is root's after a change of identity.
    nix::sys::prctl::set_name(&std::ffi::CString::new(SATISFIED).doing("make a name")?).doing("take another name")?;
    std::hint::black_box(&files);
    Ok(bystanders::sleep())
}
