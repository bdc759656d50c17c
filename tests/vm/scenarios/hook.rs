//! The administrator's program on the ladder: what it reads, and that nothing it does or leaves undone holds up the rest.

use std::time::Duration;

use serde_json::Value;

use super::common::{THRASH, hog, narrow};
use crate::guest::daemon::{Daemon, Setup, rung};
use crate::guest::group::{Group, MIB};
use crate::guest::places;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};

/// A shell script as the hook of the rule for stalling groups.
fn with_hook(script: &str, timeout: &str) -> String {
    format!("{THRASH}    then:\n      - hook: {{exec: [/bin/sh, -c, '{script}'], timeout: {timeout}}}\n      - kill: group\n")
}

/// Runs one ladder with that hook; the hook's rung, when the victim is dead.
fn climbed(daemon: &Daemon, path: &str) -> Outcome<Value> {
    let group = narrow(path)?;
    let mut hog = hog(&group)?;
    hog.must_be_killed()?;
    let line = daemon.killed(&group)?;
    rung(&line, "hook").cloned().ok_or_else(|| format!("no hook: {line}"))
}

fn file(name: &str) -> String {
    format!("{}/{name}", places::FILES)
}

fn is_gone(pid: &str) -> Outcome<bool> {
    Ok(std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).map_or(true, |stat| stat.contains(") Z ")))
}

/// It reads the verdict, is an ordinary process, and runs before the kill.
pub fn hook_reads_the_verdict_and_runs_before_the_kill() -> Outcome {
    let (verdict, adjust, alive) = (file("verdict"), file("adjust"), file("alive"));
    let script =
        format!("cat >{verdict}; cat /proc/self/oom_score_adj >{adjust}; cat /sys/fs/cgroup/t/a/cgroup.procs >{alive}; echo saved");
    let daemon = Daemon::start(&with_hook(&script, "10s"))?;
    let group = narrow("t/a")?;
    let mut hog = hog(&group)?;
    hog.must_be_killed()?;
    let line = daemon.killed(&group)?;
    ensure!(rung(&line, "hook").is_some_and(|hook| hook["outcome"] == "done"), "the hook did not end well: {line}");
    let read: Value =
        serde_json::from_str(&std::fs::read_to_string(&verdict).doing("read the verdict")?).doing("understand the verdict")?;
    ensure!(read["id"] == line["id"] && read["victim"] == "/t/a" && read["rule"] == "thrash", "another verdict: {read}");
    ensure!(read["candidates"].as_array().is_some_and(|all| all.len() == 1), "no candidates: {read}");
    ensure!(std::fs::read_to_string(&adjust).is_ok_and(|text| !text.starts_with('-')), "the hook is exempt from the kernel's killer");
    ensure!(std::fs::read_to_string(&alive).is_ok_and(|text| !text.trim().is_empty()), "the victim was dead before the hook ran");
    let said = || Ok(daemon.said().contains("it said: saved"));
    wait::until("the log has what the hook said", SOON, said)?;
    daemon.stop()
}

/// It hangs: killed at its time limit with all that it started, and the ladder goes on.
pub fn hook_that_hangs_is_killed_with_its_children() -> Outcome {
    let pids = file("pids");
    let daemon = Daemon::start(&with_hook(&format!("sleep 1000 & echo $! >{pids}; echo $$ >>{pids}; wait"), "2s"))?;
    let hook = climbed(&daemon, "t/a")?;
    ensure!(hook["outcome"] == "deadline", "the rung tells another story: {hook}");
    let took = hook["took_us"].as_u64().unwrap_or(0);
    ensure!((2_000_000..8_000_000).contains(&took), "it was given {took} us");
    for pid in std::fs::read_to_string(&pids).doing("read the pids")?.lines() {
        wait::until("hook and child are gone", SOON, || is_gone(pid))?;
    }
    daemon.stop()
}

/// It crashes, refuses, or is not there: said in the record, and the kill follows.
pub fn hook_that_crashes_is_on_record_and_the_kill_follows() -> Outcome {
    for (at, (script, outcome)) in [("kill -SEGV $$", "failed: SIGSEGV"), ("exit 3", "failed: exit 3")].into_iter().enumerate() {
        let daemon = Daemon::start(&with_hook(script, "10s"))?;
        let hook = climbed(&daemon, &format!("t/a{at}"))?;
        ensure!(hook["outcome"] == outcome, "{} where {outcome} belongs", hook["outcome"]);
        daemon.stop()?;
    }
    let missing = format!("{THRASH}    then:\n      - hook: {{exec: [/nowhere/hook], timeout: 10s}}\n      - kill: group\n");
    let daemon = Daemon::start(&missing)?;
    let hook = climbed(&daemon, "t/b")?;
    ensure!(hook["outcome"] == "ENOENT", "{} where ENOENT belongs", hook["outcome"]);
    daemon.stop()
}

/// It writes for ever and reads nothing: the begin is in the log, the rest is dropped, its time is kept.
pub fn hook_that_floods_its_output_is_held_to_its_time() -> Outcome {
    let daemon = Daemon::start(&with_hook("yes oomwarden", "3s"))?;
    let hook = climbed(&daemon, "t/a")?;
    ensure!(hook["outcome"] == "deadline", "the rung tells another story: {hook}");
    let said = || Ok(daemon.said().contains("(and more)"));
    wait::until("the log says that there was more", SOON, said)?;
    ensure!(daemon.said().len() < 32 * 1024, "{} bytes of log", daemon.said().len());
    daemon.stop()
}

/// The helper is killed in the middle of a hook: the ladder goes on, and the next hook has a new helper.
pub fn helper_that_is_killed_fails_its_hook_and_is_started_anew() -> Outcome {
    let parent = file("parent");
    let daemon = Daemon::start(&with_hook(&format!("echo $PPID >{parent}; sleep 1000"), "30s"))?;
    let a = narrow("t/a")?;
    let mut work = hog(&a)?;
    let text = wait::find("the hook runs", SOON, || Ok(std::fs::read_to_string(&parent).ok().filter(|text| text.ends_with('\n'))))?;
    let helper: i32 = text.trim().parse().doing("understand a pid")?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(helper), nix::sys::signal::Signal::SIGKILL).doing("kill the helper")?;
    work.must_be_killed()?;
    let line = daemon.killed(&a)?;
    ensure!(rung(&line, "hook").is_some_and(|hook| hook["outcome"] == "failed: no helper"), "the rung tells another story: {line}");
    std::fs::remove_file(&parent).doing("remove a file")?;
    let b = narrow("t/b")?;
    let mut other = hog(&b)?;
    let again = wait::find("the next hook runs", SOON, || Ok(std::fs::read_to_string(&parent).ok().filter(|text| text.ends_with('\n'))))?;
    ensure!(again != text, "the same helper");
    daemon.stop()?;
    // The daemon's end is the hook's, not the victim's.
    wait::stays("the victim lives", Duration::from_millis(300), || other.running())
}

/// A group for the daemon that the kernel kills whole, with a limit.
fn killed_whole() -> Outcome<Group> {
    let group = Group::new("w")?.max(192 * MIB)?.no_swap()?;
    group.set("memory.oom.group", "1")?;
    Ok(group)
}

/// A hook that wants more than the daemon's group may have; `w/hooks` is watched as if it were anybody's.
fn greedy() -> String {
    format!(
        "{THRASH}    then:\n      - hook: {{exec: [{}, --workload, hog, mib=256], timeout: 60s}}\n      - kill: group\n\
         \x20 - name: any\n    watch: /w/*\n    when:\n      - event: oom_kill\n",
        places::SELF
    )
}

/// In a delegated group hooks have a group of their own: one that eats all memory dies there, alone, although the daemon's own group is one that
/// dies whole and the daemon is not exempt; nobody else dies for it, and afterwards the group is as it was.
pub fn hook_that_the_kernel_kills_leaves_the_daemon_alone() -> Outcome {
    let own = killed_whole()?;
    own.set("memory.min", "8388608")?;
    rustix::fs::setxattr(own.directory(), "user.delegate", b"1", rustix::fs::XattrFlags::empty()).doing("delegate")?;
    let daemon = Setup { group: Some(own.clone()), enter: "without=resource".to_owned(), ..Setup::default() }.start(&greedy())?;
    let adjust = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", daemon.pid())).doing("read oom_score_adj")?;
    ensure!(adjust.trim() == "0", "the daemon is exempt: {adjust}");
    let (leaf, hooks) = (own.named("daemon"), own.named("hooks"));
    ensure!(leaf.processes()? == [daemon.pid()] && hooks.processes()?.len() == 1, "daemon and helper stand elsewhere");
    ensure!(hooks.number("memory.max")? == 128 * MIB && leaf.number("memory.min")? == 8 * MIB, "limit and protection are not shared out");
    let hook = climbed(&daemon, "t/a")?;
    ensure!(hook["outcome"] == "failed: SIGKILL", "the rung tells another story: {hook}");
    ensure!(hooks.event("oom_kill")? == 1 && leaf.event("oom_kill")? == 0, "the kernel killed somebody else");
    let verdict =
        daemon.journalled("the verdict on what the kernel killed", |line| line["rule"] == "any" && line["kind"] == "judgement")?;
    ensure!(verdict["outcome"] == "no_victim", "somebody of ours was to die: {verdict}");
    ensure!(hooks.processes()?.len() == 1, "the helper is gone");
    daemon.stop()?;
    ensure!(!leaf.directory().exists() && !hooks.directory().exists(), "the group stays divided");
    ensure!(own.read("cgroup.subtree_control")?.trim().is_empty(), "nobody could be put into it");
    Ok(())
}

/// Where hooks share the daemon's group, and that dies whole, it is said; whoever is exempt lives through it all the same.
pub fn hook_in_the_daemons_group_that_dies_whole_is_said() -> Outcome {
    let own = killed_whole()?;
    let setup = |enter: &str| Setup { group: Some(own.clone()), enter: enter.to_owned(), ..Setup::default() };
    let daemon = setup("without=resource").start(&greedy())?;
    let said = daemon.said();
    ensure!(said.contains("memory.oom.group of /w is 1") && said.contains("not delegated"), "nothing was said: {said}");
    daemon.stop()?;
    let daemon = setup("").start(&greedy())?;
    let since = said.len();
    ensure!(daemon.said().get(since..).is_some_and(|said| !said.contains("memory.oom.group of")), "a needless warning: {}", daemon.said());
    let hook = climbed(&daemon, "t/a")?;
    ensure!(matches!(hook["outcome"].as_str(), Some("failed: SIGKILL" | "failed: no helper")), "the rung tells another story: {hook}");
    daemon.stop()
}

/// Each rung fails in turn, as far as the kernel can be made to refuse it: a daemon without CAP_KILL in a delegated subtree may signal
/// nobody, its hook fails, and cgroup.kill is what remains.
pub fn each_rung_fails_in_turn_and_the_kill_is_what_remains() -> Outcome {
    let policy = "
version: 1
rules:
  - name: fat
    watch: /a
    when:
      - usage: {above: 24MiB}
    then:
      - warn: {signal: SIGUSR1, wait: 30s}
      - hook: {exec: [/bin/sh, -c, 'exit 1'], timeout: 10s}
      - term: {wait: 30s}
      - kill: group
";
    let delegated = Group::new("d")?;
    let a = Group::new("d/a")?;
    let own = Group::new("own")?;
    for group in [&delegated, &a] {
        for name in ["", "cgroup.procs", "cgroup.kill", "cgroup.subtree_control", "cgroup.threads"] {
            let path = if name.is_empty() { group.directory().to_owned() } else { group.directory().join(name) };
            std::os::unix::fs::chown(&path, Some(65534), Some(65534)).doing("delegate")?;
        }
    }
    std::fs::create_dir_all(places::FILES).doing("create the files' directory")?;
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(places::FILES, std::fs::Permissions::from_mode(0o1777)).doing("open the files' directory")?;
    let setup = crate::guest::daemon::Setup {
        cgroup_root: delegated.directory().to_string_lossy().into_owned(),
        group: Some(own),
        enter: "uid=65534".to_owned(),
        ..Default::default()
    };
    let daemon = setup.start(policy)?;
    let mut handler = Work::start(&a, &format!("enter -- {} env -u MEMORY_PRESSURE_WATCH {} 8", places::BUSYBOX, places::CACHE))?;
    let mut fat = Work::start(&a, "hog mib=48 then=hold")?;
    fat.must_be_killed()?;
    handler.must_be_killed()?;
    let line = daemon.journalled("the kill", |line| line["outcome"] == "killed" && line["victim"] == "/a")?;
    for (name, outcome) in [("warn", "EPERM"), ("hook", "failed: exit 1"), ("term", "EPERM"), ("kill", "done"), ("verify", "empty")] {
        ensure!(rung(&line, name).is_some_and(|rung| rung["outcome"] == outcome), "{name} should have ended with {outcome}: {line}");
    }
    daemon.stop()
}
