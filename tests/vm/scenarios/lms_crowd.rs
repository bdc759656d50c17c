//! The low memory signal's file among strangers: what many, or hostile, users of it can cost others.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::errno::Errno;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::MEASURED;
use super::lms_common::{Counters, EXCITABLE, ROUNDS, called, handler, short_of_memory};
use crate::guest::facts;
use crate::guest::group::{Group, MIB};
use crate::guest::kernel_log::KernelLog;
use crate::guest::lms::{self, FILE, Notifier};
use crate::guest::places;
use crate::guest::stamps;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};
use crate::sys;
use crate::workload::lms::{READY, SATISFIED};

/// An unprivileged user's opens, and the text that each reads, count against its group's limit, which ends it; nothing is left beside it.
pub fn opens_are_charged_to_who_opens() -> Outcome {
    const EACH: u64 = 12_000;
    lms::load("")?;
    let group = Group::new("t/hoarders")?.no_swap()?.max(24 * MIB)?;
    let slab_of_group =
        || -> Outcome<u64> { Ok(group.key("memory.stat", "slab_reclaimable")? + group.key("memory.stat", "slab_unreclaimable")?) };
    let outside = || -> Outcome<u64> { Ok((facts::meminfo_kib("Slab")? * 1024).saturating_sub(slab_of_group()?)) };
    let before = outside()?;
    let what = format!("lms-hoarder files={EACH} nofile={} uid=65534", EACH + 100);
    let mut hoarders = [Work::start(&group, &what)?, Work::start(&group, &what)?];
    let mut most = before;
    wait::until("they have what they want, or are stopped", SOON * 2, || {
        most = most.max(outside()?);
        let mut at_work = false;
        for work in &mut hoarders {
            at_work |= work.running()? && called_now(work)? != SATISFIED;
        }
        Ok(!at_work)
    })?;
    let grown = most - before;
    println!("{MEASURED}{} opens with reads, slab outside of the group that opened: {} KiB", 2 * EACH, grown >> 10);
    ensure!(group.event("oom_kill")? > 0, "the group's limit of 24 MiB did not stop {} opens and their texts", 2 * EACH);
    ensure!(grown < 8 * MIB, "{} KiB of slab are nobody's", grown >> 10);
    Ok(())
}

fn called_now(work: &Work) -> Outcome<String> {
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", work.pid()));
    // Gone meanwhile: the caller finds out.
    Ok(comm.unwrap_or_default().trim().to_owned())
}

/// Many files that wait for the signal, in a process of their own.
struct Crowd {
    work: Work,
    log: PathBuf,
}

impl Crowd {
    /// As many as the machine carries, up to 50,000. All wait when this returns.
    fn gather() -> Outcome<(Crowd, u64)> {
        // Of kernel memory: the open file, its waiter, what the module keeps.
        const EACH_BYTES: u64 = 900;
        let files = std::fs::read_to_string("/proc/sys/fs/file-max").doing("read file-max")?;
        let files: u64 = files.trim().parse().doing("understand file-max")?;
        let room = facts::meminfo_mib("MemAvailable")?.saturating_sub(200) * MIB / EACH_BYTES;
        let number = 50_000.min(room).min(files - 2000);
        let log = PathBuf::from(places::FILES).join("crowd");
        let what = format!("lms-crowd files={number} nofile={} adj=-1000 log={}", number + 100, log.display());
        let work = Work::start(&Group::new("crowd")?, &what)?;
        called(&work, READY)?;
        Ok((Crowd { work, log }, number))
    }

    /// Waits until the module's threads have nobody left to tell, and all who were told have heard of it.
    fn is_quiet(&self) -> Outcome {
        let pids = [facts::kernel_thread("oomwarden_lms")?, facts::kernel_thread("oomwarden_crowd")?, self.work.pid()];
        let switches = || pids.map(|pid| facts::Effort::of(pid).map(|effort| effort.switches));
        let mut before = switches();
        wait::until("the crowd sleeps", SOON, || {
            let mut asleep = true;
            for pid in pids {
                asleep &= facts::is_asleep(pid)?;
            }
            let now = switches();
            let same = before == now;
            before = now;
            Ok(same && asleep)
        })
    }

    /// Waits until all were told of something since `time`. When the first was, and the last.
    fn all_told_since(&self, time: u64) -> Outcome<(u64, u64)> {
        wait::find("all of the crowd are told", SOON, || {
            let stamps = stamps::read(&self.log)?;
            let first = stamps.iter().map(|(at, _)| *at).find(|at| *at >= time);
            let last = stamps.iter().find(|(_, all_since)| *all_since >= time).map(|(at, _)| *at);
            Ok(first.zip(last))
        })
    }
}

/// What a change took to be told, in nanoseconds.
#[derive(Default)]
struct Took {
    handler: Vec<u64>,
    first: Vec<u64>,
    all: Vec<u64>,
}

impl Took {
    fn add(&mut self, began: u64, handler: u64, crowd: Option<(u64, u64)>) {
        self.handler.push(handler.saturating_sub(began));
        self.first.extend(crowd.map(|(first, _)| first.saturating_sub(began)));
        self.all.extend(crowd.map(|(_, all)| all.saturating_sub(began)));
    }

    fn story(&self) -> String {
        let spread = |times: &[u64]| {
            let mut times = times.to_vec();
            times.sort_unstable();
            let ms = |at: usize| times.get(at).map_or(0.0, |time| *time as f64 / 1e6);
            format!("{:.1} / {:.1} / {:.1}", ms(0), ms(times.len() / 2), ms(times.len().saturating_sub(1)))
        };
        let crowd = if self.all.is_empty() {
            String::new()
        } else {
            format!(", first of the crowd {}, all of it {}", spread(&self.first), spread(&self.all))
        };
        format!("handler {}{crowd} ms (least, median, most of {})", spread(&self.handler), self.handler.len())
    }
}

/// A handler that was there before the crowd hears of a hold before anybody in it, or at least 100 ms ahead; who only watches learns of each
/// change of the level and of each hold.
pub fn handler_is_told_first_and_the_crowd_of_each_change() -> Outcome {
    lms::load("interval_ms=10000 hold_ms=2000")?;
    // Outside of what a round takes away: it is the same handler all the time.
    let greedy = Group::new("greedy")?;
    let log = PathBuf::from(places::FILES).join("handler");
    let _handler = handler(&format!("answer=kill adj=-1000 victim={} log={}", greedy.directory().display(), log.display()))?;

    println!("{MEASURED}change of the level, nobody else there: {}", flips(&log, None)?.story());
    println!("{MEASURED}hold, nobody else there: {}", holds(&greedy, &log, None, 3)?.story());
    let (crowd, number) = Crowd::gather()?;
    println!("{MEASURED}change of the level, {number} wait: {}", flips(&log, Some(&crowd))?.story());
    println!("{MEASURED}hold, {number} wait: {}", holds(&greedy, &log, Some(&crowd), ROUNDS)?.story());
    Ok(())
}

/// Changes of the level that a parameter brings about.
fn flips(log: &std::path::Path, crowd: Option<&Crowd>) -> Outcome<Took> {
    let mut took = Took::default();
    for value in ["99", "20"].repeat(5) {
        let began = stamps::now()?;
        lms::set("warn_percent", value)?;
        let told = notice_since(log, began, |_| true)?;
        let crowd = crowd.map(|crowd| crowd.all_told_since(began)).transpose()?;
        took.add(began, told, crowd);
    }
    Ok(took)
}

/// Waits for the handler's first notice since `time` that is one of those.
fn notice_since(log: &std::path::Path, time: u64, is_it: impl Fn(u64) -> bool) -> Outcome<u64> {
    wait::find("the handler is told", SOON, || {
        Ok(stamps::read(log)?.into_iter().find(|(at, hold)| *at >= time && is_it(*hold)).map(|(at, _)| at))
    })
}

/// Holds that come without a warning, so that the crowd is told of nothing else meanwhile.
fn holds(greedy: &Group, log: &std::path::Path, crowd: Option<&Crowd>, number: u32) -> Outcome<Took> {
    const HEAD_START: u64 = 100_000_000;
    let levels = [("kill_percent", "1"), ("kill_max_mb", "1"), ("warn_percent", "1"), ("warn_max_mb", "1")];
    for (parameter, value) in levels {
        lms::set(parameter, value)?;
    }
    let mut took = Took::default();
    short_of_memory(number, |_| {
        // The end of the round before is told by now.
        crowd.map_or(Ok(()), Crowd::is_quiet)?;
        let (before, mut kernel_log) = (Counters::now()?, KernelLog::from_now()?);
        let offset = offset_of_kernel_log()?;
        let started = stamps::now()?;
        Work::start(greedy, "hog mib=1000 term=ignore")?.must_be_killed()?;
        let handler = notice_since(log, started, |hold| hold != 0)?;
        let mut began = None;
        wait::until("the kernel's log tells of the hold", SOON, || {
            let records = kernel_log.records()?;
            began = began.or(records.iter().find(|record| record.text.contains("held for the handler")).map(|record| record.time_us));
            Ok(began.is_some())
        })?;
        let began = (began.unwrap_or(0) * 1000).saturating_add_signed(-offset);
        let told = match crowd {
            None => None,
            Some(crowd) => {
                let (first, all) = crowd.all_told_since(started)?;
                ensure!(
                    first > handler || first >= began + HEAD_START,
                    "somebody in the crowd knew {} us before the handler, {} us after the hold began",
                    (handler - first) / 1000,
                    first.saturating_sub(began) / 1000
                );
                Some((first, all))
            }
        };
        ensure!(before.kernel_kills()? == 0 && before.of("holds")? == 1, "not one hold without a kill by the kernel: {}", before.story());
        took.add(began, handler, told);
        Ok(())
    })?;
    for (parameter, value) in [("warn_max_mb", "4096"), ("warn_percent", "20"), ("kill_max_mb", "2048"), ("kill_percent", "10")] {
        lms::set(parameter, value)?;
    }
    Ok(took)
}

/// How far the clock of the kernel's log is ahead of the monotonic one, in nanoseconds: by a line of our own.
fn offset_of_kernel_log() -> Outcome<i64> {
    let mut log = KernelLog::from_now()?;
    let mark = format!("mark {}\n", stamps::now()?);
    let mut write = File::options().write(true).open("/dev/kmsg").doing("open /dev/kmsg")?;
    let before = stamps::now()?;
    write.write_all(mark.as_bytes()).doing("write to the kernel's log")?;
    wait::find("a line of ours is in the kernel's log", SOON, || {
        let time = log.records()?.into_iter().find(|record| record.text == mark.trim_end()).map(|record| record.time_us);
        Ok(time.map(|time| time as i64 * 1000 - before as i64))
    })
}

/// A read of no bytes, or to an address that there is not, leaves the notice where it was.
pub fn read_that_tells_nothing_takes_no_notice_back() -> Outcome {
    lms::load(EXCITABLE)?;
    let notifier = Notifier::open()?;
    notifier.state()?;
    lms::set("warn_percent", "99")?;
    ensure!(notifier.notice(SOON)?, "no notice of the new level");
    ensure!(notifier.0.read_at(&mut [], 0).doing("read nothing")? == 0, "bytes of a read of none");
    ensure!(notifier.notice(SOON)?, "a read of no bytes took the notice back");
    let answer = sys::read_to_nowhere(&notifier.0);
    ensure!(answer == Err(Errno::EFAULT), "a read to nowhere gives {answer:?}");
    ensure!(notifier.notice(SOON)?, "a read that failed took the notice back");
    ensure!(notifier.0.read_at(&mut [0], 0).doing("read one byte")? == 1, "no byte");
    ensure!(!notifier.notice(std::time::Duration::ZERO)?, "the notice is still there after a read");
    Ok(())
}

/// In one piece, byte by byte, from the middle on first, with more room than there is text: one text, and an end.
pub fn any_way_of_reading_gives_the_same_text() -> Outcome {
    lms::load("")?;
    let keys = |text: &str| text.lines().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect::<Vec<_>>();
    let whole = std::fs::read_to_string(FILE).doing("read the file")?;
    for key in ["level", "interface", "version"] {
        ensure!(keys(&whole).iter().any(|known| known == key), "no {key} in {whole:?}");
    }
    let file = File::open(FILE).doing("open the file")?;
    // Nothing was read at its beginning.
    let mut room = vec![0; 16 << 20];
    let length = file.read_at(&mut room, 6).doing("read from the middle on")?;
    let tail = String::from_utf8_lossy(&room[..length]).into_owned();
    let text = format!("level {tail}");
    ensure!(length > 0 && keys(&text) == keys(&whole), "another text from the middle on: {tail:?}");
    // What follows is of the same text, whatever changes meanwhile.
    let mut bytes = Vec::new();
    let mut byte = [0];
    while file.read_at(&mut byte, bytes.len() as u64).doing("read a byte")? == 1 {
        bytes.push(byte[0]);
        ensure!(bytes.len() <= 4096, "there is no end");
    }
    ensure!(keys(&String::from_utf8_lossy(&bytes)) == keys(&whole), "another text byte by byte: {:?}", String::from_utf8_lossy(&bytes));
    ensure!(file.read_at(&mut byte, bytes.len() as u64).doing("read at the end")? == 0, "bytes behind the end");
    ensure!(file.read_at(&mut byte, i64::MAX as u64 - 4096).doing("read far behind the end")? == 0, "bytes far behind the end");
    let answer = file.read_at(&mut byte, u64::MAX).map_err(|error| error.raw_os_error());
    ensure!(answer == Err(Some(libc::EINVAL)), "a read before the beginning gives {answer:?}");
    let answer = (&file).seek(SeekFrom::Current(-1)).map_err(|error| error.raw_os_error());
    ensure!(answer == Err(Some(libc::EINVAL)), "a seek before the beginning gives {answer:?}");
    Ok(())
}

/// A descriptor that somebody without the capabilities opened gives nobody's writes effect: a program with rights may be made to write to it
/// what another chose.
pub fn opener_without_rights_is_not_heard_through_another() -> Outcome {
    lms::load("")?;
    for missing in [CapabilitySet::KILL, CapabilitySet::SYS_RESOURCE] {
        // Capabilities are a thread's own; the descriptor is everybody's.
        let opened = std::thread::spawn(move || -> Outcome<Notifier> {
            let mut sets = capabilities(None).doing("ask for capabilities")?;
            sets.effective.remove(missing);
            set_capabilities(None, sets).doing("give a capability up")?;
            Notifier::open()
        });
        let opened = opened.join().map_err(|_panic| "the thread panicked")??;
        for command in ["handler", "release", "ack 1", "pass 1", "swap_total 0", "table\nkill 101", "clear", "rubbish"] {
            opened.refuses(command, Errno::EPERM)?;
        }
        ensure!(opened.state()?.number("handler_pid")? == 0, "somebody is the handler");
    }
    let notifier = Notifier::open()?;
    notifier.command("handler")?;
    notifier.command("release")
}
