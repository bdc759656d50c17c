//! A directory of ordinary files stands in for a group; its attributes are real where the file
//! system has them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags, XattrFlags, getxattr, open, removexattr, setxattr};

use super::*;
use crate::cgroup::path::GroupPath;
use crate::cgroup::root::Root;

struct Bench {
    _dir: tempfile::TempDir,
    path: PathBuf,
    group: Arc<Group>,
    mail: Arc<EventFd>,
    actors: Actors,
}

fn bench() -> Option<Bench> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("g");
    fs::create_dir(&path).unwrap();
    for (file, text) in [("cgroup.procs", ""), ("cgroup.events", "populated 1\n"), ("cgroup.kill", "")] {
        fs::write(path.join(file), text).unwrap();
    }
    if let Err(errno) = setxattr(&path, "user.test", b"", XattrFlags::empty()) {
        println!("skipped: {} has no user attributes: {errno}", path.display());
        return None;
    }
    let fd = open(dir.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let root = Arc::new(Root { path: dir.path().into(), dir: fd });
    let group = Arc::new(Group::open(&root, None, GroupPath::from_bytes(b"/g")).unwrap());
    let mail = Arc::new(EventFd::new().unwrap());
    let actors = Actors::start(Arc::clone(&mail), 4, 4, None).unwrap();
    Some(Bench { _dir: dir, path, group, mail, actors })
}

impl Bench {
    /// Has a deed done, and gives the attributes as soon as they are `expected`, or what they are
    /// after a while.
    fn attributes(&mut self, deed: Deed, marked: bool, processes: Option<u64>, expected: [Option<&str>; 2]) -> [Option<String>; 2] {
        let names = ["user.oomd_ooms", "user.oomd_kill"];
        for name in names {
            let _ = removexattr(&self.path, name);
        }
        let mut job = self.actors.take().unwrap();
        (job.deed, job.marked, job.processes) = (deed, marked, processes);
        job.targets.push(Arc::clone(&self.group));
        self.actors.send(job);
        let job = loop {
            self.mail.read().unwrap();
            if let Some(job) = self.actors.finished() {
                break job;
            }
        };
        self.actors.give_back(job);
        // The last word is the mark's thread's. What is not to come gets a little time to come all
        // the same.
        let until = Instant::now() + if expected == [None; 2] { Duration::from_millis(100) } else { Duration::from_secs(20) };
        loop {
            let now = names.map(|name| value(&self.path, name));
            if Instant::now() >= until || (now.each_ref().map(Option::as_deref) == expected && expected != [None; 2]) {
                return now;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn value(path: &Path, name: &str) -> Option<String> {
    let mut text = [0; 64];
    let length = getxattr(path, name, &mut text[..]).ok()?;
    Some(String::from_utf8_lossy(&text[..length]).into_owned())
}

#[test]
fn systemd_learns_of_attempts_and_processes_by_deeds_that_kill_and_by_no_others() {
    let Some(mut bench) = bench() else { return };
    let mut child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    for (deed, populated, marked, processes, expected) in [
        (Deed::KillGroup { signals_first: false }, true, true, Some(7), [Some("1"), Some("7")]),
        (Deed::KillGroup { signals_first: false }, true, false, Some(7), [None, None]),
        (Deed::Warn(None), true, false, Some(7), [None, None]),
        // Nobody counted before: those that were signalled count, of which there are none by
        // cgroup.kill.
        (Deed::KillGroup { signals_first: false }, true, true, None, [Some("1"), None]),
        // It has left by itself: nobody tried to kill it, and nobody was killed.
        (Deed::KillGroup { signals_first: false }, false, true, Some(7), [None, None]),
        (Deed::KillGroup { signals_first: true }, false, true, Some(7), [None, None]),
        // One process is no attempt at the group.
        (Deed::KillOne(pid), true, true, Some(1), [None, Some("1")]),
    ] {
        fs::write(bench.path.join("cgroup.events"), format!("populated {}\n", u8::from(populated))).unwrap();
        // Those that are sent SIGKILL one by one come last; before, nobody is there to be signalled.
        let listed = if matches!(deed, Deed::KillOne(_)) { format!("{pid}\n") } else { String::new() };
        fs::write(bench.path.join("cgroup.procs"), listed).unwrap();
        let found = bench.attributes(deed, marked, processes, expected);
        assert_eq!(found.each_ref().map(Option::as_deref), expected, "{deed:?}, populated: {populated}, marked: {marked}");
    }
    assert!(!child.wait().unwrap().success());
    assert_eq!(fs::read(bench.path.join("cgroup.kill")).unwrap(), b"1");
}

#[test]
fn a_kill_under_a_shortage_of_the_node_waits_for_no_mark() {
    let group = |signals_first| Deed::KillGroup { signals_first };
    assert_eq!(patience(group(true), false), Some(Duration::ZERO));
    assert_eq!(patience(group(false), true), Some(Duration::ZERO), "the kernel holds an OOM for it");
    assert!(patience(group(false), false).is_some_and(|patience| patience <= Duration::from_millis(5)));
    for other in [Deed::KillProcesses, Deed::KillOne(1), Deed::Term, Deed::TermOne(1), Deed::Warn(None)] {
        assert_eq!(patience(other, false), None, "{other:?}");
    }
}
