use proptest::prelude::*;

use super::*;

fn a_summary(text: &[u8]) -> Summary {
    match line(text) {
        Some(Line::Summary(summary)) => summary,
        other => panic!("{}: {other:?}", String::from_utf8_lossy(text)),
    }
}

fn a_kill(text: &[u8]) -> Killed {
    match line(text) {
        Some(Line::Killed(killed)) => killed,
        other => panic!("{}: {other:?}", String::from_utf8_lossy(text)),
    }
}

fn memcg_summary(cpuset: &[u8], limit: &[u8], group: &[u8], comm: &[u8]) -> Vec<u8> {
    let parts: [&[u8]; 9] = [
        b"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=",
        cpuset,
        b",mems_allowed=0-1,3,oom_memcg=",
        limit,
        b",task_memcg=",
        group,
        b",task=",
        comm,
        b",pid=42,uid=1000",
    ];
    parts.concat()
}

fn killed_line(comm: &[u8]) -> Vec<u8> {
    let tail = b") total-vm:68600kB, anon-rss:31744kB, file-rss:1920kB, shmem-rss:4kB, UID:1000 pgtables:108kB oom_score_adj:-5";
    [&b"Memory cgroup out of memory: Killed process 42 ("[..], comm, tail].concat()
}

#[test]
fn a_limits_kill_is_read_as_6_12_writes_it() {
    let summary = a_summary(
        b"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a/b,task=hog,pid=158,uid=7",
    );
    assert_eq!((summary.constraint, summary.pid, summary.uid), (Constraint::Memcg, 158, 7));
    assert_eq!(summary.readings, [Reading { oom_memcg: Some(b"/a".to_vec()), task_memcg: b"/a/b".to_vec(), comm: b"hog".to_vec() }]);
    let killed = a_kill(&killed_line(b"hog"));
    assert_eq!((killed.scope, killed.pid, &killed.comm[..]), (Scope::Memcg, 42, &b"hog"[..]));
    assert_eq!((killed.uid, killed.oom_score_adj), (Some(1000), Some(-5)));
    let sizes =
        Sizes { total_vm: 68600 << 10, anon_rss: 31744 << 10, file_rss: 1920 << 10, shmem_rss: 4 << 10, page_tables: Some(108 << 10) };
    assert_eq!(killed.sizes, sizes);
}

#[test]
fn the_machines_own_kill_names_no_limit() {
    let summary = a_summary(
        b"oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/t,task=hog,pid=158,uid=0",
    );
    assert_eq!(summary.constraint, Constraint::None);
    assert_eq!(summary.readings, [Reading { oom_memcg: None, task_memcg: b"/t".to_vec(), comm: b"hog".to_vec() }]);
    for message in ["Out of memory", "Out of memory (oom_kill_allocating_task)"] {
        let text = format!("{message}: Killed process 1 (x) total-vm:4kB, anon-rss:0kB, file-rss:0kB, shmem-rss:0kB");
        let killed = a_kill(text.as_bytes());
        assert_eq!((killed.scope, killed.uid, killed.sizes.total_vm), (Scope::Global, None, 4096));
    }
}

/// Lines as kernels write them, by version of mm/oom_kill.c, and as they stand in public reports.
#[test]
fn lawful_lines_of_kernels_and_distributions() {
    let kill = |tail: &str| {
        format!(
            "Memory cgroup out of memory: Killed process 42 (hog) total-vm:68600kB, anon-rss:31744kB, file-rss:1920kB, shmem-rss:4kB{tail}"
        )
    };
    // Behind the sizes: user, page tables, oom_score_adj.
    for (source, tail, expected) in [
        ("5.2, 5.3", "", (None, None, None)),
        ("4.18 of RHEL 8.0 and 8.1, vendors' 5.x", ", UID:1000", (Some(1000), None, None)),
        ("5.4 to 6.17", ", UID:1000 pgtables:108kB oom_score_adj:-5", (Some(1000), Some(108 << 10), Some(-5))),
        ("5.4 to 6.17, a user of a directory service", ", UID:2147483648 pgtables:0kB oom_score_adj:0", (Some(1 << 31), Some(0), Some(0))),
        ("5.4 to 6.17, the last user", ", UID:4294967294 pgtables:0kB oom_score_adj:1000", (Some(u32::MAX - 1), Some(0), Some(1000))),
        ("5.10 with hugetlb's patch", ", UID:0 pgtables:8kB oom_score_adj:0, hugetlb-usage:0kB", (Some(0), Some(8192), Some(0))),
        ("without the page tables", ", UID:7 oom_score_adj:900", (Some(7), None, Some(900))),
    ] {
        let killed = a_kill(kill(tail).as_bytes());
        assert_eq!((killed.uid, killed.sizes.page_tables, killed.oom_score_adj), expected, "{source}");
        assert_eq!((killed.pid, killed.sizes.anon_rss), (42, 31744 << 10), "{source}");
    }
    for broken in
        [", UID:", ", UID:x", ", UID:4294967296", ", UID:-2147483649", ",UID:1", ", UID", " and so on", ", UID:1 pgtables:-1kB", ", ", " "]
    {
        assert_eq!(line(kill(broken).as_bytes()), None, "{broken}");
    }
    // The summary: `uid=%d` since 5.0, so that the upper half of all users is negative.
    let summary =
        |names: &str, uid: &str| format!("oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null){names},task=hog,pid=158,uid={uid}");
    let usual = ",cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a/b";
    for (uid, expected) in [
        ("0", 0),
        ("2147483647", i32::MAX.cast_unsigned()),
        ("-2147483648", 1 << 31),
        ("-1", u32::MAX),
        ("-2", u32::MAX - 1),
        ("2147483648", 1 << 31),
    ] {
        assert_eq!(a_summary(summary(usual, uid).as_bytes()).uid, expected, "{uid}");
    }
    for uid in ["", "-", "--1", "-2147483649", "4294967296", "1x", "+1"] {
        assert_eq!(line(summary(usual, uid).as_bytes()), None, "{uid}");
    }
    // (source, what stands between nodemask and task, readings)
    let named = |limit: Option<&str>, group: &str| {
        vec![Reading {
            oom_memcg: limit.map(|limit| limit.as_bytes().to_vec()),
            task_memcg: group.as_bytes().to_vec(),
            comm: b"hog".to_vec(),
        }]
    };
    for (source, names, expected) in [
        ("5.0 to 6.17", usual, named(Some("/a"), "/a/b")),
        ("without CONFIG_CPUSETS", ",oom_memcg=/a,task_memcg=/a/b", named(Some("/a"), "/a/b")),
        ("several NUMA nodes", ",cpuset=batch,mems_allowed=0-1,3,oom_memcg=/a,task_memcg=/a", named(Some("/a"), "/a")),
        ("the root's own processes", ",cpuset=/,mems_allowed=0,global_oom,task_memcg=/", named(None, "/")),
        (
            "Docker and Kubernetes on cgroup v1 names",
            ",cpuset=ef80,mems_allowed=0,oom_memcg=/kubepods/burstable/podf,task_memcg=/kubepods/burstable/podf/ef80",
            named(Some("/kubepods/burstable/podf"), "/kubepods/burstable/podf/ef80"),
        ),
        ("a path beyond 4096 bytes", ",cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=(name too long)", vec![]),
        ("both of them", ",cpuset=/,mems_allowed=0,oom_memcg=(name too long),task_memcg=(name too long)", vec![]),
        ("the same of the machine", ",cpuset=/,mems_allowed=0,global_oom,task_memcg=(error)", vec![]),
    ] {
        let read = a_summary(summary(names, "7").as_bytes());
        assert_eq!((read.readings, read.pid, read.uid), (expected, 158, 7), "{source}");
    }
}

#[test]
fn a_kill_that_was_not_needed_is_told() {
    for message in ["Memory cgroup out of memory", "Out of memory", "Out of memory (oom_kill_allocating_task)"] {
        let text = format!("{message}: OOM victim 42 (x) y) is already exiting. Skip killing the task");
        assert_eq!(line(text.as_bytes()), Some(Line::Skipped), "{message}");
    }
    assert_eq!(line(b"Out of memory: OOM victim x (y) is already exiting. Skip killing the task"), None);
    assert_eq!(line(b"Out of memory: OOM victim 42 (y) is already exiting."), None);
}

#[test]
fn a_whole_group_is_named() {
    let text = b"Tasks in /a, are going to be killed are going to be killed due to memory.oom.group set";
    assert_eq!(line(text), Some(Line::WholeGroup(b"/a, are going to be killed".to_vec())));
    assert_eq!(line(b"Tasks in "), None);
}

#[test]
fn a_line_that_only_looks_like_one_is_none() {
    for text in [
        &b"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a"[..],
        b"oom-kill:constraint=CONSTRAINT_OTHER,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a,task=x,pid=1,uid=0",
        b"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/b,task=x,pid=1,uid=0",
        b"Memory cgroup out of memory: Killed process 42 (sixteen bytes in) total-vm:1kB, anon-rss:1kB, file-rss:1kB, shmem-rss:1kB",
        b"Out of memory: Killed process 42 (x) total-vm:1kB, anon-rss:1kB, file-rss:1kB, shmem-rss:1kB and so on",
        b"Out of memory: Killed process 99999999999 (x) total-vm:1kB, anon-rss:1kB, file-rss:1kB, shmem-rss:1kB",
        b"Out of memory: Killed process 4 (x) total-vm:99999999999999999999kB, anon-rss:1kB, file-rss:1kB, shmem-rss:1kB",
        b"x: Out of memory: Killed process 42 (x) total-vm:1kB, anon-rss:1kB, file-rss:1kB, shmem-rss:1kB",
        b"",
    ] {
        assert_eq!(line(text), None, "{}", String::from_utf8_lossy(text));
    }
}

/// Names that were made to be misread.
const FORGED_COMMS: [&[u8]; 10] = [
    b"x,pid=1,uid=0",
    b"a,task=b",
    b",task=,task=,t",
    b",task_memcg=/ab",
    b"x) total-vm:1kB",
    b") total-vm:",
    b"(((",
    b"x\noom-kill:",
    b"\xff\xfe,uid=1",
    b"",
];

#[test]
fn no_comm_hides_the_pid_the_group_or_itself() {
    for comm in FORGED_COMMS {
        let summary = a_summary(&memcg_summary(b"/", b"/a", b"/a/b", comm));
        assert_eq!((summary.pid, summary.uid), (42, 1000));
        let fitting: Vec<_> = summary.readings.iter().filter(|reading| reading.comm == comm).collect();
        assert!(
            fitting.iter().any(|reading| reading.task_memcg == b"/a/b" && reading.oom_memcg.as_deref() == Some(b"/a")),
            "{}: {:?}",
            String::from_utf8_lossy(comm),
            summary.readings
        );
        assert_eq!(fitting.len(), 1, "{}", String::from_utf8_lossy(comm));
        assert_eq!(a_kill(&killed_line(comm)).comm, comm);
    }
}

#[test]
fn no_name_of_a_group_hides_the_victims() {
    for name in [
        &b"/a,task=b"[..],
        b"/a,task=b,pid=1,uid=0",
        b"/a,task_memcg=/a",
        b"/a,oom_memcg=/b,task_memcg=/b",
        b"/a,global_oom,task_memcg=/b",
        b"/a\\x2db/\xff",
    ] {
        let group = [name, b"/below"].concat();
        let summary = a_summary(&memcg_summary(b"/", name, &group, b"hog"));
        let wanted = Reading { oom_memcg: Some(name.to_vec()), task_memcg: group, comm: b"hog".to_vec() };
        assert_eq!(summary.readings, [wanted], "{}", String::from_utf8_lossy(name));
        assert_eq!(summary.pid, 42);
    }
}

#[test]
fn no_name_of_a_cpusets_group_stands_for_a_memory_group() {
    for cpuset in [&b"x,mems_allowed=0,global_oom,task_memcg="[..], b",oom_memcg=", b"a,oom_memcg=b,task_memcg=c,task=d,pid=1,uid=0"] {
        let summary = a_summary(&memcg_summary(cpuset, b"/a", b"/a", b"hog"));
        let wanted = Reading { oom_memcg: Some(b"/a".to_vec()), task_memcg: b"/a".to_vec(), comm: b"hog".to_vec() };
        assert_eq!(summary.readings, [wanted]);
    }
}

#[test]
fn a_path_that_may_be_cut_off_is_not_taken_for_whole() {
    let long = [b"/".as_slice(), &[b'a'; PATH_BYTES]].concat();
    let summary = a_summary(&memcg_summary(b"/", b"/", &long, b"hog"));
    assert_eq!((summary.pid, summary.readings.len()), (42, 0));
}

#[test]
fn records_tell_who_wrote_them_and_their_bytes() {
    let record = kmsg(b"6,339,5140900,-;a\\x5cx2db\\x0ac\n SUBSYSTEM=x\n").expect("a record");
    assert_eq!(
        record,
        Record { by_kernel: true, number: Some(339), continues: false, after_gap: false, text: Cow::Borrowed(b"a\\x2db\nc") }
    );
    assert!(!kmsg(b"12,340,5140900,-;Out of memory: Killed").expect("a record").by_kernel);
    assert!(kmsg(b"4,341,5140900,c,caller=T1;rest").expect("a record").continues);
    for bad in [&b""[..], b"6,339", b"x,1,2,-;a", b"6,1;a", b"6,1,2;a"] {
        assert_eq!(kmsg(bad), None);
    }
    let text = |line| syslog(line).map(|record| (record.by_kernel, record.text.into_owned()));
    assert_eq!(text(b"<6>[    5.140900] [x] y"), Some((true, b"[x] y".to_vec())));
    assert_eq!(text(b"<3>[    5.140900][  T123] y"), Some((true, b"y".to_vec())));
    assert_eq!(text(b"<12>y"), Some((false, b"y".to_vec())));
    assert_eq!(text(b"y"), None);
}

proptest! {
    #[test]
    fn no_bytes_upset_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (kmsg(&bytes), syslog(&bytes), line(&bytes));
        for begin in [
            &b"oom-kill:constraint=CONSTRAINT_MEMCG,"[..],
            b"oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/a,task_memcg=/a,task=x,pid=1,uid=",
            b"Memory cgroup out of memory: Killed process ",
            b"Out of memory: Killed process 4 (x) total-vm:1kB, anon-rss:1kB, file-rss:1kB, shmem-rss:1kB",
            b"Out of memory: OOM victim ",
            b"Tasks in ",
        ] {
            let _ = line(&[begin, &bytes].concat());
        }
    }

    #[test]
    fn the_true_names_are_always_among_the_readings(
        limit in "/[a,=_/]{0,4}(,task=|,task_memcg=|,oom_memcg=|b){0,3}",
        below in "(/(,task=|,task_memcg=/|,pid=1|x){1,3}){0,2}",
        comm in "(,task=|,task_memcg=|,uid=|[a-z,=/]){0,2}",
    ) {
        prop_assume!(comm.len() <= COMM_BYTES);
        let group = format!("{limit}{below}");
        let summary = a_summary(&memcg_summary(b"/", limit.as_bytes(), group.as_bytes(), comm.as_bytes()));
        prop_assert_eq!(summary.pid, 42);
        let truth = |reading: &Reading| {
            reading.oom_memcg.as_deref() == Some(limit.as_bytes()) && reading.task_memcg == group.as_bytes() && reading.comm == comm.as_bytes()
        };
        prop_assert!(summary.readings.is_empty() || summary.readings.iter().any(truth), "{:?}", summary.readings);
    }

    #[test]
    fn every_user_is_read_as_the_kernel_prints_it(uid in any::<u32>(), adj in any::<i16>(), tables in 0..u64::MAX >> 11) {
        let summary = format!("oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/,task=x,pid=1,uid={}", uid.cast_signed());
        prop_assert_eq!(a_summary(summary.as_bytes()).uid, uid);
        let kill = format!("Out of memory: Killed process 4 (x) total-vm:1kB, anon-rss:1kB, file-rss:1kB, shmem-rss:1kB, UID:{uid} pgtables:{tables}kB oom_score_adj:{adj}");
        let killed = a_kill(kill.as_bytes());
        prop_assert_eq!((killed.uid, killed.sizes.page_tables, killed.oom_score_adj), (Some(uid), Some(tables << 10), Some(i32::from(adj))));
    }

    #[test]
    fn escaping_is_undone(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let mut record = b"6,1,2,-;".to_vec();
        for byte in &bytes {
            match byte {
                b' '..=b'~' if *byte != b'\\' => record.push(*byte),
                other => record.extend_from_slice(format!("\\x{other:02x}").as_bytes()),
            }
        }
        record.push(b'\n');
        prop_assert_eq!(kmsg(&record).map(|record| record.text.into_owned()), Some(bytes));
    }
}
