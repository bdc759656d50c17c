//! The warden's whole way, on a tree of ordinary files: what must not be taken for fresh evidence, or for another group.
#![allow(clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]

mod stand_in;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use inotify::{Inotify, WatchMask};
use stand_in::{CHOOSE, Machine, change, group, out_of_memory, wait};

const FINISH: &str = "
version: 1
defaults: {cooldown: 300ms}
rules:
  - name: finish
    watch: /t/*
    when:
      - event: oom_kill
";

/// A tree with the subject /t/a.
fn one_subject() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    group(dir.path(), "t", 1000);
    group(dir.path(), "t/a", 1_000_000);
    dir
}

fn oom_kills(count: u32) -> String {
    format!("low 0\nhigh 0\nmax 0\noom 0\noom_kill {count}\n")
}

/// Longer than the cool-down of these policies, after which a notice that was kept would be judged.
fn past_the_cooldown(machine: &Machine) {
    std::thread::sleep(Duration::from_millis(600));
    machine.turn();
}

#[test]
fn what_the_kernel_counted_in_the_dead_is_not_held_against_who_starts_there_next() {
    let dir = one_subject();
    let root = dir.path();
    let machine = Machine::start(root, FINISH, || {});
    change(&root.join("t/a/memory.events.local"), &oom_kills(1));
    wait("the kill", || machine.killed("t/a"));
    // While the victim dies the kernel kills another of its processes.
    change(&root.join("t/a/memory.events.local"), &oom_kills(2));
    machine.turn();
    change(&root.join("t/a/cgroup.events"), "populated 0\n");
    wait("the journal's line", || machine.lines().len() == 1);
    // A supervisor starts it again in the same group.
    fs::write(root.join("t/a/cgroup.kill"), "").unwrap();
    change(&root.join("t/a/cgroup.events"), "populated 1\n");
    past_the_cooldown(&machine);
    assert!(!machine.killed("t/a"), "{:?}", machine.lines());
    // And what happens to it is judged again.
    change(&root.join("t/a/memory.events.local"), &oom_kills(3));
    wait("the second kill", || machine.killed("t/a"));
    machine.stop();
}

#[test]
fn a_notice_kept_over_a_reload_is_void_for_groups_that_the_rule_no_longer_names() {
    let dir = one_subject();
    let root = dir.path();
    let machine = Machine::start(root, &format!("{FINISH}    mode: observe\n"), || {});
    change(&root.join("t/a/memory.events.local"), &oom_kills(1));
    wait("the observation", || machine.lines().len() == 1);
    // Within the cool-down: kept.
    change(&root.join("t/a/memory.events.local"), &oom_kills(2));
    machine.turn();
    machine.reload(&FINISH.replace("/t/*", "/elsewhere/*"));
    past_the_cooldown(&machine);
    assert!(!machine.killed("t/a"), "{:?}", machine.lines());
    machine.stop();
}

#[test]
fn a_reload_in_mid_ladder_leaves_the_rule_able_to_act_again() {
    let dir = one_subject();
    let root = dir.path();
    let machine = Machine::start(root, FINISH, || {});
    change(&root.join("t/a/memory.events.local"), &oom_kills(1));
    wait("the kill", || machine.killed("t/a"));
    // Another rule stands before it now: the rule's index changes while its ladder is under way.
    let before = "rules:\n  - name: other\n    watch: /other/*\n    when:\n      - event: oom_kill\n";
    machine.reload(&FINISH.replace("rules:\n", before));
    change(&root.join("t/a/cgroup.events"), "populated 0\n");
    wait("the journal's line", || machine.lines().len() == 1);
    fs::write(root.join("t/a/cgroup.kill"), "").unwrap();
    change(&root.join("t/a/cgroup.events"), "populated 1\n");
    past_the_cooldown(&machine);
    change(&root.join("t/a/memory.events.local"), &oom_kills(2));
    wait("the second kill", || machine.killed("t/a"));
    machine.stop();
}

#[test]
fn a_victim_whose_group_is_removed_at_once_is_gone_and_nobody_else_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    group(root, "t", 1000);
    for (name, anon) in [("t/a", 3_000_000), ("t/b", 2_000_000)] {
        group(root, name, anon);
    }
    let machine = Machine::start(root, CHOOSE, || {});
    out_of_memory(root);
    wait("the kill", || machine.killed("t/a"));
    fs::remove_dir_all(root.join("t/a")).unwrap();
    // An ordinary directory's held files stay readable; the kernel's answer ENODEV. The removal itself must do.
    wait("the end of the ladder", || !machine.lines().is_empty());
    assert!(machine.lines()[0].contains(r#""victim":"/t/a""#), "{:?}", machine.lines());
    assert!(!machine.killed("t/b"));
    machine.stop();
}

#[test]
fn an_excluded_group_that_the_tree_has_not_been_told_of_is_not_taken_along() {
    let dir = one_subject();
    let root = dir.path();
    fs::write(root.join("t/a/cgroup.stat"), "nr_descendants 0\n").unwrap();
    let machine = Machine::start(root, &format!("{FINISH}exclude:\n  - /t/a/keep\n"), || {});
    // Moved in, which inotify does not report here: as if its notice were still in the queue.
    let elsewhere = tempfile::tempdir_in(root.parent().unwrap()).unwrap();
    group(elsewhere.path(), "keep", 1000);
    fs::rename(elsewhere.path().join("keep"), root.join("t/a/keep")).unwrap();
    fs::write(root.join("t/a/cgroup.stat"), "nr_descendants 1\n").unwrap();
    change(&root.join("t/a/memory.events.local"), &oom_kills(1));
    wait("the verdict", || !machine.lines().is_empty());
    assert!(!machine.killed("t/a"), "{:?}", machine.lines());
    machine.stop();
}

/// As [`CHOOSE`], with a group elsewhere at which the scout hangs: a file of it does not open.
fn with_a_scout_that_hangs(root: &Path, exclude: &str, turned: impl FnMut() + Send + 'static) -> Machine {
    for (path, anon) in [("t", 0), ("t/a", 64 << 20), ("t/b", 32 << 20), ("u", 0)] {
        group(root, path, anon);
    }
    fs::write(root.join("t/a/cgroup.stat"), "nr_descendants 0\n").unwrap();
    let policy = format!("{}{exclude}", CHOOSE.replace("watch: /t\n", "watch: [/t, /u]\n"));
    let machine = Machine::start(root, &policy, turned);
    let elsewhere = tempfile::tempdir_in(root.parent().unwrap()).unwrap();
    group(elsewhere.path(), "stuck", 0);
    let file = elsewhere.path().join("stuck/memory.events.local");
    fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Told of by a notice, as one that is made, which is read when it is whole.
    machine.stall(|| {
        fs::create_dir(root.join("u/stuck")).unwrap();
        fs::rename(elsewhere.path().join("stuck"), root.join("u/stuck")).unwrap();
    });
    machine
}

/// A group comes below one, and the tree is not told of it.
fn comes_unseen(root: &Path, below: &str, name: &str) {
    let elsewhere = tempfile::tempdir_in(root.parent().unwrap()).unwrap();
    group(elsewhere.path(), name, 1000);
    fs::rename(elsewhere.path().join(name), root.join(below).join(name)).unwrap();
    fs::write(root.join(below).join("cgroup.stat"), "nr_descendants 1\n").unwrap();
}

#[test]
fn a_scout_that_is_busy_elsewhere_keeps_no_kill_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let machine = with_a_scout_that_hangs(dir.path(), "exclude:\n  - /t/*/keep\n", || {});
    comes_unseen(dir.path(), "t/a", "churned");
    let began = Instant::now();
    out_of_memory(dir.path());
    wait("the kill", || machine.killed("t/a") || machine.killed("t/b"));
    assert!(machine.killed("t/a") && !machine.killed("t/b"), "a glance tells that nobody in it has to live");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(machine.board.standing().groups, 5, "the scout hangs");
    machine.stop();
}

#[test]
fn a_scout_that_is_busy_elsewhere_costs_no_excluded_group_its_life_and_the_next_candidate_dies() {
    let dir = tempfile::tempdir().unwrap();
    let machine = with_a_scout_that_hangs(dir.path(), "exclude:\n  - /t/*/keep\n", || {});
    comes_unseen(dir.path(), "t/a", "keep");
    out_of_memory(dir.path());
    wait("the kill", || machine.killed("t/a") || machine.killed("t/b"));
    assert!(machine.killed("t/b") && !machine.killed("t/a"), "an excluded group is in t/a");
    fs::write(dir.path().join("t/b/cgroup.events"), "populated 0\n").unwrap();
    wait("the journal", || !machine.lines().is_empty());
    assert_eq!(machine.board.standing().groups, 5, "the scout hangs");
    let line = machine.lines().concat();
    assert!(line.contains("could not be looked at, and what is not known is spared"), "{line}");
    machine.stop();
}

/// A file in a group that does not open: a reader of it hangs.
fn make_stuck(root: &Path, file: &str) {
    let file = root.join(file);
    fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
}

#[test]
fn a_group_whose_processes_could_not_be_looked_at_in_time_is_not_taken_along_although_nothing_is_excluded() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let machine = with_a_scout_that_hangs(root, "", || {});
    comes_unseen(root, "t/a", "slow");
    make_stuck(root, "t/a/slow/cgroup.procs");
    out_of_memory(root);
    wait("the kill", || machine.killed("t/a") || machine.killed("t/b"));
    assert!(machine.killed("t/b") && !machine.killed("t/a"), "who is in t/a/slow is not known");
    machine.stop();
}

#[test]
fn who_was_seen_is_not_forgotten_over_the_notices_that_follow() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let machine = with_a_scout_that_hangs(root, "", || {});
    comes_unseen(root, "t/a", "init");
    fs::write(root.join("t/a/init/cgroup.procs"), "1\n").unwrap();
    let began = Instant::now();
    let mut notices = 0;
    wait("the kill", || {
        notices += 1;
        change(&root.join("t/memory.events.local"), &format!("low 0\nhigh 0\nmax 0\noom {notices}\n"));
        if notices == 50 {
            // From now on another glance would not come to an end.
            make_stuck(root, "t/a/init/cgroup.events");
            make_stuck(root, "t/a/init/cgroup.procs");
        }
        machine.killed("t/a") || machine.killed("t/b")
    });
    assert!(machine.killed("t/b") && !machine.killed("t/a"), "process 1 is in t/a");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    machine.stop();
}

#[test]
fn an_empty_group_that_the_tree_has_not_been_told_of_keeps_no_kill_waiting_even_if_it_could_not_be_looked_into() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let machine = with_a_scout_that_hangs(root, "", || {});
    comes_unseen(root, "t/a", "empty");
    fs::write(root.join("t/a/empty/cgroup.events"), "populated 0\n").unwrap();
    make_stuck(root, "t/a/empty/cgroup.procs");
    let began = Instant::now();
    out_of_memory(root);
    wait("the kill", || machine.killed("t/a") || machine.killed("t/b"));
    assert!(machine.killed("t/a") && !machine.killed("t/b"), "nobody is in t/a/empty");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    machine.stop();
}

#[test]
fn nobody_is_to_be_killed_only_after_a_look_for_groups_that_the_tree_has_not_been_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    group(root, "t", 1000);
    fs::write(root.join("cgroup.stat"), "nr_descendants 1\n").unwrap();
    let machine = Machine::start(root, CHOOSE, || {});
    // Moved in, as above: it came a moment ago.
    let elsewhere = tempfile::tempdir_in(root.parent().unwrap()).unwrap();
    group(elsewhere.path(), "fat", 3_000_000);
    fs::rename(elsewhere.path().join("fat"), root.join("t/fat")).unwrap();
    fs::write(root.join("cgroup.stat"), "nr_descendants 2\n").unwrap();
    out_of_memory(root);
    wait("the verdict", || machine.killed("t/fat") || !machine.lines().is_empty());
    assert!(machine.killed("t/fat"), "{:?}", machine.lines());
    // Where everything is known and there is nobody, that is said at once and once.
    fs::write(root.join("t/fat/cgroup.events"), "populated 0\n").unwrap();
    wait("the end of the ladder", || machine.lines().len() == 1);
    machine.stop();
}

/// A real process, listed in a group that is not.
fn sleeper() -> std::process::Child {
    std::process::Command::new("sleep").arg("1000").stdin(std::process::Stdio::null()).spawn().unwrap()
}

#[test]
fn kill_process_ends_a_single_one_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let (mut one, mut other) = (sleeper(), sleeper());
    group(root, "t", 1000);
    group(root, "t/a", 1_000_000);
    fs::write(root.join("t/a/cgroup.procs"), format!("{}\n{}\n", one.id(), other.id())).unwrap();
    let machine = Machine::start(root, &format!("{FINISH}    then:\n      - kill: process\n"), || {});
    change(&root.join("t/a/memory.events.local"), &oom_kills(1));
    wait("a process's end", || one.try_wait().unwrap().is_some() || other.try_wait().unwrap().is_some());
    wait("the journal's line", || !machine.lines().is_empty());
    let lines = machine.lines();
    assert!(lines[0].contains(r#""outcome":"killed""#) && lines[0].contains(r#""processes_killed":1"#), "{lines:?}");
    assert!(!machine.killed("t/a"), "the group as a whole lives");
    let ended = [&mut one, &mut other].into_iter().filter_map(|child| child.try_wait().unwrap()).count();
    assert_eq!(ended, 1, "one of two");
    machine.stop();
    for mut child in [one, other] {
        // One of them has ended already.
        let _ = child.kill();
        child.wait().unwrap();
    }
}

#[test]
fn a_group_with_a_process_that_cannot_be_seen_lives_and_the_journal_says_why() {
    let dir = one_subject();
    let root = dir.path();
    let machine = Machine::start(root, FINISH, || {});
    // The kernel prints 0 for a process of another pid namespace.
    fs::write(root.join("t/a/cgroup.procs"), "0\n").unwrap();
    change(&root.join("t/a/memory.events.local"), &oom_kills(1));
    wait("the journal's line", || !machine.lines().is_empty());
    let lines = machine.lines();
    assert!(lines[0].contains(r#""outcome":"no_victim""#), "{lines:?}");
    assert!(!machine.killed("t/a"));
    machine.stop();
}

/// A level that only the kernel module tells has no time of its own at which to be looked at.
#[test]
fn policy_that_asks_for_nothing_but_a_missing_module_is_idle_and_alive() {
    let dir = one_subject();
    let policy = "
version: 1
rules:
  - name: node-oom
    watch: /
    when: [lms: oom]
    victim: {among: /t/*}
";
    let machine = Machine::start(dir.path(), policy, || {});
    machine.turn();
    assert!(!machine.killed("t/a"), "{:?}", machine.lines());
    machine.stop();
}

/// What the kernel module says. What is written to the ordinary file that stands in for its own
/// begins at the file's start, so there is room before the text: a key that nobody knows.
fn module_says_ok() -> String {
    let room = "x ".repeat(1000);
    format!(
        "room {room}\nlevel ok\nseq 7\nmem_total_kb 1000000\nmem_available_kb 900000\nswap_total_kb 0\nswap_free_kb 0\npage_size 4096\n\
         warn_percent 20\nkill_percent 10\nhandler_pid 0\nholds 0\nholds_resolved 0\nholds_expired 0\nholds_passed 0\ntable_kills 0\n\
         hold_seq 0\nhold_ms 500\nwarn_kb 200000\nkill_kb 100000\nfloor_kb 50000\ntable_kill_ids 0\ntable_spare_ids 0\npasses 0\ncalls 0\n\
         interface 2\ntable_rules 0\ntable_spares 0\n"
    )
}

/// What was written last, up to what is left of the text before.
fn written(root: &Path) -> String {
    let said = String::from_utf8_lossy(&fs::read(root.join("oom_notifier")).unwrap()).into_owned();
    said.rfind("table keep 600\n").map_or_else(String::new, |at| said[at..].split("x x").next().unwrap_or_default().to_owned())
}

fn id(root: &Path, path: &str) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::metadata(root.join(path)).unwrap())
}

/// The groups that it says anything of come and go, grow and are killed, and the table stays as it is: it says what the policy says.
#[test]
fn the_modules_table_is_the_policy_whatever_groups_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for path in ["t", "own[1]"] {
        group(root, path, 0);
    }
    fs::write(root.join("own[1]/cgroup.procs"), format!("{}\n", std::process::id())).unwrap();
    fs::write(root.join("oom_notifier"), module_says_ok()).unwrap();
    let policy = "
version: 1
exclude: [\"/t/{spared,precious}\", {group: /t/db, comm: post gres}]
kill_one_in: /t/session
importance: [{group: /t/batch, value: -1}]
rules:
  - {name: pool, watch: /, when: [lms: oom], victim: {among: /t/pool}, then: [kill: process]}
  - {name: node, watch: /, when: [lms: oom], victim: {among: [/t/*], at_least: 8MiB}}
";
    let machine = Machine::start(root, policy, || {});
    let expected = format!(
        "table keep 600\nroot {}\nspare {}\nspare_path /own[[]1]\nspare_path /t/spared\nspare_path /t/precious\n\
         spare_comm post\\x20gres /t/db\nspare_comm post\\x20gres /t/db/**\nspare_path /t/session\nclass -1 /t/batch\n\
         spare_path /t/pool\nrule at_least=8192\namong /t/*\namong /t/*/**\n",
        id(root, ""),
        id(root, "own[1]")
    );
    wait("the table", || written(root).starts_with(&expected));
    for path in ["t/fat", "t/spared", "t/fat/below"] {
        group(root, path, 30_000_000);
        machine.turn();
    }
    machine.turn();
    assert!(written(root).starts_with(&expected), "{}", written(root));
    machine.stop();
}

/// Whoever dies by the old table may have to live by the new policy: the old one is taken back at
/// once, and the new one written before anything is done that may take its time. A policy that says
/// the same of the module leaves it.
#[test]
fn a_reload_that_changes_the_modules_table_takes_it_back_first() {
    let dir = one_subject();
    let root = dir.path();
    // So many that it takes its time to class them anew.
    (0..200).for_each(|at| group(root, &format!("t/many{at}"), 0));
    for pressure in ["memory.pressure", "t/a/memory.pressure"] {
        fs::write(root.join(pressure), "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n").unwrap();
    }
    fs::write(root.join("oom_notifier"), module_says_ok()).unwrap();
    let policy = format!("{FINISH}  - {{name: node, watch: /, when: [lms: oom], victim: {{among: /t/*, at_least: 8MiB}}}}\n");
    let said = || String::from_utf8_lossy(&fs::read(root.join("oom_notifier")).unwrap()).into_owned();
    let machine = Machine::start(root, &policy, || {});
    wait("the table", || written(root).contains("among /t/*/**\n"));
    machine.reload(&policy.replace("300ms", "200ms"));
    machine.turn();
    assert!(!said().contains("clear\n"), "{}", said());
    // What is written, in the order in which it is done. The kernel makes one notice of several
    // that are the same: those of the directory stand between two of the module's file.
    let mut notices = Inotify::init().unwrap();
    let mut watch = |path: &str| notices.watches().add(root.join(path), WatchMask::MODIFY).unwrap();
    let [_, module, pressure] = ["", "oom_notifier", "t/a/memory.pressure"].map(&mut watch);
    let stall = "  - {name: stall, watch: /t/a, when: [psi: full 100ms/500ms], mode: observe}\n";
    machine.reload(&format!("{policy}{stall}exclude: [/t/a]\n"));
    wait("the new table", || written(root).contains("spare_path /t/a\n"));
    assert!(said().find("clear\n") < said().rfind("table keep"), "{}", said());
    let (mut buffer, mut written_to) = ([0; 4096], Vec::new());
    wait("the trigger is armed", || {
        if let Ok(events) = notices.read_events(&mut buffer) {
            written_to.extend(events.map(|event| event.wd));
        }
        written_to.contains(&pressure)
    });
    let before = written_to.iter().take_while(|one| **one != pressure).filter(|one| **one == module).count();
    assert!(before >= 2, "the old table is taken back and the new one written before a trigger is armed");
    machine.stop();
}

/// Where vm.panic_on_oom is set the kernel is to panic: nobody registers with the module, and a hold that came all the same is passed.
#[test]
fn kernel_that_is_to_panic_is_not_held_back() {
    let policy = format!("{FINISH}  - {{name: node, watch: /, when: [lms: oom], victim: {{among: /t/*}}}}\n");
    let said = |root: &Path| String::from_utf8_lossy(&fs::read(root.join("oom_notifier")).unwrap()).into_owned();
    let setting = |root: &Path, value: &str| {
        fs::create_dir_all(root.join("sys/vm")).unwrap();
        fs::write(root.join("sys/vm/panic_on_oom"), value).unwrap();
    };
    for value in ["1\n", "2\n"] {
        let dir = one_subject();
        let root = dir.path();
        fs::write(root.join("oom_notifier"), module_says_ok()).unwrap();
        setting(root, value);
        let machine = Machine::start(root, &policy, || {});
        machine.turn();
        assert_eq!(said(root), module_says_ok(), "something was written to the module");
        machine.stop();
    }

    let dir = one_subject();
    let root = dir.path();
    fs::write(root.join("oom_notifier"), module_says_ok()).unwrap();
    setting(root, "0\n");
    let machine = Machine::start(root, &policy, || {});
    wait("the table", || said(root).contains("handler ") && !written(root).is_empty());
    setting(root, "1\n");
    let holds = module_says_ok().replace("level ok\nseq 7\n", "level oom\nseq 9\n").replace("hold_seq 0\n", "hold_seq 9\n");
    fs::write(root.join("oom_notifier"), holds).unwrap();
    // An event has the module's file read.
    change(&root.join("t/a/memory.events.local"), &oom_kills(1));
    wait("the hold is passed", || said(root).contains("pass 9\n"));
    wait("the registration is given back", || said(root).contains("release\n"));
    machine.turn();
    assert!(!said(root).contains("ack "), "{}", said(root));
    machine.stop();
}
