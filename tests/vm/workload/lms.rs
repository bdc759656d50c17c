//! Those who read the low memory signal, and handlers that do only part of what a handler should.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::mman::{MlockAllFlags, mlockall};

use super::start::Words;
use super::{bystanders, hog};
use crate::guest::callers;
use crate::guest::lms::{FILE, Notifier};
use crate::guest::stamps::{self, Stamps};
use crate::outcome::{Doing, Outcome};

/// What a handler is called once it waits for holds.
pub const READY: &str = "ready-handler";

/// What a process is called that has got what it wants.
pub const SATISFIED: &str = "satisfied";

/// Sleeps until there is a notice, reads, and begins again; `how=poll|epoll`.
pub fn reader(words: &Words) -> Outcome<ExitCode> {
    let notifier = Notifier::open()?;
    let epoll = Epoll::new(EpollCreateFlags::empty()).doing("make an epoll set")?;
    epoll.add(&notifier.0, EpollEvent::new(EpollFlags::EPOLLPRI, 0)).doing("watch the file")?;
    loop {
        notifier.state()?;
        if words.text("how") == "epoll" {
            epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE).doing("epoll")?;
        } else {
            notifier.notice(Duration::from_secs(3600))?;
        }
    }
}

/// Registers (`ms=` for a hold of its own length), tells no swap, may write a table (`kill=ID,ID spare=ID,ID keep=SECONDS`, or
/// the text of the file `table=`), and then to each hold
/// (`heir=yes`: a child has the file too, and outlives this process) does what `answer=` says: `never`; `ack`, `pass`; `kill`: the kernel's cgroup.kill for the group `victim=DIRECTORY`, then the ack that names it.
/// It waits by epoll, set up before it registers; in `log=FILE` it stamps each notice with the hold that was open, or 0.
/// `fill=MIB`: instead of waiting for anything it fills memory.
pub fn handler(words: &Words) -> Outcome<ExitCode> {
    let notifier = Notifier::open()?;
    let mut log = words.raw("log").map(Stamps::create).transpose()?;
    let epoll = Epoll::new(EpollCreateFlags::empty()).doing("make an epoll set")?;
    epoll.add(&notifier.0, EpollEvent::new(EpollFlags::EPOLLPRI, 0)).doing("watch the file")?;
    let bound = words.text("ms");
    notifier.command(format!("handler {bound}").trim_end())?;
    notifier.command("swap_total 0")?;
    let (mut victim, mut named) = (None, String::new());
    if let Some(directory) = words.raw("victim").map(Path::new) {
        victim = Some(File::create(directory.join("cgroup.kill")).doing("open cgroup.kill")?);
        named = format!(" {}", directory.metadata().doing("look at the victim")?.ino());
    }
    if words.raw("fill").is_none() {
        // An answer must not need memory: what it takes is there and stays there.
        mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE).doing("lock memory")?;
    }
    notifier.state()?;
    if words.raw("heir").is_some() {
        // By way of its standard input, which alone outlives the change of program.
        let file = notifier.0.try_clone().doing("share the file")?;
        let own = std::env::current_exe().doing("find the own binary")?;
        std::process::Command::new(own).args(["--workload", "sleep"]).stdin(file).spawn().doing("start a child")?;
    }
    // Last, because it says to whoever started this that all is ready.
    if let Some(table) = table(words)? {
        notifier.command(&table)?;
    }
    if words.raw("fill").is_some() {
        hog::fill(words.number("fill", 64)?);
    }
    std::fs::write("/proc/self/comm", READY).doing("take another name")?;
    let answer = words.text("answer");
    if answer == "never" {
        return Ok(bystanders::sleep());
    }
    let mut answered = 0;
    loop {
        epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE).doing("epoll")?;
        let told = stamps::now()?;
        let hold = notifier.state()?.number("hold_seq")?;
        if let Some(log) = &mut log {
            log.add(told, hold)?;
        }
        if hold == 0 || hold == answered {
            continue;
        }
        answered = hold;
        if let Some(mut group) = victim.as_ref() {
            group.write_all(b"1").doing("kill the group")?;
        }
        let (word, named) = if answer == "pass" { ("pass", "") } else { ("ack", &*named) };
        match notifier.write(format!("{word} {hold}{named}")) {
            // Memory may be back before we have said that it will be.
            Ok(()) | Err(Errno::ESTALE) => {}
            Err(error) => return Err(format!("could not {word} {hold}: {error}")),
        }
    }
}

/// Writes a table over and over, by a file of its own, that is kept and names the group `id=`; a large one.
pub fn writer(words: &Words) -> Outcome<ExitCode> {
    let notifier = Notifier::open()?;
    let spared: Vec<String> = (0..500).map(|at| format!("spare {}", u64::MAX - at)).collect();
    let table = format!("table keep 60\nkill {}\n{}", words.text("id"), spared.join("\n"));
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE).doing("lock memory")?;
    loop {
        match notifier.write(&table) {
            // What is longer than a line takes memory.
            Ok(()) | Err(Errno::ENOMEM) => {}
            Err(error) => return Err(format!("could not write a table: {error}")),
        }
    }
}

/// Fills memory until a shortage begins (`until=called`: until the kernel asks around, whoever answers), and then `more=` MiB beyond; is called [`SATISFIED`] when it has them, and sleeps.
pub fn want(words: &Words) -> Outcome<ExitCode> {
    let notifier = Notifier::open()?;
    let called = words.text("until") == "called";
    let begun = || -> Outcome<u64> { if called { callers::number("others") } else { notifier.state()?.number("calls") } };
    let before = begun()?;
    let mut memory = Vec::new();
    let mut more = words.number("more", 8)?;
    while more > 0 {
        if begun()? > before {
            more -= 1;
        }
        memory.push(vec![1_u8; 1 << 20]);
    }
    std::fs::write("/proc/self/comm", SATISFIED).doing("take another name")?;
    std::hint::black_box(&memory);
    Ok(bystanders::sleep())
}

/// The table that the words ask for, if any.
fn table(words: &Words) -> Outcome<Option<String>> {
    if let Some(file) = words.raw("table") {
        return std::fs::read_to_string(file).doing(format_args!("read {file:?}")).map(Some);
    }
    let mut lines = vec!["table".to_owned()];
    for verb in ["kill", "spare"] {
        lines.extend(words.text(verb).split(',').filter(|id| !id.is_empty()).map(|id| format!("{verb} {id}")));
    }
    if words.raw("keep").is_some() {
        lines[0] = format!("table keep {}", words.text("keep"));
    }
    Ok((lines.len() > 1).then(|| lines.join("\n")))
}

/// Without privileges, with a descriptor for the file that root opened on standard input: no command may be taken. Is called
/// [`SATISFIED`] when it has seen that.
pub fn without_rights() -> Outcome<ExitCode> {
    let opened = std::fs::OpenOptions::new().write(true).open(FILE).map(drop).map_err(|error| error.raw_os_error());
    ensure!(opened == Err(Some(libc::EACCES)), "opening {FILE} for writing should be EACCES, not {opened:?}");
    let inherited = std::io::stdin();
    for command in ["handler", "handler 100", "release", "ack 1", "pass 1", "swap_total 0", "table\nkill 1", "clear", "rubbish"] {
        let answer = nix::unistd::write(inherited.as_fd(), command.as_bytes());
        ensure!(answer == Err(Errno::EPERM), "{command:?} should be EPERM, not {answer:?}");
    }
    ensure!(std::fs::read_to_string(FILE).is_ok_and(|text| text.starts_with("level ")), "{FILE} can't be read");
    // Not by way of /proc/self, which is root's after a change of identity.
    nix::sys::prctl::set_name(&CString::new(SATISFIED).doing("make a name")?).doing("take another name")?;
    Ok(bystanders::sleep())
}
