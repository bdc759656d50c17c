use super::*;
use proptest::prelude::*;

#[test]
fn single_values() {
    assert_eq!(value(b"4096\n"), Ok(4096));
    assert_eq!(value(b"18446744073709551615\n"), Ok(u64::MAX));
    assert_eq!(value(b"18446744073709551616\n"), Err(ParseError::Number));
    assert_eq!(value(b"4096"), Err(ParseError::Short));
    assert_eq!(value(b""), Err(ParseError::Short));
    assert_eq!(value(b"max\n"), Err(ParseError::Number));
    assert_eq!(value(b"1\n2\n"), Err(ParseError::Shape));
    assert_eq!(limit(b"max\n"), Ok(Limit::Unlimited));
    assert_eq!(limit(b"0\n"), Ok(Limit::Bytes(0)));
    assert_eq!(limit(b"-1\n"), Err(ParseError::Number));
    assert_eq!(flag(b"1\n"), Ok(true));
    assert_eq!(flag(b"2\n"), Err(ParseError::Shape));
    assert_eq!(signed(b"-1000\n"), Ok(-1000));
    assert_eq!(signed(b"--1\n"), Err(ParseError::Number));
    assert_eq!(process_memory(b"Name:\tx\nVmRSS:\t    3000 kB\nRssAnon:\t    9 kB\nVmSwap:\t    1096 kB\n"), Ok(Some(4096 << 10)));
    assert_eq!(process_memory(b"Name:\tVmRSS:\t9 kB\nState:\tZ (zombie)\nThreads:\t1\n"), Ok(None));
    assert_eq!(process_memory(b"VmRSS:\t3000\n"), Err(ParseError::Shape));
}

/// That of a single process, by its status file.
#[test]
fn who_was_sent_sigkill_and_waits_in_the_kernel_is_being_killed() {
    let status = |own: &str, shared: &str| format!("Name:\tShdPnd:\t100\nSigPnd:\t{own}\nShdPnd:\t{shared}\nSigBlk:\t0000000000000100\n");
    assert!(is_being_killed(status("0000000000000100", "0000000000000000").as_bytes()));
    assert!(is_being_killed(status("0000000000000000", "0000000000004100").as_bytes()));
    assert!(!is_being_killed(status("0000000000000000", "0000000000004000").as_bytes()), "SIGTERM is another matter");
    assert!(!is_being_killed(b"ShdPnd:\tzz\n") && !is_being_killed(b""));
}

#[test]
fn event_counters_by_name_missing_ones_are_none() {
    let read = events(b"low 0\nhigh 12\nmax 3\noom 1\noom_kill 1\noom_group_kill 0\nsock_throttled 5\n").unwrap();
    assert_eq!((read.high, read.oom_kill, read.oom_group_kill), (Some(12), Some(1), Some(0)));
    let older = events(b"low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n").unwrap();
    assert_eq!(older.oom_group_kill, None);
    assert_eq!(events(b"low 0\nhigh 1"), Err(ParseError::Short));
    assert_eq!(events(b""), Err(ParseError::Short));
    assert_eq!(events(b"low\n"), Err(ParseError::Shape));
    assert_eq!(events(b"low x\n"), Err(ParseError::Number));
}

#[test]
fn stat_and_what_can_be_reclaimed() {
    let text = "anon 10\nfile 100\nshmem 5\nfile_dirty 8\nfile_writeback 2\ninactive_file 50\nactive_file 30\nslab_reclaimable 7\n";
    let read = stat(text.as_bytes()).unwrap();
    assert_eq!(read.anon, Some(10));
    assert_eq!(read.reclaimable(), Some(50 + 30 - 8 - 2 + 7), "hot cache and dentries too, but not what must be written");
    let without = |key: &str| {
        let lines = text.lines().filter(|line| !line.starts_with(key)).map(|line| format!("{line}\n"));
        stat(lines.collect::<String>().as_bytes()).unwrap().reclaimable()
    };
    // Unknown cache is not taken for none: that would make the group look full.
    assert_eq!((without("inactive_file"), without("active_file")), (None, None));
    assert_eq!((without("file_dirty"), without("slab_reclaimable")), (Some(85), Some(70)));
    assert_eq!(stat(b"file_dirty 80\ninactive_file 50\nactive_file 0\nslab_reclaimable 3\n").unwrap().reclaimable(), Some(3));
}

#[test]
fn page_cache_that_outlives_processes() {
    let outlives = |text: &str| stat(text.as_bytes()).unwrap().outlives();
    assert_eq!(outlives("file 100\nshmem 60\nfile_mapped 0\nunevictable 0\n"), Some(100));
    // Mapped shared memory may be anonymous and die with its processes; mapped files stay.
    assert_eq!(outlives("file 100\nshmem 60\nfile_mapped 25\nunevictable 0\n"), Some(75));
    assert_eq!(outlives("file 100\nshmem 60\nfile_mapped 80\nunevictable 0\n"), Some(40));
    // What is locked can be reclaimed when who locked it is gone.
    assert_eq!(outlives("file 100\nshmem 0\nfile_mapped 80\nunevictable 70\n"), Some(30));
    assert_eq!(outlives("file 100\nshmem 60\nfile_mapped 0\n"), None);
    let tmpfs = |text: &str| stat(text.as_bytes()).unwrap().tmpfs();
    assert_eq!(tmpfs("file 100\nshmem 60\nfile_mapped 0\nunevictable 0\nfile_dirty 40\n"), Some(60));
    assert_eq!(tmpfs("file 100\nshmem 60\nfile_mapped 15\nunevictable 5\n"), Some(40));
    assert_eq!(tmpfs("file 100\nfile_mapped 15\nunevictable 5\n"), None);
}

#[test]
fn pressure_totals() {
    let text = b"some avg10=0.00 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n";
    assert_eq!(pressure(text), Ok(Pressure { some_us: Some(7), full_us: Some(3) }));
    assert_eq!(pressure(b"some avg10=0.00 avg60=0.00 avg300=0.00\n"), Err(ParseError::Shape));
    assert_eq!(pressure(&text[..text.len() - 1]), Err(ParseError::Short));
}

#[test]
fn group_state() {
    assert_eq!(populated(b"populated 1\nfrozen 0\n"), Ok(Some(true)));
    assert_eq!(populated(b"frozen 0\n"), Ok(None));
    assert_eq!(descendants(b"nr_descendants 3\nnr_dying_descendants 9\n"), Ok(Some(3)));
    assert_eq!(kind(b"domain\n"), Ok(Kind::Domain));
    assert_eq!(kind(b"domain threaded\n"), Ok(Kind::Domain));
    assert_eq!(kind(b"threaded\n"), Ok(Kind::Threaded));
    assert_eq!(kind(b"domain invalid\n"), Ok(Kind::Threaded));
    assert_eq!(kind(b"other\n"), Err(ParseError::Shape));
}

#[test]
fn processes_of_other_pid_namespaces_are_hidden_not_pid_zero() {
    assert_eq!(process(b"158"), Ok(Process::Pid(158)));
    assert_eq!(process(b"0"), Ok(Process::Hidden));
    assert_eq!(process(b"4294967296"), Err(ParseError::Number));
    assert_eq!(process(b"-1"), Err(ParseError::Number));
}

#[test]
fn meminfo_in_bytes() {
    let read = meminfo(b"MemTotal:         501760 kB\nMemFree: 1 kB\nMemAvailable:     450000 kB\nHugePages_Total:       0\n").unwrap();
    assert_eq!(read.total, Some(501_760 * 1024));
    assert_eq!(read.available, Some(450_000 * 1024));
    assert_eq!(read.swap_total, None);
    assert_eq!(meminfo(b"MemTotal: x kB\n"), Err(ParseError::Number));
}

#[test]
fn own_group_on_pure_hybrid_and_v1_machines() {
    assert_eq!(own_group(b"0::/system.slice/oomwarden.service\n"), Some(&b"/system.slice/oomwarden.service"[..]));
    assert_eq!(own_group(b"4:memory:/x\n0::/\n"), Some(&b"/"[..]));
    assert_eq!(own_group(b"4:memory:/x\n"), None);
    assert_eq!(own_group(b"0::/a\nb\n"), Some(&b"/a\nb"[..]));
    assert_eq!(own_group(b"0::/a"), None);
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = (value(&text), limit(&text), flag(&text), events(&text), stat(&text), populated(&text));
        let _ = (pressure(&text), kind(&text), process(&text), signed(&text), process_memory(&text), meminfo(&text), own_group(&text));
    }

    #[test]
    fn near_misses_make_no_parser_panic(text in "((some|full|low|high|anon|populated|MemTotal:|total=|max|0::)[ =:0-9a-z/-]{0,30}\n?){0,8}") {
        let text = text.as_bytes();
        let _ = (value(text), limit(text), flag(text), events(text), stat(text), populated(text));
        let _ = (pressure(text), kind(text), process(text), signed(text), process_memory(text), meminfo(text), own_group(text));
        let _ = is_being_killed(text);
    }

    #[test]
    fn numbers_survive_the_round_trip(number in any::<u64>()) {
        prop_assert_eq!(value(format!("{number}\n").as_bytes()), Ok(number));
        prop_assert_eq!(events(format!("high {number}\n").as_bytes()).map(|events| events.high), Ok(Some(number)));
    }
}
