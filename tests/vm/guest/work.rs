//! A workload at work: this binary, started as `--workload`, in a group.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::group::Group;
use super::wait::{self, SOON};
use crate::guest::{group::MIB, places};
use crate::outcome::{Doing, Outcome};

/// A process that a scenario started. Dropping it kills and collects it.
pub struct Work {
    child: Child,
    what: String,
    status: Option<ExitStatus>,
}

impl Work {
    /// Starts a workload in `group`: `what` is its name and `key=value` words, as in `hog mib=64 then=hold comm=postgres adj=-1000`.
    /// It has joined the group when this returns.
    pub fn start(group: &Group, what: &str) -> Outcome<Work> {
        Work::start_with(group, what, Stdio::null())
    }

    /// As [`Work::start`], with something on standard input.
    pub fn start_with(group: &Group, what: &str, input: impl Into<Stdio>) -> Outcome<Work> {
        let mut join = OsString::from("join=");
        join.push(group.directory());
        let mut words = what.split_whitespace();
        let name = words.next().unwrap_or_default();
        let child = Command::new(std::env::current_exe().unwrap_or_else(|_| places::SELF.into()))
            .args(["--workload", name])
            .arg(join)
            .args(words)
            .stdin(input)
            .spawn()
            .doing(format_args!("start {what}"))?;
        let mut work = Work { child, what: what.to_owned(), status: None };
        let pid = work.pid();
        wait::until(&format!("{what} joins {group}"), SOON, || {
            if !work.running()? {
                // It joins first of all, so whoever could not says so by its exit code; whoever ended otherwise had joined, and was killed, or
                // done, before it was looked at.
                let joined = work.status.is_some_and(|status| status.code() != Some(1));
                ensure!(joined, "{} could not begin: {:?}", work.what, work.status);
                return Ok(true);
            }
            // What forks and ends, or moves on, is there when anybody is.
            Ok(group.processes()?.contains(&pid)
                || group.read("cgroup.threads").is_ok_and(|tids| tids.lines().any(|tid| tid == pid.to_string())))
        })?;
        Ok(work)
    }

    /// A process that fills so many MiB and then sleeps. It is full when this returns.
    pub fn holding(group: &Group, mib: u64) -> Outcome<Work> {
        let before = group.usage()? + group.number("memory.swap.current").unwrap_or(0);
        let work = Work::start(group, &format!("hog mib={mib} then=hold"))?;
        group.wait_usage(before + mib * MIB)?;
        Ok(work)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn running(&mut self) -> Outcome<bool> {
        if self.status.is_none() {
            self.status = self.child.try_wait().doing(format_args!("ask after {}", self.what))?;
        }
        Ok(self.status.is_none())
    }

    /// Fails unless it still runs.
    pub fn must_run(&mut self, why: &str) -> Outcome {
        ensure!(self.running()?, "{} should live ({why}) but ended: {:?}", self.what, self.status);
        Ok(())
    }

    /// Waits for its end.
    pub fn end(&mut self, within: Duration) -> Outcome<ExitStatus> {
        let waited = wait::until(&format!("{} (pid {}) ends", self.what, self.child.id()), within, || Ok(!self.running()?));
        waited.map_err(|why| format!("{why}; {}", self.whereabouts()))?;
        self.status.ok_or_else(|| "no exit status".to_owned())
    }

    /// What it is doing, for messages: its state, and where in the kernel it is.
    fn whereabouts(&self) -> String {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", self.pid())).unwrap_or_default();
        let kept = |line: &&str| ["State:", "SigPnd:", "ShdPnd:", "VmRSS:"].iter().any(|key| line.starts_with(key));
        let status: Vec<String> = read("status").lines().filter(kept).map(str::to_owned).collect();
        let stack: Vec<String> = read("stack").lines().map(str::to_owned).collect();
        format!("it is {status:?} at {stack:?}")
    }

    /// Waits for its end, which must have been by SIGKILL.
    pub fn must_be_killed(&mut self) -> Outcome {
        self.must_be_killed_within(SOON)
    }

    /// The same where that may take longer.
    pub fn must_be_killed_within(&mut self, within: Duration) -> Outcome {
        let status = self.end(within)?;
        ensure!(status.signal() == Some(Signal::SIGKILL as i32), "{} should have been killed but ended otherwise: {status}", self.what);
        Ok(())
    }

    /// Waits for its end, which must have been by itself with `code`.
    pub fn must_exit_with(&mut self, code: i32) -> Outcome {
        let status = self.end(SOON)?;
        ensure!(status.code() == Some(code), "{} should have exited with {code} but ended otherwise: {status}", self.what);
        Ok(())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // Errors mean that it has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
