use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::sync::mpsc::channel;

use super::*;
use crate::metrics::counters::Counters;

/// A place where deaths are told, of its own.
fn somewhere() -> (Counters, Watch) {
    let counters = Counters::new().unwrap();
    let watch = Watch { degraded: Arc::clone(counters.degraded()), deaths: counters.thread_deaths().clone(), dead: Mutex::default() };
    (counters, watch)
}

fn deaths(counters: &Counters, name: &str) -> u64 {
    counters.thread_deaths().with_label_values(&[name]).get()
}

#[test]
fn who_dies_is_said_and_begins_anew_and_is_healthy_then() {
    let (counters, watch) = somewhere();
    let (mut pauses, mut degraded) = (Vec::new(), Vec::new());
    let mut begun = Vec::new();
    let rest = |pause| {
        pauses.push(pause);
        degraded.push(counters.degraded().list());
    };
    supervise("witness", Some(&watch), rest, &mut |before| {
        begun.push(before);
        match before {
            0 => panic!("a {}", "surprise"),
            1 => Err("no descriptor left".into()),
            _ => {
                assert!(counters.degraded().list().is_empty(), "it works again");
                Ok(())
            }
        }
    });
    assert_eq!(begun, [0, 1, 2]);
    assert_eq!(pauses, [Duration::from_secs(1), Duration::from_secs(2)]);
    let texts: Vec<String> = degraded.iter().flatten().map(|(reason, text)| format!("{}: {text}", reason.word())).collect();
    assert_eq!(
        texts,
        [
            "threads: thread witness has died (a surprise): it is started anew in 1 s",
            "threads: thread witness has died (no descriptor left): it is started anew in 2 s"
        ]
    );
    assert_eq!(deaths(&counters, "witness"), 2);
}

#[test]
fn who_dies_over_and_over_is_left_dead_and_the_daemon_stays_degraded() {
    let (counters, watch) = somewhere();
    let (mut begun, mut slept) = (0, Duration::ZERO);
    supervise("hooks", Some(&watch), |pause| slept += pause, &mut |_| {
        begun += 1;
        panic!("always");
    });
    assert_eq!((begun, deaths(&counters, "hooks")), (MOST_DEATHS, u64::from(MOST_DEATHS)));
    assert_eq!(slept, Duration::from_secs(1 + 2 + 4 + 8 + 16 + 32 + 60 + 60 + 60));
    let left = counters.degraded().list();
    assert!(left.len() == 1 && left[0].1.contains("thread hooks has died (always): it died 10 times in a row"), "{left:?}");
    // Another one that comes back does not make it look healthy.
    supervise("log", Some(&watch), |_| (), &mut |before| if before == 0 { Err("once".into()) } else { Ok(()) });
    assert!(counters.degraded().list()[0].1.starts_with("thread hooks has died"));
}

#[test]
fn a_lock_that_a_panic_left_is_used_by_the_others() {
    let (_, watch) = somewhere();
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let _held = watch.dead();
        panic!("with the lock");
    }));
    watch.died("log", "x", "y");
    assert_eq!(watch.dead().len(), 1);
}

#[test]
fn a_watched_thread_ends_when_its_work_does_and_who_is_stuck_is_not_waited_for() {
    let (release, released) = channel::<()>();
    let running = watched("server", 64 * 1024, move |_| {
        // Until the other end is gone.
        let _ = released.recv();
        Ok(())
    })
    .unwrap();
    assert!(!running.wait(Duration::from_millis(10)));
    drop(release);
    assert!(running.wait(Duration::from_secs(10)));
}

#[test]
fn all_watched_threads_are_counted_from_the_start() {
    let text = Counters::new().unwrap().encode().unwrap();
    for name in WATCHED {
        assert!(text.contains(&format!("oomwarden_thread_deaths_total{{thread=\"{name}\"}} 0")), "{name}:\n{text}");
    }
}

/// What a test of this file does when it is run as a process of its own.
const AS: &str = "OOMWARDEN_TEST_DIES_AS";

/// Runs this file's test of that name in a process of its own, with a hook and without; how that ended and what it said.
fn elsewhere(test: &str, kind: &str) -> (Option<i32>, String) {
    let own = std::env::current_exe().unwrap();
    let name = format!("threads::tests::{test}");
    let out = Command::new(own).args([&name, "--exact", "--nocapture"]).env(AS, kind).output().unwrap();
    (out.status.signal(), String::from_utf8_lossy(&out.stderr).into_owned())
}

fn forever() -> ! {
    std::thread::sleep(Duration::from_secs(60));
    std::process::exit(3)
}

#[test]
fn a_vital_thread_that_panics_takes_the_process_along_and_says_why() {
    if let Ok(kind) = std::env::var(AS) {
        if kind != "bare" {
            let counters = Counters::new().unwrap();
            watch(Arc::clone(counters.degraded()), counters.thread_deaths().clone());
        }
        if kind == "main" {
            as_vital("warden", || panic!("the wheel\nis broken"));
        }
        vital("scout", 64 * 1024, || panic!("the wheel\nis broken")).unwrap();
        forever();
    }
    for (kind, thread) in [("main", "warden"), ("hooked", "scout"), ("bare", "scout")] {
        let (signal, said) = elsewhere("a_vital_thread_that_panics_takes_the_process_along_and_says_why", kind);
        assert_eq!(signal, Some(libc::SIGABRT), "{kind}: {said}");
        let line = said.lines().find(|line| line.starts_with("oomwarden: error:")).unwrap_or_else(|| panic!("{kind}: {said}"));
        assert!(line.contains(&format!("thread {thread} panicked")) && line.ends_with(": the wheel?is broken"), "{kind}: {line}");
        assert_eq!(line.contains("src/threads/tests.rs:"), kind != "bare", "{line}");
    }
}

#[test]
fn a_watched_thread_that_panics_takes_nobody_along() {
    if std::env::var(AS).is_ok() {
        let counters = Counters::new().unwrap();
        watch(Arc::clone(counters.degraded()), counters.thread_deaths().clone());
        let running = watched("recorder", 64 * 1024, |before| if before == 0 { panic!("once") } else { Ok(()) }).unwrap();
        assert!(running.wait(Duration::from_secs(30)));
        assert_eq!((deaths(&counters, "recorder"), counters.degraded().list().len()), (1, 0));
        return;
    }
    let (signal, said) = elsewhere("a_watched_thread_that_panics_takes_nobody_along", "watched");
    assert_eq!(signal, None, "{said}");
}
