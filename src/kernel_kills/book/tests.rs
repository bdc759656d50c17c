use super::*;
use crate::kernel_kills::log::parse;

const ZERO: SystemTime = SystemTime::UNIX_EPOCH;

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn path(text: &str) -> GroupPath {
    GroupPath::from_bytes(text.as_bytes())
}

fn summary(limit: Option<&str>, group: &str, comm: &str, pid: u32) -> Line {
    let (constraint, names) = match limit {
        Some(limit) => ("MEMCG", format!("oom_memcg={limit},task_memcg={group}")),
        None => ("NONE", format!("global_oom,task_memcg={group}")),
    };
    let text =
        format!("oom-kill:constraint=CONSTRAINT_{constraint},nodemask=(null),cpuset=/,mems_allowed=0,{names},task={comm},pid={pid},uid=0");
    parse::line(text.as_bytes()).unwrap()
}

fn killed(scope: Scope, comm: &str, pid: u32) -> Line {
    let message = if scope == Scope::Memcg { "Memory cgroup out of memory" } else { "Out of memory" };
    let text = format!("{message}: Killed process {pid} ({comm}) total-vm:4kB, anon-rss:4kB, file-rss:0kB, shmem-rss:0kB");
    parse::line(text.as_bytes()).unwrap()
}

fn whole(path: &str) -> Line {
    Line::WholeGroup(path.as_bytes().to_vec())
}

fn rise(group: &str, kills: u64) -> Rise {
    Rise { group: path(group), kills, below: false, limited: true, whole: Some(false) }
}

struct Told {
    book: Book,
}

impl Told {
    fn new(has_log: bool) -> Told {
        Told { book: Book::new(Names::default(), has_log) }
    }

    fn lines(&mut self, ms: u64, lines: impl IntoIterator<Item = Line>) {
        for line in lines {
            self.book.line(line, at(ms), ZERO, |_| Seen::default());
        }
    }

    fn settle(&mut self, ms: u64, rises: Vec<Rise>) -> Vec<KernelKill> {
        let mut kills = Vec::new();
        self.book.settle(at(ms), ZERO, false, rises, |kill| kills.push(kill));
        kills
    }
}

#[test]
fn one_kill_of_a_limit_is_one_confirmed_record() {
    let mut told = Told::new(true);
    told.lines(10, [summary(Some("/a"), "/a/b", "hog", 4), killed(Scope::Memcg, "hog", 4)]);
    told.book.counted(1, at(10));
    assert_eq!(told.book.due(), Some(at(10) + QUIET));
    let kills = told.settle(700, vec![rise("/a/b", 1)]);
    let [kill] = &kills[..] else { panic!("{kills:?}") };
    assert_eq!((kill.scope, kill.processes, kill.counted, kill.whole), (Scope::Memcg, 1, 1, Some(false)));
    assert_eq!((&kill.group, &kill.oom_memcg), (&Some(path("/a/b")), &Some(path("/a"))));
    assert_eq!(told.book.due(), None);
}

#[test]
fn a_group_killed_whole_is_one_record_with_all_its_processes() {
    let mut told = Told::new(true);
    let lines = [
        summary(Some("/a"), "/a/b", "hog", 4),
        killed(Scope::Memcg, "hog", 4),
        whole("/a"),
        killed(Scope::Memcg, "one", 5),
        killed(Scope::Memcg, "two", 6),
        summary(None, "/c", "x", 7),
        killed(Scope::Global, "x", 7),
    ];
    told.lines(10, lines);
    told.book.counted(4, at(10));
    let kills = told.settle(700, vec![rise("/a/b", 3), rise("/c", 1)]);
    let seen: Vec<_> = kills.iter().map(|kill| (kill.scope, kill.processes, kill.counted, kill.whole_group.clone())).collect();
    assert_eq!(seen, [(Scope::Memcg, 3, 3, Some(path("/a"))), (Scope::Global, 1, 1, None)]);
}

#[test]
fn two_whole_groups_without_summaries_are_told_apart() {
    let mut told = Told::new(true);
    let lines = [
        killed(Scope::Memcg, "a1", 1),
        whole("/a"),
        killed(Scope::Memcg, "a2", 2),
        killed(Scope::Memcg, "b1", 3),
        whole("/b"),
        killed(Scope::Memcg, "b2", 4),
    ];
    told.lines(10, lines);
    told.book.counted(4, at(10));
    let kills = told.settle(700, Vec::new());
    let seen: Vec<_> = kills.iter().map(|kill| (kill.processes, kill.whole_group.clone())).collect();
    assert_eq!(seen, [(2, Some(path("/a"))), (2, Some(path("/b")))]);
}

#[test]
fn a_line_that_nobody_counted_is_not_confirmed() {
    let mut told = Told::new(true);
    told.lines(10, [killed(Scope::Global, "x", 4)]);
    let kills = told.settle(700, Vec::new());
    assert_eq!(kills.iter().map(|kill| (kill.processes, kill.counted)).collect::<Vec<_>>(), [(1, 0)]);
}

#[test]
fn a_count_without_a_line_waits_and_is_recorded_by_itself() {
    let mut told = Told::new(true);
    told.book.counted(3, at(10));
    assert_eq!(told.settle(260, vec![rise("/a", 2)]), []);
    assert_eq!(told.book.due(), Some(at(260) + PATIENCE));
    let kills = told.settle(1260, Vec::new());
    let seen: Vec<_> = kills.iter().map(|kill| (kill.group.clone(), kill.scope, kill.counted, kill.victim.is_none())).collect();
    assert_eq!(seen, [(Some(path("/a")), Scope::Memcg, 2, true), (None, Scope::Global, 1, true)]);
    assert_eq!(told.book.due(), None);
}

#[test]
fn without_a_log_counters_are_recorded_at_once() {
    let mut told = Told::new(false);
    told.book.counted(1, at(10));
    let global = Rise { limited: false, ..rise("/a", 1) };
    let kills = told.settle(260, vec![global]);
    assert_eq!(kills.iter().map(|kill| (kill.scope, kill.counted)).collect::<Vec<_>>(), [(Scope::Global, 1)]);
}

#[test]
fn names_that_can_be_read_in_two_ways_are_settled_by_counters() {
    // A group made for it: both readings are lawful.
    let (limit, group) = ("/a", "/a/b,task_memcg=/a,task_memcg=/a/b");
    let line = summary(Some(limit), group, "hog", 4);
    let Line::Summary(read) = &line else { panic!("no summary") };
    assert_eq!(read.readings.len(), 2);
    for (risen, expected) in [(Some(group), Some(group)), (Some("/a/b"), Some("/a/b")), (None, None)] {
        let mut told = Told::new(true);
        told.lines(10, [line.clone(), killed(Scope::Memcg, "hog", 4)]);
        told.book.counted(1, at(10));
        let kills = told.settle(700, risen.map(|group| rise(group, 1)).into_iter().collect());
        assert_eq!(kills.iter().map(|kill| kill.group.clone()).collect::<Vec<_>>(), [expected.map(path)]);
    }
}

#[test]
fn a_forged_comm_is_told_by_the_line_that_cannot_be_forged() {
    for comm in ["x,pid=1,uid=0", "a,task=b", ",task_memcg=/ab"] {
        let mut told = Told::new(true);
        told.lines(10, [summary(Some("/a"), "/a/b", comm, 4), killed(Scope::Memcg, comm, 4)]);
        told.book.counted(1, at(10));
        let kills = told.settle(700, vec![rise("/a/b", 1)]);
        assert_eq!(kills.iter().map(|kill| kill.group.clone()).collect::<Vec<_>>(), [Some(path("/a/b"))], "{comm}");
    }
}

/// The line about a thread: another pid, and the thread's own comm and user.
fn killed_thread(scope: Scope, comm: &str, pid: u32, uid: u32) -> Line {
    let Line::Killed(killed) = killed(scope, comm, pid) else { panic!("no kill") };
    Line::Killed(Killed { uid: Some(uid), ..killed })
}

#[test]
fn a_kill_that_names_a_thread_has_the_record_of_its_process() {
    // By the order of the lines, and by what /proc still tells of the thread.
    for (process, uid) in [(None, 0), (Some(4), 0), (Some(4), 77)] {
        let mut told = Told::new(true);
        told.lines(10, [summary(Some("/a"), "/a/b", "main", 4)]);
        told.book.line(killed_thread(Scope::Memcg, "worker", 9, uid), at(10), ZERO, |_| Seen { group: None, process });
        told.book.counted(1, at(10));
        let kills = told.settle(700, vec![rise("/a/b", 1)]);
        let [kill] = &kills[..] else { panic!("{kills:?}") };
        let victim = kill.victim.as_ref().unwrap();
        assert_eq!((victim.pid, &victim.comm[..], kill.thread), (4, &b"main"[..], Some(9)));
        assert_eq!((kill.constraint, &kill.oom_memcg, &kill.group), (Some(Constraint::Memcg), &Some(path("/a")), &Some(path("/a/b"))));
        assert_eq!((kill.counted, victim.uid), (1, Some(uid)));
    }
}

#[test]
fn a_kill_of_somebody_else_takes_no_summary_that_is_not_its_own() {
    let thread = |scope, uid| killed_thread(scope, "worker", 9, uid);
    let of = |process| Seen { group: None, process };
    let announced = || vec![summary(Some("/a"), "/a/b", "main", 4)];
    for (why, before, line, seen) in [
        ("another shortage", announced(), thread(Scope::Global, 0), of(Some(4))),
        ("another user", announced(), thread(Scope::Memcg, 77), of(None)),
        ("another process", announced(), thread(Scope::Memcg, 0), of(Some(5))),
        ("lines are missing", [announced(), vec![Line::Gap]].concat(), thread(Scope::Memcg, 0), of(None)),
        ("it was not needed", [announced(), vec![Line::Skipped]].concat(), thread(Scope::Memcg, 0), of(Some(4))),
        ("it was another's", [announced(), vec![killed(Scope::Memcg, "main", 4)]].concat(), thread(Scope::Memcg, 0), of(None)),
    ] {
        let mut told = Told::new(true);
        told.lines(10, before);
        told.book.line(line, at(10), ZERO, |_| seen);
        told.book.counted(2, at(10));
        let kills = told.settle(700, Vec::new());
        let last = kills.iter().rfind(|kill| kill.victim.as_ref().is_some_and(|victim| victim.comm == b"worker")).unwrap();
        assert_eq!((last.constraint, &last.oom_memcg, &last.group), (None, &None, &None), "{why}");
    }
}

#[test]
fn a_thread_without_a_summary_is_told_by_its_process() {
    let mut told = Told::new(true);
    told.book.line(killed_thread(Scope::Memcg, "worker", 9, 0), at(10), ZERO, |_| Seen { group: Some(b"/b".to_vec()), process: Some(4) });
    told.book.counted(1, at(10));
    let kills = told.settle(700, vec![rise("/b", 1)]);
    let [kill] = &kills[..] else { panic!("{kills:?}") };
    assert_eq!((kill.victim.as_ref().unwrap().pid, kill.thread, &kill.group), (4, Some(9), &Some(path("/b"))));
}

/// A thread may take any comm, so that it chooses no reading of the names.
#[test]
fn a_threads_comm_settles_no_names() {
    let (limit, group) = ("/a", "/a/b,task=x");
    let line = summary(Some(limit), group, "hog", 4);
    let Line::Summary(read) = &line else { panic!("no summary") };
    let forged = read.readings.iter().find(|reading| reading.task_memcg != group.as_bytes());
    let comm = forged.map_or("x".to_owned(), |reading| String::from_utf8_lossy(&reading.comm).into_owned());
    let mut told = Told::new(true);
    told.lines(10, [line.clone(), killed_thread(Scope::Memcg, &comm, 9, 0)]);
    told.book.counted(1, at(10));
    let kills = told.settle(700, vec![rise(group, 1)]);
    assert_eq!(kills.iter().map(|kill| kill.group.clone()).collect::<Vec<_>>(), [Some(path(group))]);
}

#[test]
fn kills_without_a_summary_are_placed_by_proc_or_by_the_only_group_that_counted() {
    let mut told = Told::new(true);
    told.lines(10, [killed(Scope::Memcg, "x", 4), killed(Scope::Memcg, "x", 5)]);
    told.book.line(killed(Scope::Memcg, "y", 6), at(10), ZERO, |_| Seen { group: Some(b"/b".to_vec()), process: None });
    told.book.counted(3, at(10));
    let kills = told.settle(700, vec![rise("/a", 2), rise("/b", 1)]);
    let groups: Vec<_> = kills.iter().map(|kill| kill.group.clone()).collect();
    assert_eq!(groups, ["/a", "/a", "/b"].map(|group| Some(path(group))));
    let mut told = Told::new(true);
    told.lines(10, [killed(Scope::Memcg, "x", 4), killed(Scope::Memcg, "x", 5)]);
    told.book.counted(2, at(10));
    let kills = told.settle(700, vec![rise("/a", 1), rise("/b", 1)]);
    assert!(kills.iter().all(|kill| kill.group.is_none() && kill.counted == 1), "nobody can tell which was which: {kills:?}");
}

#[test]
fn a_storm_that_never_rests_is_recorded_all_the_same_and_counts_exactly() {
    let mut told = Told::new(true);
    let (mut kills, mut now, mut counted) = (0, 0, 0);
    for pid in 1..=200 {
        now = u64::from(pid) * 10;
        told.lines(now, [killed(Scope::Memcg, "x", pid)]);
        told.book.counted(1, at(now));
        if told.book.due().is_some_and(|due| due <= at(now)) {
            for kill in told.settle(now, vec![rise("/a", 100)]) {
                (kills, counted) = (kills + 1, counted + kill.counted);
            }
        }
    }
    assert!(kills > 0 && told.book.due().is_some());
    for kill in told.settle(now + 600, Vec::new()) {
        (kills, counted) = (kills + 1, counted + kill.counted);
    }
    assert_eq!((kills, counted), (200, 200));
}

#[test]
fn below_a_subtree_others_kills_are_not_ours() {
    let names = Names { prefix: Some(b"/tenant".to_vec()) };
    let mut book = Book::new(names, true);
    for (pid, group) in [(1, "/tenant/a"), (2, "/other/a"), (3, "/tenants")] {
        for line in [summary(Some(group), group, "x", pid), killed(Scope::Memcg, "x", pid)] {
            book.line(line, at(1), ZERO, |_| Seen::default());
        }
    }
    book.line(killed(Scope::Memcg, "x", 4), at(1), ZERO, |_| Seen::default());
    book.counted(1, at(1));
    let mut kills = Vec::new();
    book.settle(at(700), ZERO, false, vec![rise("/a", 1)], |kill| kills.push(kill));
    assert_eq!(kills.iter().map(|kill| (kill.group.clone(), kill.counted)).collect::<Vec<_>>(), [(Some(path("/a")), 1)]);
}

proptest::proptest! {
    /// Whatever comes in whatever order: what is recorded as counted is what was counted, once it is over.
    #[test]
    fn no_count_is_lost_or_made(steps in proptest::collection::vec((0..6_u8, 0..3_u64, 0..400_u64), 0..60)) {
        let mut told = Told::new(true);
        let (mut now, mut wanted, mut counted) = (0, 0, 0);
        for (kind, number, wait) in steps {
            now += wait;
            match kind {
                0 => told.lines(now, [killed(Scope::Memcg, "x", 4)]),
                1 => told.lines(now, [killed(Scope::Global, "y", 5)]),
                2 if number == 0 => told.lines(now, [Line::Gap, Line::Skipped, killed_thread(Scope::Memcg, "t", 9, 0)]),
                2 => told.lines(now, [whole("/a")]),
                3 => told.lines(now, [summary(Some("/a"), "/a", "x", 4)]),
                _ => {
                    told.book.counted(number, at(now));
                    wanted += number;
                }
            }
            if told.book.due().is_some_and(|due| due <= at(now)) {
                counted += told.settle(now, vec![rise("/a", number)]).iter().map(|kill| kill.counted).sum::<u64>();
            }
        }
        for _ in 0..4 {
            if let Some(due) = told.book.due() {
                let due = u64::try_from(due.as_millis()).unwrap() + 1;
                now = now.max(due);
                counted += told.settle(now, Vec::new()).iter().map(|kill| kill.counted).sum::<u64>();
            }
        }
        proptest::prop_assert_eq!(counted, wanted);
        proptest::prop_assert_eq!(told.book.due(), None);
    }
}
