use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn listener(groups: &[u64]) -> (Listener, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    rustix::net::sockopt::set_socket_send_buffer_size(&ours, WAITING_BYTES).unwrap();
    (Listener { socket: ours, groups: groups.iter().map(|id| GroupId(*id)).collect(), read: 0 }, theirs)
}

fn listeners(all: impl IntoIterator<Item = Listener>) -> Listeners {
    Listeners { places: Mutex::new(all.into_iter().map(Some).collect()), path: PathBuf::new() }
}

fn hears(mut listener: &UnixStream) -> bool {
    listener.set_nonblocking(true).unwrap();
    let mut buffer = [0; 64];
    listener.read(&mut buffer).is_ok_and(|read| buffer[..read].starts_with(NEWS))
}

#[test]
fn a_warning_reaches_the_group_and_all_below_it_and_nobody_else() {
    let (here, ear_here) = listener(&[3, 2, 1]);
    let (below, ear_below) = listener(&[4, 3, 2, 1]);
    let (above, ear_above) = listener(&[2, 1]);
    let (beside, ear_beside) = listener(&[5, 2, 1]);
    let listeners = listeners([here, below, above, beside]);
    assert_eq!(listeners.tell(GroupId(3)), 2);
    assert!(hears(&ear_here) && hears(&ear_below));
    assert!(!hears(&ear_above) && !hears(&ear_beside));
    assert_eq!(listeners.tell(GroupId(9)), 0);
    assert_eq!(listeners.tell(GroupId(1)), 4);
}

#[test]
fn who_never_reads_is_told_for_nothing_and_holds_nobody_up() {
    let (deaf, _ear) = listener(&[1]);
    let (other, ear) = listener(&[1]);
    let listeners = listeners([deaf, other]);
    let began = Instant::now();
    for _ in 0..1000 {
        assert_eq!(listeners.tell(GroupId(1)), 2);
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(hears(&ear));
}

#[test]
fn who_left_is_not_told() {
    let (gone, ear) = listener(&[1]);
    drop(ear);
    assert_eq!(listeners([gone]).tell(GroupId(1)), 0);
}

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
    assert_eq!(listeners.lock().iter().flatten().count(), 0);
    listeners.close();
    assert!(!path.exists());
}
