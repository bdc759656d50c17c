use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// A socket in a directory of its own; the cgroup file system is the machine's, where that has v2 at all.
fn door(directory: &Path) -> Door {
    Door::open(&directory.join("run/pressure.sock"), directory).unwrap()
}

#[test]
fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let first = door(dir.path());
    let path = first.path.clone();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
    let error = Door::open(&path, dir.path()).unwrap_err().to_string();
    assert!(error.contains("in use by another"), "{error}");
    drop(first);
    drop(door(dir.path()));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "somebody's file").unwrap();
    assert!(Door::open(&path, dir.path()).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"somebody's file");
}

/// A connect that blocks would wait here for good.
#[test]
fn one_who_does_not_answer_any_more_is_not_replaced_nor_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pressure.sock");
    let _deaf = crate::owners::tests::Deaf::at(&path);
    let error = Door::open(&path, dir.path()).unwrap_err().to_string();
    assert!(error.contains("in use by another") && path.exists(), "{error}");
}

#[test]
fn who_is_in_no_group_that_can_be_seen_is_turned_away() {
    let dir = tempfile::tempdir().unwrap();
    // No cgroup file system here: nobody's group can be found.
    let door = door(dir.path());
    let path = door.path.clone();
    let listeners = door.serve(4, |_| {}).unwrap();
    let mut socket = UnixStream::connect(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(socket.read(&mut [0; 8]).unwrap(), 0, "closed");
    assert_eq!(listeners.tell(GroupId(1)), 0);
    listeners.close();
    assert!(!path.exists());
}

#[test]
fn a_user_who_is_in_many_groups_leaves_places_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let pid = std::process::id().to_string();
    let is_in = |group: &str| {
        std::fs::create_dir_all(dir.path().join("cgroup").join(group)).unwrap();
        std::fs::create_dir_all(dir.path().join("proc").join(&pid)).unwrap();
        std::fs::write(dir.path().join("cgroup").join(group).join("cgroup.procs"), &pid).unwrap();
        std::fs::write(dir.path().join("proc").join(&pid).join("cgroup"), format!("0::/{group}\n")).unwrap();
        GroupId(std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(dir.path().join("cgroup").join(group)).unwrap()))
    };
    let mut door = door(dir.path());
    door.peers = Peers::in_place_of(dir.path().join("proc"), dir.path().join("cgroup"));
    let path = door.path.clone();
    let (counted, counts) = std::sync::mpsc::channel();
    let listeners = door.serve(16, move |count| counted.send(count).unwrap()).unwrap();
    // A quarter, and root all but a quarter.
    let most = if rustix::process::getuid().is_root() { 12 } else { 4 };
    let connect = || {
        let socket = UnixStream::connect(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    };
    let mut inside = Vec::new();
    for at in 0..most {
        let group = is_in(&format!("g{at}"));
        inside.push((connect(), group));
        assert_eq!(counts.recv_timeout(Duration::from_secs(10)), Ok(at + 1));
    }
    is_in("one-more");
    assert_eq!(connect().read(&mut [0; 8]).unwrap(), 0, "closed, from whatever group");
    for (ear, group) in &mut inside {
        assert_eq!(listeners.tell(*group), 1);
        assert_eq!(ear.read(&mut [0; 8]).unwrap(), 5, "told, so it has its place");
    }
    // One leaves, and another has its place.
    let (gone, group) = inside.remove(0);
    drop(gone);
    assert_eq!(counts.recv_timeout(Duration::from_secs(10)), Ok(most - 1));
    assert_eq!(listeners.tell(group), 0);
    let group = is_in("one-more");
    let mut ear = connect();
    assert_eq!(counts.recv_timeout(Duration::from_secs(10)), Ok(most));
    assert_eq!((listeners.tell(group), ear.read(&mut [0; 8]).unwrap()), (1, 5));
}
