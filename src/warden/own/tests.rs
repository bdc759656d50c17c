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
    buffer.only_held(false);
    let b = tree.slot_at(&GroupPath::from_bytes(b"/b")).and_then(|slot| tree.get(slot)).unwrap().group.id;
    assert_eq!(finder.find(&tree, &mut buffer), Own::Inside(b));
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
