use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

use super::*;

/// Another user: nobody.
const OTHER: u32 = 65534;

/// Tests as another user need root; anybody else hears that they did not run.
pub(crate) fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED {test}: it changes owners, which needs root");
    }
    root
}

/// Somebody who listens at a socket and takes no more connections: a connect that may block does.
pub(crate) struct Deaf {
    _socket: OwnedFd,
    _waiting: Vec<OwnedFd>,
}

impl Deaf {
    pub(crate) fn at(path: &Path) -> Deaf {
        let socket = |flags| socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let address = SocketAddrUnix::new(path).unwrap();
        let listening = socket(SocketFlags::CLOEXEC);
        bind(&listening, &address).unwrap();
        rustix::net::listen(&listening, 0).unwrap();
        let mut waiting = Vec::new();
        loop {
            let caller = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
            match connect(&caller, &address) {
                Ok(()) => waiting.push(caller),
                Err(errno) => {
                    assert_eq!(errno, Errno::AGAIN);
                    return Deaf { _socket: listening, _waiting: waiting };
                }
            }
        }
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn give(path: &Path) {
    chown(path, Some(OTHER), Some(OTHER)).unwrap();
}

/// A directory with a file in it, both sound.
fn home() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.yaml");
    fs::write(&path, "").unwrap();
    mode(&path, 0o644);
    (dir, path)
}

fn refusal(path: &Path) -> String {
    match file(path) {
        Ok(end) => format!("taken: {}", end.real.display()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn own_files_are_taken_and_what_others_may_write_is_not() {
    let (_dir, path) = home();
    assert!(file(&path).is_ok(), "{}", refusal(&path));
    for (bits, taken) in [(0o600, true), (0o644, true), (0o755, true), (0o646, false), (0o666, false), (0o642, false)] {
        mode(&path, bits);
        assert_eq!(file(&path).is_ok(), taken, "{bits:o}: {}", refusal(&path));
    }
    let said = refusal(&path);
    assert!(said.contains(&format!("{}", path.display())) && said.contains("mode 0642") && said.contains("chmod go-w"), "{said}");
}

#[test]
fn a_group_may_write_if_it_is_roots_or_the_users_own() {
    let us = |uid, gid| Us { uid, gid, unmapped: None };
    assert!(us(0, 0).trusts_group(0) && us(1000, 1000).trusts_group(0));
    assert!(us(1000, 1000).trusts_group(1000), "a user's own group");
    assert!(!us(0, 1000).trusts_group(1000), "root's primary group may be anybody's");
    assert!(!us(1000, 1000).trusts_group(100));
    if !is_root("a_group_may_write") {
        return;
    }
    let (_dir, path) = home();
    chown(&path, Some(0), Some(0)).unwrap();
    mode(&path, 0o664);
    assert!(file(&path).is_ok(), "{}", refusal(&path));
    chown(&path, Some(0), Some(50)).unwrap();
    assert!(refusal(&path).contains("group 50"), "{}", refusal(&path));
}

#[test]
fn an_acl_is_no_group_of_roots() {
    if !is_root("an_acl") {
        return;
    }
    let (_dir, path) = home();
    // Version 2; owner rw-, user 65534 rw-, group r--, mask rw-, others r--.
    let entries: [(u16, u16, u32); 5] = [(1, 6, u32::MAX), (2, 6, OTHER), (4, 4, u32::MAX), (16, 6, u32::MAX), (32, 4, u32::MAX)];
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        acl.extend(tag.to_le_bytes().into_iter().chain(rights.to_le_bytes()).chain(id.to_le_bytes()));
    }
    match rustix::fs::setxattr(&path, "system.posix_acl_access", &acl, rustix::fs::XattrFlags::empty()) {
        Ok(()) => assert!(refusal(&path).contains("ACL"), "{}", refusal(&path)),
        Err(Errno::OPNOTSUPP) => eprintln!("SKIPPED an_acl: no ACLs on the file system of {}", path.display()),
        Err(errno) => panic!("{errno}"),
    }
}

#[test]
fn files_of_another_user_and_directories_in_which_he_may_write_are_refused() {
    if !is_root("files_of_another_user") {
        return;
    }
    let (dir, path) = home();
    give(&path);
    let said = refusal(&path);
    assert!(said.contains(&format!("the file {} belongs to user 65534", path.display())) && said.contains("chown"), "{said}");
    chown(&path, Some(0), Some(0)).unwrap();
    // The directory that holds it, and one above.
    let deep = dir.path().join("a/b");
    fs::create_dir_all(&deep).unwrap();
    let below = deep.join("policy.yaml");
    fs::copy(&path, &below).unwrap();
    assert!(file(&below).is_ok());
    for (place, bits) in [(&deep, 0o777), (&dir.path().join("a"), 0o777), (&dir.path().join("a"), 0o775)] {
        mode(place, bits);
        chown(place, Some(0), Some(50)).unwrap();
        let said = refusal(&below);
        assert!(said.contains(&format!("the directory {} (", place.display())), "{said}");
        mode(place, 0o755);
        assert!(file(&below).is_ok());
    }
    give(&dir.path().join("a"));
    assert!(refusal(&below).contains("belongs to user 65534"), "{}", refusal(&below));
}

#[test]
fn in_a_sticky_directory_what_is_ours_stays_and_what_is_not_is_refused() {
    if !is_root("in_a_sticky_directory") {
        return;
    }
    let (dir, path) = home();
    mode(dir.path(), 0o1777);
    assert!(file(&path).is_ok(), "{}", refusal(&path));
    assert!(place(dir.path()).is_ok() && directory(dir.path()).is_err(), "others may add files there");
    let link = dir.path().join("link.yaml");
    symlink(&path, &link).unwrap();
    assert!(file(&link).is_ok());
    std::os::unix::fs::lchown(&link, Some(OTHER), Some(OTHER)).unwrap();
    assert!(refusal(&link).contains("the symlink "), "{}", refusal(&link));
    mode(dir.path(), 0o777);
    assert!(place(dir.path()).is_err() && file(&path).is_err());
}

#[test]
fn what_a_symlink_leads_to_is_judged_on_its_own_way() {
    let (dir, path) = home();
    let elsewhere = dir.path().join("open");
    fs::create_dir(&elsewhere).unwrap();
    fs::copy(&path, elsewhere.join("policy.yaml")).unwrap();
    let link = dir.path().join("link.yaml");
    symlink("open/../open/policy.yaml", &link).unwrap();
    assert_eq!(file(&link).unwrap().real, fs::canonicalize(&link).unwrap());
    mode(&elsewhere, 0o777);
    assert!(refusal(&link).contains(&format!("the directory {} (", fs::canonicalize(&elsewhere).unwrap().display())), "{}", refusal(&link));
    let round = dir.path().join("round");
    symlink("round", &round).unwrap();
    assert!(file(&round).is_err());
    assert!(file(&dir.path().join("none")).unwrap_err().is_missing());
    assert!(file(&path.join("below")).unwrap_err().is_missing());
}

#[test]
fn what_is_handed_over_by_a_descriptor_is_taken() {
    let (reader, _writer) = std::io::pipe().unwrap();
    let by_name = |fd: i32| PathBuf::from(format!("/dev/fd/{fd}"));
    assert!(file(&by_name(reader.as_raw_fd())).is_ok(), "{}", refusal(&by_name(reader.as_raw_fd())));
    assert!(file(Path::new("/dev/null")).is_ok() && file(Path::new("/dev/zero")).is_ok());
    let (_dir, path) = home();
    let held = fs::File::open(&path).unwrap();
    mode(&path, 0o666);
    assert!(file(&by_name(held.as_raw_fd())).is_err(), "a file stays a file");
}

#[test]
fn user_namespaces_know_whom_they_map() {
    assert!(is_mapped("         0          0 4294967295\n", OTHER));
    assert!(!is_mapped("         0       1000          1\n", OTHER));
    assert!(is_mapped("0 1000 1\n1 100000 65536\n", OTHER));
    let us = Us { uid: 0, gid: 0, unmapped: Some(OTHER) };
    let top = top().unwrap();
    let mut stat = fstat(&top).unwrap();
    stat.st_uid = OTHER;
    assert!(judge_directory(&top, &stat, Path::new("/"), us).is_ok(), "a directory outside");
    let said = judge(&top, &stat, Path::new("/"), "file", us).map_err(|step| step.about(Path::new("/"))).unwrap_err().to_string();
    assert!(said.contains("outside of this user namespace"), "a file of anybody outside: {said}");
    assert!(judge_directory(&top, &stat, Path::new("/"), Us { unmapped: None, ..us }).is_err());
}

#[test]
fn a_socket_has_its_mode_whatever_the_umask_and_follows_no_symlink() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().unwrap();
    for bits in [0o660, 0o666] {
        let path = dir.path().join(format!("{bits:o}.sock"));
        let _listener = listen(&path, bits).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o7777, bits);
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        assert_eq!(listen(&path, bits).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
    let (_home, precious) = home();
    let link = dir.path().join("link.sock");
    symlink(&precious, &link).unwrap();
    assert!(listen(&link, 0o666).is_err());
    assert_eq!(fs::metadata(&precious).unwrap().mode() & 0o7777, 0o644);
}

#[test]
fn lines_are_appended_to_files_of_our_own() {
    use std::io::Write as _;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    append(&at("journal"), 0o640).unwrap().write_all(b"one").unwrap();
    append(&at("journal"), 0o640).unwrap().write_all(b"two").unwrap();
    assert_eq!(fs::read_to_string(at("journal")).unwrap(), "onetwo");
    assert_eq!(fs::metadata(at("journal")).unwrap().permissions().mode() & 0o7137, 0);
    // Through a symlink of ours, also one that leads to nothing yet.
    symlink("elsewhere", at("link")).unwrap();
    append(&at("link"), 0o640).unwrap().write_all(b"three").unwrap();
    assert_eq!(fs::read_to_string(at("elsewhere")).unwrap(), "three");
    assert!(append(Path::new("/dev/null"), 0o640).is_ok() && append(&at("no/journal"), 0o640).is_err());
    let (_reader, writer) = std::io::pipe().unwrap();
    assert!(append(&PathBuf::from(format!("/dev/fd/{}", writer.as_raw_fd())), 0o640).is_ok());
    mode(dir.path(), 0o777);
    assert!(append(&at("journal"), 0o640).is_ok(), "a log directory may be others' to write to");
    fs::hard_link(at("journal"), at("planted")).unwrap();
    assert!(append(&at("planted"), 0o640).is_err(), "another name of some file, where others may make one");
    mode(dir.path(), 0o755);
    assert!(append(&at("planted"), 0o640).is_ok());
}

#[test]
fn what_another_user_planted_is_not_written_to() {
    if !is_root("what_another_user_planted") {
        return;
    }
    let (dir, precious) = home();
    mode(dir.path(), 0o1777);
    let (link, file) = (dir.path().join("link"), dir.path().join("file"));
    symlink(&precious, &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(OTHER), Some(OTHER)).unwrap();
    fs::write(&file, "").unwrap();
    give(&file);
    for planted in [&link, &file] {
        let said = append(planted, 0o640).unwrap_err().to_string();
        assert!(said.contains("belongs to user 65534"), "{said}");
    }
    assert_eq!(fs::read_to_string(&precious).unwrap(), "");
}
