use std::fs;

use super::*;
use crate::policy::{self, Source};

/// A tree of ordinary files below `/t`, and a policy.
struct Place {
    dir: tempfile::TempDir,
    root: Arc<Root>,
    policy: Arc<Policy>,
}

impl Place {
    fn new(exclude: &str) -> Place {
        // In memory, so that many groups cost nothing.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = rustix::fs::open(dir.path(), flags, Mode::empty()).unwrap();
        let text = format!("version: 1\n{exclude}rules:\n  - name: r\n    watch: /t\n    when:\n      - event: oom\n");
        let policy = Arc::new(policy::load(&[Source::new("test", text)]).unwrap().policy);
        let place = Place { root: Arc::new(Root { path: dir.path().into(), dir: fd }), dir, policy };
        place.group("t", "");
        place
    }

    fn group(&self, path: &str, procs: &str) -> GroupId {
        let path = self.dir.path().join(path);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("cgroup.procs"), procs).unwrap();
        fs::write(path.join("cgroup.events"), format!("populated {}\n", u8::from(!procs.is_empty()))).unwrap();
        fs::write(path.join("cgroup.type"), "domain\n").unwrap();
        GroupId(std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap()))
    }

    fn ask(&self, known: &[GroupId]) -> Ask {
        let group = Group::open(&self.root, None, GroupPath::root().child(b"t")).unwrap();
        let class = self.policy.classify(b"/t", Some(&self.policy.classify(b"/", None)));
        let (policy, known) = (Arc::clone(&self.policy), known.iter().copied().collect());
        let (number, group, by) = (1, Arc::new(group), Instant::now() + Duration::from_secs(30));
        Ask { number, group, class, policy, known, spare_unkillable: true, by }
    }

    fn seen(&self, ask: &Ask) -> Seen {
        look(&self.root, ask, &mut Processes::open().unwrap())
    }
}

#[test]
fn names_tell_of_excluded_groups_at_any_depth() {
    let place = Place::new("exclude:\n  - /t/*/*/keep\n");
    place.group("t/a/b", "");
    assert_eq!(place.seen(&place.ask(&[])), Seen::Nobody);
    place.group("t/a/b/keep", "");
    assert_eq!(place.seen(&place.ask(&[])), Seen::Somebody);
}

#[test]
fn processes_are_looked_at_only_where_the_tree_has_not_been_told_of_the_group() {
    let own = std::process::id().to_string();
    let comm = fs::read_to_string("/proc/self/comm").unwrap();
    let place = Place::new(&format!("exclude:\n  - {{group: /t/**, comm: \"{}\"}}\n", comm.trim_end()));
    let known = place.group("t/known", &own);
    assert_eq!(place.seen(&place.ask(&[known])), Seen::Nobody, "what is known is judged with the tree");
    assert_eq!(place.seen(&place.ask(&[])), Seen::Somebody);
    place.group("t/known", "");
    assert_eq!(place.seen(&place.ask(&[])), Seen::Nobody);
    place.group("t/init", "1\n");
    assert_eq!(place.seen(&place.ask(&[known])), Seen::Somebody, "process 1");
    place.group("t/init", "0\n");
    assert_eq!(place.seen(&place.ask(&[known])), Seen::Somebody, "of another pid namespace");
}

#[test]
fn a_look_that_has_no_more_time_says_of_nobody_that_it_may_die() {
    let place = Place::new("exclude:\n  - /u/keep\n");
    let late = || Ask { by: Instant::now(), ..place.ask(&[]) };
    assert_eq!(place.seen(&late()), Seen::Unfinished, "over before it ends");
    place.group("t/a", "");
    assert_eq!(place.seen(&late()), Seen::Unfinished, "not even the names");
}

#[test]
fn of_empty_groups_no_processes_are_read_and_of_no_group_below_them_anything() {
    let place = Place::new("");
    place.group("t/empty", "");
    fs::remove_file(place.dir.path().join("t/empty/cgroup.procs")).unwrap();
    place.group("t/empty/below", "0\n");
    assert_eq!(place.seen(&place.ask(&[])), Seen::Nobody);
    fs::write(place.dir.path().join("t/empty/cgroup.events"), "populated 1\n").unwrap();
    assert_eq!(place.seen(&place.ask(&[])), Seen::Somebody, "below");
    fs::write(place.dir.path().join("t/empty/below/cgroup.type"), "threaded\n").unwrap();
    assert_eq!(place.seen(&place.ask(&[])), Seen::Nobody, "its processes are listed at the root of its threads");
}

#[test]
fn where_all_threads_are_in_the_group_itself_only_the_names_below_it_are_read() {
    let place = Place::new("exclude:\n  - /t/a/*/keep\n  - /t/a/keep\n");
    let a = place.group("t/a", "7\n");
    // Nobody who looks into it could tell that it is empty.
    place.group("t/a/b", "0\n");
    let count = |pids: &str, threads: &str| {
        fs::write(place.dir.path().join("t/a/pids.current"), pids).unwrap();
        fs::write(place.dir.path().join("t/a/cgroup.threads"), threads).unwrap();
    };
    assert_eq!(place.seen(&place.ask(&[a])), Seen::Somebody, "nobody counts");
    count("3\n", "7\n8\n");
    assert_eq!(place.seen(&place.ask(&[a])), Seen::Somebody, "one is below, or has ended");
    count("2\n", "0\n0\n");
    assert_eq!(place.seen(&place.ask(&[a])), Seen::Somebody, "of another pid namespace");
    count("2\n", "7\n8\n");
    assert_eq!(place.seen(&place.ask(&[a])), Seen::Nobody);
    place.group("t/a/b/keep", "");
    assert_eq!(place.seen(&place.ask(&[a])), Seen::Nobody, "below one that is empty");
    place.group("t/a/keep", "");
    assert_eq!(place.seen(&place.ask(&[a])), Seen::Somebody, "by its name");
}

#[test]
fn whether_anybody_is_in_a_group_that_can_not_be_told_spares() {
    let place = Place::new("");
    place.group("t/a", "");
    fs::write(place.dir.path().join("t/a/cgroup.events"), "frozen 0\n").unwrap();
    assert_eq!(place.seen(&place.ask(&[])), Seen::Somebody);
}

/// Both ends of a thread that is not there.
fn glances() -> (Glances, Sender<u64>, Receiver<Ask>) {
    let ((asks, asked), (answer, answers)) = (channel(), channel());
    (Glances::over(asks, answers), answer, asked)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_group_in_which_somebody_was_seen_is_not_asked_about_again_within_the_limit() {
    let (mut glances, answer, _asked) = glances();
    let first = glances.open(ms(0), GroupId(9), true).unwrap();
    assert_eq!(glances.open(ms(999), GroupId(9), true), None, "no answer: somebody was seen, or it is not done");
    let second = glances.open(ms(1000), GroupId(9), true).unwrap();
    assert_ne!(first, second);
    answer.send(second).unwrap();
    assert_eq!(glances.take(ms(1001)), Some(GroupId(9)));
    assert!(glances.open(ms(1002), GroupId(9), true).is_some(), "what came after a look needs another");
}

#[test]
fn an_answer_counts_for_its_own_question_and_in_its_time_only() {
    let (mut glances, answer, _asked) = glances();
    let first = glances.open(ms(0), GroupId(9), true).unwrap();
    let second = glances.open(ms(1000), GroupId(9), true).unwrap();
    answer.send(first).unwrap();
    assert_eq!(glances.take(ms(1001)), None, "to the question before");
    answer.send(second).unwrap();
    assert_eq!(glances.take(ms(1001)), Some(GroupId(9)));
    answer.send(second).unwrap();
    assert_eq!(glances.take(ms(1002)), None, "twice");
    let third = glances.open(ms(2000), GroupId(9), true).unwrap();
    answer.send(third).unwrap();
    assert_eq!(glances.take(ms(3500)), None, "read long after it was given");
}

#[test]
fn what_was_seen_by_another_policy_is_of_no_use() {
    let (mut glances, answer, _asked) = glances();
    let old = glances.open(ms(0), GroupId(9), true).unwrap();
    glances.policy_replaced();
    answer.send(old).unwrap();
    assert_eq!(glances.take(ms(1)), None);
    assert!(glances.open(ms(2), GroupId(9), true).is_some_and(|new| new != old));
}

#[test]
fn a_look_that_takes_no_heed_of_unkillable_processes_is_none_for_a_rule_that_does() {
    let (mut glances, answer, _asked) = glances();
    let lax = glances.open(ms(0), GroupId(9), false).unwrap();
    assert_eq!(glances.open(ms(1), GroupId(9), false), None);
    let strict = glances.open(ms(2), GroupId(9), true).unwrap();
    assert_eq!(glances.open(ms(3), GroupId(9), false), None, "the strict one is good for both");
    answer.send(lax).unwrap();
    answer.send(strict).unwrap();
    assert_eq!((glances.take(ms(4)), glances.take(ms(4))), (Some(GroupId(9)), None));
}

#[test]
fn no_doubt_is_given_up_for_another_one() {
    let (mut glances, _answer, _asked) = glances();
    for id in 0..REMEMBERED as u64 {
        assert!(glances.doubt(ms(id), GroupId(id)));
    }
    assert!(!glances.doubt(ms(100), GroupId(999)) && glances.doubts(ms(100), GroupId(0)));
    assert!(glances.doubt(ms(100), GroupId(5)), "it has its place already");
    assert!(glances.doubt(ms(10_000), GroupId(999)), "the first is over");
    assert!(!glances.doubts(ms(10_000), GroupId(0)));
    glances.trust(GroupId(999));
    assert!(!glances.doubts(ms(10_001), GroupId(999)));
}

#[test]
fn six_thousand_names_are_gone_over_well_within_the_limit() {
    let place = Place::new("exclude:\n  - /t/*/keep\n");
    let known: Vec<GroupId> = (0..6000)
        .map(|at| {
            let path = place.dir.path().join(format!("t/{at}"));
            fs::create_dir(&path).unwrap();
            GroupId(std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap()))
        })
        .collect();
    let ask = place.ask(&known);
    let began = Instant::now();
    assert_eq!(place.seen(&ask), Seen::Nobody);
    assert!(began.elapsed() < LOOK_LIMIT, "{:?}", began.elapsed());
}
