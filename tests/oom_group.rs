//! `kernel: oom_group` and kills by the kernel that it brings about, with the whole warden on a
//! tree of files.
#![allow(clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]

mod stand_in;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use stand_in::{Machine, change, group, wait};

const FINISH: &str = "
version: 1
exclude: [/t/*/keep]
rules:
  - name: finish
    watch: /t/*
    when:
      - event: oom_kill
kernel:
  oom_group: /t/*
";

fn value(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path).join("memory.oom.group")).unwrap_or_default().trim().to_owned()
}

fn becomes(root: &Path, path: &str, expected: &str) {
    wait(&format!("memory.oom.group of {path} is {expected}"), || value(root, path) == expected);
}

/// The kernel has killed a process of the group, and the whole group by that.
fn kernel_kills(root: &Path, path: &str) {
    change(&root.join(path).join("memory.events.local"), "low 0\nhigh 0\nmax 9\noom 1\noom_kill 5\noom_group_kill 1\n");
}

#[test]
fn it_is_set_reset_set_again_taken_from_what_contains_an_excluded_group_and_taken_back_at_the_end() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for path in ["t", "t/a", "t/b", "t/foreign"] {
        group(root, path, 0);
    }
    change(&root.join("t/foreign/memory.oom.group"), "1\n");
    let machine = Machine::start(root, FINISH, || {});
    becomes(root, "t/a", "1");
    becomes(root, "t/b", "1");
    change(&root.join("t/b/memory.oom.group"), "0\n");
    becomes(root, "t/b", "1");
    wait("the reset is counted", || machine.metrics().contains("\noomwarden_oom_group_resets_total 1\n"));
    group(root, "t/a/keep", 0);
    becomes(root, "t/a", "0");
    fs::remove_dir_all(root.join("t/a/keep")).unwrap();
    becomes(root, "t/a", "1");
    machine.reload(&FINISH.replace("exclude: [", "exclude: [/t/b, "));
    becomes(root, "t/b", "0");
    assert_eq!(value(root, "t/a"), "1");
    machine.stop();
    assert_eq!(["t/a", "t/b", "t/foreign"].map(|path| value(root, path)), ["0", "0", "1"]);
}

#[test]
fn a_group_that_the_kernel_killed_whole_is_not_claimed_by_a_rule() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for path in ["t", "t/a"] {
        group(root, path, 1 << 20);
    }
    let killed = Arc::new(AtomicBool::new(false));
    let (its_killed, events) = (Arc::clone(&killed), root.join("t/a/cgroup.events"));
    // Its processes end after the warden has heard of it. On its thread, so that no time passes
    // meanwhile.
    let turned = move || {
        if its_killed.swap(false, Ordering::SeqCst) {
            change(&events, "populated 0\nfrozen 0\n");
        }
    };
    let machine = Machine::start(root, FINISH, turned);
    becomes(root, "t/a", "1");
    kernel_kills(root, "t/a");
    killed.store(true, Ordering::SeqCst);
    wait("the judgement ends", || machine.lines().iter().any(|line| line.contains("\"outcome\":\"no_victim\"")));
    assert!(!machine.killed("t/a"));
    machine.stop();
}

#[test]
fn who_survives_the_kernels_kill_of_a_group_is_dealt_with() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for path in ["t", "t/a"] {
        group(root, path, 1 << 20);
    }
    let machine = Machine::start(root, FINISH, || {});
    becomes(root, "t/a", "1");
    kernel_kills(root, "t/a");
    wait("the rule kills what is left", || machine.killed("t/a"));
    change(&root.join("t/a/cgroup.events"), "populated 0\nfrozen 0\n");
    wait("the deed is recorded", || machine.lines().iter().any(|line| line.contains("\"outcome\":\"killed\"")));
    machine.stop();
}
