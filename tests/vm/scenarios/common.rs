//! What many scenarios share: a policy for thrashing groups, and groups that thrash.

use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::guest::group::{Group, MIB};
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};
use crate::workload::storm::UP;

/// One rule called `thrash`: a group below /t that stalls dies.
pub const THRASH: &str = "
version: 1
rules:
  - name: thrash
    watch: /t/*
    when:
      - psi: full 100ms/500ms
";

/// Limits that a [`hog`] can't live within: memory.high of 32 MiB, no swap.
pub fn narrow(path: &str) -> Outcome<Group> {
    Group::new(path)?.high(32 * MIB)?.no_swap()
}

/// Starts a process that wants twice what [`narrow`] gives and stalls from then on.
pub fn hog(group: &Group) -> Outcome<Work> {
    Work::start(group, "hog mib=64")
}

/// A group with somebody in it who holds a few MiB and wants nothing.
pub fn neighbour(path: &str) -> Outcome<(Group, Work)> {
    let group = Group::new(path)?;
    let work = Work::holding(&group, 8)?;
    Ok((group, work))
}

/// Starts a workload `storm` in `from`; it is up when this returns. `words` as the workload takes them.
pub fn storm(from: &Group, at: &Group, words: &str) -> Outcome<Work> {
    let work = Work::start(from, &format!("storm {words} at={}", at.directory().display()))?;
    // By a name that it keeps: its groups come and go. Thousands of them take their time on a machine with other work.
    called_within(&work, UP, 4 * SOON)?;
    Ok(work)
}

/// Waits until a process has taken a name, by which it says how far it is.
pub fn called(work: &Work, name: &str) -> Outcome {
    called_within(work, name, SOON)
}

fn called_within(work: &Work, name: &str, within: Duration) -> Outcome {
    let comm = format!("/proc/{}/comm", work.pid());
    wait::until(&format!("a process is called {name}"), within, || {
        Ok(std::fs::read_to_string(&comm).doing("ask for its name")?.trim() == name)
    })
}

/// Five processes in `group`, one of which waits to be told to [`Family::grow`] to 64 MiB.
pub struct Family {
    /// The first of them, which started the others.
    pub first: Work,
    grower: u32,
}

impl Family {
    /// All five are there when this returns.
    pub fn start(group: &Group) -> Outcome<Family> {
        let first = Work::start(group, "grow-one-of of=5 mib=64")?;
        wait::until("all five are there", SOON, || Ok(group.processes()?.len() == 5))?;
        let is_grower = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "grower\n");
        let grower = wait::find("one process is called grower", SOON, || Ok(group.processes()?.into_iter().find(is_grower)))?;
        Ok(Family { first, grower })
    }

    /// Lets the one grow.
    pub fn grow(&self) -> Outcome {
        signal::kill(Pid::from_raw(self.grower as i32), Signal::SIGUSR1).doing("signal the grower")
    }
}
