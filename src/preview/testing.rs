//! Trees of ordinary files that stand in for groups, and policies about them.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, open};

use super::Asked;
use super::onlooker::Onlooker;
use crate::cgroup::root::Root;
use crate::policy::{Source, load};

/// A tree of groups, removed with its owner.
pub struct StandIn(tempfile::TempDir);

impl StandIn {
    pub fn new() -> StandIn {
        StandIn(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Makes a group that holds so much anonymous memory and no process that could be seen.
    pub fn group(&self, path: &str, anon: u64) -> &StandIn {
        fs::create_dir_all(self.path().join(path)).unwrap();
        for (file, text) in [
            ("cgroup.type", "domain\n"),
            ("cgroup.events", "populated 1\nfrozen 0\n"),
            ("cgroup.procs", ""),
            ("memory.current", &format!("{anon}\n")),
            ("memory.stat", &format!("anon {anon}\nfile 0\nshmem 0\ninactive_file 0\nactive_file 0\nfile_dirty 0\nfile_writeback 0\n")),
            ("memory.swap.current", "0\n"),
            ("memory.max", "max\n"),
            ("memory.high", "max\n"),
            ("memory.low", "0\n"),
            ("memory.oom.group", "0\n"),
        ] {
            self.file(path, file, text);
        }
        self
    }

    /// Sets a file of a group.
    pub fn file(&self, group: &str, file: &str, text: &str) -> &StandIn {
        fs::write(self.path().join(group).join(file), text).unwrap();
        self
    }

    /// Looks at it.
    pub fn look(&self, asked: &Asked, daemon: Option<i32>) -> Onlooker {
        let dir = open(self.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let root = Arc::new(Root { path: self.path().into(), dir });
        Onlooker::look(root, &asked.policy, daemon).unwrap()
    }
}

/// A policy called `test.yaml`, without the line of its version.
pub fn asked(text: &str) -> Asked {
    match load(&[Source::new("test.yaml", format!("version: 1\n{text}"))]) {
        Ok(loaded) => loaded.into(),
        Err(errors) => panic!("{}", errors[0]),
    }
}

/// A text without its colours.
pub fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

/// A process named `sleep`, ended with its owner.
pub struct Sleeper(Child);

impl Sleeper {
    pub fn start() -> Sleeper {
        let sleeper = Sleeper(Command::new("sleep").arg("600").stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
        // Until it has begun its name is that of its parent, and its command line comes last.
        let line = format!("/proc/{}/cmdline", sleeper.pid());
        while fs::read(&line).unwrap() != b"sleep\x00600\0" {
            std::thread::yield_now();
        }
        sleeper
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // Ended already where this fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
