//! What systemd reads of a kill: the extended attributes of the victim's directory.

use std::os::unix::fs::{PermissionsExt, chown};
use std::time::Duration;

use super::common::{THRASH, hog, narrow, neighbour};
use crate::guest::daemon::{Daemon, Setup, told};
use crate::guest::group::{Group, MIB};
use crate::guest::places;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};

const NAMES: [&str; 2] = ["user.oomd_ooms", "user.oomd_kill"];

/// Both attributes of a group, as text.
fn marks(group: &Group) -> [Option<String>; 2] {
    NAMES.map(|name| {
        let mut text = [0; 64];
        let length = rustix::fs::getxattr(group.directory(), name, &mut text[..]).ok()?;
        Some(String::from_utf8_lossy(text.get(..length)?).into_owned())
    })
}

fn expect(group: &Group, attempts: &str, killed: &str) -> Outcome {
    let wanted = [Some(attempts.to_owned()), Some(killed.to_owned())];
    wait::until(&format!("the marks {attempts} and {killed} of {}", group.path()), SOON, || Ok(marks(group) == wanted))
        .map_err(|error| format!("{error}: {:?}", marks(group)))
}

/// Attempts and processes are counted on the victim, from one kill to the next, and on nobody else;
/// `explain` asks the daemon for its policy.
pub fn attempts_and_processes_are_counted_on_the_victim() -> Outcome {
    let daemon = Daemon::start(THRASH)?;
    let (b, mut beside) = neighbour("t/b")?;
    let a = narrow("t/a")?;
    let _idle = [Work::start(&a, "sleep")?, Work::start(&a, "sleep")?];
    hog(&a)?.must_be_killed()?;
    daemon.killed(&a)?;
    expect(&a, "1", "3")?;
    // Somebody else counts there too.
    rustix::fs::setxattr(a.directory(), NAMES[1], b"10", rustix::fs::XattrFlags::empty()).doing("count")?;
    hog(&a)?.must_be_killed()?;
    expect(&a, "2", "11")?;
    ensure!(marks(&b) == [None, None] && marks(&Group::at("/sys/fs/cgroup/t")) == [None, None], "others than the victim are marked");
    beside.must_run("it is the neighbour")?;
    let (out, said) = told(&["explain", "/t/a"])?;
    ensure!(out.contains("thrash") && said.contains("policy.yaml, the policy of the oomwarden that is running"), "{said}: {out}");
    daemon.stop()
}

/// The policy's key leaves them alone, and so does a daemon that only observes.
pub fn victims_are_not_marked_where_the_policy_says_so() -> Outcome {
    let daemon = Daemon::start(&format!("{THRASH}\nsystemd: {{oomd_xattrs: false}}\n"))?;
    let a = narrow("t/a")?;
    hog(&a)?.must_be_killed()?;
    daemon.killed(&a)?;
    wait::stays("nothing is marked", Duration::from_millis(300), || Ok(marks(&a) == [None, None]))?;
    daemon.stop()?;
    let daemon = Daemon::start(&format!("{THRASH}\nmode: observe\n"))?;
    let c = narrow("t/c")?;
    let mut hog = hog(&c)?;
    daemon.journalled("an observed verdict", |line| line["outcome"] == "observed")?;
    wait::stays("nothing is marked", Duration::from_millis(300), || Ok(marks(&c) == [None, None]))?;
    hog.must_run("it was only observed")?;
    daemon.stop()
}

/// One process of a group that goes on is counted; it is no attempt to kill the group, for which
/// systemd would stop all of it.
pub fn one_process_is_no_attempt_at_the_group() -> Outcome {
    let daemon = Daemon::start(&format!("{THRASH}    then:\n      - kill: process\n"))?;
    let a = narrow("t/a")?;
    let mut idle = Work::start(&a, "sleep")?;
    hog(&a)?.must_be_killed()?;
    wait::until("the process is counted", SOON, || Ok(marks(&a) == [None, Some("1".to_owned())]))?;
    idle.must_run("the group goes on")?;
    daemon.stop()
}

/// The owner of a delegated subtree marks its victims; where it may not the kill is done all the
/// same, and that is said once.
pub fn owner_of_a_subtree_marks_and_a_refusal_changes_nothing() -> Outcome {
    std::fs::create_dir_all(places::FILES).doing("create the files' directory")?;
    std::fs::set_permissions(places::FILES, std::fs::Permissions::from_mode(0o1777)).doing("open the files' directory")?;
    let t = Group::new("t")?;
    let (a, b) = (narrow("t/a")?, narrow("t/b")?);
    for group in [&t, &a, &b] {
        let entries = std::fs::read_dir(group.directory()).doing("list a group")?.filter_map(Result::ok).map(|entry| entry.path());
        for path in entries.filter(|path| path.is_file()).chain([group.directory().to_owned()]) {
            chown(&path, Some(1000), Some(1000)).doing("hand a group over")?;
        }
    }
    // Its files are the user's, its directory is not.
    chown(b.directory(), Some(0), Some(0)).doing("keep a directory")?;
    let setup = Setup { enter: "uid=1000".to_owned(), cgroup_root: format!("{}/t", places::CGROUP), ..Setup::default() };
    let policy =
        "version: 1\nrules:\n  - name: high\n    watch: /*\n    when:\n      - event: high\n    only_if:\n      - usage: {above: 24MiB}\n";
    let daemon = setup.start(policy)?;
    let by_user = |group: &Group| Work::start(group, &format!("enter uid=1000 -- {} --workload hog mib=64", places::SELF));
    by_user(&a)?.must_be_killed()?;
    wait::until("the victim is marked", SOON, || Ok(marks(&a)[0].as_deref() == Some("1") && marks(&a)[1].is_some()))?;
    by_user(&b)?.must_be_killed()?;
    daemon.journalled("the second kill", |line| line["outcome"] == "killed" && line["victim"] == "/b")?;
    wait::until("the refusal is said", SOON, || Ok(daemon.said().contains("/b: user.oomd_ooms is not set: Permission denied")))?;
    ensure!(marks(&b) == [None, None], "a directory of root's is marked");
    ensure!(a.usage()? < 64 * MIB, "the victim is not empty");
    daemon.stop()
}
