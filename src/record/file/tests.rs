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

fn rotating(path: &Path, at: u64, keep: u16) -> JournalFile {
    let rotation = Rotation { at: Some(Bytes(at)), keep };
    JournalFile::open(Destination { to: JournalTo::File(path.into()), rotation }).expect("it opens")
}

/// The texts of the journal, `.1`, `.2` and so on, as far as they are there.
fn texts(path: &Path) -> Vec<String> {
    let files = std::iter::once(path.to_owned()).chain((1..).map(|number| numbered(path, number)));
    files.map_while(|file| std::fs::read_to_string(file).ok()).collect()
}

#[test]
fn a_full_file_makes_room_and_the_oldest_goes() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal");
    let mut journal = rotating(&path, 8, 2);
    for line in ["one", "two", "three", "four", "a line that is longer than a whole file", "six", "sev"] {
        journal.write(line).expect("written");
    }
    assert_eq!(texts(&path), ["six\nsev\n", "a line that is longer than a whole file\n", "four\n"]);
    assert_eq!(path.metadata().expect("there").permissions().mode() & 0o7777 & !0o640, 0);
    // An earlier run's file counts as well.
    rotating(&path, 8, 2).write("8").expect("written");
    assert_eq!(texts(&path)[..2], ["8\n", "six\nsev\n"]);
}

#[test]
fn with_no_former_file_to_keep_the_full_one_is_dropped() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal");
    let mut journal = rotating(&path, 8, 0);
    for line in ["one", "two", "three"] {
        journal.write(line).expect("written");
    }
    assert_eq!(texts(&path), ["three\n"]);
}

#[test]
fn a_full_file_that_cannot_be_renamed_grows_on_and_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal");
    // A directory stands where the former file should go.
    std::fs::create_dir_all(numbered(&path, 1).join("sub")).expect("made");
    let mut journal = rotating(&path, 4, 1);
    journal.write("one").expect("written");
    assert!(journal.unrotated().is_none());
    journal.write("two").expect("written all the same");
    assert!(journal.unrotated().is_some() && journal.unrotated().is_none(), "told once");
    assert_eq!(std::fs::read_to_string(&path).expect("read"), "one\ntwo\n");
    std::fs::remove_dir_all(numbered(&path, 1)).expect("removed");
    journal.write("three").expect("written");
    assert_eq!(texts(&path), ["three\n", "one\ntwo\n"]);
    assert!(journal.unrotated().is_none());
}

#[test]
fn a_half_line_goes_with_its_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal");
    std::fs::write(&path, "{\"cut").expect("written");
    rotating(&path, 6, 1).write("{}").expect("written");
    assert_eq!(texts(&path), ["{}\n", "{\"cut"]);
}
