//! Trees of ordinary files stand in for a cgroup file system: reading is the same.

use std::fs;
use std::io::Write as _;

use rustix::fs::open;

use super::*;

fn tree() -> (tempfile::TempDir, Arc<Root>) {
    let dir = tempfile::tempdir().unwrap();
    let fd = open(dir.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let root = Arc::new(Root { path: dir.path().into(), dir: fd });
    (dir, root)
}

#[test]
fn missing_files_are_none_and_broken_ones_name_themselves() {
    let (dir, root) = tree();
    fs::create_dir(dir.path().join("a")).unwrap();
    fs::write(dir.path().join("a/memory.current"), "4096\n").unwrap();
    fs::write(dir.path().join("a/memory.max"), "12").unwrap();
    let group = Group::open(&root, None, GroupPath::from_bytes(b"/a")).unwrap();
    let mut buffer = ReadBuf::new();
    assert_eq!(group.read(File::Current, &mut buffer, parse::value).unwrap(), Some(4096));
    assert_eq!(group.read(File::High, &mut buffer, parse::limit).unwrap(), None);
    let error = group.read(File::Max, &mut buffer, parse::limit).unwrap_err();
    assert_eq!(error.to_string(), "/a/memory.max: the file ends in mid-line");
    group.hold(File::Current, None).unwrap();
    group.hold(File::High, Some(&mut ReadBuf::new())).unwrap();
    assert_eq!(group.descriptors(), 2);
    fs::write(dir.path().join("a/memory.current"), "8192\n").unwrap();
    assert_eq!(group.read(File::Current, &mut buffer, parse::value).unwrap(), Some(8192));
}

#[test]
fn another_group_under_the_same_name_is_not_this_group() {
    let (dir, root) = tree();
    fs::create_dir(dir.path().join("a")).unwrap();
    let mut group = Group::open(&root, None, GroupPath::from_bytes(b"/a")).unwrap();
    group.release_dir();
    assert!(group.reopen_dir().is_ok());
    fs::rename(dir.path().join("a"), dir.path().join("old")).unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    fs::write(dir.path().join("a/memory.current"), "1\n").unwrap();
    assert_eq!(group.reopen_dir().unwrap_err(), Errno::NODEV);
    assert!(group.read(File::GroupEvents, &mut ReadBuf::new(), parse::populated).unwrap_err().is_gone());
}

#[test]
fn only_files_that_every_group_has_tell_that_a_group_is_gone() {
    let failed = |path: &[u8], file, errno| ReadError { group: GroupPath::from_bytes(path), file, cause: Cause::Errno(errno) };
    for errno in [Errno::NODEV, Errno::NOENT] {
        assert!(failed(b"/a", File::GroupEvents, errno).is_gone() && failed(b"/a", File::Procs, errno).is_gone());
        // The controller was switched off, or this kernel has no such file: the group may well be there.
        for file in [File::Current, File::Stat, File::SwapCurrent, File::OomGroup, File::EventsLocal, File::Pressure, File::Kill] {
            assert!(!failed(b"/a", file, errno).is_gone(), "{file:?} {errno}");
        }
        assert!(!failed(b"/", File::GroupEvents, errno).is_gone(), "the root has no such file");
    }
    for errno in [Errno::MFILE, Errno::NOMEM, Errno::ACCESS, Errno::AGAIN] {
        assert!(!failed(b"/a", File::GroupEvents, errno).is_gone(), "{errno}");
    }
}

#[test]
fn process_lists_longer_than_the_buffer_are_read_whole() {
    let (dir, root) = tree();
    fs::create_dir(dir.path().join("a")).unwrap();
    let mut file = fs::File::create(dir.path().join("a/cgroup.procs")).unwrap();
    for pid in 1..=20_000 {
        writeln!(file, "{pid}").unwrap();
    }
    let group = Group::open(&root, None, GroupPath::from_bytes(b"/a")).unwrap();
    let mut sum = 0i64;
    group
        .each_process(&mut ReadBuf::new(), |process| {
            if let parse::Process::Pid(pid) = process {
                sum += i64::from(pid);
            }
            true
        })
        .unwrap();
    assert_eq!(sum, 20_000 * 20_001 / 2);
}

#[test]
fn a_garbled_process_list_is_an_error_not_a_pid() {
    let (dir, root) = tree();
    fs::create_dir(dir.path().join("a")).unwrap();
    fs::write(dir.path().join("a/cgroup.procs"), "12\n-4\n").unwrap();
    let group = Group::open(&root, None, GroupPath::from_bytes(b"/a")).unwrap();
    let mut seen = Vec::new();
    let result = group.each_process(&mut ReadBuf::new(), |process| {
        seen.push(process);
        true
    });
    assert_eq!(seen, [parse::Process::Pid(12)]);
    assert_eq!(result.unwrap_err().to_string(), "/a/cgroup.procs: not a number where one belongs");
}
