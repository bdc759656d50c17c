//! On ordinary directories that stand in for groups.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::cgroup::root::Root;

const PID: i32 = 4242;

fn tree(dir: &Path) -> Tree {
    let policy = crate::policy::load(&[crate::policy::Source::new("test", "version: 1\nrules: []\n")]).unwrap().policy;
    let dir_fd = open(dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    Tree::scan(Arc::new(Root { path: dir.into(), dir: dir_fd }), &Arc::new(policy), 100).unwrap()
}

fn group(dir: &Path, name: &str, procs: &str) {
    fs::create_dir(dir.join(name)).unwrap();
    fs::write(dir.join(name).join("cgroup.procs"), procs).unwrap();
}

/// As [`place`] does with the group that it makes for hooks.
fn mark(group: &Path) {
    rustix::fs::setxattr(group, "user.oomwarden_hooks", b"1", rustix::fs::XattrFlags::empty()).unwrap();
}

fn id_of(tree: &Tree, path: &str) -> GroupId {
    tree.slot_at(&GroupPath::from_bytes(path.as_bytes())).and_then(|slot| tree.get(slot)).unwrap().group.id
}

fn catch_up(tree: &mut Tree) {
    tree.update(Duration::ZERO).unwrap();
    while tree.take_findings(Duration::ZERO) {}
}

#[test]
fn who_is_outside_stays_so_while_nothing_may_be_opened_and_is_looked_for_again_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let own = tempfile::NamedTempFile::new().unwrap();
    fs::write(own.path(), "0::/elsewhere\n").unwrap();
    fs::write(dir.path().join("cgroup.procs"), "1\n").unwrap();
    group(dir.path(), "a", "1\n");
    let mut tree = tree(dir.path());
    let mut finder = Finder::at(own.path().to_str().unwrap(), PID).unwrap();
    let mut buffer = ReadBuf::new();
    assert_eq!(finder.find(&tree, &mut buffer), Own::Outside);
    // Out of memory: who came since can't be read, and we did not move.
    buffer.only_held(true);
    group(dir.path(), "b", &format!("{PID}\n"));
    catch_up(&mut tree);
    assert_eq!(finder.find(&tree, &mut buffer), Own::Outside, "or else nobody could be killed");
    let b = id_of(&tree, "/b");
    assert!(finder.doubts(b) && !finder.doubts(id_of(&tree, "/a")));
    buffer.only_held(false);
    assert_eq!(finder.find(&tree, &mut buffer), Own::Inside(b));
}

#[test]
fn the_group_of_our_hooks_is_ours_too_wherever_it_comes_from() {
    let dir = tempfile::tempdir().unwrap();
    let own = tempfile::NamedTempFile::new().unwrap();
    fs::write(own.path(), "0::/w.service/daemon\n").unwrap();
    fs::write(dir.path().join("cgroup.procs"), "1\n").unwrap();
    group(dir.path(), "w.service", "");
    group(dir.path(), "w.service/daemon", &format!("{PID}\n"));
    group(dir.path(), "w.service/other", "7\n");
    group(dir.path(), "hooks", "8\n");
    let mut tree = tree(dir.path());
    let mut finder = Finder::at(own.path().to_str().unwrap(), PID).unwrap();
    let mut buffer = ReadBuf::new();
    assert_eq!(finder.find(&tree, &mut buffer), Own::Inside(id_of(&tree, "/w.service/daemon")));
    assert_eq!(finder.hooks(&tree), None);
    group(dir.path(), "w.service/hooks", "9\n");
    catch_up(&mut tree);
    assert_eq!(finder.find(&tree, &mut buffer), Own::Inside(id_of(&tree, "/w.service/daemon")));
    assert_eq!(finder.hooks(&tree), None, "a name alone makes nobody ours");
    // Nor does it where nothing may be opened: that was looked at already. A newcomer might be ours there.
    buffer.only_held(true);
    finder.find(&tree, &mut buffer);
    assert_eq!(finder.hooks(&tree), None);
    let known = finder.hooks.take();
    finder.find(&tree, &mut buffer);
    assert_eq!(finder.hooks(&tree), tree.slot_at(&GroupPath::from_bytes(b"/w.service/hooks")));
    finder.hooks = known;
    buffer.only_held(false);
    // Started in `daemon`, a reload brings the first hook: we are not moved.
    mark(&dir.path().join("w.service/hooks"));
    assert_eq!(finder.find(&tree, &mut buffer), Own::Inside(id_of(&tree, "/w.service/daemon")));
    assert_eq!(finder.hooks(&tree), tree.slot_at(&GroupPath::from_bytes(b"/w.service/hooks")));
    // Moved: what has that name elsewhere is somebody else's.
    fs::write(dir.path().join("w.service/daemon/cgroup.procs"), "").unwrap();
    fs::write(dir.path().join("w.service/other/cgroup.procs"), format!("{PID}\n")).unwrap();
    fs::write(own.path(), "0::/w.service/other\n").unwrap();
    assert_eq!(finder.find(&tree, &mut buffer), Own::Inside(id_of(&tree, "/w.service/other")));
    assert_eq!(finder.hooks(&tree), None);
    // In a cgroup namespace of its own the base is the root.
    fs::write(dir.path().join("w.service/other/cgroup.procs"), "").unwrap();
    group(dir.path(), "daemon", &format!("{PID}\n"));
    fs::write(own.path(), "0::/daemon\n").unwrap();
    mark(&dir.path().join("hooks"));
    catch_up(&mut tree);
    assert_eq!(finder.find(&tree, &mut buffer), Own::Inside(id_of(&tree, "/daemon")));
    assert_eq!(finder.hooks(&tree), tree.slot_at(&GroupPath::from_bytes(b"/hooks")));
}

#[test]
fn who_was_moved_while_nothing_may_be_opened_can_not_be_told() {
    let dir = tempfile::tempdir().unwrap();
    let own = tempfile::NamedTempFile::new().unwrap();
    fs::write(own.path(), "0::/elsewhere\n").unwrap();
    fs::write(dir.path().join("cgroup.procs"), "1\n").unwrap();
    let tree = tree(dir.path());
    let mut finder = Finder::at(own.path().to_str().unwrap(), PID).unwrap();
    let mut buffer = ReadBuf::new();
    assert_eq!(finder.find(&tree, &mut buffer), Own::Outside);
    buffer.only_held(true);
    fs::write(own.path(), "0::/somewhere\n").unwrap();
    assert_eq!(finder.find(&tree, &mut buffer), Own::Unknown);
}

#[test]
fn outside_an_unreadable_newcomer_might_be_ours_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let own = tempfile::NamedTempFile::new().unwrap();
    fs::write(own.path(), "0::/elsewhere\n").unwrap();
    fs::write(dir.path().join("cgroup.procs"), "1\n").unwrap();
    group(dir.path(), "a", "1\n");
    let mut tree = tree(dir.path());
    let mut finder = Finder::at(own.path().to_str().unwrap(), PID).unwrap();
    let mut buffer = ReadBuf::new();
    assert_eq!(finder.find(&tree, &mut buffer), Own::Outside);
    // A process of another pid namespace, and a list that makes no sense.
    group(dir.path(), "hidden", "0\n");
    group(dir.path(), "broken", "x\n");
    group(dir.path(), "plain", "1\n");
    catch_up(&mut tree);
    for _ in 0..2 {
        assert_eq!(finder.find(&tree, &mut buffer), Own::Outside, "the others are what they were");
        let doubts = ["/a", "/plain", "/hidden", "/broken"].map(|path| finder.doubts(id_of(&tree, path)));
        assert_eq!(doubts, [false, false, true, true]);
    }
    // One can be read by now, and we are not in it.
    fs::write(dir.path().join("hidden/cgroup.procs"), "7\n").unwrap();
    assert_eq!(finder.find(&tree, &mut buffer), Own::Outside);
    assert!(!finder.doubts(id_of(&tree, "/hidden")) && finder.doubts(id_of(&tree, "/broken")));
    // And we are in the other.
    fs::write(dir.path().join("broken/cgroup.procs"), format!("{PID}\n")).unwrap();
    assert_eq!(finder.find(&tree, &mut buffer), Own::Inside(id_of(&tree, "/broken")));
    assert!(!finder.doubts(id_of(&tree, "/broken")), "it is known");
}

#[test]
fn more_unreadable_newcomers_than_can_be_kept_in_mind_leave_it_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let own = tempfile::NamedTempFile::new().unwrap();
    fs::write(own.path(), "0::/elsewhere\n").unwrap();
    fs::write(dir.path().join("cgroup.procs"), "1\n").unwrap();
    let mut tree = tree(dir.path());
    let mut finder = Finder::at(own.path().to_str().unwrap(), PID).unwrap();
    finder.doubtful = Vec::with_capacity(1);
    let mut buffer = ReadBuf::new();
    assert_eq!(finder.find(&tree, &mut buffer), Own::Outside);
    let room = finder.doubtful.capacity();
    (0..=room).for_each(|at| group(dir.path(), &format!("g{at}"), "0\n"));
    catch_up(&mut tree);
    assert_eq!(finder.find(&tree, &mut buffer), Own::Unknown);
}
