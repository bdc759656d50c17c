use std::fs;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags, open};

use super::*;
use crate::cgroup::path::GroupPath;
use crate::cgroup::root::Root;

/// An ordinary file stands in for cgroup.procs.
fn group(procs: &str) -> (tempfile::TempDir, Arc<Group>) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("g")).unwrap();
    fs::write(dir.path().join("g/cgroup.procs"), procs).unwrap();
    fs::write(dir.path().join("g/cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
    let fd = open(dir.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let root = Arc::new(Root { path: dir.path().into(), dir: fd });
    let group = Group::open(&root, None, GroupPath::from_bytes(b"/g")).unwrap();
    (dir, Arc::new(group))
}

#[test]
fn term_goes_to_the_listed_and_never_to_pid_zero() {
    let mut child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let (_dir, group) = group(&format!("0\n{}\n", child.id()));
    let done = Workshop::default().perform(Deed::Term, &[group], &mut None, &mut |_| {});
    // Pid 0 would have been this test's own process group.
    assert_eq!((done.processes, done.errno), (1, None));
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(15));
}

/// A process that handles SIGUSR1 by leaving a mark, and one that doesn't.
#[test]
fn a_warning_goes_to_those_who_handle_it_and_hurts_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let (mark, armed) = (dir.path().join("mark"), dir.path().join("armed"));
    let script = format!("trap 'touch {}' USR1; touch {}; while :; do sleep 0.05; done", mark.display(), armed.display());
    let mut handles = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap();
    let mut bystander = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let wait = |path: &std::path::Path| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !path.exists() {
            assert!(Instant::now() < deadline, "{} never came", path.display());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    wait(&armed);
    let (_dir, group) = group(&format!("{}\n{}\n", bystander.id(), handles.id()));
    let done = Workshop::default().perform(Deed::Warn(Some(WarnSignal::USR1)), &[Arc::clone(&group)], &mut None, &mut |_| {});
    assert_eq!((done.processes, done.listeners, done.errno), (1, 0, None));
    wait(&mark);
    // Nobody of them handles SIGUSR2, whose default is to end the process.
    let done = Workshop::default().perform(Deed::Warn(Some(WarnSignal::USR2)), &[group], &mut None, &mut |_| {});
    assert_eq!((done.processes, done.errno, done.sent), (0, None, None));
    assert!(handles.try_wait().unwrap().is_none() && bystander.try_wait().unwrap().is_none());
    for mut child in [handles, bystander] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn one_process_is_killed_only_where_it_is_a_member() {
    let mut child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let (_other_dir, other) = group("");
    let done = Workshop::default().perform(Deed::KillOne(pid), &[other], &mut None, &mut |_| {});
    assert_eq!((done.processes, done.errno), (0, Some(Errno::NOENT)), "it lives, elsewhere");
    assert!(child.try_wait().unwrap().is_none());
    let (_dir, group) = group(&format!("{pid}\n"));
    let mut kept = None;
    assert_eq!(Workshop::default().perform(Deed::KillOne(pid), &[group], &mut kept, &mut |_| {}).processes, 1);
    assert!(kept.is_some());
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
}

#[test]
fn a_process_that_has_ended_by_itself_is_not_counted_as_killed() {
    let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
    rustix::event::poll(&mut [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)], None).unwrap();
    // A zombie: old kernels list it, and each takes a signal for it.
    let pid = i32::try_from(child.id()).unwrap();
    let (_dir, group) = group(&format!("{pid}\n"));
    let mut kept = None;
    let done = Workshop::default().perform(Deed::KillOne(pid), &[group], &mut kept, &mut |_| {});
    assert_eq!((done.processes, done.errno, kept.is_some()), (0, Some(Errno::SRCH), false));
    assert!(child.wait().unwrap().success());
}

#[test]
fn without_cgroup_kill_processes_are_killed_one_by_one() {
    let mut children: Vec<_> = (0..100).map(|_| Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap()).collect();
    let list: String = children.iter().map(|child| format!("{}\n", child.id())).collect();
    let (_dir, group) = group(&list);
    let done = Workshop::default().perform(Deed::KillGroup { signals_first: false }, &[group], &mut None, &mut |_| {});
    assert_eq!((done.processes, done.errno), (100, None));
    for child in &mut children {
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
    }
}

/// Who has left before cgroup.kill was written was not killed by it.
#[test]
fn a_kill_of_an_empty_group_reached_nobody() {
    for signals_first in [false, true] {
        let (dir, group) = group("");
        fs::write(dir.path().join("g/cgroup.kill"), "").unwrap();
        let mut heard = Vec::new();
        let mut kill = || {
            let done = Workshop::default()
                .perform(Deed::KillGroup { signals_first }, &[Arc::clone(&group)], &mut None, &mut |dying| heard.push(dying));
            (done.errno, done.nobody, done.first.is_some(), done.sent.is_some())
        };
        assert_eq!(kill(), (None, false, true, true), "somebody may be there who is not listed");
        fs::write(dir.path().join("g/cgroup.events"), "populated 0\nfrozen 0\n").unwrap();
        assert_eq!(kill(), (None, true, false, false));
        assert_eq!(heard, [Dying::Somebody, Dying::Nobody]);
        assert_eq!(fs::read_to_string(dir.path().join("g/cgroup.kill")).unwrap(), "1", "it is written all the same");
    }
}

/// Under a shortage of the node: SIGKILL, the release of memory, then cgroup.kill. The moment is
/// that of the first.
#[test]
fn the_first_signal_is_told_apart_from_what_comes_after_it() {
    let mut children: Vec<_> = (0..100).map(|_| Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap()).collect();
    let list: String = children.iter().map(|child| format!("{}\n", child.id())).collect();
    let (dir, group) = group(&list);
    fs::write(dir.path().join("g/cgroup.kill"), "").unwrap();
    let mut told = None;
    let done = Workshop::default().perform(Deed::KillGroup { signals_first: true }, &[group], &mut None, &mut |dying| {
        assert_eq!(dying, Dying::Somebody);
        told.get_or_insert_with(Instant::now);
        // As a release of memory may.
        std::thread::sleep(Duration::from_millis(20));
    });
    assert_eq!((done.processes, done.errno, done.nobody), (100, None, false));
    let (first, last, told) = (done.first.unwrap(), done.sent.unwrap(), told.unwrap());
    assert!(first <= told && last.duration_since(first) >= Duration::from_millis(40), "{first:?} {told:?} {last:?}");
    for child in &mut children {
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
    }
}
