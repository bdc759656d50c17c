//! On ordinary directories that stand in for groups.

use std::fs;

use rustix::fs::{Mode as FileMode, OFlags, open};

use super::*;
use crate::cgroup::path::GroupPath;
use crate::policy::{self, Source};

struct Machine {
    _dir: tempfile::TempDir,
    tree: Tree,
    policy: Arc<Policy>,
}

impl Machine {
    fn new(policy: &str, groups: &[&str]) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        for group in groups {
            let group = dir.path().join(group);
            fs::create_dir_all(&group).unwrap();
            fs::write(group.join("memory.oom.group"), "0\n").unwrap();
        }
        let policy = Arc::new(policy::load(&[Source::new("test", format!("version: 1\nrules: []\n{policy}"))]).unwrap().policy);
        let fd = open(dir.path(), OFlags::RDONLY | OFlags::DIRECTORY, FileMode::empty()).unwrap();
        let tree = Tree::scan(Arc::new(Root { path: dir.path().into(), dir: fd }), &policy, 100).unwrap();
        Machine { _dir: dir, tree, policy }
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
fn never_on_our_own_group_or_one_above_it() {
    let machine = Machine::new("kernel: {oom_group: /**}\n", &["t/us/x", "t/a"]);
    assert_eq!(machine.wanted(machine.own("/t/us")), ["/t/a", "/t/us/x"]);
}

#[test]
fn nowhere_if_the_policy_only_observes() {
    let machine = Machine::new("mode: observe\nkernel: {oom_group: /**}\n", &["t/a"]);
    assert!(machine.wanted(Own::Outside).is_empty());
}
