//! What oomwarden can't work with: one line that says what, an exit code, no panic.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::Value;

use super::common::{THRASH, hog, narrow};
use crate::guest::daemon::{ADDRESS, Daemon, Setup, ask};
use crate::guest::group::Group;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::guest::{places, system};
use crate::outcome::{Doing, Outcome};

/// Starts it, and expects it to end by itself with one of `codes`, having said one line that names `what`.
fn refuses(setup: Setup, policy: &str, codes: &[i32], what: &str) -> Outcome {
    let before = std::fs::read_to_string(setup.files.join("oomwarden.log")).unwrap_or_default().len();
    let mut daemon = setup.spawn(policy)?;
    let status = daemon.end(SOON)?;
    let said = daemon.said();
    let said = said.get(before..).unwrap_or_default();
    ensure!(status.code().is_some_and(|code| codes.contains(&code)), "exit {status} where {codes:?} belong; it said: {said}");
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    println!("{}", lines.join(" / "));
    ensure!(said.contains(what), "the message does not name {what:?}: {said}");
    ensure!(lines.len() == 1, "one line would do: {said}");
    Ok(())
}

fn strict() -> Setup {
    Setup { options: vec!["--strict-policy".to_owned()], ..Setup::default() }
}

/// Exit 2 before anything starts, where that was asked for; each error with its place.
pub fn bad_policy_at_the_start() -> Outcome {
    let mut daemon = strict().spawn("version: 1\nrules:\n  - name: x\n    wach: /t/*\n")?;
    let status = daemon.end(SOON)?;
    let said = daemon.said();
    ensure!(status.code() == Some(2), "exit {status} where 2 belongs; it said: {said}");
    ensure!(said.contains("policy.yaml:4:") && said.contains("wach"), "the message does not say where: {said}");
    Ok(())
}

/// A policy that is not there, and one that may not be read, where a sound one is insisted on.
pub fn policy_that_cannot_be_read() -> Outcome {
    let missing = Setup { policy_file: Some(PathBuf::from("/run/scenario/none.yaml")), ..strict() };
    refuses(missing, THRASH, &[1, 2, 3], "none.yaml")?;
    let file = PathBuf::from("/run/scenario/secret.yaml");
    std::fs::write(&file, THRASH).doing("write a policy")?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).doing("hide the policy")?;
    unprivileged()?;
    let hidden = Setup { policy_file: Some(file), enter: "uid=65534".to_owned(), ..strict() };
    refuses(hidden, THRASH, &[1, 2, 3], "secret.yaml")
}

/// Somebody else listens where it was told to listen.
pub fn port_taken() -> Outcome {
    let _taken = TcpListener::bind(ADDRESS).doing("take the port")?;
    refuses(Setup::default(), THRASH, &[1, 3], "19877")
}

/// Somebody else, who may be anybody, listens at the address that nobody asked for: it protects all the same, and says what is missing.
pub fn default_port_taken_keeps_nobody_unprotected() -> Outcome {
    let _taken = TcpListener::bind(ADDRESS).doing("take the port")?;
    let mut daemon = Setup { listen: None, ..Setup::default() }.spawn(THRASH)?;
    let status = || -> Outcome<Value> { serde_json::from_str(&ask(&["status", "--json"])?).doing("understand the status") };
    wait::until("oomwarden is ready", SOON, || {
        ensure!(daemon.running()?, "oomwarden ended at its start: {}", daemon.said().trim());
        Ok(status().is_ok_and(|status| status["ready"] == true))
    })?;
    let status = status()?;
    ensure!(status["degraded"][0]["reason"] == "listen", "the status does not say so: {status}");
    for part in [ADDRESS, "uid 0", "--listen"] {
        ensure!(daemon.said().contains(part), "the log does not say {part}: {}", daemon.said());
    }
    ensure!(ask(&["status"])?.contains("DEGRADED (listen)"), "the status for people does not say so");
    let a = narrow("t/a")?;
    hog(&a)?.must_be_killed()?;
    daemon.killed(&a)?;
    daemon.stop()
}

/// No directory, no cgroup file system, no memory controller.
pub fn cgroup_root_that_is_none() -> Outcome {
    let at = |root: &str| Setup { cgroup_root: root.to_owned(), ..Setup::default() };
    refuses(at("/nowhere"), THRASH, &[1, 3], "/nowhere")?;
    refuses(at("/run"), THRASH, &[3], "cgroup")?;
    let parent = Group::new("bare")?;
    let bare = parent.named("of-controllers");
    std::fs::create_dir(bare.directory()).doing("create a group")?;
    refuses(at("/sys/fs/cgroup/bare/of-controllers"), THRASH, &[3], "memory")
}

/// Another user's groups.
pub fn no_rights() -> Outcome {
    let setup = Setup { enter: "uid=65534".to_owned(), ..unprivileged()? };
    refuses(setup, THRASH, &[1, 3], "")
}

/// Files that user 65534 may write.
fn unprivileged() -> Outcome<Setup> {
    let setup = Setup::default();
    std::fs::create_dir_all(places::FILES).doing("create the files' directory")?;
    std::fs::set_permissions(places::FILES, std::fs::Permissions::from_mode(0o1777)).doing("open the files' directory")?;
    Ok(setup)
}

/// A second oomwarden with the same state directory refuses; the first goes on.
pub fn second_oomwarden_refuses() -> Outcome {
    let first = Daemon::start(THRASH)?;
    let second = Setup { listen: Some("127.0.0.1:19878".to_owned()), ..Setup::default() };
    refuses(second, THRASH, &[1, 3], "")?;
    first.stop()
}

/// One tree has one oomwarden that acts, whatever its `--state` and by whatever mount it sees the tree; one that only observes is in
/// nobody's way. Another user can't take the lock beforehand.
pub fn second_oomwarden_with_another_state_refuses() -> Outcome {
    let first = Daemon::start(THRASH)?;
    let files = PathBuf::from("/run/scenario/second");
    let with = |root: &str, options: &[&str]| Setup {
        files: files.clone(),
        cgroup_root: root.to_owned(),
        listen: Some("127.0.0.1:19878".to_owned()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        group: None,
        ..Setup::default()
    };
    refuses(with(places::CGROUP, &[]), THRASH, &[1], &format!("process {} ", first.pid()))?;
    // Unmounted after the scenario.
    let mount = format!("{}/again", places::MOUNT);
    std::fs::create_dir_all(&mount).doing("create a directory")?;
    system::busybox(&["mount", "-t", "cgroup2", "none", &mount])?;
    refuses(with(&mount, &[]), THRASH, &[1], "--observe")?;
    with(places::CGROUP, &["--observe", "--control", "none", "--pressure-socket", "none"]).start(THRASH)?.stop()?;
    let lock = std::fs::read_dir("/run/oomwarden").doing("list the locks")?.flatten();
    let lock = lock.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "lock")).ok_or("no lock")?;
    let mode = std::fs::metadata(&lock).doing("look at the lock")?.permissions().mode();
    ensure!(mode & 0o7777 == 0o600, "the lock {} has the mode {mode:o}", lock.display());
    first.stop()?;
    // Whoever can't open it can't hold it.
    let group = Group::new("stranger")?;
    let script = format!("enter uid=65534 -- {} flock -n {} true", places::BUSYBOX, lock.display());
    let mut stranger = Work::start(&group, &script)?;
    let status = stranger.end(SOON)?;
    ensure!(!status.success(), "another user holds the lock");
    with(places::CGROUP, &[]).start(THRASH)?.stop()
}

/// What user 65534 may write to says nothing to an oomwarden that is root: not at the start, where
/// it ends if a sound policy is insisted on and only observes else, and not at a reload.
pub fn policy_that_others_can_write_is_refused() -> Outcome {
    let file = PathBuf::from("/run/scenario/theirs.yaml");
    std::fs::create_dir_all(places::FILES).doing("create the files' directory")?;
    std::fs::write(&file, THRASH).doing("write a policy")?;
    std::os::unix::fs::chown(&file, Some(65534), Some(65534)).doing("give the policy away")?;
    let theirs = |setup: Setup| Setup { policy_file: Some(file.clone()), ..setup };
    refuses(theirs(strict()), THRASH, &[1], "belongs to user 65534")?;
    let daemon = theirs(Setup::default()).start(THRASH)?;
    let status: Value = serde_json::from_str(&ask(&["status", "--json"])?).doing("understand the status")?;
    let is_told = status["degraded"].as_array().is_some_and(|reasons| reasons.iter().any(|reason| reason["reason"] == "policy"));
    ensure!(is_told, "the status does not say so: {status}");
    for part in ["belongs to user 65534", "only observes"] {
        ensure!(daemon.said().contains(part), "the log does not say {part}: {}", daemon.said());
    }
    daemon.stop()?;
    let daemon = Daemon::start(THRASH)?;
    std::fs::rename(&file, daemon.policy_file()).doing("put it in place")?;
    daemon.counted("oomwarden_policy_reload_failures_total", &[], 1.0)?;
    ensure!(daemon.said().contains("belongs to user 65534"), "the log does not say why: {}", daemon.said());
    daemon.stop()
}
