//! What a tenant may do in its own subtree so that the table passes over its hog and somebody else dies: empty groups, deep ones, long names, many
//! groups. And whom a group that dies as a whole must not take along.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use nix::sys::signal::Signal;

use super::MEASURED;
use super::lms_common::{Counters, EXCITABLE, ROUNDS, called, fresh, rounds, short_of_memory, signal};
use super::lms_policy::handler_with;
use crate::guest::group::Group;
use crate::guest::lms;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};
use crate::workload::fork::SHARED;
use crate::workload::lms::SATISFIED;

const GREEDY: &str = "hog mib=1000 term=ignore";

/// What the hog is called that waits where it is moved.
const MOVED: &str = "moved";

/// Groups below a group, one in the other, of which the last has a path that is longer than a system call takes.
struct Far {
    /// Of the group that they are in, and of each of them.
    directories: Vec<File>,
    name: String,
}

impl Far {
    /// With a memory controller each.
    fn below(group: &Group) -> Outcome<Far> {
        let mut far = Far { directories: vec![File::open(group.directory()).doing("open a group's directory")?], name: "x".repeat(250) };
        for _ in 0..17 {
            std::fs::write(far.at("cgroup.subtree_control"), "+memory").doing("give the memory controller to what is below")?;
            let next = far.at(&far.name);
            std::fs::create_dir(&next).doing("make a group")?;
            far.directories.push(File::open(&next).doing("open a group's directory")?);
        }
        Ok(far)
    }

    /// A file of the last of them.
    fn at(&self, file: &str) -> PathBuf {
        let fd = self.directories.last().map_or(-1, AsRawFd::as_raw_fd);
        format!("/proc/self/fd/{fd}/{file}").into()
    }

    /// Nobody else can, by a path.
    fn remove(mut self) -> Outcome {
        while self.directories.len() > 1 {
            self.directories.pop();
            let last = self.at(&self.name);
            wait::until("a group can be removed", SOON, || Ok(std::fs::remove_dir(&last).is_ok()))?;
        }
        Ok(())
    }
}

/// Groups below a group, one in the other; the last one.
fn nested(group: &Group, levels: u32, controllers: bool) -> Outcome<Group> {
    let mut last = group.clone();
    for _ in 0..levels {
        if controllers {
            last = last.child("d")?;
        } else {
            last = last.named("d");
            std::fs::create_dir(last.directory()).doing("make a group")?;
        }
    }
    Ok(last)
}

/// The hog's group has an empty group below it, or is one without a controller, or is deep down, or has a path that no policy can name: it dies, and not the
/// small one beside it.
pub fn groups_that_a_tenant_makes_hide_nobody() -> Outcome {
    lms::load_for_tests(&format!("{EXCITABLE} hold_ms=2000"))?;
    let mut times = Vec::new();
    short_of_memory(ROUNDS, |round| {
        let (tenant, beside) = (fresh("tenant", round)?, fresh("beside", round)?);
        let mut small = Work::holding(&beside, 10)?;
        let _handler = handler_with("table\nspare_path /**/nobody\nrule\namong /t/**")?;
        let mut far = None;
        let place = match round % 5 {
            1 => {
                nested(&tenant, 1, false)?;
                tenant.clone()
            }
            2 => nested(&tenant, 1, false)?,
            3 => nested(&tenant, 70, true)?,
            4 => nested(&tenant, 600, false)?,
            _ => {
                far = Some(Far::below(&tenant)?);
                fresh("before", round)?
            }
        };
        let mut greedy = Work::start(&place, &format!("{GREEDY} usr1={MOVED}"))?;
        called(&greedy, MOVED)?;
        if let Some(far) = &far {
            std::fs::write(far.at("cgroup.procs"), greedy.pid().to_string()).doing("move a process")?;
        }
        let before = Counters::now()?;
        lms::set("test_choose_us", 0)?;
        signal(&greedy, Signal::SIGUSR1)?;
        greedy.must_be_killed()?;
        small.must_run("it holds less than the hog")?;
        ensure!(before.kernel_kills()? == 0 && before.of("table_kills")? == 1, "not the table's doing, or not one alone");
        times.push(lms::parameter("test_choose_us")?);
        far.map_or(Ok(()), Far::remove)
    })?;
    println!("{MEASURED}choice with a hog in five places where it might hide: {times:?} us");
    Ok(())
}

/// There are more groups with processes than the module has room for, and the hog came last: it dies.
pub fn more_groups_than_are_remembered_hide_nobody() -> Outcome {
    lms::load_for_tests(&format!("{EXCITABLE} hold_ms=2000 test_groups=20"))?;
    let (crowd, starter) = (Group::new("t/crowd")?, Group::new("starter")?);
    crowd.set("cgroup.subtree_control", "+memory")?;
    let work = Work::start(&starter, &format!("spread of=50 groups=50 at={}", crowd.directory().display()))?;
    called(&work, "spread")?;
    let mut times = Vec::new();
    short_of_memory(ROUNDS.min(3), |round| {
        let (tenant, beside) = (fresh("tenant", round)?, fresh("beside", round)?);
        let mut small = Work::holding(&beside, 10)?;
        let _handler = handler_with("table\nrule\namong /t/**")?;
        let before = Counters::now()?;
        lms::set("test_choose_us", 0)?;
        let mut greedy = Work::start(&tenant, GREEDY)?;
        greedy.must_be_killed()?;
        small.must_run("it holds less than the hog")?;
        ensure!(before.kernel_kills()? == 0 && before.of("table_kills")? == 1, "not the table's doing, or not one alone");
        times.push(lms::parameter("test_choose_us")?);
        Ok(())
    })?;
    println!("{MEASURED}choice among more groups than are remembered: {times:?} us");
    Ok(())
}

/// A group without controllers for those below it is one candidate with them: if one of them is spared, by path, name or id, or holds somebody who is exempt from the
/// kernel's own killer, all live; and if one is important, all are.
pub fn group_lives_for_the_sake_of_one_below_it() -> Outcome {
    rounds("hold_ms=2000", ROUNDS, |round| {
        let (mixed, victim) = (fresh("mixed", round)?, fresh("victim", round)?);
        let other = mixed.named("other");
        std::fs::create_dir(other.directory()).doing("make a group")?;
        // Deep down it counts as well.
        let precious = nested(&mixed, if round % 2 == 0 { 1 } else { 70 }, false)?.named("precious");
        std::fs::create_dir(precious.directory()).doing("make a group")?;
        let spare = match round % 5 {
            1 => "spare_path /t/**/precious".to_owned(),
            2 => "spare_comm treasured /t/*/*/precious".to_owned(),
            3 => format!("spare {}", precious.id()?),
            4 => "class 1 /t/*/*/precious".to_owned(),
            _ => "spare_path /nobody".to_owned(),
        };
        let adj = if round % 5 == 0 { -1000 } else { 0 };
        let _handler = handler_with(&format!("table\n{spare}\nclass -1 /t/mixed*\nrule\namong /t/**"))?;
        let mut treasured = Work::start(&precious, &format!("hog mib=1 then=hold comm=treasured adj={adj}"))?;
        let mut neighbour = Work::start(&other, "hog mib=30 then=hold")?;
        mixed.wait_usage(31 << 20)?;
        let before = Counters::now()?;
        Work::start(&victim, GREEDY)?.must_be_killed()?;
        treasured.must_run("it is spared")?;
        neighbour.must_run("it belongs to a group with somebody who is spared")?;
        ensure!(before.kernel_kills()? == 0 && before.of("table_kills")? == 1, "not the table's doing, or not one alone");
        Ok(())
    })
}

/// Memory that processes of a group share counts once, whether they map it or were forked: a server's don't outweigh the hog. But what each of them has for itself counts for
/// each, though others could share it.
pub fn shared_memory_counts_once() -> Outcome {
    rounds("hold_ms=2000", ROUNDS, |round| {
        let (server, other, wanting) = (fresh("server", round)?, fresh("other", round)?, fresh("wanting", round)?);
        let once = round % 3 != 0;
        let shared = ["share of=5 mib=6 how=own", "share of=6 mib=10", "share of=6 mib=10 how=forked"][round as usize % 3];
        let mut sharers = Work::start(&server, shared)?;
        called(&sharers, SHARED)?;
        let mut holder = Work::holding(&other, if once { 25 } else { 15 })?;
        let _handler = handler_with("table\nrule\namong /t/server*\namong /t/other*")?;
        let before = Counters::now()?;
        let mut greedy = Work::start(&wanting, "lms-want more=5")?;
        if once {
            holder.must_be_killed()?;
            sharers.must_run("its processes hold less together")?;
        } else {
            sharers.must_be_killed()?;
            holder.must_run("it holds less")?;
        }
        called(&greedy, SATISFIED)?;
        greedy.must_run("it is nobody's candidate")?;
        ensure!(before.kernel_kills()? == 0, "the kernel killed");
        ensure!(once == (before.of("table_kills")? == 1), "{} processes were killed by the table", before.of("table_kills")?);
        server.kill()?;
        server.wait_empty()
    })
}
