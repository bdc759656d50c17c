//! The low memory signal's file and parameters: who may say what, and what is refused.

use std::time::Duration;

use nix::errno::Errno;

use super::MEASURED;
use super::lms_common::{EXCITABLE, asleep_in_poll, called, handler};
use crate::guest::facts;
use crate::guest::group::Group;
use crate::guest::lms::{self, Notifier, State};
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::Outcome;
use crate::workload::lms::SATISFIED;

/// Loaded and unloaded 50 times, with a reader asleep in poll and in epoll by turns: in use it stays, afterwards it goes.
pub fn fifty_times_loaded_and_unloaded_under_sleepers() -> Outcome {
    let group = Group::new("t/reader")?;
    for round in 0..50 {
        lms::load(EXCITABLE)?;
        let state = State::now()?;
        ensure!(state.number("mem_total_kb")? > 100_000 && state.number("page_size")? == 4096, "odd values: {state}");
        let how = if round % 2 == 0 { "poll" } else { "epoll" };
        let mut reader = Work::start(&group, &format!("lms-reader how={how}"))?;
        asleep_in_poll(&reader)?;
        let answer = lms::unload();
        ensure!(answer == Err(Errno::EAGAIN), "round {round}: unloading under a reader in {how} gives {answer:?}");
        reader.must_run("the module is still there")?;
        drop(reader);
        wait::until("the module goes", SOON, || Ok(lms::unload().is_ok()))?;
        ensure!(!lms::is_loaded() && State::now().is_err(), "something of the module is left");
    }
    Ok(())
}

/// An open file with a handler and a table on it keeps the module; when it is closed all three go.
pub fn unload_waits_for_the_handler() -> Outcome {
    lms::load("")?;
    let notifier = Notifier::open()?;
    notifier.command("handler")?;
    notifier.command("table\nkill 77\nspare 78")?;
    ensure!(lms::unload() == Err(Errno::EAGAIN), "unloaded under a handler");
    drop(notifier);
    let state = State::now()?;
    for (key, value) in [("handler_pid", 0), ("table_kill_ids", 0), ("table_spare_ids", 0)] {
        ensure!(state.number(key)? == value, "{key} should be {value} after closing: {state}");
    }
    ensure!(lms::unload().is_ok() && !lms::is_loaded(), "can't be unloaded afterwards");
    // A second load finds nothing of the first.
    lms::load("")?;
    let again = State::now()?;
    ensure!(again.number("seq")? == 0 && again.number("holds")? == 0 && again.number("table_kill_ids")? == 0, "left over: {again}");
    Ok(())
}

/// Values out of range are refused at load and at run time and change nothing.
pub fn parameters_out_of_range_are_refused() -> Outcome {
    let bad = [
        ("warn_percent", &["0", "100", "-1", "x", "9", "4294967297"][..]),
        ("kill_percent", &["0", "100", "21", "1.5"]),
        ("warn_max_mb", &["0", "-5", "2047", "18446744073709551616"]),
        ("kill_max_mb", &["0", "4097", "two"]),
        ("interval_ms", &["0", "49", "10001"]),
        ("hold_ms", &["2001", "-1", "4294967296"]),
        ("floor_mb", &["-1", "x"]),
    ];
    lms::load("")?;
    for (parameter, values) in bad {
        let before = lms::parameter(parameter)?;
        for value in values {
            let answer = lms::try_set(parameter, value).map_err(|error| error.raw_os_error());
            ensure!(answer == Err(Some(libc::EINVAL)), "{parameter}={value:?} gives {answer:?}");
            ensure!(lms::parameter(parameter)? == before, "{parameter} was changed by a refused {value:?}");
        }
    }
    for (parameter, value) in [("warn_percent", "99"), ("kill_percent", "99"), ("interval_ms", "50"), ("hold_ms", "0"), ("hold_ms", "2000")]
    {
        lms::set(parameter, value)?;
        ensure!(lms::parameter(parameter)? == value, "{parameter} is not {value} after setting it");
    }
    ensure!(lms::unload().is_ok(), "can't be unloaded");
    let together = ["kill_percent=30", "warn_percent=5", "warn_max_mb=1000", "hold_ms=2001", "interval_ms=1", "warn_percent=x"];
    for parameters in together {
        let answer = lms::try_load(parameters)?;
        ensure!(answer == Err(Errno::EINVAL), "loading with {parameters} gives {answer:?}");
        ensure!(!lms::is_loaded(), "loaded with {parameters}");
    }
    // In either order, as long as they fit in the end.
    lms::load("kill_percent=40 warn_percent=60")?;
    ensure!(State::now()?.number("kill_percent")? == 40, "kill_percent is not what was asked for");
    Ok(())
}

/// What a write can get wrong: the right errno, and nothing changed.
pub fn bad_writes_change_nothing() -> Outcome {
    lms::load("")?;
    let notifier = Notifier::open()?;
    notifier.command("handler 300\n")?;
    notifier.command("swap_total 4096")?;
    notifier.command("table keep 60\nkill 101\nspare 102\nkill 103")?;
    let before = settled(&notifier.state()?)?;
    ensure!(before == [u64::from(std::process::id()), 300, 4096, 2, 1, 0], "the good writes are not to be seen: {before:?}");

    let ids = |first: u64, count: u64| (first..first + count).map(|id| format!("\nkill {id}")).collect::<String>();
    let (many, long) = (format!("table{}", ids(1000, 1025)), format!("table{}", ids(10_u64.pow(18), 3000)));
    let malformed = [
        "",
        "\n",
        "\n\n",
        " ",
        "x",
        "handle",
        "handlers",
        "Handler",
        " handler",
        "handler 0",
        "handler 2001",
        "handler -1",
        "handler +5",
        "handler 0x10",
        "handler 1 2",
        "handler 5 ",
        "handler  5",
        "handler 99999999999999999999",
        "handler\n\n",
        "handler\0",
        "handler\0\n",
        "\0",
        "release now",
        "release 1",
        "ack",
        "ack ",
        "ack x",
        "ack -1",
        "ack 1 0",
        "ack 1 x",
        "ack 1 1 1",
        "ack 18446744073709551616",
        "pass",
        "pass x",
        "pass 1 2",
        "swap_total",
        "swap_total -1",
        "swap_total x",
        "swap_total 18446744073709551616",
        "clear now",
        "clear\nkill 1",
        "table\nkill 0",
        "table\nkill 18446744073709551616",
        "table\nkill -1",
        "table\nkill x",
        "table\nkill",
        "table\nkill 5 6",
        "table\nkil 5",
        "table\nkill 5\nkill 5",
        "table\nkill 5\nspare 5",
        "table\nkill 5\n\nkill 6",
        "table keep\nkill 5",
        "table keep 0\nkill 5",
        "table keep 3601\nkill 5",
        "table keep x\nkill 5",
        "table keep 5 6\nkill 5",
        "table keeps 5\nkill 5",
        "table\nkill 5\0",
        "table\nkill 5\nrubbish",
    ];
    for command in malformed {
        notifier.refuses(command, Errno::EINVAL)?;
        let after = settled(&notifier.state()?)?;
        ensure!(after == before, "{command:?} was refused but changed {before:?} to {after:?}");
    }
    notifier.refuses(&many, Errno::EINVAL)?;
    ensure!(long.len() > 64 << 10, "not long enough: {}", long.len());
    notifier.refuses(&long, Errno::E2BIG)?;
    notifier.refuses(format!("ack {}", before[5] + 1), Errno::ESTALE)?;
    notifier.refuses(format!("pass {}", before[5] + 1), Errno::ESTALE)?;

    let other = Notifier::open()?;
    other.refuses("handler", Errno::EBUSY)?;
    other.refuses("release", Errno::ENOENT)?;
    other.refuses("ack 0", Errno::EPERM)?;
    other.refuses("pass 0", Errno::EPERM)?;
    other.refuses("swap_total 1", Errno::EPERM)?;
    other.refuses("table\nkill 5", Errno::EBUSY)?;
    other.refuses("clear", Errno::EBUSY)?;
    ensure!(settled(&notifier.state()?)? == before, "a refused write changed something: {}", notifier.state()?);

    // As much as is allowed.
    notifier.command(&format!("table{}", ids(10_u64.pow(18), 1024)))?;
    ensure!(notifier.state()?.number("table_kill_ids")? == 1024, "a full table is not taken");
    notifier.command("table\nspare 18446744073709551615\nkill 1000\n")?;
    notifier.command("handler")?;
    ensure!(notifier.state()?.number("hold_ms")? == 500, "a handler without a bound of its own");
    notifier.command("clear\n")?;
    notifier.command("release")?;
    notifier.refuses("release", Errno::ENOENT)?;
    other.command("handler 1")?;
    ensure!(other.state()?.number("hold_ms")? == 1, "the second handler's bound is not in force");
    Ok(())
}

/// What writes change and time does not.
fn settled(state: &State) -> Outcome<[u64; 6]> {
    let mut values = [0; 6];
    for (value, key) in values.iter_mut().zip(["handler_pid", "hold_ms", "swap_total_kb", "table_kill_ids", "table_spare_ids", "seq"]) {
        *value = state.number(key)?;
    }
    Ok(values)
}

/// Random writes, from noise to nearly right: some are taken, none does harm.
pub fn thousands_of_random_writes_do_no_harm() -> Outcome {
    const WORDS: [&str; 18] = [
        "handler",
        "release",
        "ack",
        "pass",
        "swap_total",
        "table",
        "keep",
        "kill",
        "spare",
        "clear",
        "\n",
        " ",
        "0",
        "1",
        "500",
        "18446744073709551615",
        "\0",
        "-1",
    ];
    let mut random = Random::from_clock();
    println!("seed {}", random.0);
    lms::load(EXCITABLE)?;
    let files = [Notifier::open()?, Notifier::open()?];
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..5000 {
        let mut text = Vec::new();
        if random.below(4) == 0 {
            text.extend((0..random.below(300)).map(|_| random.below(256) as u8));
        } else {
            // Short ones are right now and then.
            let bound = random.below(8) + 1;
            for at in 0..=random.below(bound) {
                if at > 0 {
                    text.extend_from_slice([&b" "[..], b"\n", b""][random.below(3) as usize]);
                }
                text.extend_from_slice(WORDS[random.below(WORDS.len() as u64) as usize].as_bytes());
            }
        }
        match files[random.below(2) as usize].write(&text) {
            Ok(()) => taken += 1,
            Err(Errno::EINVAL | Errno::EPERM | Errno::EBUSY | Errno::ENOENT | Errno::ESTALE) => refused += 1,
            Err(other) => return Err(format!("{:?} gives {other:?}", String::from_utf8_lossy(&text))),
        }
    }
    println!("{MEASURED}random writes: {taken} taken, {refused} refused");
    ensure!(taken > 20 && refused > 1000, "not much of a test: {taken} taken, {refused} refused");
    let state = files[0].state()?;
    ensure!(state.number("table_kills")? == 0 && state.number("holds")? == 0, "deeds without a shortage: {state}");
    drop(files);
    ensure!(State::now()?.number("handler_pid")? == 0, "a handler is left");
    ensure!(lms::unload().is_ok(), "can't be unloaded");
    Ok(())
}

/// xorshift: enough to be surprising, and a seed repeats it.
struct Random(u64);

impl Random {
    fn from_clock() -> Random {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Random(now.as_nanos() as u64 | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Others may read. They can't open the file for writing, and with a descriptor that root opened they are refused at each write.
pub fn nobody_without_rights_is_heard() -> Outcome {
    lms::load("")?;
    let notifier = Notifier::open()?;
    notifier.command("handler")?;
    notifier.command("table\nkill 101")?;
    let before = settled(&notifier.state()?)?;
    let group = Group::new("t/nobody")?;
    let inherited = notifier.0.try_clone().map_err(|error| error.to_string())?;
    let mut nobody = Work::start_with(&group, "lms-without-rights uid=65534", inherited)?;
    called(&nobody, SATISFIED)?;
    nobody.must_run("it sleeps now")?;
    ensure!(settled(&notifier.state()?)? == before, "something changed: {}", notifier.state()?);
    Ok(())
}

/// A handler's mere end is its release: the next may register, and a table that was not to be kept is gone.
pub fn end_of_a_handler_is_its_release() -> Outcome {
    lms::load("")?;
    let first = handler("answer=never kill=101,102 spare=103")?;
    ensure!(State::now()?.number("handler_pid")? == u64::from(first.pid()), "another handler: {}", State::now()?);
    ensure!(State::now()?.number("table_kill_ids")? == 2, "no table: {}", State::now()?);
    let other = Notifier::open()?;
    other.refuses("handler", Errno::EBUSY)?;
    drop(first);
    wait::until("the handler is forgotten", SOON, || Ok(State::now()?.number("handler_pid")? == 0))?;
    ensure!(State::now()?.number("table_kill_ids")? == 0, "the table outlived its writer: {}", State::now()?);
    other.command("handler")
}

/// With `keep` it outlives it, until a successor writes another; that it ends with its time shows in `lms_table`.
pub fn kept_table_outlives_its_writer_for_a_time() -> Outcome {
    lms::load(EXCITABLE)?;
    drop(handler("answer=never kill=101,102 keep=60")?);
    wait::until("the handler is forgotten", SOON, || Ok(State::now()?.number("handler_pid")? == 0))?;
    wait::stays("the table is there", Duration::from_millis(500), || Ok(State::now()?.number("table_kill_ids")? == 2))?;
    // A successor's table takes its place.
    let second = Notifier::open()?;
    second.command("table\nkill 7")?;
    ensure!(second.state()?.number("table_kill_ids")? == 1, "the second table is not in force: {}", second.state()?);
    Ok(())
}

/// Ten quiet seconds with the module loaded and nobody there.
pub fn ten_idle_seconds_cost_next_to_nothing() -> Outcome {
    lms::load("")?;
    let pids = [facts::kernel_thread("oomwarden_lms")?, facts::kernel_thread("oomwarden_crowd")?];
    // It lays its reserve by first, for which the kernel may have to make room.
    let mut laid_by = u64::MAX;
    wait::until("the reserve grows no more", SOON, || {
        std::thread::sleep(Duration::from_secs(1));
        let now = State::now()?.number("reserve_kb")?;
        Ok(std::mem::replace(&mut laid_by, now) == now)
    })?;
    let efforts = || pids.iter().map(|pid| facts::Effort::of(*pid)).collect::<Outcome<Vec<_>>>();
    let before = efforts()?;
    wait::stays("the level is ok", Duration::from_secs(10), || {
        // Seldom, so as not to disturb.
        std::thread::sleep(Duration::from_secs(1));
        Ok(State::now()?.level() == "ok")
    })?;
    let spent: Vec<_> = efforts()?.into_iter().zip(before).map(|(now, before)| now.since(before)).collect();
    let (switches, ticks) = spent.iter().fold((0, 0), |(switches, ticks), one| (switches + one.switches, ticks + one.ticks));
    println!("{MEASURED}module, 10 s idle: {switches} wake-ups, {} ms of processor time", ticks * 10);
    ensure!(switches <= 60, "{switches} wake-ups in ten quiet seconds");
    Ok(())
}
