//! Ordinary directories stand in for a cgroup file system: names, identities and inotify are the same.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::open;

use super::*;
use crate::policy::model::{Mode as PolicyMode, Policy};

fn policy() -> Policy {
    Policy {
        hash: "test".into(),
        mode: PolicyMode::Enforce,
        exclude: vec![],
        importance: vec![],
        rules: vec![],
        oom_group: None,
        hold: None,
        limit: None,
    }
}

fn start(dir: &Path) -> Tree {
    let fd = open(dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let root = Arc::new(Root { path: dir.into(), dir: fd });
    let mut tree = Tree::scan(root, &policy(), 100).unwrap();
    tree.changes.clear();
    tree
}

/// Reads until inotify has nothing more.
fn settle(tree: &mut Tree) {
    for _ in 0..10_000 {
        let before = tree.changes.len();
        tree.update(&policy(), Duration::ZERO).unwrap();
        tree.settle_due(Duration::MAX);
        if tree.notices.is_empty() && tree.changes.len() == before {
            return;
        }
    }
    panic!("inotify never ran dry");
}

fn paths(tree: &Tree) -> Vec<String> {
    let mut paths: Vec<_> = tree.slots().map(|slot| tree.get(slot).unwrap().group.path.to_string()).collect();
    paths.sort();
    paths
}

#[test]
fn finds_what_is_there_and_what_comes_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    let mut tree = start(dir.path());
    assert_eq!(paths(&tree), ["/", "/a", "/a/b"]);
    fs::create_dir_all(dir.path().join("a/c/d/e")).unwrap();
    settle(&mut tree);
    assert_eq!(paths(&tree), ["/", "/a", "/a/b", "/a/c", "/a/c/d", "/a/c/d/e"]);
    fs::remove_dir_all(dir.path().join("a")).unwrap();
    settle(&mut tree);
    assert_eq!(paths(&tree), ["/"]);
    assert_eq!(tree.watches.count(), 1);
    assert_eq!(tree.budget.used, 1, "only the root's directory");
}

#[test]
fn a_recreated_name_is_another_group_and_stale_removals_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = start(dir.path());
    let a = dir.path().join("a");
    fs::create_dir(&a).unwrap();
    settle(&mut tree);
    let slot = tree.slot_at(&GroupPath::from_bytes(b"/a")).unwrap();
    let (old, key) = (tree.get(slot).unwrap().group.id, tree.key(slot));
    // Kept, so that the file system does not give the same inode number again: kernfs ids are never reused.
    fs::rename(&a, dir.path().join("kept")).unwrap();
    fs::create_dir(&a).unwrap();
    fs::remove_dir(&a).unwrap();
    fs::create_dir(&a).unwrap();
    settle(&mut tree);
    let slot = tree.slot_at(&GroupPath::from_bytes(b"/a")).unwrap();
    assert_ne!(tree.get(slot).unwrap().group.id, old);
    assert!(tree.find(key).is_none(), "the old key is void");
    assert!(tree.get(slot).unwrap().group.reopen_dir().is_ok());
}

#[test]
fn hostile_names_are_ordinary() {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = start(dir.path());
    let long = [b'x'; 200];
    for name in [&b"a b"[..], b"a\nb", b"a\\x2db", &long, b"\xff\xfe", b"-", b"..."] {
        fs::create_dir(dir.path().join(OsStr::from_bytes(name))).unwrap();
        settle(&mut tree);
        let slot = tree.slot_at(&GroupPath::root().child(name)).unwrap();
        assert!(tree.get(slot).unwrap().group.reopen_dir().is_ok());
    }
    assert_eq!(tree.len(), 8);
}

#[test]
fn thousands_come_and_go_without_leaking_watches() {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = start(dir.path());
    for round in 0..20 {
        for at in 0..50 {
            fs::create_dir(dir.path().join(format!("g{round}-{at}"))).unwrap();
        }
        settle(&mut tree);
        assert_eq!(tree.len(), 51);
        for at in 0..50 {
            fs::remove_dir(dir.path().join(format!("g{round}-{at}"))).unwrap();
        }
        settle(&mut tree);
        assert_eq!((tree.len(), tree.watches.count(), tree.degraded()), (1, 1, 0));
    }
    assert!(tree.nodes.len() <= 52, "slots are used again");
}

#[test]
fn a_rescan_finds_what_notices_lost() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    let mut tree = start(dir.path());
    fs::remove_dir_all(dir.path().join("a")).unwrap();
    fs::create_dir_all(dir.path().join("c/d")).unwrap();
    tree.rescan(&policy());
    assert_eq!(paths(&tree), ["/", "/c", "/c/d"]);
    settle(&mut tree);
    assert_eq!(paths(&tree), ["/", "/c", "/c/d"], "the notices that come late change nothing");
}

#[test]
fn preorder_stays_below_its_top() {
    let dir = tempfile::tempdir().unwrap();
    for path in ["a/b/c", "a/d", "e"] {
        fs::create_dir_all(dir.path().join(path)).unwrap();
    }
    let tree = start(dir.path());
    let top = tree.slot_at(&GroupPath::from_bytes(b"/a")).unwrap();
    let (mut seen, mut next) = (Vec::new(), Some(top));
    while let Some(slot) = next {
        let node = tree.get(slot).unwrap();
        if let Some(parent) = node.parent.filter(|_| slot != top) {
            assert!(seen.contains(&tree.get(parent).unwrap().group.path.to_string()));
        }
        seen.push(node.group.path.to_string());
        next = tree.next_in_preorder(top, slot);
    }
    seen.sort();
    assert_eq!(seen, ["/a", "/a/b", "/a/b/c", "/a/d"]);
}

fn watching(glob: &str) -> Policy {
    let text = format!("version: 1\nrules:\n  - name: r\n    watch: {glob}\n    when:\n      - event: oom_kill\n");
    crate::policy::load(&[crate::policy::Source::new("test", text)]).unwrap().policy
}

#[test]
fn a_rule_on_the_root_needs_no_timer() {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = start(dir.path());
    tree.reclass(&watching("/"));
    assert!(!tree.needs_timer(), "the real root has no memory.events to wait for");
}

#[test]
fn what_a_rescan_finds_counts_from_what_is_read_and_what_was_born_before_our_eyes_from_zero() {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = start(dir.path());
    let policy = watching("/*");
    tree.reclass(&policy);
    let make = |name: &str| {
        // Moved in as a whole, so that its files are there when it is noticed.
        let made = tempfile::tempdir().unwrap().keep();
        fs::write(made.join("memory.events.local"), "oom_kill 7\n").unwrap();
        fs::rename(made, dir.path().join(name)).unwrap();
    };
    make("found");
    tree.rescan(&policy);
    let found = tree.get(tree.slot_at(&GroupPath::from_bytes(b"/found")).unwrap()).unwrap();
    assert_eq!(found.events.oom_kill, Some(7), "old news");
    make("born");
    tree.created(Tree::ROOT, b"born", &policy, Duration::ZERO);
    let born = tree.get(tree.slot_at(&GroupPath::from_bytes(b"/born")).unwrap()).unwrap();
    assert_eq!(born.events.oom_kill, None, "yet to be told");
}

#[test]
fn another_policy_forgets_no_memory_controller() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    fs::write(dir.path().join("a/memory.current"), "1\n").unwrap();
    let mut tree = start(dir.path());
    let slot = tree.slot_at(&GroupPath::from_bytes(b"/a")).unwrap();
    assert!(tree.get(slot).unwrap().has_memory);
    tree.budget.limit = 0;
    tree.reclass(&watching("/a/*"));
    assert!(tree.get(slot).unwrap().has_memory);
}
