use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::owners::tests::is_root;

/// Another user: nobody.
const OTHER: u32 = 65534;
const TREE: &str = "tree-1b-1.lock";

fn about(state: &Path) -> About<'_> {
    About { root: Path::new("/sys/fs/cgroup"), state, control: "none" }
}

/// A directory for locks as /run/oomwarden is one, below a directory that everybody may enter.
fn run() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    mode(dir.path(), 0o755);
    let place = dir.path().join("oomwarden");
    (dir, place)
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn take(place: &Path, state: &str) -> Result<OfTree, LockError> {
    tree_in(&[Place { path: place.to_owned(), make: true }], Us::now(), TREE, &about(Path::new(state)))
}

fn is_held(taken: Result<OfTree, LockError>) -> Lock {
    match taken {
        Ok(OfTree::Held(lock)) => lock,
        other => panic!("not held: {other:?}"),
    }
}

/// util-linux's flock as another user.
fn flock_as_other(arguments: &[&str], file: &Path) -> Command {
    let mut command = Command::new("flock");
    command.args(arguments).arg(file).args(["sleep", "600"]).uid(OTHER).gid(OTHER).stderr(Stdio::null());
    command
}

/// Another user holds the lock of a file until this is dropped.
struct Stranger(Child);

impl Stranger {
    fn hold(file: &Path) -> Stranger {
        let stranger = Stranger(flock_as_other(&["-n"], file).process_group(0).spawn().unwrap());
        let began = Instant::now();
        while holder_at(file).is_none() {
            assert!(began.elapsed() < Duration::from_secs(20), "the other user never got the lock");
            std::thread::sleep(Duration::from_millis(5));
        }
        stranger
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn one_tree_has_one_lock_whatever_the_state_directory() {
    let (_dir, place) = run();
    let first = is_held(take(&place, "/one"));
    assert_eq!(first.path(), place.join(TREE));
    assert_eq!(fs::metadata(first.path()).unwrap().mode() & 0o7777, 0o600);
    let refused = take(&place, "/two").unwrap_err().to_string();
    let pid = std::process::id();
    for part in [format!("process {pid} "), "/sys/fs/cgroup".into(), "--state /one".into(), "--observe".into(), TREE.into()] {
        assert!(refused.contains(&part), "{part}: {refused}");
    }
    let other = tree_in(&[Place { path: place.clone(), make: true }], Us::now(), "tree-1b-77.lock", &about(Path::new("/two")));
    drop(is_held(other));
    drop(first);
    drop(is_held(take(&place, "/two")));
    assert!(fs::read_to_string(place.join(TREE)).unwrap().contains("--state /two"));
}

#[test]
fn a_state_directory_has_one_oomwarden() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("a/state");
    let first = of_state(&state, &about(&state)).unwrap();
    let refused = of_state(&state, &about(&state)).unwrap_err().to_string();
    assert!(refused.contains(&state.display().to_string()) && refused.contains("--state of its own"), "{refused}");
    drop(first);
    assert_eq!(fs::metadata(state.join(NAME)).unwrap().mode() & 0o7777, 0o600);
    // As Kubernetes makes a volume; nothing but files of ours is in it.
    mode(&state, 0o777);
    drop(of_state(&state, &about(&state)).unwrap());
    assert_eq!(fs::metadata(&state).unwrap().mode() & 0o7777, 0o755);
    // A directory of others', or for others, is none of ours to change.
    for (bits, file) in [(0o777, "theirs"), (0o1777, "lock")] {
        fs::write(state.join(file), "").unwrap();
        mode(&state, bits);
        let refused = of_state(&state, &about(&state)).unwrap_err().to_string();
        assert!(refused.contains(&format!("mode {bits:04o}")) && refused.contains("--state"), "{refused}");
    }
}

#[test]
fn the_name_is_that_of_the_directory_and_not_of_its_path() {
    let dir = tempfile::tempdir().unwrap();
    symlink(dir.path(), dir.path().join("link")).unwrap();
    let name = |path: &Path| {
        let dir = open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let root = Root { path: path.to_owned(), dir };
        let names: Vec<_> = paths_of(&root).map(|path| path.file_name().unwrap().to_owned()).collect();
        assert!(paths_of(&root).next().unwrap().starts_with(DIRECTORY));
        names[0].clone()
    };
    assert_eq!(name(dir.path()), name(&dir.path().join("link")));
    fs::create_dir(dir.path().join("below")).unwrap();
    assert_ne!(name(dir.path()), name(&dir.path().join("below")));
}

#[test]
fn each_user_has_a_place() {
    let paths = |uid, runtime: Option<&str>| -> Vec<String> {
        places(uid, runtime.map(PathBuf::from)).iter().map(|place| format!("{} {}", place.path.display(), place.make)).collect()
    };
    assert_eq!(paths(0, Some("/run/user/0")), ["/run/oomwarden true"]);
    assert_eq!(
        paths(1000, Some("/x")),
        ["/run/oomwarden false", "/x/oomwarden true", "/run/user/1000/oomwarden true", "/tmp/oomwarden-1000 true"]
    );
}

#[test]
fn without_a_place_a_user_goes_on_and_root_does_not() {
    let dir = tempfile::tempdir().unwrap();
    mode(dir.path(), 0o777);
    let in_open = [Place { path: dir.path().join("oomwarden"), make: true }];
    let mut us = Us::now();
    us.uid = 1000;
    let taken = tree_in(&in_open, us, TREE, &about(Path::new("/one")));
    assert!(matches!(&taken, Ok(OfTree::NoPlace(why)) if why.contains("mode 0777")), "{taken:?}");
    us.uid = 0;
    let refused = tree_in(&in_open, us, TREE, &about(Path::new("/one"))).unwrap_err().to_string();
    assert!(refused.contains("mode 0777") && refused.contains("RuntimeDirectory"), "{refused}");
}

#[test]
fn another_user_can_neither_hold_the_lock_nor_read_it() {
    if !is_root("another_user_can_neither_hold_the_lock") {
        return;
    }
    let (_dir, place) = run();
    let lock = is_held(take(&place, "/one"));
    let path = lock.path().to_owned();
    drop(lock);
    // 66: flock can't open its file.
    let status = flock_as_other(&["-n"], &path).status().unwrap();
    assert_eq!(status.code(), Some(66), "{status}");
    drop(is_held(take(&place, "/one")));
}

#[test]
fn an_old_lock_that_another_user_holds_keeps_nobody_out() {
    if !is_root("an_old_lock_that_another_user_holds") {
        return;
    }
    let (_dir, place) = run();
    fs::create_dir(&place).unwrap();
    let path = place.join(TREE);
    fs::write(&path, "").unwrap();
    mode(&path, 0o644);
    let _stranger = Stranger::hold(&path);
    let lock = is_held(take(&place, "/one"));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    // And it is a lock.
    assert!(take(&place, "/two").is_err());
    drop(lock);
}

/// The lock was taken by a process that is gone, and is held by one that inherited it: /proc/locks
/// names the dead one.
#[test]
fn an_old_lock_whose_locker_is_gone_keeps_nobody_out() {
    if !is_root("an_old_lock_whose_locker_is_gone") {
        return;
    }
    let (_dir, place) = run();
    fs::create_dir(&place).unwrap();
    let path = place.join(TREE);
    fs::write(&path, "").unwrap();
    mode(&path, 0o644);
    // The shell locks its descriptor 9, leaves it to a child and ends.
    let script = format!("exec 9<{}; flock -n 9 || exit 1; sleep 600 & echo $!", path.display());
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).uid(OTHER).gid(OTHER).process_group(0).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut shell = shell.spawn().unwrap();
    let mut line = String::new();
    io::BufRead::read_line(&mut io::BufReader::new(shell.stdout.take().unwrap()), &mut line).unwrap();
    assert!(shell.wait().unwrap().success(), "the other user never got the lock");
    let heir = nix::unistd::Pid::from_raw(line.trim().parse().unwrap());
    let ours = Flock::lock(fs::File::open(&path).unwrap(), FlockArg::LockExclusiveNonblock);
    let taken = take(&place, "/one");
    nix::sys::signal::kill(heir, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(matches!(ours, Err((_, nix::Error::EWOULDBLOCK))), "the heir holds it");
    drop(is_held(taken));
}

/// Who has the file open takes the lock between two runs.
#[test]
fn an_old_lock_that_another_has_open_is_replaced_before_it_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (_run, place) = run();
    let state = dir.path().join("state");
    for directory in [&place, &state] {
        fs::create_dir(directory).unwrap();
    }
    let (tree, of_directory) = (place.join(TREE), state.join(NAME));
    let strangers = [&tree, &of_directory].map(|path| {
        fs::write(path, "").unwrap();
        mode(path, 0o644);
        fs::File::open(path).unwrap()
    });
    let first = (is_held(take(&place, "/one")), of_state(&state, &about(&state)).unwrap());
    assert!([&tree, &of_directory].iter().all(|path| fs::metadata(path).unwrap().mode() & 0o7777 == 0o600));
    drop(first);
    let _locked = strangers.map(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap());
    drop((is_held(take(&place, "/two")), of_state(&state, &about(&state)).unwrap()));
}

/// Many start at once where an old lock lies: one has it, none takes the new file of another away.
#[test]
fn those_that_replace_an_old_lock_at_once_get_one_lock() {
    let (_dir, place) = run();
    fs::create_dir(&place).unwrap();
    for _ in 0..50 {
        let path = place.join(TREE);
        let _ = fs::remove_file(&path);
        fs::write(&path, "").unwrap();
        mode(&path, 0o644);
        let begin = std::sync::Barrier::new(4);
        let start = || {
            begin.wait();
            take(&place, "/one")
        };
        let taken: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let held: Vec<&Lock> =
            taken.iter().filter_map(|taken| if let Ok(OfTree::Held(lock)) = taken { Some(lock) } else { None }).collect();
        assert_eq!(held.len(), 1, "{taken:?}");
        assert!(taken.iter().all(|taken| matches!(taken, Ok(OfTree::Held(_)) | Err(LockError::OfTree { .. }))), "{taken:?}");
    }
}

#[test]
fn an_old_lock_of_our_own_is_replaced_and_counts() {
    let (_dir, place) = run();
    fs::create_dir(&place).unwrap();
    let path = place.join(TREE);
    fs::write(&path, "").unwrap();
    mode(&path, 0o644);
    // As an older version holds it.
    let old = Flock::lock(fs::File::open(&path).unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
    assert!(matches!(take(&place, "/one"), Err(LockError::OfTree { .. })));
    drop(old);
    drop(is_held(take(&place, "/one")));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn what_was_planted_is_replaced_and_what_it_led_to_left_alone() {
    let (dir, place) = run();
    fs::create_dir(&place).unwrap();
    let path = place.join(TREE);
    let precious = dir.path().join("precious");
    fs::write(&precious, "text").unwrap();
    // And at the name of the file by which those that replace it take turns.
    for (target, link) in [(&precious, &path), (&precious, &place.join(format!(".{TREE}.new")))] {
        symlink(target, link).unwrap();
    }
    drop(is_held(take(&place, "/one")));
    fs::remove_file(&path).unwrap();
    fs::hard_link(&precious, &path).unwrap();
    drop(is_held(take(&place, "/one")));
    assert_eq!(fs::read_to_string(&precious).unwrap(), "text");
    if is_root("what_was_planted") {
        chown(&path, Some(OTHER), Some(OTHER)).unwrap();
        drop(is_held(take(&place, "/one")));
        assert_eq!(fs::metadata(&path).unwrap().uid(), 0);
        // A directory that is another's is no place.
        chown(&place, Some(OTHER), Some(OTHER)).unwrap();
        let refused = take(&place, "/one").unwrap_err().to_string();
        assert!(refused.contains("belongs to user 65534"), "{refused}");
    }
}
