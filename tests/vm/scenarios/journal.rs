//! The journal on disks that are full, read-only, or stand still: lines may be lost, counted ones; nothing else is.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::MEASURED;
use super::common::{THRASH, hog, narrow};
use super::speed::{kernel_kills_one_of_five, median};
use crate::guest::daemon::{Daemon, Setup};
use crate::guest::places;
use crate::guest::system;
use crate::guest::wait::{self, SOON};
use crate::outcome::{Doing, Outcome};

const ROUNDS: usize = 9;

const DROPPED: &str = "oomwarden_journal_dropped_total";

/// A group that stalls, and its end, whatever the journal says of it.
fn kill_in(path: &str) -> Outcome {
    let group = narrow(path)?;
    let mut hog = hog(&group)?;
    hog.must_be_killed()
}

/// Waits until the journal's last line is the kill of this group; what can't be read among the lines is given back.
fn last_line_is(daemon: &Daemon, group: &str) -> Outcome<Vec<String>> {
    let mut broken = Vec::new();
    wait::until(&format!("the journal ends with the kill of {group}"), SOON, || {
        let text = daemon.journal_text();
        let lines = || text.lines().map(|line| (line, serde_json::from_str::<Value>(line)));
        broken = lines().filter(|(_, json)| json.is_err()).map(|(line, _)| line.to_owned()).collect();
        Ok(text.ends_with('\n') && lines().next_back().is_some_and(|(_, json)| json.is_ok_and(|json| json["victim"] == group)))
    })?;
    Ok(broken)
}

/// A full tmpfs costs the lines of that time, counted; as soon as there is room it goes on, half a line closed.
pub fn full_disk_costs_counted_lines_and_no_later_one() -> Outcome {
    let place = system::tmpfs("full", 1)?;
    let daemon = Setup { files: place.clone(), ..Setup::default() }.start(THRASH)?;
    kill_in("t/before")?;
    ensure!(last_line_is(&daemon, "/t/before")?.is_empty(), "half lines: {}", daemon.journal_text());
    let filler = place.join("filler");
    let mut file = File::create(&filler).doing("create the filler")?;
    while file.write(&[b'x'; 512]).is_ok_and(|written| written > 0) {}
    // One line may fit into what is left of the journal's page.
    for round in 0..3 {
        kill_in(&format!("t/lost{round}"))?;
    }
    daemon.counted(DROPPED, &[], 2.0)?;
    daemon.counted("oomwarden_kills_total", &[("rule", "thrash")], 4.0)?;
    std::fs::remove_file(&filler).doing("remove the filler")?;
    drop(file);
    kill_in("t/after")?;
    let broken = last_line_is(&daemon, "/t/after")?;
    ensure!(broken.len() <= 1, "more than one half line: {broken:?}");
    let dropped = daemon.count(DROPPED, &[])?;
    let whole = daemon.journal_text().lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count();
    ensure!(whole as f64 + dropped == 5.0, "five kills: {whole} lines and {dropped} counted as lost");
    daemon.stop()
}

/// A read-only file system in the journal's place: counted; writable again: it goes on.
pub fn read_only_disk_costs_counted_lines_and_no_later_one() -> Outcome {
    let place = system::tmpfs("read-only", 4)?;
    let daemon = Setup { files: place.clone(), ..Setup::default() }.start(THRASH)?;
    let there = place.to_string_lossy().into_owned();
    system::busybox(&["mount", "-t", "tmpfs", "-o", "ro", "over", &there])?;
    kill_in("t/lost")?;
    daemon.counted(DROPPED, &[], 1.0)?;
    system::busybox(&["umount", &there])?;
    kill_in("t/after")?;
    ensure!(last_line_is(&daemon, "/t/after")?.is_empty(), "half lines: {}", daemon.journal_text());
    ensure!(daemon.count(DROPPED, &[])? == 1.0, "one line was lost: {}", daemon.journal_text());
    daemon.stop()
}

/// The journal makes room by itself, and every line is in one of the files.
pub fn full_file_makes_room_and_loses_nothing() -> Outcome {
    let options = ["--journal-max-size", "1KiB", "--journal-keep", "5"].map(str::to_owned).to_vec();
    let daemon = Setup { options, ..Setup::default() }.start(THRASH)?;
    for round in 0..3 {
        kill_in(&format!("t/g{round}"))?;
        last_line_is(&daemon, &format!("/t/g{round}"))?;
    }
    let former = |number: u32| std::fs::read_to_string(Path::new(places::FILES).join(format!("journal.{number}")));
    for (number, group) in [(1, "/t/g1"), (2, "/t/g0")] {
        let text = former(number).doing(format_args!("read journal.{number}"))?;
        let line: Value = serde_json::from_str(&text).doing("understand the former file's only line")?;
        ensure!(line["victim"] == group, "journal.{number} is about another kill: {line}");
    }
    daemon.stop()
}

/// A file system on a disk in memory that stands still until it is thawed, which happens in any case.
struct Frozen(PathBuf);

impl Frozen {
    fn mount() -> Outcome<Frozen> {
        std::fs::write("/sys/block/zram0/disksize", "16M").doing("give zram0 a size")?;
        system::busybox(&["mke2fs", "-b", "4096", "/dev/zram0"])?;
        let place = Path::new(places::MOUNT).join("frozen");
        std::fs::create_dir_all(&place).doing(format_args!("create {}", place.display()))?;
        system::busybox(&["mount", "-t", "ext4", "/dev/zram0", &place.to_string_lossy()])?;
        Ok(Frozen(place))
    }

    fn freeze(&self) -> Outcome {
        system::busybox(&["fsfreeze", "--freeze", &self.0.to_string_lossy()])
    }

    fn thaw(&self) -> Outcome {
        system::busybox(&["fsfreeze", "--unfreeze", &self.0.to_string_lossy()])
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // Thawed already where this fails.
        drop(self.thaw());
    }
}

const FINISH: &str = "
version: 1
rules:
  - name: finish
    watch: /t/*
    when:
      - event: oom_kill
";

/// A daemon with its journal there, after its first kill, which pays for everybody: pages of the programs.
fn warmed_up(files: &Path, name: &str) -> Outcome<Daemon> {
    let daemon = Setup { files: files.into(), ..Setup::default() }.start(FINISH)?;
    kernel_kills_one_of_five(&format!("t/{name}-first"), false)?;
    daemon.counted("oomwarden_kills_total", &[("rule", "finish")], 1.0)?;
    Ok(daemon)
}

/// `event: oom_kill` to `populated 0`, in microseconds: the median.
fn rounds(daemon: &Daemon, name: &str) -> Outcome<f64> {
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        times.push(kernel_kills_one_of_five(&format!("t/{name}{round}"), false)?);
    }
    daemon.counted("oomwarden_kills_total", &[("rule", "finish")], (ROUNDS + 1) as f64)?;
    Ok(median(times) * 1000.0)
}

/// How many lines tell of a kill, and of a kill by the kernel, which is what each of these begins with.
fn lines(daemon: &Daemon) -> Outcome<(usize, usize)> {
    let lines = daemon.journal()?;
    let by_the_kernel = lines.iter().filter(|line| line["kind"] == "kernel_oom").count();
    Ok((lines.len() - by_the_kernel, by_the_kernel))
}

/// The same kills with the journal on a disk that stands still: they take no longer, and when it moves again every line is there.
pub fn stalled_disk_makes_no_kill_slower_and_loses_no_line() -> Outcome {
    let disk = Frozen::mount()?;
    let daemon = warmed_up(&disk.0, "moving")?;
    let moving = rounds(&daemon, "moving")?;
    daemon.stop()?;
    std::fs::remove_file(disk.0.join("journal")).doing("remove the first journal")?;
    let daemon = warmed_up(&disk.0, "stalled")?;
    wait::until("the first line is written", SOON, || Ok(lines(&daemon)? == (1, 1)))?;
    disk.freeze()?;
    let stalled = rounds(&daemon, "stalled")?;
    let written = lines(&daemon)?;
    disk.thaw()?;
    ensure!(written == (1, 1), "the disk did not stand still: {written:?} lines");
    wait::until("every line is written", SOON, || Ok(lines(&daemon)? == (ROUNDS + 1, ROUNDS + 1)))?;
    ensure!(daemon.count(DROPPED, &[])? == 0.0, "lines were lost");
    println!("{MEASURED}journal_on_a_stalled_disk event_to_empty_us stalled={stalled:.0} moving={moving:.0} ratio={:.2}", stalled / moving);
    ensure!(stalled < 3.0 * moving.max(10_000.0), "the stalled journal held the kill up");
    daemon.stop()?;
    system::busybox(&["umount", &disk.0.to_string_lossy()])
}
