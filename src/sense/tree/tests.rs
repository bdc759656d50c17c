//! Ordinary directories stand in for a cgroup file system: names, identities and inotify are the same.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};

use super::*;
use crate::policy::model::{Mode as PolicyMode, Policy};
use crate::sense::look::{Finding, Visit};
use crate::sense::watch::Happening;

fn policy() -> Arc<Policy> {
    Arc::new(Policy {
        hash: "test".into(),
        mode: PolicyMode::Enforce,
        exclude: vec![],
        importance: vec![],
        rules: vec![],
        oom_group: None,
        node_limit: None,
        kill_one_in: None,
        oomd_xattrs: true,
        hold: None,
        limit: None,
    })
}

fn start(dir: &Path) -> Tree {
    let fd = open(dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let root = Arc::new(Root { path: dir.into(), dir: fd });
    let mut tree = Tree::scan(root, &policy(), 100).unwrap();
    tree.changes.clear();
    tree
}

/// Reads and looks until there is nothing more.
fn settle(tree: &mut Tree) {
    for _ in 0..10_000 {
        let noticed = tree.update(Duration::ZERO).unwrap();
        let found = tree.take_findings(Duration::ZERO);
        tree.settle_due(Duration::MAX);
        if !noticed && !found && tree.young.is_empty() {
            return;
        }
    }
    panic!("inotify never ran dry");
}

/// What looks, in place.
fn looker(tree: &mut Tree) -> &mut Looker {
    match &mut tree.scout {
        Scout::Here(looker, _) => looker,
        Scout::Away(..) => panic!("a thread looks"),
    }
}

fn at(tree: &Tree, path: &str) -> Slot {
    tree.slot_at(&GroupPath::from_bytes(path.as_bytes())).unwrap()
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
    assert_eq!(looker(&mut tree).budget.used, 1, "only the root's directory");
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
    tree.rescan_here();
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

fn watching(glob: &str) -> Arc<Policy> {
    let text = format!("version: 1\nrules:\n  - name: r\n    watch: {glob}\n    when:\n      - event: oom_kill\n");
    Arc::new(crate::policy::load(&[crate::policy::Source::new("test", text)]).unwrap().policy)
}

#[test]
fn a_rule_on_the_root_needs_no_timer() {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = start(dir.path());
    tree.reclass(&watching("/"));
    settle(&mut tree);
    assert!(!tree.needs_timer(), "the real root has no memory.events to wait for");
}

#[test]
fn what_a_rescan_finds_counts_from_what_is_read_and_what_was_born_before_our_eyes_from_zero() {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = start(dir.path());
    let policy = watching("/*");
    tree.reclass(&policy);
    settle(&mut tree);
    let make = |name: &str| {
        // Moved in as a whole, so that its files are there when it is noticed.
        let made = tempfile::tempdir().unwrap().keep();
        fs::write(made.join("memory.events.local"), "oom_kill 7\n").unwrap();
        fs::rename(made, dir.path().join(name)).unwrap();
    };
    make("found");
    tree.rescan_here();
    let found = tree.get(tree.slot_at(&GroupPath::from_bytes(b"/found")).unwrap()).unwrap();
    assert_eq!(found.events.oom_kill, Some(7), "old news");
    make("born");
    let root = tree.get(Tree::ROOT).unwrap().group.id;
    tree.happened(root, Happening::Created(b"born".to_vec()), Duration::ZERO);
    tree.hand_over();
    tree.take_findings(Duration::ZERO);
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
    looker(&mut tree).budget.limit = 0;
    tree.reclass(&watching("/a/*"));
    settle(&mut tree);
    assert!(tree.get(slot).unwrap().has_memory);
}

/// What a thread would have found by now, kept back as if it had not come yet.
fn findings(tree: &mut Tree) -> Vec<Finding> {
    std::iter::from_fn(|| tree.scout.finding()).collect()
}

fn notice(tree: &mut Tree, what: Happening) {
    let root = tree.get(Tree::ROOT).unwrap().group.id;
    tree.happened(root, what, Duration::ZERO);
    tree.hand_over();
}

fn created(name: &str) -> Happening {
    Happening::Created(name.into())
}

fn removed(name: &str) -> Happening {
    Happening::Removed(name.into())
}

#[test]
fn a_group_removed_while_it_is_told_of_leaves_no_ghost() {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = start(dir.path());
    fs::create_dir(dir.path().join("a")).unwrap();
    notice(&mut tree, created("a"));
    let first = findings(&mut tree);
    fs::remove_dir(dir.path().join("a")).unwrap();
    // The removal is noticed before the tree knows of the group.
    notice(&mut tree, removed("a"));
    let second = findings(&mut tree);
    for finding in first.into_iter().chain(second) {
        tree.apply(finding, Duration::ZERO);
    }
    settle(&mut tree);
    assert_eq!(paths(&tree), ["/"]);
    assert_eq!((looker(&mut tree).budget.used, tree.watches.count()), (1, 1));
}

#[test]
fn created_removed_created_ends_with_the_last_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = start(dir.path());
    let a = dir.path().join("a");
    let mut all = Vec::new();
    fs::create_dir(&a).unwrap();
    notice(&mut tree, created("a"));
    all.extend(findings(&mut tree));
    // Kept, so that its inode number is not given again.
    fs::rename(&a, dir.path().join("kept")).unwrap();
    notice(&mut tree, removed("a"));
    all.extend(findings(&mut tree));
    fs::create_dir(&a).unwrap();
    notice(&mut tree, created("a"));
    all.extend(findings(&mut tree));
    for finding in all {
        tree.apply(finding, Duration::ZERO);
    }
    let id = Group::open(&tree.root, None, GroupPath::from_bytes(b"/a")).unwrap().id;
    assert_eq!(tree.get(at(&tree, "/a")).unwrap().group.id, id);
    assert_eq!(paths(&tree), ["/", "/a"], "nobody told of the other name");
}

#[test]
fn what_is_found_below_a_group_that_is_gone_by_then_is_let_go() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    let mut tree = start(dir.path());
    let slot = at(&tree, "/a");
    let a = tree.get(slot).unwrap().group.id;
    fs::create_dir(dir.path().join("a/b")).unwrap();
    tree.happened(a, created("b"), Duration::ZERO);
    tree.hand_over();
    let late = findings(&mut tree);
    fs::remove_dir_all(dir.path().join("a")).unwrap();
    tree.apply(Finding::Removed(a), Duration::ZERO);
    late.into_iter().for_each(|finding| tree.apply(finding, Duration::ZERO));
    settle(&mut tree);
    assert_eq!(paths(&tree), ["/"]);
    assert_eq!((looker(&mut tree).budget.used, tree.watches.count(), tree.degraded()), (1, 1, 0));
}

#[test]
fn a_group_that_is_told_of_twice_stands_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = start(dir.path());
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    notice(&mut tree, created("a"));
    // A scan that set out before the tree was told.
    let root = tree.get(Tree::ROOT).unwrap();
    let (group, standing) = (Arc::clone(&root.group), root.standing());
    tree.scout.send(Task::Scan(vec![Visit { group, standing, unwatched: false, children: Some(vec![]) }], None));
    settle(&mut tree);
    assert_eq!(paths(&tree), ["/", "/a", "/a/b"]);
    assert_eq!((tree.watches.count(), tree.degraded()), (3, 0));
    // The watches are theirs still.
    fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
    settle(&mut tree);
    assert_eq!(paths(&tree), ["/", "/a", "/a/b", "/a/b/c"]);
}

#[test]
fn an_inspection_finds_what_no_notice_told_of_and_says_when_it_is_done() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    let mut tree = start(dir.path());
    let slot = at(&tree, "/a");
    let a = tree.get(slot).unwrap().group.id;
    fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
    tree.inspect(a, true, &[]);
    assert_eq!(tree.take_inspected(), None);
    while tree.take_findings(Duration::ZERO) {}
    assert_eq!((tree.count_below(slot), tree.take_inspected(), tree.take_inspected()), (2, Some(a), None));
}

#[test]
fn who_is_counted_by_another_policy_is_read_before_anything_is_compared() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    fs::write(dir.path().join("a/memory.events.local"), "oom_kill 7\n").unwrap();
    let mut tree = start(dir.path());
    let slot = at(&tree, "/a");
    tree.reclass(&watching("/*"));
    assert!(!tree.get(slot).unwrap().counted, "old news would be news");
    settle(&mut tree);
    let node = tree.get(slot).unwrap();
    assert!(node.counted);
    assert_eq!(node.events.oom_kill, Some(7));
}

#[test]
fn descriptors_are_for_those_whom_a_judgement_reads() {
    let text = "
version: 1
rules:
  - {name: node, watch: /, when: [lms: oom], victim: {among: /t/*}}
  - {name: below, watch: /s/*, when: [event: oom]}
  - {name: leaves, watch: /l, when: [event: oom], victim: {among: leaves}}
";
    let source = crate::policy::Source::new("test", text);
    let policy = crate::policy::load(&[source]).unwrap().policy;
    let judged = |path: &str| {
        let mut standing: Option<Standing> = None;
        let ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
        for path in std::iter::once("/").chain(ends.map(|end| &path[..end])) {
            let path = GroupPath::from_bytes(path.as_bytes());
            standing = Some(Standing::of(&policy, &path, standing.as_ref(), &EntrySet::EMPTY));
        }
        standing.unwrap().judged
    };
    // The subject itself, who may die, and what dies with them.
    for path in ["/", "/t/a", "/t/a/b", "/s/a", "/s/a/b", "/l", "/l/a/b"] {
        assert!(judged(path), "{path}");
    }
    for path in ["/t", "/s", "/other", "/other/a/b"] {
        assert!(!judged(path), "{path}");
    }
}

#[test]
fn while_memory_is_short_a_new_group_is_held_whole_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = start(dir.path());
    tree.reclass(&watching("/*"));
    settle(&mut tree);
    let make = |name: &str| {
        fs::create_dir(dir.path().join(name)).unwrap();
        for file in ["memory.stat", "cgroup.procs"] {
            fs::write(dir.path().join(name).join(file), "").unwrap();
        }
    };
    let look = |tree: &mut Tree| {
        tree.update(Duration::ZERO).unwrap();
        while tree.take_findings(Duration::ZERO) {}
    };
    make("before");
    look(&mut tree);
    let before = at(&tree, "/before");
    assert!(!tree.get(before).unwrap().group.is_held_whole(), "it may be gone in a moment");
    tree.set_urgent(true);
    make("then");
    look(&mut tree);
    assert!(tree.get(before).unwrap().group.is_held_whole() && tree.get(at(&tree, "/then")).unwrap().group.is_held_whole());
}

#[test]
fn the_thread_finds_what_looking_in_place_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = start(dir.path());
    let mail = Arc::new(nix::sys::eventfd::EventFd::new().unwrap());
    tree.send_scout(Arc::clone(&mail)).unwrap();
    for at in 0..100 {
        fs::create_dir_all(dir.path().join(format!("g{at}/below"))).unwrap();
    }
    for at in 50..100 {
        fs::remove_dir_all(dir.path().join(format!("g{at}"))).unwrap();
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    // Everything read, and everything that was handed over is done.
    while tree.update(Duration::ZERO).unwrap() | tree.take_findings(Duration::ZERO) || tree.len() != 101 {
        assert!(std::time::Instant::now() < deadline, "{:?}", paths(&tree));
        std::thread::yield_now();
    }
}

#[test]
fn files_that_could_not_be_opened_anew_are_opened_later() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    let mut tree = start(dir.path());
    let slot = at(&tree, "/a");
    let before = Arc::clone(&tree.get(slot).unwrap().group);
    // As when descriptors are short at the moment at which a controller comes or goes; told twice, it waits once.
    tree.apply(Finding::NotReopened(before.id), Duration::ZERO);
    tree.apply(Finding::NotReopened(before.id), Duration::ZERO);
    assert_eq!(tree.young.len(), 1);
    tree.settle_due(Duration::MAX);
    settle(&mut tree);
    let after = &tree.get(at(&tree, "/a")).unwrap().group;
    assert_eq!(after.id, before.id);
    assert!(!Arc::ptr_eq(after, &before), "what was held may be dead");
}

#[test]
fn what_could_not_be_told_of_a_group_stays_as_it_was_and_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let a = dir.path().join("a");
    fs::create_dir(&a).unwrap();
    fs::write(a.join("memory.current"), "1\n").unwrap();
    fs::write(a.join("cgroup.type"), "threaded\n").unwrap();
    let mut tree = start(dir.path());
    settle(&mut tree);
    let known = |tree: &Tree| {
        let node = tree.get(at(tree, "/a")).unwrap();
        (node.has_memory, node.threaded)
    };
    assert_eq!(known(&tree), (true, true));
    // A link to itself can't be opened by anybody, and is there.
    for file in ["memory.current", "cgroup.type"] {
        fs::remove_file(a.join(file)).unwrap();
        std::os::unix::fs::symlink(file, a.join(file)).unwrap();
    }
    let slot = at(&tree, "/a");
    tree.settle(slot, false);
    while tree.take_findings(Duration::ZERO) {}
    assert_eq!(known(&tree), (true, true));
    assert_eq!(tree.young.len(), 1, "it is looked at again");
    fs::remove_file(a.join("memory.current")).unwrap();
    fs::remove_file(a.join("cgroup.type")).unwrap();
    settle(&mut tree);
    assert_eq!(known(&tree), (false, false));
}
