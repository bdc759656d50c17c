//! Reading policy files: the only I/O of this room. Says nothing of what is in them.
//!
//! Commands that only look read a policy whoever wrote it ([`read_sources`]). Who acts by it reads [`read_trusted`]: what others than
//! root and oomwarden's own user may write to is refused, since a policy says who dies and what is run, mostly as root.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileType};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::diagnostic::escaped;
use super::model::{Policy, Rung};
use super::source::{MAX_SOURCE_BYTES, Source};
use crate::owners::{self, Unsafe, Writable};

/// How many files one directory may hold.
const MOST_FILES: usize = 256;
/// The link in a directory that Kubernetes mounts: all files lead through it, and it is swapped as a whole.
const DATA: &str = "..data";
/// How often a policy of several files is read until it is the same twice.
const READINGS: u32 = 20;
/// From one reading to the next.
const BETWEEN_READINGS: Duration = Duration::from_millis(50);

/// A policy that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refused.
    #[error("can't read the policy {}: {source}; {}", shown_path(path), advice(source))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Whoever reads it may wait for good.
    #[error("the policy {} is {what}: name a file (what is handed over open, such as /dev/stdin, may be a pipe)", shown_path(path))]
    NoFile {
        /// What was named.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A directory without a single `*.yaml`.
    #[error("no policy in the directory {}: put at least one file there whose name ends in .yaml", shown_path(path))]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// A directory with far too many.
    #[error("the directory {} holds more than {MOST_FILES} files *.yaml: is it the right one?", shown_path(path))]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
    /// Others may write to it.
    #[error("the policy {} is refused, since it says who is ended and what is run: {why}", shown_path(path))]
    Untrusted {
        /// The file or directory that was named.
        path: PathBuf,
        /// Where others may write.
        why: Box<Writable>,
    },
    /// Others may write to what a hook runs.
    #[error("the hook {} of rule {rule} is refused, since oomwarden runs it with its own rights: {why}", shown_path(path))]
    UntrustedHook {
        /// The rule.
        rule: String,
        /// The program as the policy names it.
        path: PathBuf,
        /// Where others may write.
        why: Box<Writable>,
    },
    /// It is never the same twice.
    #[error("the policy {} changes all the time while it is read: finish writing it", shown_path(path))]
    Changing {
        /// The first of its paths.
        path: PathBuf,
    },
}

impl ReadError {
    /// Whether the files could be read, but others may write to them.
    #[must_use]
    pub fn is_untrusted(&self) -> bool {
        matches!(self, ReadError::Untrusted { .. } | ReadError::UntrustedHook { .. })
    }

    /// The rule whose hook is refused.
    #[must_use]
    pub fn rule(&self) -> Option<&str> {
        if let ReadError::UntrustedHook { rule, .. } = self { Some(rule) } else { None }
    }
}

/// A path as messages show it: on one line, whatever its name holds.
#[must_use]
pub fn shown_path(path: &Path) -> String {
    escaped(&path.to_string_lossy())
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "make it readable for the user that runs oomwarden",
        io::ErrorKind::IsADirectory => "only files are read inside a policy directory",
        _ => "check the file and what it lies on",
    }
}

/// Reads policies in the order given; a directory stands for its files `*.yaml` in order of name, hidden ones left out.
///
/// No more than [`MAX_SOURCE_BYTES`] and one are read of a file, so that an endless one is refused by its size later.
///
/// # Errors
/// The first path that can't be read, or a directory without policies. The text says what to do.
pub fn read_sources<P: AsRef<Path>>(paths: &[P]) -> Result<Vec<Source>, ReadError> {
    read_by(paths, Trust::Anybody)
}

/// The same for who acts by the policy: all of it is refused if others than root and our own user may write to a file, to a
/// directory whose files are read, or put something else on the way there ([`owners`]). A policy of several files is read until two
/// readings are the same, so that none is half of one version and half of another.
///
/// # Errors
/// As [`read_sources`]; also where others may write, and when the files never come to rest.
pub fn read_trusted<P: AsRef<Path>>(paths: &[P]) -> Result<Vec<Source>, ReadError> {
    read_twice(paths, Trust::Owners)
}

/// As [`read_trusted`], but whoever may write to the files: for who does nothing by the policy but look.
///
/// # Errors
/// As there.
pub fn read_settled<P: AsRef<Path>>(paths: &[P]) -> Result<Vec<Source>, ReadError> {
    read_twice(paths, Trust::Anybody)
}

/// The programs of a policy's hooks: refused if others than root and our own user may write to one, or put something else in its
/// place. One that is not there is none of ours to refuse: its ladder will say so.
///
/// # Errors
/// The first of them that others may write to.
pub fn judge_hooks(policy: &Policy) -> Result<(), ReadError> {
    for rule in &policy.rules {
        for rung in &rule.ladder {
            let Rung::Hook(hook) = rung else { continue };
            let Some(program) = hook.exec.first().map(Path::new) else { continue };
            if let Err(Unsafe::Writable(why)) = owners::file(program) {
                return Err(ReadError::UntrustedHook { rule: rule.name.to_string(), path: program.to_owned(), why });
            }
        }
    }
    Ok(())
}

/// Whether Kubernetes is about to bring the links of a mounted directory in line with what they lead to: it swaps `..data` first, then
/// makes and removes links.
#[must_use]
pub fn is_between<P: AsRef<Path>>(paths: &[P]) -> bool {
    paths.iter().map(AsRef::as_ref).any(|path| {
        let behind = yaml_names(&path.join(DATA));
        behind.is_ok_and(|behind| yaml_names(path).is_ok_and(|links| links != behind))
    })
}

/// Whose files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Anybody,
    Owners,
}

fn read_twice<P: AsRef<Path>>(paths: &[P], trust: Trust) -> Result<Vec<Source>, ReadError> {
    let files = |path: &Path| fs::metadata(path).map(|there| (there.is_dir(), there.is_file()));
    let kinds: Vec<(bool, bool)> = paths.iter().filter_map(|path| files(path.as_ref()).ok()).collect();
    // One file is whole when it is closed. What is neither file nor directory (a pipe) can be read once only.
    let several = paths.len() > 1 || kinds.iter().any(|(directory, _)| *directory);
    if !several || kinds.iter().any(|(directory, file)| !directory && !file) {
        return read_by(paths, trust);
    }
    settled(|| read_by(paths, trust), || is_between(paths)).unwrap_or_else(|| {
        let path = paths.first().map(|path| path.as_ref().to_owned()).unwrap_or_default();
        Err(ReadError::Changing { path })
    })
}

/// Reads until two readings are the same, and nobody is known to be in the middle of a change. `None`: they never were.
fn settled(read: impl Fn() -> Result<Vec<Source>, ReadError>, is_between: impl Fn() -> bool) -> Option<Result<Vec<Source>, ReadError>> {
    let mut last: Option<Result<Vec<Source>, ReadError>> = None;
    let mut are_same = false;
    for reading in 0..READINGS {
        if reading > 1 {
            std::thread::sleep(BETWEEN_READINGS);
        }
        let now = read();
        are_same = last.as_ref().is_some_and(|last| same(last, &now));
        last = Some(now);
        if are_same && !is_between() {
            break;
        }
    }
    last.filter(|_| are_same)
}

/// Whether two readings are the same.
fn same(one: &Result<Vec<Source>, ReadError>, other: &Result<Vec<Source>, ReadError>) -> bool {
    match (one, other) {
        (Ok(one), Ok(other)) => {
            let texts =
                |sources: &[Source]| sources.iter().map(|source| (source.name().to_owned(), source.text().to_vec())).collect::<Vec<_>>();
            texts(one) == texts(other)
        }
        (Err(one), Err(other)) => one.to_string() == other.to_string(),
        _ => false,
    }
}

fn read_by<P: AsRef<Path>>(paths: &[P], trust: Trust) -> Result<Vec<Source>, ReadError> {
    let mut sources = Vec::new();
    for path in paths {
        let path = path.as_ref();
        let failed = |source| ReadError::Io { path: path.to_owned(), source };
        if fs::metadata(path).map_err(failed)?.is_dir() {
            if trust == Trust::Owners {
                owners::directory(path).map_err(|why| refused(path, why))?;
            }
            for file in files_of(path)? {
                sources.push(read(&file, trust)?);
            }
        } else {
            sources.push(read(path, trust)?);
        }
    }
    Ok(sources)
}

fn refused(path: &Path, why: Unsafe) -> ReadError {
    let path = path.to_owned();
    match why {
        Unsafe::Io { source, .. } => ReadError::Io { path, source },
        Unsafe::Writable(why) => ReadError::Untrusted { path, why },
    }
}

/// Whether a file of this name in a directory is part of a policy.
#[must_use]
pub fn is_policy_name(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    bytes.ends_with(b".yaml") && !bytes.starts_with(b".")
}

/// The names of a directory's policies; one more than may be at the most.
fn yaml_names(directory: &Path) -> io::Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if is_policy_name(&name) {
            names.insert(name);
        }
        if names.len() > MOST_FILES {
            break;
        }
    }
    Ok(names)
}

fn files_of(directory: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let path = directory.to_owned();
    match yaml_names(directory) {
        Err(source) => Err(ReadError::Io { path, source }),
        Ok(names) if names.len() > MOST_FILES => Err(ReadError::TooMany { path }),
        Ok(names) if names.is_empty() => Err(ReadError::Empty { path }),
        Ok(names) => Ok(names.iter().map(|name| directory.join(name)).collect()),
    }
}

fn read(path: &Path, trust: Trust) -> Result<Source, ReadError> {
    let failed = |source| ReadError::Io { path: path.to_owned(), source };
    let way = owners::follow(path);
    let handed_over = way.as_ref().is_ok_and(|end| end.handed_over);
    if trust == Trust::Owners {
        way.map_err(|why| refused(path, why))?;
    }
    // Before it is opened, since that alone may do something to a device; and of what was opened,
    // since it may be another by then.
    let judge = |kind: FileType| match no_file(kind) {
        Some(what) if !handed_over => Err(ReadError::NoFile { path: path.to_owned(), what }),
        _ => Ok(()),
    };
    judge(fs::metadata(path).map_err(failed)?.file_type())?;
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path).map_err(failed)?;
    judge(file.metadata().map_err(failed)?.file_type())?;
    // Who writes to a pipe that was handed over is waited for.
    let wait = || fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK);
    wait().map_err(|errno| failed(errno.into()))?;
    if trust == Trust::Owners {
        owners::opened(&file, path, handed_over).map_err(|why| refused(path, why))?;
    }
    let mut text = Vec::new();
    file.take(MAX_SOURCE_BYTES as u64 + 1).read_to_end(&mut text).map_err(failed)?;
    Ok(Source::new(&path.to_string_lossy(), text))
}

/// What that is, if it is neither file nor directory: reading it may never end.
fn no_file(kind: FileType) -> Option<&'static str> {
    let is = |of: bool, what| of.then_some(what);
    is(kind.is_fifo(), "a FIFO")
        .or_else(|| is(kind.is_char_device() || kind.is_block_device(), "a device"))
        .or_else(|| is(kind.is_socket(), "a socket"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sources: &[Source]) -> Vec<&str> {
        sources.iter().filter_map(|source| source.name().rsplit('/').next()).collect()
    }

    #[test]
    fn a_directory_is_its_yaml_files_in_order_of_name() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["20-b.yaml", "10-a.yaml", "notes.txt", ".hidden.yaml", "c.yml"] {
            fs::write(directory.path().join(name), name).unwrap();
        }
        let sources = read_sources(&[directory.path()]).unwrap();
        assert_eq!(names(&sources), ["10-a.yaml", "20-b.yaml"]);
        assert_eq!(sources[0].text(), b"10-a.yaml");
        let twice = read_sources(&[directory.path().join("20-b.yaml"), directory.path().join("10-a.yaml")]).unwrap();
        assert_eq!(names(&twice), ["20-b.yaml", "10-a.yaml"]);
    }

    #[test]
    fn what_can_not_be_read_is_named_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let error = read_sources(&[directory.path()]).unwrap_err().to_string();
        assert!(error.contains(directory.path().to_str().unwrap()) && error.contains("ends in .yaml"), "{error}");
        let missing = directory.path().join("none.yaml");
        let error = read_sources(&[&missing]).unwrap_err().to_string();
        assert!(error.contains("none.yaml") && error.contains("No such file") && error.contains("check the path"), "{error}");
        fs::create_dir(directory.path().join("sub.yaml")).unwrap();
        let error = read_sources(&[directory.path()]).unwrap_err().to_string();
        assert!(error.contains("sub.yaml") && error.contains("only files"), "{error}");
    }

    #[test]
    fn what_others_may_write_is_refused_by_who_acts_and_read_by_who_looks() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("10.yaml");
        fs::write(&path, "version: 1\n").unwrap();
        let bits = |path: &Path, bits| fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
        for (file, of_directory, taken) in [(0o644, 0o755, true), (0o666, 0o755, false), (0o644, 0o777, false), (0o644, 0o1777, false)] {
            bits(&path, file);
            bits(directory.path(), of_directory);
            let read = read_trusted(&[directory.path()]);
            assert_eq!(read.is_ok(), taken, "{file:o} in {of_directory:o}: {read:?}");
            assert_eq!(read.as_ref().is_err_and(ReadError::is_untrusted), !taken);
            assert!(read_sources(&[directory.path()]).is_ok() && read_settled(&[directory.path()]).is_ok());
        }
        let error = read_trusted(&[directory.path()]).unwrap_err().to_string();
        assert!(error.contains("is refused") && error.contains("mode 1777") && error.contains("chmod go-w"), "{error}");
        bits(directory.path(), 0o1777);
        assert!(read_trusted(&[&path]).is_ok(), "nobody else can replace a file of ours there");
    }

    #[test]
    fn hooks_that_others_may_write_are_refused_and_missing_ones_are_not() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("save-state");
        fs::write(&program, "#!/bin/sh\n").unwrap();
        let text = format!(
            "version: 1\nrules:\n  - name: r\n    watch: /t/*\n    when: [event: oom]\n    then:\n      - hook: {{exec: [{}], timeout: 1s}}\n      - kill: group\n",
            program.display()
        );
        let policy = crate::policy::load(&[Source::new("p", text)]).unwrap().policy;
        for (bits, taken) in [(0o755, true), (0o757, false)] {
            fs::set_permissions(&program, fs::Permissions::from_mode(bits)).unwrap();
            assert_eq!(judge_hooks(&policy).is_ok(), taken, "{bits:o}");
        }
        let error = judge_hooks(&policy).unwrap_err().to_string();
        assert!(error.contains("of rule r is refused") && error.contains("save-state") && error.contains("0757"), "{error}");
        fs::remove_file(&program).unwrap();
        assert!(judge_hooks(&policy).is_ok());
    }

    #[test]
    fn files_that_change_while_they_are_read_are_read_again() {
        use std::cell::RefCell;
        let texts = RefCell::new(vec!["c", "c", "c", "b", "a"]);
        let read = || Ok(vec![Source::new("p", texts.borrow_mut().pop().unwrap_or("c"))]);
        let settled_on = settled(read, || false).unwrap().unwrap();
        assert_eq!((settled_on[0].text(), texts.borrow().len()), (&b"c"[..], 1));
        let count = RefCell::new(0);
        let never = || {
            *count.borrow_mut() += 1;
            Ok(vec![Source::new("p", count.borrow().to_string())])
        };
        assert!(settled(never, || false).is_none());
        // Links that never fit what they lead to are somebody's own arrangement.
        assert!(settled(|| Ok(vec![Source::new("p", "a")]), || true).unwrap().is_ok());
    }

    #[test]
    fn a_mounted_directory_is_between_two_versions_until_its_links_fit() {
        use std::os::unix::fs::symlink;
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (version, names) in [("..1", &["a.yaml"][..]), ("..2", &["a.yaml", "b.yaml"])] {
            fs::create_dir(at(version)).unwrap();
            names.iter().for_each(|name| fs::write(at(version).join(name), "").unwrap());
        }
        symlink("..1", at(DATA)).unwrap();
        symlink("..data/a.yaml", at("a.yaml")).unwrap();
        assert!(!is_between(&[directory.path()]));
        symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at(DATA)).unwrap();
        assert!(is_between(&[directory.path()]));
        symlink("..data/b.yaml", at("b.yaml")).unwrap();
        assert!(!is_between(&[directory.path()]));
    }

    #[test]
    fn an_endless_file_ends() {
        use std::os::fd::AsRawFd as _;
        let zero = File::open("/dev/zero").unwrap();
        let sources = read_sources(&[format!("/proc/self/fd/{}", zero.as_raw_fd())]).unwrap();
        assert_eq!(sources[0].text().len(), MAX_SOURCE_BYTES + 1);
    }

    #[test]
    fn what_is_no_file_is_refused_unless_it_was_handed_over() {
        use std::io::Write as _;
        use std::os::fd::AsRawFd as _;
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("a.yaml");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
        for (path, what) in
            [(&*fifo, "a.yaml is a FIFO: "), (directory.path(), "a.yaml is a FIFO: "), (Path::new("/dev/zero"), "zero is a device: ")]
        {
            for read in [read_sources, read_trusted, read_settled] {
                let error = read(&[path]).unwrap_err().to_string();
                assert!(error.contains(what), "{error}");
            }
        }
        // Not there yet when it is opened: the reader waits for it.
        for read in [read_sources::<String>, read_trusted] {
            let (reader, mut writer) = std::io::pipe().unwrap();
            let slow = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                writer.write_all(b"version: 1\n").unwrap();
            });
            let sources = read(&[format!("/dev/fd/{}", reader.as_raw_fd())]).unwrap();
            assert_eq!(sources[0].text(), b"version: 1\n");
            slow.join().unwrap();
        }
    }
}
