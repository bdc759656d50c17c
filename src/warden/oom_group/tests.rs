//! On ordinary directories that stand in for groups.

use std::fs;
use std::path::Path;

use rustix::fs::{Mode as FileMode, OFlags, open};

use super::*;
use crate::cgroup::path::GroupPath;
use crate::policy::{self, Source};

struct Machine {
    dir: tempfile::TempDir,
    tree: Tree,
    policy: Arc<Policy>,
}

fn make(root: &Path, group: &str) {
    let group = root.join(group);
    fs::create_dir_all(&group).unwrap();
    fs::write(group.join("memory.oom.group"), "0\n").unwrap();
}

fn scan(dir: &Path, policy: &str) -> (Tree, Arc<Policy>) {
    let policy = Arc::new(policy::load(&[Source::new("test", format!("version: 1\nrules: []\n{policy}"))]).unwrap().policy);
    (Tree::scan(root(dir), &policy, 100).unwrap(), policy)
}

fn root(dir: &Path) -> Arc<Root> {
    let fd = open(dir, OFlags::RDONLY | OFlags::DIRECTORY, FileMode::empty()).unwrap();
    Arc::new(Root { path: dir.into(), dir: fd })
}

impl Machine {
    fn new(policy: &str, groups: &[&str]) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        for group in groups {
            make(dir.path(), group);
        }
        let (tree, policy) = scan(dir.path(), policy);
        Machine { dir, tree, policy }
    }

    fn group(&self, path: &str) {
        make(self.dir.path(), path);
    }

    /// Another look, by this policy.
    fn scan(&mut self, policy: &str) {
        (self.tree, self.policy) = scan(self.dir.path(), policy);
    }

    fn write(&self, path: &str, value: &str) {
        fs::write(self.dir.path().join(path).join("memory.oom.group"), format!("{value}\n")).unwrap();
    }

    /// When the thread has done all that it was asked for, the files say this.
    fn settles<const N: usize>(&self, groups: &OomGroups, values: [(&str, &str); N]) {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while !groups.keeper.is_idle() {
            assert!(std::time::Instant::now() < deadline, "the thread does not come to an end");
            std::thread::yield_now();
        }
        for (path, value) in values {
            let said = fs::read_to_string(self.dir.path().join(path).join("memory.oom.group")).unwrap();
            assert_eq!(said.lines().next().unwrap().trim(), value, "{path}");
        }
    }

    fn slot(&self, path: &str) -> Slot {
        self.tree.slot_at(&GroupPath::from_bytes(path.as_bytes())).unwrap()
    }

    fn own(&self, path: &str) -> Own {
        Own::Inside(self.tree.get(self.slot(path)).unwrap().group.id)
    }

    /// The groups that are to have it, in order.
    fn wanted(&self, own: Own) -> Vec<String> {
        let wanted = |slot: &Slot| asks(self.tree.get(*slot).unwrap(), &self.policy) && bar(&self.tree, *slot, own, &self.policy).is_none();
        let path = |slot| self.tree.get(slot).unwrap().group.path.to_string();
        let mut paths: Vec<String> = self.tree.slots().filter(wanted).map(path).collect();
        paths.sort();
        paths
    }
}

#[test]
fn never_on_a_group_that_is_contains_or_lies_below_an_excluded_one() {
    let groups = ["t/a/x", "t/b/keep/x", "t/c", "u/d/e", "v"];
    let all = ["/t", "/t/a", "/t/a/x", "/t/b", "/t/b/keep", "/t/b/keep/x", "/t/c", "/u", "/u/d", "/u/d/e", "/v"];
    let named = "kernel: {oom_group: [/, /**]}\n";
    assert_eq!(Machine::new(named, &groups).wanted(Own::Outside), all, "but for the root");
    for (exclude, wanted) in [
        ("/t/b/keep", &["/t/a", "/t/a/x", "/t/c", "/u", "/u/d", "/u/d/e", "/v"][..]),
        ("/t/**/keep", &["/t/a", "/t/a/x", "/t/c", "/u", "/u/d", "/u/d/e", "/v"]),
        ("/u/*", &["/t", "/t/a", "/t/a/x", "/t/b", "/t/b/keep", "/t/b/keep/x", "/t/c", "/v"]),
        ("/t", &["/u", "/u/d", "/u/d/e", "/v"]),
    ] {
        let machine = Machine::new(&format!("exclude: [\"{exclude}\"]\n{named}"), &groups);
        assert_eq!(machine.wanted(Own::Outside), wanted, "{exclude}");
        // A process of that name may start at any moment.
        let machine = Machine::new(&format!("exclude: [{{group: \"{exclude}\", comm: pg}}]\n{named}"), &groups);
        assert_eq!(machine.wanted(Own::Outside), wanted, "{exclude} with a comm");
    }
}

#[test]
fn never_on_a_group_below_which_an_excluded_one_may_come() {
    let machine = Machine::new("exclude: [/t/a/later, /t/b/*]\nkernel: {oom_group: /t/*}\n", &["t/a", "t/b", "t/c"]);
    assert_eq!(machine.wanted(Own::Outside), ["/t/c"]);
}

#[test]
fn never_on_a_group_that_is_contains_or_may_contain_one_of_kill_one_in() {
    let groups = ["u/s1/x", "u/app", "v", "w"];
    let machine = Machine::new("kill_one_in: [\"/u/s*\", /v/login/*]\nkernel: {oom_group: /**}\n", &groups);
    assert_eq!(machine.wanted(Own::Outside), ["/u/app", "/w"]);
}

#[test]
fn while_our_own_group_is_unknown_it_is_taken_back_and_set_nowhere() {
    let policy = "exclude: [/t/*/keep]\nkernel: {oom_group: /t/*}\n";
    let mut machine = Machine::new(policy, &["t/a", "t/b", "t/c"]);
    let state = tempfile::tempdir().unwrap();
    let root = root(machine.dir.path());
    let mut groups = OomGroups::start(root, StateDir::new(state.path()), IntCounter::new("resets", "resets").unwrap()).unwrap();
    let second = Duration::from_secs(1);
    groups.mind(second, &machine.tree, Own::Outside, &machine.policy, true);
    machine.settles(&groups, [("t/a", "1"), ("t/b", "1"), ("t/c", "1")]);
    // A group that must live comes below one.
    machine.group("t/a/keep");
    machine.group("t/new");
    machine.scan(policy);
    let id = |path: &str| machine.tree.get(machine.slot(path)).unwrap().group.id;
    for one in [News::Came(id("/t/a/keep")), News::Settled(id("/t/new"))] {
        groups.heard(one, &machine.policy);
    }
    groups.mind(second, &machine.tree, Own::Unknown, &machine.policy, true);
    machine.settles(&groups, [("t/a", "0"), ("t/b", "1"), ("t/new", "0")]);
    // Nor is it set again where somebody else took it away.
    machine.write("t/c", "0");
    groups.heard(News::Written(id("/t/c")), &machine.policy);
    groups.mind(second, &machine.tree, Own::Unknown, &machine.policy, true);
    // Another policy.
    machine.scan("exclude: [/t/b]\nkernel: {oom_group: /t/*}\n");
    groups.look_anew();
    groups.mind(second, &machine.tree, Own::Unknown, &machine.policy, true);
    machine.settles(&groups, [("t/b", "0"), ("t/c", "0"), ("t/new", "0")]);
    assert!(groups.due().is_some_and(|due| due > second), "until it is known");
    groups.mind(second, &machine.tree, Own::Outside, &machine.policy, true);
    machine.settles(&groups, [("t/a", "1"), ("t/b", "0"), ("t/c", "1"), ("t/new", "1")]);
}

#[test]
fn our_own_group_is_looked_for_only_where_the_policy_asks_for_it() {
    let asks = |text: &str| asks_anywhere(&Machine::new(text, &["t"]).policy);
    assert!(asks("kernel: {oom_group: /t}\n"));
    assert!(!asks("kernel: {hold: 5ms}\n") && !asks("mode: observe\nkernel: {oom_group: /t}\n"));
}

#[test]
fn never_on_our_own_group_or_one_above_it() {
    let machine = Machine::new("kernel: {oom_group: /**}\n", &["t/us/x", "t/a"]);
    assert_eq!(machine.wanted(machine.own("/t/us")), ["/t/a", "/t/us/x"]);
}

#[test]
fn nowhere_if_the_policy_only_observes() {
    let machine = Machine::new("mode: observe\nkernel: {oom_group: /**}\n", &["t/a"]);
    assert!(machine.wanted(Own::Outside).is_empty());
}
