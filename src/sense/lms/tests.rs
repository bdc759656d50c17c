//! Against ordinary files: what is opened, what is read, and the exact bytes of each command.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::*;
use crate::cgroup::GroupId;
use crate::policy::model::LmsLevel;

fn stand_in(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("oom_notifier");
    fs::write(&path, text).unwrap();
    (dir, path)
}

#[test]
fn without_a_module_there_is_nothing_to_open() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Lms::open(&dir.path().join("oom_notifier")).unwrap().is_none());
    let error = Lms::open(&stand_in("").1.join("below-a-file")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR));
}

#[test]
fn each_read_begins_at_the_beginning() {
    let (_dir, path) = stand_in(REPORT);
    let (lms, mut buffer) = (Lms::open(&path).unwrap().unwrap(), ReadBuf::new());
    assert_eq!(lms.read(&mut buffer).unwrap().level, Some(LmsLevel::Kill));
    fs::write(&path, REPORT.replace("level kill", "level ok").replace("seq 7", "seq 8")).unwrap();
    let report = lms.read(&mut buffer).unwrap();
    assert_eq!((report.level, report.seq), (None, 8));
    fs::write(&path, "level ok\nseq").unwrap();
    assert_eq!(lms.read(&mut buffer).unwrap_err().to_string(), "/proc/oom_notifier: the file ends in mid-line");
    fs::write(&path, vec![b'x'; 64 * 1024]).unwrap();
    assert_eq!(lms.read(&mut buffer), Err(LmsError::Errno(Errno::TOOBIG)));
}

#[test]
fn commands_are_the_modules() {
    let (_dir, path) = stand_in("");
    let lms = Lms::open(&path).unwrap().unwrap();
    assert!(lms.writable);
    lms.register(Duration::from_millis(500)).unwrap();
    lms.tell_swap_total((1 << 30) + 1023).unwrap();
    lms.ack(u64::MAX, Some(GroupId(u64::MAX))).unwrap();
    lms.ack(7, None).unwrap();
    lms.pass(12).unwrap();
    let mut table = Table::new();
    lms.write_table(&table).unwrap();
    table.clear(Some(Duration::from_secs(60)));
    assert!(table.spare(GroupId(41)));
    let mut lines = Lines::default();
    lines.rule(4, false);
    assert!(lines.among("/t/*") && table.push(&lines));
    lms.write_table(&table).unwrap();
    lms.release().unwrap();
    let commands = "handler 500\nswap_total 1048576\nack 18446744073709551615 18446744073709551615\nack 7\npass 12\nclear\ntable keep 60\nspare 41\nrule at_least=4\namong /t/*\nrelease\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), commands);
}

/// Its hold would expire otherwise, and a second group die.
#[test]
fn module_that_takes_no_group_in_an_answer_is_answered_without_one() {
    let (_dir, path) = stand_in("");
    let lms = Lms::open(&path).unwrap().unwrap();
    lms.refuses.lock().unwrap().push(("ack 7 ", Errno::INVAL));
    lms.ack(7, Some(GroupId(41))).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "ack 7\n");
    // Any other refusal is the answer, and so is that of the plain form.
    for (refused, errno) in [("ack 8", Errno::STALE), ("ack 9", Errno::INVAL)] {
        lms.refuses.lock().unwrap().push((refused, errno));
    }
    assert_eq!(lms.ack(8, Some(GroupId(41))), Err(Errno::STALE));
    assert_eq!(lms.ack(9, Some(GroupId(41))), Err(Errno::INVAL));
    assert_eq!(fs::read_to_string(&path).unwrap(), "ack 7\n");
}

#[test]
fn who_may_only_read_hears_and_can_not_speak() {
    let (_dir, path) = stand_in(REPORT);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    let lms = Lms::open(&path).unwrap().unwrap();
    // Root may write whatever the mode says.
    let root = rustix::process::geteuid().is_root();
    assert_eq!(lms.writable, root);
    assert_eq!(lms.read(&mut ReadBuf::new()).unwrap().seq, 7);
    let read_only = Lms { writable: false, ..lms };
    assert_eq!(read_only.ack(7, None), Err(Errno::ACCESS));
    assert_eq!(fs::read_to_string(&path).unwrap(), REPORT);
}
