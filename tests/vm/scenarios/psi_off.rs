//! Rules that wait for stall where PSI is off: for a group whose owner switched it off, and for the whole machine.

use std::time::Duration;

use serde_json::Value;

use super::common::{THRASH, hog, narrow};
use crate::guest::daemon::{ADDRESS, Daemon, ask};
use crate::guest::group::{Group, MIB};
use crate::guest::http;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};

const EVENTS_TOO: &str = "
version: 1
rules:
  - name: thrash
    watch: /t/*
    when:
      - psi: full 100ms/500ms
  - name: finish
    watch: /t/*
    when:
      - psi: some 100ms/500ms
      - event: oom_kill
";

fn status() -> Outcome<Value> {
    serde_json::from_str(&ask(&["status", "--json"])?).doing("understand the status")
}

fn is_degraded(reason: &str, part: &str) -> Outcome<bool> {
    let status = status()?;
    let text = |one: &Value| one["reason"] == reason && one["text"].as_str().is_some_and(|text| text.contains(part));
    Ok(status["degraded"].as_array().is_some_and(|all| all.iter().any(text)))
}

fn ready() -> Outcome<String> {
    let answer = http::get(ADDRESS.parse().doing("understand the address")?, "/-/ready")?;
    ensure!(answer.status == 200, "/-/ready says {}: {}", answer.status, answer.body);
    Ok(answer.body)
}

/// A group's owner switches its PSI off while a trigger is armed there, and on again.
pub fn switched_off_for_a_group_is_told_until_it_is_on_again() -> Outcome {
    let (a, b) = (narrow("t/a")?, narrow("t/b")?);
    let daemon = Daemon::start(THRASH)?;
    ensure!(ready()? == "ready: the groups are armed\n", "it is degraded from the start: {}", ready()?);
    a.set("cgroup.pressure", "0")?;
    wait::until("it is told", SOON, || is_degraded("group_psi", "1 watched group has no PSI: /t/a;"))?;
    ensure!(is_degraded("group_psi", "rules that never act there: thrash")?, "the dead rule is not named: {}", status()?);
    ensure!(ready()? == "ready, degraded: group_psi\n", "/-/ready says {}", ready()?);
    ensure!(daemon.said().contains("cgroup.pressure") && !daemon.said().contains("on a timer"), "the log: {}", daemon.said());
    let mut deaf = hog(&a)?;
    hog(&b)?.must_be_killed()?;
    daemon.killed(&b)?;
    deaf.must_run("its stall can't be read")?;
    a.set("cgroup.pressure", "1")?;
    deaf.must_be_killed()?;
    daemon.killed(&a)?;
    wait::until("it is no more", SOON, || Ok(status()?["degraded"] == Value::Array(vec![])))?;
    daemon.stop()
}

/// Another boot would be needed: one error names the rules, and what does not rest on PSI works.
pub fn machine_without_psi_names_the_dead_rules_and_acts_on_events() -> Outcome {
    let a = Group::new("t/a")?.max(32 * MIB)?.no_swap()?;
    let daemon = Daemon::start(EVENTS_TOO)?;
    ensure!(ready()? == "ready, degraded: psi\n", "/-/ready says {}", ready()?);
    ensure!(
        is_degraded("psi", "rules that never act: thrash; triggers that never fire: `psi: some 100ms/500ms` of finish")?,
        "{}",
        status()?
    );
    let said = daemon.said();
    let errors: Vec<&str> = said.lines().filter(|line| line.contains("ERROR")).collect();
    ensure!(errors.len() == 1 && errors[0].contains("psi=1"), "one error would do: {said}");
    ensure!(!said.contains("on a timer"), "there is nothing to read on a timer: {said}");
    ensure!(daemon.count("oomwarden_degraded", &[("reason", "psi")])? == 1.0, "the metric does not say so");
    // More than it has, in one process beside another: the kernel ends one, the rule the rest.
    let mut other = Work::holding(&a, 4)?;
    let mut hog = Work::start(&a, "hog mib=64")?;
    hog.must_be_killed()?;
    other.must_be_killed()?;
    daemon.killed(&a)?;
    wait::stays("it is still said", Duration::from_millis(300), || is_degraded("psi", "boot with psi=1"))?;
    daemon.stop()
}
