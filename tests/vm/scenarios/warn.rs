//! The first rung: who is told, who frees memory and lives, and whom a warning must not hurt.

use std::time::Duration;

use serde_json::Value;

use super::MEASURED;
use super::common::{THRASH, narrow};
use crate::guest::daemon::{Daemon, rung};
use crate::guest::group::{Group, MIB};
use crate::guest::places;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};

/// A group that stalls is warned, and dies when that was in vain.
fn warned(signal: &str, wait: &str) -> String {
    format!("{THRASH}    then:\n      - warn: {{{signal}wait: {wait}}}\n      - kill: group\n")
}

/// Starts `examples/c/cache.c`, which wants 64 MiB; `environment` may name what it listens at.
fn cache(group: &Group, environment: &str) -> Outcome<Work> {
    Work::start(group, &format!("enter -- {} env {environment} {} 64", places::BUSYBOX, places::CACHE))
}

/// The warning's rung in the line of a climb that ended well.
fn redeemed(daemon: &Daemon, cache: &mut Work) -> Outcome<Value> {
    let line = daemon.journalled("the end of the climb", |line| line["subject"] == "/t/a" && line["rungs"].is_array())?;
    ensure!(line["outcome"] == "recovered", "the outcome is {}: {line}", line["outcome"]);
    ensure!(rung(&line, "kill").is_none(), "it was killed all the same: {line}");
    cache.must_run("it freed its memory")?;
    ensure!(daemon.kills("thrash")? == 0.0, "somebody was killed");
    rung(&line, "warn").cloned().ok_or_else(|| format!("no warning: {line}"))
}

/// Redemption: it listens at the pressure socket, frees its memory when bytes arrive, and lives.
pub fn cache_that_listens_frees_its_memory_and_lives() -> Outcome {
    let daemon = Daemon::start(&warned("", "2500ms"))?;
    let a = narrow("t/a")?;
    let mut cache = cache(&a, &format!("MEMORY_PRESSURE_WATCH={}", places::PRESSURE_SOCKET))?;
    let warn = redeemed(&daemon, &mut cache)?;
    ensure!(warn["listeners"] == 1 && warn["outcome"] == "recovered", "the rung tells another story: {warn}");
    ensure!(a.usage()? < 16 * MIB, "{} bytes are still in use", a.usage()?);
    daemon.stop()
}

/// The same by a signal, for which nothing needs to be connected.
pub fn cache_that_handles_sigusr1_frees_its_memory_and_lives() -> Outcome {
    let daemon = Daemon::start(&warned("signal: SIGUSR1, ", "2500ms"))?;
    let a = narrow("t/a")?;
    let mut cache = cache(&a, "-u MEMORY_PRESSURE_WATCH")?;
    let warn = redeemed(&daemon, &mut cache)?;
    ensure!(warn["processes"] == 1 && warn["listeners"] == 0, "the rung tells another story: {warn}");
    daemon.stop()
}

/// SIGUSR1 would end a process that does not handle it: it gets none, neither in the group nor below it.
pub fn process_without_a_handler_is_not_hurt_by_the_warning() -> Outcome {
    let daemon = Daemon::start(&warned("signal: SIGUSR1, ", "2500ms"))?;
    let a = narrow("t/a")?;
    let (with, below) = (a.named("with"), Group::new("t/a/below/deep")?);
    std::fs::create_dir(with.directory()).doing("create a group")?;
    let mut bystander = Work::start(&with, "sleep")?;
    let mut other = Work::start(&below, "sleep")?;
    let mut cache = cache(&with, "-u MEMORY_PRESSURE_WATCH")?;
    let warn = redeemed(&daemon, &mut cache)?;
    ensure!(warn["processes"] == 1, "not exactly one process was signalled: {warn}");
    bystander.must_run("it does not handle SIGUSR1")?;
    other.must_run("it does not handle SIGUSR1 and is below")?;
    daemon.stop()
}

/// Nobody listens: the next rung follows at once, and nobody dies of the signal itself.
pub fn warning_that_nobody_hears_keeps_nobody_waiting() -> Outcome {
    let daemon = Daemon::start(&warned("signal: SIGUSR1, ", "30s"))?;
    let a = narrow("t/a")?;
    let mut hog = super::common::hog(&a)?;
    hog.must_be_killed()?;
    let line = daemon.killed(&a)?;
    ensure!(rung(&line, "warn").is_some_and(|warn| warn["outcome"] == "nobody"), "no such rung: {line}");
    daemon.stop()
}

/// Told in vain: the time is given, then the group dies.
pub fn who_hears_and_does_nothing_is_killed_after_the_wait() -> Outcome {
    let daemon = Daemon::start(&warned("", "700ms"))?;
    let a = narrow("t/a")?;
    let mut listener = listener(&a, "deaf=1 of=0", "deaf")?;
    let mut hog = super::common::hog(&a)?;
    hog.must_be_killed()?;
    listener.must_be_killed()?;
    let line = daemon.killed(&a)?;
    let warn = rung(&line, "warn").ok_or("no warning")?;
    ensure!(warn["outcome"] == "deadline" && warn["took_us"].as_u64() >= Some(700_000), "the rung tells another story: {warn}");
    daemon.stop()
}

/// Listeners in a group; they are connected when this returns.
pub fn listener(group: &Group, words: &str, mark: &str) -> Outcome<Work> {
    let mark = format!("{}/{mark}", places::FILES);
    let work = Work::start(group, &format!("listen at={} mark={mark} {words}", places::PRESSURE_SOCKET))?;
    wait::until("the listeners are connected", SOON, || Ok(std::fs::read_to_string(&mark).is_ok_and(|text| text.starts_with("ready"))))?;
    Ok(work)
}

/// Who was told, by the marks of all.
fn heard(mark: &str) -> usize {
    std::fs::read_to_string(format!("{}/{mark}", places::FILES)).unwrap_or_default().lines().skip(1).count()
}

/// Two hundred listeners in the groups below the one in trouble, one of which never reads; one beside it hears nothing.
pub fn two_hundred_listeners_are_told_though_one_never_reads() -> Outcome {
    // Each round is a warning, followed by nothing that would kill the listeners: what it ends is one process.
    let policy = "
version: 1
defaults: {cooldown: 100ms}
rules:
  - name: fat
    watch: /t/a
    when:
      - usage: {above: 40MiB}
    then:
      - warn: {wait: 100ms}
      - kill: process
";
    let daemon = Daemon::start(policy)?;
    Group::new("t/a")?;
    let mut listeners = Vec::new();
    for at in 0..4 {
        let words = if at == 0 { "of=49 deaf=1 mib=0" } else { "of=50 mib=0" };
        listeners.push(listener(&Group::new(&format!("t/a/{at}"))?, words, &format!("mark{at}"))?);
    }
    let beside = Group::new("t/b")?;
    listeners.push(listener(&beside, "of=1 mib=0", "beside")?);
    daemon.counted("oomwarden_pressure_listeners", &[], 201.0)?;
    const ROUNDS: usize = 3;
    for round in 1..=ROUNDS {
        let fat = Group::new("t/a/fat")?;
        let mut hog = Work::start(&fat, "hog mib=64 then=hold")?;
        hog.must_be_killed()?;
        let told = || daemon.judgements("killed").map(|lines| lines.len() == round);
        wait::until("the journal tells of the round", SOON, told)?;
        wait::until("every listener was told", SOON, || Ok((0..4).map(|at| heard(&format!("mark{at}"))).sum::<usize>() == round * 199))?;
    }
    for line in daemon.judgements("killed")? {
        let warn = rung(&line, "warn").ok_or_else(|| format!("no warning: {line}"))?;
        ensure!(warn["listeners"] == 200, "not all were told: {warn}");
        println!(
            "{MEASURED}telling_200_listeners_us={}",
            warn["sent_us"].as_u64().unwrap_or(0).saturating_sub(warn["at_us"].as_u64().unwrap_or(0))
        );
    }
    ensure!(heard("beside") == 0, "a listener of another group was told");
    for work in &mut listeners {
        work.must_run("listeners are not what was killed")?;
    }
    drop(listeners);
    let gone = || Ok(daemon.count("oomwarden_pressure_listeners", &[])? == 0.0);
    wait::until("those who left are forgotten", SOON, gone)?;
    daemon.stop()
}

/// More of one group than may listen: who comes too late is sent away, and others are let in as before.
pub fn group_with_too_many_listeners_keeps_nobody_else_out() -> Outcome {
    let daemon = Daemon::start(&warned("", "1s"))?;
    let (a, b) = (Group::new("t/a")?, Group::new("t/b")?);
    let _many = listener(&a, "deaf=100 of=0", "many")?;
    let mut one = listener(&b, "of=1", "one")?;
    daemon.counted("oomwarden_pressure_listeners", &[], 65.0)?;
    wait::stays("the one is not sent away", Duration::from_millis(200), || one.running())?;
    ensure!(daemon.count("oomwarden_pressure_listeners", &[])? == 65.0, "more than 64 of one group listen");
    daemon.stop()
}

/// A user who connects from many groups gets a share, and another user is let in and told as before.
pub fn user_in_many_groups_keeps_no_other_user_out() -> Outcome {
    let daemon = Daemon::start(&warned("", "2500ms"))?;
    // The listeners' marks are their own.
    std::fs::set_permissions(places::FILES, std::os::unix::fs::PermissionsExt::from_mode(0o1777)).doing("chmod")?;
    let mut all = Vec::new();
    // Eight groups may have 512 connections, which is as many as there are where 4096 files may be open.
    for at in 0..8 {
        let group = Group::new(&format!("u/{at}"))?;
        all.push(listener(&group, "uid=1000 deaf=64 of=0 mib=0", &format!("many{at}"))?);
    }
    let inside = || daemon.count("oomwarden_pressure_listeners", &[]);
    let mut before = -1.0;
    wait::until("as many are in as may be", SOON, || Ok(std::mem::replace(&mut before, inside()?) == before && before > 0.0))?;
    ensure!(inside()? < 512.0, "one user has {} places", inside()?);
    let a = narrow("t/a")?;
    let mut cache = Work::start(
        &a,
        &format!("enter uid=2000 -- {} env MEMORY_PRESSURE_WATCH={} {} 64", places::BUSYBOX, places::PRESSURE_SOCKET, places::CACHE),
    )?;
    let warn = redeemed(&daemon, &mut cache)?;
    ensure!(warn["listeners"] == 1, "the other user was not told: {warn}");
    drop(all);
    daemon.stop()
}

/// Whoever connects floods the socket: it is cut off, and the others are told as ever.
pub fn listener_that_floods_is_cut_off() -> Outcome {
    use std::io::Write as _;
    let daemon = Daemon::start(&warned("", "1s"))?;
    let mut stream = std::os::unix::net::UnixStream::connect(places::PRESSURE_SOCKET).doing("connect")?;
    stream.set_write_timeout(Some(SOON)).doing("set a timeout")?;
    let mut written = 0;
    while stream.write_all(&[b'x'; 4096]).is_ok() {
        written += 4096;
        ensure!(written < 64 * MIB, "nobody cuts it off");
    }
    wait::until("it is forgotten", SOON, || Ok(daemon.count("oomwarden_pressure_listeners", &[])? == 0.0))?;
    daemon.stop()
}
