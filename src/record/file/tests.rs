use std::collections::VecDeque;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// Takes so many bytes of each write, or fails.
struct Flaky {
    steps: VecDeque<io::Result<usize>>,
    got: Vec<u8>,
}

impl Write for Flaky {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.steps.pop_front().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
        self.got.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(path: &Path) -> JournalFile {
    JournalFile::open(JournalTo::File(path.into())).expect("it opens")
}

#[test]
fn a_half_line_is_closed_before_the_next() {
    let full = || Err(Errno::ENOSPC.into());
    let steps = VecDeque::from([
        Ok(4),
        Err(Errno::EINTR.into()),
        Ok(100),
        Ok(3),
        full(), // "{\"b" is left
        full(), // nothing more goes
        Ok(1),
        full(), // the newline alone went
        Ok(100),
    ]);
    let (mut out, mut half) = (Flaky { steps, got: Vec::new() }, HalfLine::default());
    assert!(half.write(&mut out, "{\"a\":1}").is_ok());
    assert!(half.write(&mut out, "{\"b\":1}").is_err());
    assert!(half.write(&mut out, "{\"c\":1}").is_err());
    assert!(half.write(&mut out, "{\"d\":1}").is_err());
    assert!(half.write(&mut out, "{\"e\":1}").is_ok());
    assert!(half.write(&mut out, "{\"f\":1}").is_ok());
    assert_eq!(String::from_utf8_lossy(&out.got), "{\"a\":1}\n{\"b\n{\"e\":1}\n{\"f\":1}\n");
}

#[test]
fn lines_are_appended_and_the_mode_is_for_the_group() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal");
    open(&path).write("one").expect("written");
    open(&path).write("two").expect("written");
    assert_eq!(std::fs::read_to_string(&path).expect("read"), "one\ntwo\n");
    assert_eq!(path.metadata().expect("there").permissions().mode() & 0o7777 & !0o640, 0);
}

#[test]
fn a_line_that_an_earlier_run_left_half_is_closed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal");
    std::fs::write(&path, "{\"cut").expect("written");
    open(&path).write("{}").expect("written");
    assert_eq!(std::fs::read_to_string(&path).expect("read"), "{\"cut\n{}\n");
}

#[test]
fn a_journal_that_was_moved_or_removed_is_opened_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, old) = (dir.path().join("journal"), dir.path().join("journal.1"));
    let mut journal = open(&path);
    journal.write("one").expect("written");
    std::fs::rename(&path, &old).expect("moved");
    journal.write("two").expect("written");
    std::fs::remove_file(&path).expect("removed");
    journal.write("three").expect("written");
    assert_eq!(std::fs::read_to_string(&old).expect("read"), "one\n");
    assert_eq!(std::fs::read_to_string(&path).expect("read"), "three\n");
}

#[test]
fn a_directory_that_vanished_costs_lines_until_it_is_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let sub = dir.path().join("sub");
    std::fs::create_dir(&sub).expect("made");
    let path = sub.join("journal");
    let mut journal = open(&path);
    std::fs::remove_dir_all(&sub).expect("removed");
    assert!(journal.write("lost").is_err());
    std::fs::create_dir(&sub).expect("made");
    journal.write("kept").expect("written");
    assert_eq!(std::fs::read_to_string(&path).expect("read"), "kept\n");
}

#[test]
fn a_full_disk_is_an_error_and_a_missing_directory_says_what_to_do() {
    let mut full = open(Path::new("/dev/full"));
    assert_eq!(full.write("{}").expect_err("full").raw_os_error(), Some(libc::ENOSPC));
    full.flush();
    let error = JournalFile::open(JournalTo::File("/nowhere/at/all".into())).expect_err("no directory").to_string();
    assert!(error.starts_with("journal /nowhere/at/all: ") && error.contains("--journal"), "{error}");
}

#[test]
fn a_fifo_without_a_reader_does_not_stop_the_recorder() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("made");
    // Opened for reading and writing it always has a reader; it is full in the end, and still nobody waits.
    let mut journal = open(&path);
    let line = "x".repeat(5000);
    assert!((0..1000).any(|_| journal.write(&line).is_err()));
}

#[test]
fn journals_are_named_as_on_the_command_line() {
    for (text, to) in [("-", JournalTo::Stdout), ("", JournalTo::Nowhere), ("/a", JournalTo::File("/a".into()))] {
        assert_eq!(text.parse(), Ok(to));
    }
}
