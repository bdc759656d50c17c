//! The policy changes while oomwarden runs: well, badly, and half-way.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::common::{THRASH, hog, narrow};
use crate::guest::daemon::{Daemon, Setup};
use crate::guest::group::Group;
use crate::guest::places;
use crate::guest::wait::{self, SOON};
use crate::outcome::{Doing, Outcome};

/// A policy with one rule of this name that watches below this directory.
fn policy(name: &str, under: &str) -> String {
    THRASH.replace("thrash", name).replace("/t/*", &format!("/{under}/*"))
}

fn in_force(daemon: &Daemon, rule: &str) -> Outcome {
    daemon.counted("oomwarden_rule_info", &[("rule", rule)], 1.0)
}

fn replace(path: &Path, text: &str) -> Outcome {
    let aside = path.with_extension("new");
    std::fs::write(&aside, text).doing("write the new policy")?;
    std::fs::rename(&aside, path).doing("rename the new policy")
}

/// By rename, by SIGHUP, and written in place: the new rules hold, the old ones don't.
pub fn good_policy_takes_over() -> Outcome {
    let daemon = Daemon::start(&policy("first", "t"))?;
    let file = daemon.policy_file();
    in_force(&daemon, "first")?;
    replace(&file, &policy("second", "u"))?;
    in_force(&daemon, "second")?;
    ensure!(daemon.metrics()?.sample("oomwarden_rule_info", &[("rule", "first")]).unwrap_or(0.0) == 0.0, "the old rule is still in force");
    let (no_more, now) = (narrow("t/a")?, narrow("u/a")?);
    let (mut free, mut caught) = (hog(&no_more)?, hog(&now)?);
    caught.must_be_killed()?;
    daemon.killed(&now)?;
    wait::stays("the group that no rule names any more lives", Duration::from_millis(500), || free.running())?;

    std::fs::write(&file, policy("third", "t")).doing("write in place")?;
    in_force(&daemon, "third")?;
    let reloads = daemon.count("oomwarden_policy_reloads_total", &[])?;
    daemon.signal(Signal::SIGHUP)?;
    daemon.counted("oomwarden_policy_reloads_total", &[], reloads + 1.0)?;
    // The group thrashed all along; now a rule names it again.
    free.must_be_killed()?;
    daemon.stop()
}

/// As Kubernetes does it: the file is a link through a directory that is a link, and that one is swapped.
pub fn swapped_symlink_is_a_new_policy() -> Outcome {
    let base = Path::new(places::FILES).join("mounted");
    for (version, name) in [("v1", "first"), ("v2", "second")] {
        std::fs::create_dir_all(base.join(version)).doing("create a directory")?;
        std::fs::write(base.join(version).join("policy.yaml"), policy(name, "t")).doing("write a policy")?;
    }
    symlink("v1", base.join("..data")).doing("link")?;
    symlink("..data/policy.yaml", base.join("policy.yaml")).doing("link")?;
    let daemon = Setup { policy_file: Some(base.join("policy.yaml")), ..Setup::default() }.start("unused")?;
    in_force(&daemon, "first")?;
    symlink("v2", base.join("..next")).doing("link")?;
    std::fs::rename(base.join("..next"), base.join("..data")).doing("swap the link")?;
    in_force(&daemon, "second")?;
    daemon.stop()
}

/// A bad policy is refused and counted; the old one stays in force.
pub fn bad_policy_changes_nothing() -> Outcome {
    let daemon = Daemon::start(THRASH)?;
    replace(&daemon.policy_file(), "version: 1\nrules:\n  - name: broken\n    wach: /t/*\n")?;
    daemon.counted("oomwarden_policy_reload_failures_total", &[], 1.0)?;
    let failed = || Ok(daemon.metrics()?.sample("oomwarden_policy_last_reload_successful", &[]) == Some(0.0));
    wait::until("the failed reload is no success", SOON, failed)?;
    in_force(&daemon, "thrash")?;
    let a = narrow("t/a")?;
    let mut hog = hog(&a)?;
    hog.must_be_killed()?;
    daemon.killed(&a)?;
    ensure!(daemon.said().contains("wach"), "the log does not say what is wrong: {}", daemon.said());
    daemon.stop()
}

/// A policy is not read while somebody still writes it.
pub fn half_written_policy_is_not_read() -> Outcome {
    let daemon = Daemon::start(&policy("first", "t"))?;
    let whole = policy("second", "t");
    let (half, rest) = whole.split_at(whole.len() / 2);
    let mut file = File::create(daemon.policy_file()).doing("open the policy")?;
    file.write_all(half.as_bytes()).doing("write half")?;
    let untouched = || Ok(daemon.count("oomwarden_policy_reload_failures_total", &[])? == 0.0);
    wait::stays("nothing is reloaded", Duration::from_millis(800), untouched)?;
    in_force(&daemon, "first")?;
    file.write_all(rest.as_bytes()).doing("write the rest")?;
    drop(file);
    in_force(&daemon, "second")?;
    ensure!(daemon.count("oomwarden_policy_reload_failures_total", &[])? == 0.0, "a half-written policy was tried");
    daemon.stop()
}

/// At the start and after a reload the log names exclusions that protect nothing on this machine; it warns where a unit is named
/// without its slice.
pub fn exclusions_that_match_nothing_are_told() -> Outcome {
    Group::new("system.slice/ssh.service")?;
    let excluding = |exclude: &str| format!("{THRASH}exclude: [{exclude}]\n");
    let daemon = Daemon::start(&excluding("/ssh.service, /system.slice/ssh.service, /system.slice/dbus.service"))?;
    let told = |line: &str| {
        wait::until(&format!("the log says {line:?}"), SOON, || Ok(daemon.said().contains(line)))?;
        let said = daemon.said();
        ensure!(said.matches(line).count() == 1, "the log says it more than once: {said}");
        Ok(())
    };
    told(
        "the exclusion /ssh.service protects nothing: no group has such a name; on a machine with systemd it would be /system.slice/ssh.service",
    )?;
    told("no group is there now for 1 of 3 globs under `exclude`: /system.slice/dbus.service")?;
    replace(&daemon.policy_file(), &excluding("/system.slice/ssh.service, '/system.slice/*getty@*.service'"))?;
    told("no group is there now for 1 of 2 globs under `exclude`: /system.slice/*getty@*.service")?;
    daemon.stop()
}
