//! Facts of the processes of one group: /proc/PID/oom_score_adj, comm, oom_score, status.
//!
//! None of these files takes the process's mmap_lock, so a process stuck in reclaim can't stall the reader. Reading needs
//! fresh descriptors, which is dear in a starving machine: it is done only for groups that are about to die. A process that
//! exits meanwhile is no fault and no obstacle; but that its files are not there does not say so, because /proc mounted with
//! hidepid hides other users' processes in the same way. A pidfd tells ([`is_dead`]). proc_pid_*(5), proc(5), pidfd_open(2).

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cgroup::group::{Group, ReadBuf};
use crate::cgroup::parse::{self, Process};
use crate::decide::facts::ProcessFacts;
use crate::decide::process::SHIELDED;
use crate::policy::model::{EntrySet, Policy};

/// Processes of one group that are looked at. A group with more is a fork bomb; -1000 takes a privilege that bombs lack.
pub const MAX_PROCESSES: usize = 4096;

/// oom_score_adj at which the kernel never kills.
const UNKILLABLE: i32 = -1000;

/// The files of a process that are read.
#[derive(Clone, Copy)]
enum File {
    OomScoreAdj,
    OomScore,
    Comm,
    Status,
}

impl File {
    const fn name(self) -> &'static [u8] {
        match self {
            File::OomScoreAdj => b"oom_score_adj",
            File::OomScore => b"oom_score",
            File::Comm => b"comm",
            File::Status => b"status",
        }
    }
}

/// One process that might be the single victim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OneProcess {
    /// Its id.
    pub pid: i32,
    /// oom_score.
    pub oom_score: Option<u32>,
    /// oom_score_adj.
    pub oom_score_adj: Option<i16>,
    /// What it holds in memory and in swap, bytes.
    pub held_bytes: Option<u64>,
}

/// A reader of /proc with buffers of its own: lists of processes are long, so the list and the files are read apart.
#[derive(Debug)]
pub struct Processes {
    proc: OwnedFd,
    list: ReadBuf,
    pids: Vec<i32>,
}

impl Processes {
    /// Opens /proc.
    ///
    /// # Errors
    /// The errno.
    pub fn open() -> Result<Processes, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Processes { proc: open("/proc", flags, Mode::empty())?, list: ReadBuf::new(), pids: Vec::with_capacity(MAX_PROCESSES) })
    }

    /// Lists only groups whose cgroup.procs is held, from now on, or any again.
    pub fn only_held(&mut self, only: bool) {
        self.list.only_held(only);
    }

    /// Lists a group's processes; whether some are hidden, or the list could not be read.
    fn list(&mut self, group: &Group) -> (bool, usize) {
        let Processes { list, pids, .. } = self;
        pids.clear();
        let (mut unknown, mut count) = (false, 0);
        let result = group.each_process(list, |process| {
            count += 1;
            match process {
                Process::Hidden => unknown = true,
                Process::Pid(pid) if pids.len() < MAX_PROCESSES => pids.push(pid),
                Process::Pid(_) => {}
            }
            true
        });
        (unknown || result.is_err_and(|error| !error.is_gone()), count)
    }

    /// Reads one file of a process. `Ok(None)`: the process is dead. ENOENT: it lives, and this file is not shown to us.
    fn read<'b>(&self, pid: i32, file: File, buffer: &'b mut ReadBuf) -> Result<Option<&'b [u8]>, Errno> {
        let mut path = PathBuffer::default();
        let fd = match openat(&self.proc, path.write(pid, file.name()), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => fd,
            Err(errno @ (Errno::NOENT | Errno::SRCH)) => return if is_dead(pid) { Ok(None) } else { Err(errno) },
            Err(errno) => return Err(errno),
        };
        match buffer.pread(&fd) {
            Ok(text) => Ok(Some(text)),
            Err(Errno::SRCH) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// What a judgement wants to know of the processes directly in `group`. `comms`: exclusions whose comm matters here.
    pub fn facts(&mut self, group: &Group, policy: &Policy, comms: &EntrySet, scores: bool, buffer: &mut ReadBuf) -> ProcessFacts {
        let (hidden, count) = self.list(group);
        let mut facts = ProcessFacts { count: u32::try_from(count).unwrap_or(u32::MAX), has_unknown: hidden, ..ProcessFacts::default() };
        for pid in &self.pids {
            facts.has_init |= *pid == 1;
            match self.read(*pid, File::OomScoreAdj, buffer).map(|text| text.map(parse::signed)) {
                Ok(None) => continue,
                Ok(Some(Ok(adjust))) => {
                    facts.has_unkillable |= adjust == UNKILLABLE;
                    facts.has_shielded |= adjust <= i32::from(SHIELDED);
                }
                Ok(Some(Err(_))) | Err(_) => facts.has_unknown = true,
            }
            if !comms.is_empty() {
                match self.read(*pid, File::Comm, buffer) {
                    Ok(Some(text)) => note_comm(&mut facts, policy, comms, text.strip_suffix(b"\n").unwrap_or(text)),
                    Ok(None) => {}
                    Err(_) => facts.has_unknown = true,
                }
            }
            if scores && let Ok(Some(Ok(score))) = self.read(*pid, File::OomScore, buffer).map(|text| text.map(parse::signed)) {
                let score = u32::try_from(score).unwrap_or(0);
                facts.oom_score = Some(facts.oom_score.map_or(score, |most| most.max(score)));
            }
        }
        facts
    }

    /// Calls `each` with the comm of every process directly in `group`; whether all could be read.
    pub fn each_comm(&mut self, group: &Group, buffer: &mut ReadBuf, mut each: impl FnMut(&[u8])) -> bool {
        let (hidden, count) = self.list(group);
        let mut whole = !hidden && count <= self.pids.len();
        for pid in &self.pids {
            match self.read(*pid, File::Comm, buffer) {
                Ok(Some(comm)) => each(comm.strip_suffix(b"\n").unwrap_or(comm)),
                Ok(None) => {}
                Err(_) => whole = false,
            }
        }
        whole
    }

    /// Calls `each` with what tells the single victim among the processes directly in `group`.
    pub fn each(&mut self, group: &Group, buffer: &mut ReadBuf, mut each: impl FnMut(OneProcess)) {
        self.list(group);
        for pid in &self.pids {
            let number = |text: Option<&[u8]>| text.and_then(|text| parse::signed(text).ok());
            let oom_score_adj =
                self.read(*pid, File::OomScoreAdj, buffer).ok().and_then(number).and_then(|adjust| i16::try_from(adjust).ok());
            let oom_score = self.read(*pid, File::OomScore, buffer).ok().and_then(number).and_then(|score| u32::try_from(score).ok());
            let status = self.read(*pid, File::Status, buffer).ok().flatten();
            // One that was sent SIGKILL and waits in the kernel dies without us, and another one is needed.
            if status.is_some_and(parse::is_being_killed) {
                continue;
            }
            let held_bytes = status.and_then(|text| parse::process_memory(text).ok().flatten());
            // A zombie still has files, but no memory. So has a process whose main thread has ended: that one lives.
            if held_bytes.is_none() && is_dead(*pid) {
                continue;
            }
            each(OneProcess { pid: *pid, oom_score, oom_score_adj, held_bytes });
        }
    }
}

/// Whether a process that stands in a group's list has ended, a zombie included. What can't be told is not.
#[must_use]
pub fn is_dead(pid: i32) -> bool {
    match Pid::from_raw(pid).map(|id| pidfd_open(id, PidfdFlags::empty())) {
        Some(Ok(pidfd)) => has_ended(&pidfd),
        Some(Err(errno)) => errno == Errno::SRCH,
        None => false,
    }
}

/// Whether the process behind a pidfd has ended with all its threads; it may still be waiting for its parent to collect it.
#[must_use]
pub fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

fn note_comm(facts: &mut ProcessFacts, policy: &Policy, comms: &EntrySet, comm: &[u8]) {
    for entry in comms.iter() {
        if policy.exclude.get(entry).and_then(|exclude| exclude.comm.as_deref()) == Some(comm) {
            facts.comm_hits.insert(entry);
        }
    }
}

/// Room for `PID/oom_score_adj`, so that making the path allocates nothing.
#[derive(Default)]
pub(crate) struct PathBuffer([u8; 32]);

impl PathBuffer {
    /// The path of a process's file below /proc; names of up to 21 bytes fit.
    pub(crate) fn write(&mut self, pid: i32, file: &[u8]) -> &[u8] {
        use std::io::Write as _;
        let mut rest = &mut self.0[..];
        // The longest pid and the longest name fit: 10 + 1 + 13.
        let _ = write!(rest, "{pid}/").and_then(|()| rest.write_all(file));
        let left = rest.len();
        let length = self.0.len() - left;
        &self.0[..length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_in_place() {
        assert_eq!(PathBuffer::default().write(i32::MAX, b"oom_score_adj"), b"2147483647/oom_score_adj");
        assert_eq!(PathBuffer::default().write(7, b"comm"), b"7/comm");
    }

    #[test]
    fn our_own_files_can_be_read_and_a_gone_process_is_none() {
        let processes = Processes::open().unwrap();
        let mut buffer = ReadBuf::new();
        let me = rustix::process::getpid().as_raw_nonzero().get();
        assert!(matches!(processes.read(me, File::OomScoreAdj, &mut buffer).unwrap().map(parse::signed), Some(Ok(_))));
        assert!(matches!(processes.read(me, File::Status, &mut buffer).unwrap().map(parse::process_memory), Some(Ok(Some(1..)))));
        assert!(matches!(processes.read(i32::MAX, File::Comm, &mut buffer), Ok(None)));
    }

    /// A group whose list names these processes.
    fn group(pids: &[i32]) -> (tempfile::TempDir, Group) {
        use std::fmt::Write as _;
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("g")).unwrap();
        let mut text = String::new();
        pids.iter().for_each(|pid| writeln!(text, "{pid}").unwrap());
        std::fs::write(dir.path().join("g/cgroup.procs"), text).unwrap();
        let fd = open(dir.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let root = std::sync::Arc::new(crate::cgroup::root::Root { path: dir.path().into(), dir: fd });
        let group = Group::open(&root, None, crate::cgroup::path::GroupPath::from_bytes(b"/g")).unwrap();
        (dir, group)
    }

    fn policy() -> Policy {
        crate::policy::load(&[crate::policy::Source::new("test", "version: 1\nrules: []\n")]).unwrap().policy
    }

    /// A child that has ended and was not collected.
    fn zombie() -> std::process::Child {
        let child = std::process::Command::new("true").spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
        child
    }

    #[test]
    fn who_lives_but_is_hidden_in_proc_is_unknown_and_who_is_dead_is_not() {
        let mut processes = Processes::open().unwrap();
        // Nobody is to be seen there, as where hidepid hides them.
        let empty = tempfile::tempdir().unwrap();
        processes.proc = open(empty.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let me = rustix::process::getpid().as_raw_nonzero().get();
        let mut unknown = |pids: &[i32]| {
            let (_dir, group) = group(pids);
            let facts = processes.facts(&group, &policy(), &EntrySet::EMPTY, false, &mut ReadBuf::new());
            let whole = processes.each_comm(&group, &mut ReadBuf::new(), |_| {});
            assert_eq!(facts.has_unknown, !whole, "one says what the other says");
            facts.has_unknown
        };
        assert!(unknown(&[me]), "it lives and can't be looked at");
        assert!(!unknown(&[i32::MAX]), "there is no such process");
        let mut dead = zombie();
        assert!(!unknown(&[i32::try_from(dead.id()).unwrap()]), "a zombie is no obstacle");
        dead.wait().unwrap();
    }

    #[test]
    fn a_zombie_is_not_among_those_of_whom_one_is_killed() {
        let mut processes = Processes::open().unwrap();
        let me = rustix::process::getpid().as_raw_nonzero().get();
        let mut dead = zombie();
        let (_dir, group) = group(&[i32::try_from(dead.id()).unwrap(), me, i32::MAX]);
        let mut seen = Vec::new();
        processes.each(&group, &mut ReadBuf::new(), |process| seen.push(process));
        dead.wait().unwrap();
        assert_eq!(seen.iter().map(|process| process.pid).collect::<Vec<_>>(), [me]);
        assert!(seen[0].held_bytes.is_some_and(|bytes| bytes > 0) && seen[0].oom_score_adj.is_some());
    }
}
