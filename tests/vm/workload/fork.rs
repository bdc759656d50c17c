//! Processes that are never there any more when somebody comes to signal them. The only place that needs `unsafe`.
#![allow(unsafe_code, reason = "fork without exec, a disposition that std has no name for, and the end of a single thread")]

use std::io::{Read, Write};
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

/// `of=` children that end at once and are never collected; it is called `bereft` once they have.
pub fn zombies(words: &Words) -> Outcome<ExitCode> {
    for _ in 0..words.number("of", 1)? {
        if child()? {
            // Refused outside of the virtual machine, where it makes no difference.
            drop(std::fs::write("/proc/self/oom_score_adj", "1000"));
            std::process::exit(0);
        }
    }
    let flags = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
    nix::sys::wait::waitid(nix::sys::wait::Id::All, flags).doing("wait for a child's end")?;
    std::fs::write("/proc/self/comm", "bereft").doing("take another name")?;
    Ok(super::bystanders::sleep())
}

/// Fills `mib=` in a thread, which holds it, and ends its main thread: the process lives on
/// without. With `grow=` the thread, whose name is `holder`, then fills so much more.
pub fn headless(words: &Words) -> Outcome<ExitCode> {
    let (mib, grow) = (words.number("mib", 16)? as usize, words.number("grow", 0)?);
    let (sender, filled) = std::sync::mpsc::channel();
    let hold = move || {
        let memory = vec![1_u8; mib << 20];
        std::hint::black_box(&memory);
        let _ = sender.send(());
        if grow > 0 {
            let main = format!("/proc/self/task/{}/stat", std::process::id());
            while std::fs::read_to_string(&main).is_ok_and(|stat| !stat.contains(") Z ")) {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            super::hog::fill(grow);
        }
        super::bystanders::sleep()
    };
    std::thread::Builder::new().name("holder".into()).spawn(hold).doing("start a thread")?;
    filled.recv().doing("start a thread")?;
    // SAFETY: ends this thread alone, which holds no lock; what it owns is leaked.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    Err("the main thread did not end".to_owned())
}

/// A service in the group `at=` that is started anew as soon as it ends, `times=` times. Its successors are there from the start,
/// outside of the group, because a process that is forked in a shortage waits for memory like anybody.
pub fn restart(words: &Words) -> Outcome<ExitCode> {
    let join = std::path::Path::new(words.raw("at").ok_or("restart needs at=DIRECTORY")?).join("cgroup.procs");
    let times = words.number("times", 1)?;
    // At once, whoever else runs: or the service would be gone for longer than anybody looks away.
    let first = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel reads the parameters, which outlive the call.
    nix::errno::Errno::result(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const first) }).doing("become realtime")?;
    let (mut turn, give) = std::io::pipe().doing("make a pipe")?;
    let mut give = Some(give);
    for _ in 0..=times {
        if child()? {
            // Or the end of the pipe would never come.
            drop(give.take());
            let mut token = [0];
            if turn.read(&mut token).doing("wait for its turn")? == 0 {
                return Ok(ExitCode::SUCCESS);
            }
            std::fs::write(join, "0").doing("join the group")?;
            // Its supervisor is protected from the kernel's killer, it is not.
            std::fs::write("/proc/self/oom_score_adj", "0").doing("give up protection")?;
            return Ok(super::bystanders::sleep());
        }
    }
    for _ in 0..=times {
        if let Some(give) = &mut give {
            give.write_all(b"!").doing("start the service")?;
        }
        nix::sys::wait::wait().doing("wait for the service's end")?;
    }
    Ok(super::bystanders::sleep())
}

/// `of=` processes that sleep, spread over `groups=` groups in the directory `at=`, which are made. It is called `spread` once all are there.
pub fn spread(words: &Words) -> Outcome<ExitCode> {
    let at = std::path::PathBuf::from(words.raw("at").ok_or("spread needs at=DIRECTORY")?);
    let groups = words.number("groups", 1)?;
    let group = |number: u64| at.join(format!("g{number}"));
    for number in 0..groups {
        std::fs::create_dir(group(number)).doing("make a group")?;
    }
    let of = words.number("of", groups)?;
    let (mut joined, mut tell) = std::io::pipe().doing("make a pipe")?;
    for number in 0..of {
        if child()? {
            std::fs::write(group(number % groups).join("cgroup.procs"), "0").doing("join a group")?;
            tell.write_all(b"!").doing("tell")?;
            return Ok(super::bystanders::sleep());
        }
    }
    for _ in 0..of {
        joined.read_exact(&mut [0]).doing("wait for the children")?;
    }
    std::fs::write("/proc/self/comm", "spread").doing("take another name")?;
    Ok(super::bystanders::sleep())
}

/// What a process is called whose children all have touched what they share.
pub const SHARED: &str = "shared";

/// `of=` children that all read the same `mib=` of shared memory, and sleep; `how=own`: each has its own; `how=forked`: what they share they have by the fork. It is
/// called [`SHARED`] once all have.
pub fn share(words: &Words) -> Outcome<ExitCode> {
    let (of, bytes) = (words.number("of", 2)?, (words.number("mib", 16)? as usize) << 20);
    let how = words.text("how");
    let kind = if how == "forked" { libc::MAP_PRIVATE } else { libc::MAP_SHARED };
    let map = || {
        // SAFETY: the kernel chooses a place that nothing else uses.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, kind | libc::MAP_ANONYMOUS, -1, 0) };
        ensure!(at != libc::MAP_FAILED, "could not map memory");
        for page in (0..bytes).step_by(4096) {
            // SAFETY: within the mapping, which is never taken away.
            unsafe { at.cast::<u8>().add(page).write_volatile(1) };
        }
        Ok(at.cast::<u8>())
    };
    let common = if how == "own" { None } else { Some(map()?) };
    let (mut touched, mut tell) = std::io::pipe().doing("make a pipe")?;
    for _ in 0..of {
        if child()? {
            let memory = common.map_or_else(map, Ok)?;
            for page in (0..bytes).step_by(4096) {
                // SAFETY: within the mapping, to which nobody writes any more.
                std::hint::black_box(unsafe { memory.add(page).read_volatile() });
            }
            tell.write_all(b"!").doing("tell")?;
            return Ok(super::bystanders::sleep());
        }
    }
    for _ in 0..of {
        touched.read_exact(&mut [0]).doing("wait for the children")?;
    }
    std::fs::write("/proc/self/comm", SHARED).doing("take another name")?;
    Ok(super::bystanders::sleep())
}

/// Forks; true in the child.
fn child() -> Outcome<bool> {
    // SAFETY: the process has one thread, so the child inherits no lock that another thread held.
    let fork = unsafe { nix::unistd::fork() }.doing("fork")?;
    Ok(fork.is_child())
}
