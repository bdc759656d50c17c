//! An ordinary directory stands in for a group's: user attributes are set the same way, where its
//! file system has them.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, getxattr, open, setxattr};

use super::*;
use crate::cgroup::path::GroupPath;
use crate::cgroup::root::Root;

/// A group, or nothing where attributes are not to be had.
fn group() -> Option<(tempfile::TempDir, PathBuf, Arc<Group>)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("g");
    fs::create_dir(&path).unwrap();
    if let Err(errno) = setxattr(&path, "user.test", b"", XattrFlags::empty()) {
        println!("skipped: {} has no user attributes: {errno}", path.display());
        return None;
    }
    let fd = open(dir.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let root = Arc::new(Root { path: dir.path().into(), dir: fd });
    let group = Group::open(&root, None, GroupPath::from_bytes(b"/g")).unwrap();
    Some((dir, path, Arc::new(group)))
}

fn value(path: &Path, name: &str) -> Option<String> {
    let mut text = [0; 64];
    let length = getxattr(path, name, &mut text[..]).ok()?;
    Some(String::from_utf8_lossy(&text[..length]).into_owned())
}

#[test]
fn an_attempt_is_written_when_it_returns_and_the_count_soon_after() {
    let Some((_dir, path, group)) = group() else { return };
    let marks = Marks::start().unwrap();
    for attempts in ["1", "2"] {
        // Much patience: a busy machine is no fault of the marks.
        marks.attempt(&group, Duration::from_secs(20));
        assert_eq!(value(&path, "user.oomd_ooms").as_deref(), Some(attempts));
    }
    marks.killed(&group, 3);
    marks.killed(&group, 0);
    marks.killed(&group, 4);
    // They are written in order: after this one all are there.
    marks.attempt(&group, Duration::from_secs(20));
    assert_eq!(value(&path, "user.oomd_kill").as_deref(), Some("7"));
}

#[test]
fn what_is_no_number_stays_and_is_no_trouble() {
    let Some((_dir, path, group)) = group() else { return };
    for (before, after) in [
        ("12", Ok("13")),
        ("", Ok("1")),
        ("18446744073709551614", Ok("18446744073709551615")),
        ("18446744073709551615", Err(Errno::OVERFLOW)),
        ("+1", Err(Errno::BADMSG)),
        ("1\n", Err(Errno::BADMSG)),
        ("many", Err(Errno::BADMSG)),
        ("000000000000000000000000000001", Err(Errno::RANGE)),
    ] {
        setxattr(&path, "user.oomd_ooms", before.as_bytes(), XattrFlags::empty()).unwrap();
        let result = raise(&group, ATTEMPTS, 1);
        assert_eq!(result.map(|()| value(&path, "user.oomd_ooms").unwrap()), after.map(str::to_owned), "{before:?}");
        if result.is_err() {
            assert_eq!(value(&path, "user.oomd_ooms").as_deref(), Some(before));
        }
    }
}

#[test]
fn a_group_without_its_directory_held_is_marked_too_and_one_that_is_gone_is_not() {
    let Some((_dir, path, group)) = group() else { return };
    raise(&group.unheld(), ATTEMPTS, 1).unwrap();
    assert_eq!(value(&path, "user.oomd_ooms").as_deref(), Some("1"));
    fs::remove_dir(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(raise(&group.unheld(), ATTEMPTS, 1), Err(Errno::NODEV), "another group stands there now");
    assert_eq!(value(&path, "user.oomd_ooms"), None);
}

#[test]
fn nobody_waits_longer_than_patience_allows_for_a_thread_that_is_stuck() {
    let Some((_dir, _path, group)) = group() else { return };
    // No thread takes from this queue: as if it were stuck.
    let marks = Marks(Arc::new(Shared { queue: Mutex::new(Queue::new()), more: Condvar::new(), done: Condvar::new() }));
    let before = Instant::now();
    marks.attempt(&group, Duration::from_millis(20));
    assert!(before.elapsed() >= Duration::from_millis(20), "it gave the thread its time");
    // Stuck for longer than that: nobody waits at all, however patient.
    lock(&marks.0).busy_since = Instant::now().checked_sub(Duration::from_secs(3600));
    marks.attempt(&group, Duration::from_secs(1800));
    marks.attempt(&group, Duration::ZERO);
    for _ in 0..2 * MOST_WAITING {
        marks.killed(&group, 1);
    }
    assert_eq!(lock(&marks.0).waiting.len(), MOST_WAITING, "what does not fit is left out");
    // The three attempts stand in the queue, too.
    assert_eq!(lock(&marks.0).left_out, 3 + MOST_WAITING as u64, "and counted, to be said");
}

#[test]
fn numbers_are_decimal() {
    for one in [0, 7, 10, 1234, u64::MAX] {
        assert_eq!(digits(one, &mut [0; MOST_DIGITS]), one.to_string().as_bytes());
        assert_eq!(number(one.to_string().as_bytes()), Some(one));
    }
    assert_eq!(number(b"-1"), None);
}
