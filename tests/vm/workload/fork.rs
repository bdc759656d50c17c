//! Processes that are never there any more when somebody comes to signal them. The only place that needs `unsafe`.
#![allow(unsafe_code, reason = "fork without exec, and a disposition that std has no name for")]

use std::process::ExitCode;

use nix::sys::signal::{SigHandler, Signal};

use super::hog;
use super::start::Words;
use crate::outcome::{Doing, Outcome};

/// `runners=`: so many chains in which each process forks the next and ends at once, with SIGTERM held off. The first process
/// stays, and holds `mib=` of memory; the runners are light.
pub fn relay(words: &Words) -> Outcome<ExitCode> {
    let mib = words.number("mib", 16)? as usize;
    hog::block(Signal::SIGTERM)?;
    // SAFETY: SIG_IGN installs no code; it makes the kernel collect children by itself.
    unsafe { nix::sys::signal::signal(Signal::SIGCHLD, SigHandler::SigIgn) }.doing("ignore SIGCHLD")?;
    for _ in 0..words.number("runners", 8)? {
        if child()? {
            loop {
                match child() {
                    Ok(true) => {}
                    Ok(false) => std::process::exit(0),
                    // The group may be at its limit of processes for a moment.
                    Err(_) => std::thread::yield_now(),
                }
            }
        }
    }
    let memory = vec![1_u8; mib << 20];
    std::hint::black_box(&memory);
    Ok(super::bystanders::sleep())
}

/// Forks; true in the child.
fn child() -> Outcome<bool> {
    // SAFETY: the process has one thread, so the child inherits no lock that another thread held.
    let fork = unsafe { nix::unistd::fork() }.doing("fork")?;
    Ok(fork.is_child())
}
