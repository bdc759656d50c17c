//! What is gone, and what is only unknown: files that can't be read any more, processes that can't be seen, groups that can't be looked into.
//! What is unknown lives.

use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::time::Duration;

use nix::sys::signal::Signal;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::common::{hog, narrow};
use crate::guest::daemon::{Daemon, Setup, candidate};
use crate::guest::group::{Group, MIB};
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::guest::{places, system};
use crate::outcome::{Doing, Outcome};

/// A group below /t that stalls dies; a child called `keep` never does.
const EXCLUDED_CHILD: &str = "
version: 1
defaults: {cooldown: 1ms}
exclude: [\"/t/*/keep\"]
rules:
  - name: thrash
    watch: /t/*
    when:
      - psi: full 100ms/500ms
";

/// A group below the delegated root that runs into its memory.high dies; one with a postgres in it never does.
const DELEGATED: &str = "
version: 1
defaults: {cooldown: 1ms}
exclude:
  - {group: \"/*\", comm: postgres}
rules:
  - name: high
    watch: /*
    when:
      - event: high
";

/// The kernel's side: a memory file that is held dies with the controller and stays dead, files of the group itself die with the group alone.
pub fn memory_files_die_with_the_controller_and_core_files_with_the_group() -> Outcome {
    let parent = Group::new("t")?;
    let child = Group::new("t/a")?;
    let open = |file: &str| std::fs::File::open(child.directory().join(file)).doing(format_args!("open {file}"));
    let read = |file: &std::fs::File| rustix::io::pread(file, &mut [0_u8; 4096], 0).err();
    let memory = ["memory.current", "memory.stat", "memory.oom.group", "memory.events.local"].map(open);
    let core = ["cgroup.events", "cgroup.procs", "cgroup.stat"].map(open);
    let directory = std::fs::File::open(child.directory()).doing("open the group")?;
    let gone = Some(rustix::io::Errno::NODEV);
    for (control, what) in [("-memory", "after -memory"), ("+memory", "after +memory again")] {
        parent.set("cgroup.subtree_control", control)?;
        for file in &memory {
            let answer = read(file.as_ref().map_err(Clone::clone)?);
            ensure!(answer == gone, "a held memory file answers {answer:?} {what}");
        }
        for file in &core {
            let answer = read(file.as_ref().map_err(Clone::clone)?);
            ensure!(answer.is_none(), "a held file of the group answers {answer:?} {what}");
        }
    }
    child.remove()?;
    for file in &core {
        let answer = read(file.as_ref().map_err(Clone::clone)?);
        ensure!(answer == gone, "a held file of a removed group answers {answer:?}");
    }
    let flags = rustix::fs::OFlags::RDONLY;
    let opened = rustix::fs::openat(directory.as_fd(), "cgroup.events", flags, rustix::fs::Mode::empty()).err();
    ensure!(opened == Some(rustix::io::Errno::NOENT), "opening a file of a removed group answers {opened:?}");
    Ok(())
}

/// The subject /t/a with the excluded child `keep`, in which somebody is, and `rest` beside it.
struct Family {
    subject: Group,
    keep: Group,
    rest: Group,
    kept: Work,
}

impl Family {
    fn new() -> Outcome<Family> {
        let subject = narrow("t/a")?;
        let (keep, rest) = (Group::new("t/a/keep")?, Group::new("t/a/rest")?);
        let kept = Work::holding(&keep, 4)?;
        Ok(Family { subject, keep, rest, kept })
    }

    /// Somebody in `rest` gets the subject into trouble; the excluded child lives, so nobody is killed.
    fn nobody_dies(&mut self, daemon: &Daemon) -> Outcome {
        let mut hog = hog(&self.rest)?;
        self.judged(daemon)?;
        hog.must_run("its memory is the subject's by now, and that one holds an excluded group")
    }

    fn judged(&mut self, daemon: &Daemon) -> Outcome {
        let line = daemon.journalled("a judgement", |line| line["rule"] == "thrash" && line["subject"] == "/t/a")?;
        ensure!(line["outcome"] == "no_victim", "it should have spared everybody: {line}");
        let reason = candidate(&line, &self.keep)?["reason"].to_string();
        ensure!(reason.contains("exclu"), "the reason does not name the exclusion: {reason}");
        self.kept.must_run("it is excluded")
    }

    /// With the controller switched on again each group has its own memory, and `rest` is a victim of its own.
    fn rest_alone_dies(&mut self, daemon: &Daemon) -> Outcome {
        self.subject.set("cgroup.subtree_control", "+memory")?;
        let mut hog = hog(&self.rest)?;
        hog.must_be_killed()?;
        daemon.killed(&self.rest)?;
        self.kept.must_run("it is excluded")
    }
}

/// Whether the daemon holds a file of a group open.
fn holds(daemon: &Daemon, group: &Group, file: &str) -> Outcome<bool> {
    let wanted = group.directory().join(file);
    let mut links = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).doing("list its descriptors")?.filter_map(Result::ok);
    Ok(links.any(|link| std::fs::read_link(link.path()).is_ok_and(|target| target == wanted)))
}

/// `-memory` below the subject, and a judgement before oomwarden has heard of it: that the excluded child's memory files are dead does not mean
/// that it is.
pub fn excluded_child_lives_though_its_memory_controller_was_switched_off() -> Outcome {
    let mut family = Family::new()?;
    let daemon = Daemon::start(EXCLUDED_CHILD)?;
    wait::until("files of the excluded child are held", SOON, || holds(&daemon, &family.keep, "memory.oom.group"))?;
    daemon.signal(Signal::SIGSTOP)?;
    family.subject.set("cgroup.subtree_control", "-memory")?;
    let before = family.subject.stall("full")?;
    let hog = hog(&family.rest)?;
    // The trigger's firing is kept for it and is the first that it sees.
    wait::until("the subject stalls", SOON, || Ok(family.subject.stall("full")? > before + 1_000_000))?;
    daemon.signal(Signal::SIGCONT)?;
    let judged = daemon.journalled("a judgement", |line| line["rule"] == "thrash" && line["subject"] == "/t/a")?;
    ensure!(judged["outcome"] == "no_victim", "it should have spared everybody: {judged}");
    family.kept.must_run("it is excluded")?;
    drop(hog);
    family.rest_alone_dies(&daemon)?;
    daemon.stop()
}

/// The same while oomwarden is out of descriptors, so that it opens nothing anew; later it can, and does.
pub fn excluded_child_lives_though_its_files_could_not_be_opened_anew() -> Outcome {
    let mut family = Family::new()?;
    let daemon = Daemon::start(EXCLUDED_CHILD)?;
    wait::until("files of the excluded child are held", SOON, || holds(&daemon, &family.keep, "memory.oom.group"))?;
    let limit = |limit| prlimit(Pid::from_raw(daemon.pid() as i32), Resource::Nofile, limit).doing("limit its descriptors");
    let before = limit(Rlimit { current: Some(3), maximum: Some(65536) })?;
    family.subject.set("cgroup.subtree_control", "-memory")?;
    wait::stays("the excluded one lives", Duration::from_millis(500), || family.kept.running())?;
    limit(before)?;
    family.nobody_dies(&daemon)?;
    wait::until("its dead files are let go", SOON, || Ok(!holds(&daemon, &family.keep, "memory.oom.group")?))?;
    family.rest_alone_dies(&daemon)?;
    daemon.stop()
}

/// The excluded child is removed and made anew, and a judgement comes before oomwarden has heard of it: what it knows is gone, who stands there now
/// it has not seen.
pub fn excluded_child_made_anew_before_the_verdict_lives() -> Outcome {
    let Family { subject, keep, rest, mut kept } = Family::new()?;
    let daemon = Daemon::start(EXCLUDED_CHILD)?;
    wait::until("files of the excluded child are held", SOON, || holds(&daemon, &keep, "cgroup.events"))?;
    daemon.signal(Signal::SIGSTOP)?;
    keep.kill()?;
    kept.must_be_killed()?;
    keep.remove()?;
    let keep = Group::new("t/a/keep")?;
    let mut kept = Work::start(&keep, "sleep")?;
    let before = subject.stall("full")?;
    let mut hog = hog(&rest)?;
    wait::until("the subject stalls", SOON, || Ok(subject.stall("full")? > before + 1_000_000))?;
    daemon.signal(Signal::SIGCONT)?;
    hog.must_be_killed()?;
    daemon.killed(&rest)?;
    kept.must_run("it is excluded")?;
    daemon.stop()
}

/// oomwarden's own group loses its memory controller: the group above, which it would die with, lives.
pub fn oomwardens_own_group_without_a_memory_controller_is_not_killed() -> Outcome {
    let subject = Group::new("t/a")?.high(64 * MIB)?.no_swap()?;
    let (own, rest) = (Group::new("t/a/own")?, Group::new("t/a/rest")?);
    let setup = Setup { group: Some(own.clone()), ..Setup::default() };
    let mut daemon = setup.start(EXCLUDED_CHILD)?;
    wait::until("files of its own group are held", SOON, || holds(&daemon, &own, "memory.oom.group"))?;
    daemon.signal(Signal::SIGSTOP)?;
    subject.set("cgroup.subtree_control", "-memory")?;
    let before = subject.stall("full")?;
    let mut hog = Work::start(&rest, "hog mib=128")?;
    wait::until("the subject stalls", SOON, || Ok(subject.stall("full")? > before + 1_000_000))?;
    daemon.signal(Signal::SIGCONT)?;
    daemon.journalled("a judgement without a victim", |line| line["subject"] == "/t/a" && line["outcome"] == "no_victim")?;
    ensure!(daemon.running()?, "oomwarden killed itself");
    hog.must_run("the group that holds its memory holds oomwarden too")?;
    drop(hog);
    daemon.stop()
}

/// Hands a group and its files over to user 1000.
fn hand_over(group: &Group) -> Outcome {
    let mut files = vec![group.directory().to_owned()];
    let entries = std::fs::read_dir(group.directory()).doing("list a group")?.filter_map(Result::ok).map(|entry| entry.path());
    files.extend(entries.filter(|path| path.is_file()));
    files.iter().try_for_each(|path| chown(path, Some(1000), Some(1000)).doing(format_args!("hand {} over", path.display())))
}

/// oomwarden as user 1000, for what is below /t.
fn delegated() -> Outcome<Daemon> {
    std::fs::create_dir_all(places::FILES).doing("create the files' directory")?;
    std::fs::set_permissions(places::FILES, std::fs::Permissions::from_mode(0o1777)).doing("open the files' directory")?;
    let setup = Setup { enter: "uid=1000".to_owned(), cgroup_root: format!("{}/t", places::CGROUP), ..Setup::default() };
    setup.start(DELEGATED)
}

/// /proc hides other users' processes: that one can't be looked at does not mean that it has exited. What can be seen is judged as ever.
pub fn process_hidden_by_hidepid_spares_its_group() -> Outcome {
    let t = Group::new("t")?;
    let (a, b) = (narrow("t/a")?, narrow("t/b")?);
    [&t, &a, &b].into_iter().try_for_each(hand_over)?;
    system::hide_processes()?;
    let daemon = delegated()?;
    let mut postgres = Work::start(&a, "sleep comm=postgres")?;
    let mut beside = hog(&a)?;
    let line = daemon.journalled("a judgement of the hidden", |line| line["subject"] == "/a")?;
    ensure!(line["outcome"] == "no_victim", "processes that can't be seen should have spared the group: {line}");
    let mut visible = Work::start(&b, &format!("enter uid=1000 -- {} --workload hog mib=64", places::SELF))?;
    visible.must_be_killed()?;
    daemon.journalled("the kill of what can be seen", |line| line["outcome"] == "killed" && line["victim"] == "/b")?;
    postgres.must_run("it is excluded")?;
    beside.must_run("it lives beside an excluded process")?;
    daemon.stop()
}

/// oomwarden stands outside of what it watches. A group comes into which it can't look: that might hold oomwarden, and nobody else might.
pub fn newcomer_that_cannot_be_read_spares_itself_alone() -> Outcome {
    let t = Group::new("t")?;
    let a = narrow("t/a")?;
    [&t, &a].into_iter().try_for_each(hand_over)?;
    let daemon = delegated()?;
    let closed = t.named("closed");
    std::fs::DirBuilder::new().mode(0o700).create(closed.directory()).doing("create a closed group")?;
    let mut inside = Work::start(&closed, "sleep")?;
    daemon.counted("oomwarden_groups", &[("sensing", "timer")], 1.0)?;
    let mut hog = hog(&a)?;
    hog.must_be_killed()?;
    daemon.journalled("the kill", |line| line["outcome"] == "killed" && line["victim"] == "/a")?;
    inside.must_run("nobody could look into its group")?;
    daemon.stop()
}
