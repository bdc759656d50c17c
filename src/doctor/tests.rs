//! Machines as trees of files, each one thing away from a fit one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::sense::lms::REPORT;

const PID: u32 = 4242;

const STATUS: &str = "Name:\toomwarden\nState:\tS (sleeping)\nTgid:\t4242\nPid:\t4242\nPPid:\t1\nTracerPid:\t0\nUid:\t0\t0\t0\t0\n\
    Gid:\t0\t0\t0\t0\nFDSize:\t64\nGroups:\t \nThreads:\t1\nSigQ:\t0/96365\nSigPnd:\t0\nShdPnd:\t0\nSigBlk:\t0\nSigIgn:\t0\nSigCgt:\t0\n\
    CapInh:\t0\nCapPrm:\t0\nCapEff:\t000001ffffffffff\nCapBnd:\t0\nCapAmb:\t0\n";

const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max file size             unlimited            unlimited            bytes
Max data size             unlimited            unlimited            bytes
Max stack size            8388608              unlimited            bytes
Max core file size        0                    unlimited            bytes
Max resident set          unlimited            unlimited            bytes
Max processes             96365                96365                processes
Max open files            1024                 524288               files
Max locked memory         8388608              8388608              bytes
Max address space         unlimited            unlimited            bytes
Max file locks            unlimited            unlimited            locks
Max pending signals       96365                96365                signals
Max msgqueue size         819200               819200               bytes
Max nice priority         0                    0
Max realtime priority     0                    0
Max realtime timeout      unlimited            unlimited            us
";

const MEMINFO: &str = "MemTotal: 4096 kB\nMemFree: 9 kB\nMemAvailable: 9 kB\nBuffers: 1 kB\nCached: 1 kB\nSwapCached: 0 kB\nActive: 1 kB\n\
    Inactive: 1 kB\nSwapTotal: 2048 kB\nSwapFree: 1024 kB\nDirty: 0 kB\nWriteback: 0 kB\nMapped: 0 kB\nSlab: 1 kB\nCommitted_AS: 1 kB\n\
    VmallocTotal: 1 kB\nVmallocUsed: 1 kB\nVmallocChunk: 0 kB\n";

/// A machine in a directory of its own: `proc` and `cgroup` below it.
struct Fake {
    directory: tempfile::TempDir,
}

impl Fake {
    /// One that is fit: Linux 6.12, root, two groups, ours is one of them.
    fn fit() -> Fake {
        let fake = Fake { directory: tempfile::tempdir().unwrap() };
        let mount = |at: PathBuf| format!("32 31 0:29 / {} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot", at.display());
        fake.write("proc/self/mountinfo", &format!("22 1 8:1 / / rw - ext4 /dev/vda rw\n{}\n", mount(fake.path("cgroup"))));
        for (file, text) in [
            ("proc/self/status", STATUS),
            ("proc/self/limits", LIMITS),
            ("proc/self/cgroup", "0::/own.service\n"),
            ("proc/sys/kernel/osrelease", "6.12.117+deb13-cloud-amd64\n"),
            ("proc/sys/fs/inotify/max_user_watches", "8192\n"),
            ("proc/sys/fs/inotify/max_user_instances", "128\n"),
            ("proc/sys/vm/overcommit_memory", "0\n"),
            ("proc/sys/vm/panic_on_oom", "0\n"),
            ("proc/sys/vm/oom_kill_allocating_task", "0\n"),
            ("proc/cmdline", "quiet\n"),
            ("proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"),
            ("proc/meminfo", MEMINFO),
            // the kernel module, with a daemon that runs already
            ("proc/oom_notifier", REPORT),
            ("proc/oom_notifier.errno", ""),
            ("proc/321/comm", "oomwarden\n"),
            ("root/sys/module/oomwarden_lms/version", "0.1.0\n"),
            ("root/sys/module/oomwarden_lms/srcversion", "AAAA\n"),
            ("root/sys/module/oomwarden_lms/refcnt", "1\n"),
            ("proc/swaps", "Filename Type Size Used Priority\n/dev/vdb partition 2048 1024 -2\n"),
            ("cgroup/cgroup.controllers", "cpu memory pids\n"),
            ("cgroup/cgroup.subtree_control", "memory pids\n"),
            ("cgroup/cgroup.procs", "1\n2\n"),
            // the fake trigger accepts windows from so many microseconds on
            ("cgroup/memory.pressure", "0\n"),
        ] {
            fake.write(file, text);
        }
        fake.group("own.service", "77\n4242\n");
        fake.group("web.service", "99\n");
        fake
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        let path = self.path(path);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }

    fn group(&self, name: &str, procs: &str) {
        self.write(&format!("cgroup/{name}/cgroup.procs"), procs);
        self.write(&format!("cgroup/{name}/cgroup.type"), "domain\n");
        self.write(&format!("cgroup/{name}/memory.pressure"), "0\n");
        self.write(&format!("cgroup/{name}/cgroup.kill"), "");
    }

    /// The same file with a word in another place.
    fn edit(&self, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(file)).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        self.write(file, &text.replace(from, to));
    }

    fn examine(&self) -> Report {
        examine(&self.system())
    }

    fn system(&self) -> System {
        let probes = Probes {
            is_cgroup2: |path| Ok(path.join("cgroup.controllers").exists()),
            arm_trigger: fake_trigger,
            may_write: |path| {
                // that file has a text of its own: its errno stands in one beside it
                let errno = if path.ends_with("oom_notifier") { path.with_extension("errno") } else { path.to_owned() };
                match fs::read_to_string(errno)?.as_str() {
                    "" => Ok(()),
                    errno => Err(io::Error::from_raw_os_error(errno.parse().unwrap())),
                }
            },
            pidfd: || Ok(()),
            kernel_log: |proc| match fs::read_to_string(proc.join("kmsg.errno")) {
                Ok(errno) => Err(io::Error::from_raw_os_error(errno.parse().unwrap())),
                Err(_) => Ok("/dev/kmsg"),
            },
            marks: |path, names| names.iter().any(|name| path.join(name).exists()),
            // the fields stand in the file
            modinfo: |path, field| {
                let text = fs::read_to_string(path)?;
                let value = text.lines().find_map(|line| line.strip_prefix(&format!("{field}=")));
                Ok(value.unwrap_or_default().to_owned())
            },
        };
        System { root: self.path("root"), proc: self.path("proc"), cgroup_root: self.path("cgroup"), pid: PID, unit: None, probes }
    }

    fn check(&self, name: &str) -> Finding {
        self.examine().lines.into_iter().find(|line| line.name == name).unwrap().finding
    }

    /// Checks status and a part of what was found or advised.
    fn expect(&self, name: &str, status: Status, part: &str) {
        let finding = self.check(name);
        let text = format!("{} -> {}", finding.found, finding.advice.clone().unwrap_or_default());
        assert_eq!(finding.status, status, "{name}: {text}");
        assert!(text.contains(part), "{name}: {text}");
        assert_eq!(finding.advice.is_some(), status != Status::Ok, "{name}: what isn't ok comes with advice");
    }
}

/// Accepts a trigger if its window is at least the number in the file; `no` refuses all.
fn fake_trigger(path: &Path, text: &str) -> io::Result<()> {
    let smallest = fs::read_to_string(path)?;
    let window: u64 = text.trim_end_matches('\0').rsplit(' ').next().unwrap().parse().unwrap();
    match smallest.trim().parse::<u64>() {
        Ok(smallest) if window >= smallest => Ok(()),
        Ok(_) => Err(io::Error::from_raw_os_error(22)),
        Err(_) => Err(io::Error::from_raw_os_error(13)),
    }
}

#[test]
fn a_fit_machine_has_nothing_to_say() {
    let report = Fake::fit().examine();
    assert!(report.lines.iter().all(|line| line.finding.status == Status::Ok), "{report}");
    assert_eq!(report.status(), Status::Ok);
    assert_eq!(report.lines.len(), CHECKS.len());
}

#[test]
fn v1_and_hybrid_layouts_are_named() {
    let v1_memory = |fake: &Fake| format!("35 31 0:32 / {} rw - cgroup cgroup rw,memory\n", fake.path("v1/memory").display());
    // hybrid: cgroup2 stands elsewhere and the memory controller is v1
    let fake = Fake::fit();
    fake.remove("cgroup/cgroup.controllers");
    let unified = format!("41 31 0:38 / {} rw - cgroup2 cgroup2 rw\n", fake.path("cgroup/unified").display());
    fake.write("proc/self/mountinfo", &(v1_memory(&fake) + &unified));
    fake.expect("cgroup-root", Status::Missing, "hybrid layout");
    fake.expect("cgroup-root", Status::Missing, "systemd.unified_cgroup_hierarchy=1");
    fake.expect("memory-controller", Status::Missing, "see cgroup-root first");
    // v1
    fake.write("proc/self/mountinfo", &v1_memory(&fake));
    fake.expect("cgroup-root", Status::Missing, "cgroup v1 layout");
    // cgroup2 elsewhere, with everything
    fake.write("proc/self/mountinfo", &unified);
    fake.expect("cgroup-root", Status::Missing, "use --cgroup-root");
    // nothing
    fake.write("proc/self/mountinfo", "");
    fake.expect("cgroup-root", Status::Missing, "mounted nowhere");
    fake.remove("cgroup");
    fake.expect("cgroup-root", Status::Missing, "is not a directory");
    // the cgroup2 of a hybrid layout as the root
    let fake = Fake::fit();
    fake.write("proc/self/mountinfo", &v1_memory(&fake));
    fake.write("cgroup/cgroup.controllers", "");
    fake.expect("cgroup-root", Status::Missing, "hybrid");
    fake.expect("memory-controller", Status::Missing, "in a v1 hierarchy at");
}

#[test]
fn the_memory_controller() {
    let fake = Fake::fit();
    fake.write("cgroup/cgroup.subtree_control", "pids\n");
    fake.expect("memory-controller", Status::Missing, "echo +memory >");
    fake.write("cgroup/cgroup.controllers", "cpu pids memory_not\n");
    fake.expect("memory-controller", Status::Missing, "not available");
    fake.write("proc/cmdline", "quiet cgroup_disable=memory\n");
    fake.expect("memory-controller", Status::Missing, "switched off by cgroup_disable=memory");
}

#[test]
fn mount_options() {
    let fake = Fake::fit();
    fake.expect("mount-options", Status::Ok, "memory_recursiveprot, nsdelegate");
    fake.edit("proc/self/mountinfo", "nsdelegate", "memory_localevents");
    fake.expect("mount-options", Status::Degraded, "memory_localevents");
    fake.write("proc/self/mountinfo", "");
    fake.expect("mount-options", Status::Degraded, "could not be read");
}

#[test]
fn a_mount_point_with_blanks_in_its_name() {
    let fake = Fake::fit();
    let odd = fake.path("a b");
    fs::rename(fake.path("cgroup"), &odd).unwrap();
    let at = odd.display().to_string().replace(' ', "\\040");
    fake.write("proc/self/mountinfo", &format!("nonsense\n\n32 31 0:29 / {at} rw - cgroup2 none rw,memory_localevents\n"));
    let system = System { proc: fake.path("proc"), cgroup_root: odd, ..System::here(PathBuf::new()) };
    let machine = Machine { is_cgroup2: true, ..Machine::look(&system) };
    assert_eq!(root::mount_options(&machine).status, Status::Degraded);
}

#[test]
fn our_own_group() {
    let fake = Fake::fit();
    fake.expect("own-group", Status::Ok, "/own.service, as /proc/self/cgroup says");
    // in a cgroup namespace the name is another; a name is not believed
    for name in ["0::/\n", "0::/web.service\n", "0::/../../elsewhere\n", "5:memory:/own.service\n", ""] {
        fake.write("proc/self/cgroup", name);
        fake.expect("own-group", Status::Ok, "/own.service, by our process id");
    }
    fake.group("own.service", "77\n");
    fake.expect("own-group", Status::Ok, "never a victim");
    // it might be the one that can't be seen
    fake.group("pod", "0\n0\n");
    fake.expect("own-group", Status::Missing, "of 1 group can't be seen");
    // a threaded group lists nobody, its domain does
    fake.remove("cgroup/pod");
    fake.group("threads", "");
    fake.remove("cgroup/threads/cgroup.procs");
    fake.expect("own-group", Status::Missing, "of 1 group ");
    fake.write("cgroup/threads/cgroup.type", "threaded\n");
    fake.expect("own-group", Status::Ok, "never a victim");
}

#[test]
fn processes_of_another_namespace() {
    let fake = Fake::fit();
    fake.group("pod", "0\n7\n");
    fake.expect("pid-namespace", Status::Degraded, "1 of 4 groups");
    fake.expect("own-group", Status::Ok, "/own.service");
}

#[test]
fn rights_to_kill() {
    let fake = Fake::fit();
    fake.write("cgroup/web.service/cgroup.kill", "13");
    fake.expect("kill-rights", Status::Degraded, "1 of 2 groups");
    fake.write("cgroup/own.service/cgroup.kill", "30");
    fake.expect("kill-rights", Status::Missing, "read-only");
    fake.remove("cgroup/web.service/cgroup.kill");
    fake.remove("cgroup/own.service/cgroup.kill");
    fake.expect("kill-rights", Status::Ok, "no group");
    fake.expect("cgroup-kill", Status::Ok, "there");
}

#[test]
fn psi_and_its_triggers() {
    let fake = Fake::fit();
    fake.expect("psi-triggers", Status::Ok, "100ms too");
    // an older kernel; the root of a delegated subtree refuses what its children accept; no rights; an unprivileged user
    let set = |root: &str, child: &str| {
        for file in ["cgroup/memory.pressure", "cgroup/own.service/memory.pressure", "cgroup/web.service/memory.pressure"] {
            fake.write(file, if file == "cgroup/memory.pressure" { root } else { child });
        }
    };
    set("500000", "500000");
    fake.expect("psi-triggers", Status::Ok, "from 500ms on");
    set("no", "0");
    fake.expect("psi-triggers", Status::Ok, "100ms too");
    set("no", "2000000");
    fake.expect("psi-triggers", Status::Degraded, "CAP_SYS_RESOURCE");
    set("no", "no");
    fake.expect("psi-triggers", Status::Missing, "refused");
    fake.expect("psi-groups", Status::Ok, "on in every group");
    fake.write("cgroup/own.service/cgroup.pressure", "1\n");
    fake.write("cgroup/web.service/cgroup.pressure", "0\n");
    fake.expect("psi-groups", Status::Degraded, "off in 1 group, as in /web.service");
    fake.remove("cgroup/memory.pressure");
    fake.remove("cgroup/own.service");
    fake.remove("cgroup/web.service");
    fake.expect("psi-triggers", Status::Missing, "no group has");

    fake.remove("proc/pressure");
    fake.expect("psi", Status::Missing, "psi=1");
    fake.write("proc/sys/kernel/osrelease", "4.19.0\n");
    fake.expect("psi", Status::Missing, "Linux 4.20");
}

#[test]
fn older_kernels() {
    let fake = Fake::fit();
    fake.remove("cgroup/own.service/cgroup.kill");
    fake.remove("cgroup/web.service/cgroup.kill");
    for (release, kill, mrelease) in [
        ("5.13.19", Status::Degraded, Status::Degraded),
        ("5.14.0", Status::Ok, Status::Degraded),
        ("5.15.0", Status::Ok, Status::Ok),
        ("10.0", Status::Ok, Status::Ok),
        ("strange", Status::Degraded, Status::Degraded),
    ] {
        fake.write("proc/sys/kernel/osrelease", release);
        assert_eq!((fake.check("cgroup-kill").status, fake.check("process-mrelease").status), (kill, mrelease), "{release}");
    }
}

#[test]
fn swap() {
    let fake = Fake::fit();
    fake.expect("swap", Status::Ok, "1MiB of 2MiB free");
    fake.write("proc/swaps", "Filename\n/dev/zram0 partition 1 1 1\n");
    fake.expect("swap", Status::Ok, "zram");
    fake.edit("proc/meminfo", "SwapTotal: 2048", "SwapTotal: 0");
    fake.expect("swap", Status::Ok, "none");
    fake.write("proc/meminfo", "SwapTotal");
    fake.expect("swap", Status::Degraded, "could not be read");
}

#[test]
fn the_kernel_module() {
    let told = "level kill: warn below 195.3MiB, kill below 97.6MiB of available memory";
    let fake = Fake::fit();
    fake.expect("lms", Status::Ok, &format!("loaded, {told}, an OOM is held for up to 500ms"));
    // nobody is the handler, or we are
    for pid in ["0", "4242"] {
        fake.write("proc/oom_notifier", &REPORT.replace("handler_pid 321", &format!("handler_pid {pid}")));
        fake.expect("lms", Status::Ok, told);
    }
    fake.write("proc/oom_notifier", &REPORT.replace("level kill", "level ok"));
    fake.expect("lms", Status::Ok, "level ok");

    fake.write("proc/oom_notifier", REPORT);
    fake.write("proc/321/comm", "evil\u{1b}[2J\n");
    fake.expect("lms", Status::Degraded, &format!("{told}; process 321 (evil\\u{{1b}}[2J) is its handler"));
    fake.remove("proc/321");
    fake.expect("lms", Status::Degraded, "process 321 (unknown)");

    let fake = Fake::fit();
    fake.write("proc/oom_notifier.errno", "13");
    fake.expect("lms", Status::Degraded, "it may not be written: Permission denied");
    fake.write("proc/oom_notifier.errno", "");
    // without CAP_KILL, without CAP_SYS_RESOURCE
    for (set, name) in [("000001ffffffffdf", "CAP_KILL is not granted"), ("000001fffeffffff", "CAP_SYS_RESOURCE is not granted")] {
        fake.write("proc/self/status", &STATUS.replace("000001ffffffffff", set));
        fake.expect("lms", Status::Degraded, name);
    }

    for (from, to, part) in [
        ("hold_ms 500", "hold_ms 0", "hold_ms is 0"),
        ("kill_kb 100000", "kill_kb 200001", "kill begins before warn"),
        ("floor_kb 50000", "floor_kb 100000", "the floor is not below it"),
        ("warn_kb 200000", "warn_kb 500000", "half of the memory"),
    ] {
        let fake = Fake::fit();
        fake.edit("proc/oom_notifier", from, to);
        fake.expect("lms", Status::Degraded, part);
    }

    for (interface, number) in [("interface 3\n", 3), ("", 1)] {
        let fake = Fake::fit();
        fake.edit("proc/oom_notifier", "interface 2\n", interface);
        fake.expect("lms", Status::Degraded, &format!("it has interface {number}, and this oomwarden knows 2"));
        fake.expect("lms", Status::Degraded, "reboot");
    }

    let fake = Fake::fit();
    fake.edit("proc/oom_notifier", "level kill", "level what");
    fake.expect("lms", Status::Degraded, "makes no sense: a line of another shape");
    fake.remove("proc/oom_notifier");
    fake.expect("lms", Status::Degraded, "modprobe oomwarden_lms");
    fs::create_dir(fake.path("proc/oom_notifier")).unwrap();
    fake.expect("lms", Status::Degraded, "can't be read");
}

#[test]
fn the_kernel_modules_build() {
    let fake = Fake::fit();
    let modules = "root/lib/modules/6.12.117+deb13-cloud-amd64";
    let loaded = "version 0.1.0 (srcversion AAAA) is loaded, with interface 2";
    fake.expect("lms-build", Status::Ok, &format!("{loaded}; none is installed for the running kernel"));
    // Of several the one that depmod has chosen, else the one that it would.
    fake.write(&format!("{modules}/extra/oomwarden_lms.ko.xz"), "version=0.1.0\nsrcversion=AAAA\n");
    fake.expect("lms-build", Status::Ok, &format!("{loaded}, as in "));
    fake.write(&format!("{modules}/updates/dkms/oomwarden_lms.ko.zst"), "version=0.2.0\nsrcversion=BBBB\n");
    fake.expect("lms-build", Status::Degraded, &format!("{loaded}; a newer module is installed: version 0.2.0 (srcversion BBBB) in "));
    fake.expect("lms-build", Status::Degraded, "it is used from the next load: reboot, or stop the daemon and `rmmod");
    fake.write(
        &format!("{modules}/modules.dep"),
        "kernel/fs/ext4.ko:\nextra/not_oomwarden_lms.ko: kernel/x.ko\nextra/oomwarden_lms.ko.xz:\n",
    );
    fake.expect("lms-build", Status::Ok, "extra/oomwarden_lms.ko.xz");
    // As the compiler leaves it; other words of its own name no field.
    let fields = b"license=GPL\0version=0.1.0\0srcversion=CCCC\0depends=\0";
    let file = lms_build::elf(&[(".rodata", b"\0version=9\0"), (".modinfo", fields)]);
    fs::write(fake.path(&format!("{modules}/extra/oomwarden_lms.ko")), file).unwrap();
    fake.write(&format!("{modules}/modules.dep"), "extra/oomwarden_lms.ko:\n");
    fake.expect("lms-build", Status::Degraded, "another module is installed: version 0.1.0 (srcversion CCCC)");
    fake.write(&format!("{modules}/extra/oomwarden_lms.ko"), "no module");
    fake.expect("lms-build", Status::Degraded, "can't be told");
    fake.remove("root/sys/module");
    fake.expect("lms-build", Status::Ok, "not loaded; ");
    fake.remove(modules);
    fake.expect("lms-build", Status::Ok, "not loaded, and none is installed");
}

#[test]
fn who_has_the_kernel_modules_file_open() {
    let fake = Fake::fit();
    let opens = |pid: u32, target: &str| {
        fs::create_dir_all(fake.path(&format!("proc/{pid}/fd"))).unwrap();
        std::os::unix::fs::symlink(fake.path(target), fake.path(&format!("proc/{pid}/fd/3"))).unwrap();
    };
    fake.expect("lms-users", Status::Ok, "open once, in no process that can be seen");
    fake.write("root/sys/module/oomwarden_lms/refcnt", "0\n");
    fake.expect("lms-users", Status::Ok, "nobody has");
    opens(321, "proc/oom_notifier");
    fake.write("proc/321/status", "Name:\toomwarden\nUid:\t0\t0\t0\t0\n");
    fake.write("proc/321/cgroup", "0::/own.service\n");
    // A file of that name that is another, a file that is none any more, and one of another name.
    fake.write("elsewhere/oom_notifier", "");
    opens(400, "elsewhere/oom_notifier");
    opens(401, "gone/oom_notifier");
    opens(402, "proc/meminfo");
    fake.expect("lms-users", Status::Ok, "oom_notifier is open in process 321 (oomwarden, uid 0, /own.service); to unload");
    opens(77, "proc/oom_notifier");
    fake.write("proc/77/comm", "evil\u{1b}[2J\n");
    fake.write("proc/77/status", "Uid:\t1000\t1001\t1000\t1000\n");
    fake.expect("lms-users", Status::Ok, "open in process 77 (evil\\u{1b}[2J, uid 1001), process 321 (");
    for pid in 1000..1020 {
        opens(pid, "proc/oom_notifier");
    }
    fake.expect("lms-users", Status::Ok, "process 1005 (unknown), 14 more; to unload");
    fake.remove("proc/oom_notifier");
    fake.expect("lms-users", Status::Ok, "not loaded");
}

#[test]
fn who_asks_is_killed_is_said() {
    let fake = Fake::fit();
    fake.write("proc/sys/vm/oom_kill_allocating_task", "1\n");
    fake.expect("kill-allocating", Status::Degraded, "the kernel kills whoever asks for memory");
    fake.expect("kill-allocating", Status::Degraded, "go before it");
    fake.remove("proc/sys/vm/oom_kill_allocating_task");
    fake.expect("kill-allocating", Status::Degraded, "could not be read");
}

#[test]
fn a_kernel_log_that_may_not_be_read_is_said() {
    let fake = Fake::fit();
    fake.expect("kernel-log", Status::Ok, "readable by /dev/kmsg");
    fake.write("proc/kmsg.errno", "1");
    fake.expect("kernel-log", Status::Degraded, "Operation not permitted");
    fake.expect("kernel-log", Status::Degraded, "CAP_SYSLOG");
}

#[test]
fn capabilities_and_limits() {
    let fake = Fake::fit();
    fake.expect("cap-kill", Status::Ok, "uid 0");
    fake.edit("proc/self/status", "CapEff:\t000001ffffffffff", "CapEff:\t0000000000000000");
    fake.edit("proc/self/status", "Uid:\t0\t0", "Uid:\t1000\t1000");
    for name in ["cap-kill", "cap-sys-resource", "cap-ipc-lock"] {
        fake.expect(name, Status::Degraded, "not granted (uid 1000)");
    }
    fake.expect("rlimit-memlock", Status::Ok, "8MiB");
    fake.edit("proc/self/limits", "8388608              8388608              bytes", "65536                65536                bytes");
    fake.expect("rlimit-memlock", Status::Degraded, "64KiB");
    fake.edit("proc/self/limits", "524288 ", "64     ");
    fake.expect("rlimit-nofile", Status::Degraded, "152 are wanted");
    fake.write("proc/self/limits", "nonsense");
    fake.write("proc/self/status", "Name: x");
    for name in ["cap-kill", "cap-sys-resource", "cap-ipc-lock", "rlimit-nofile", "rlimit-memlock"] {
        fake.expect(name, Status::Degraded, "could not be read");
    }
}

#[test]
fn inotify() {
    let fake = Fake::fit();
    fake.write("proc/sys/fs/inotify/max_user_watches", "5");
    fake.expect("inotify", Status::Degraded, "max_user_watches=8192");
    fake.write("proc/sys/fs/inotify/max_user_instances", "0");
    fake.expect("inotify", Status::Degraded, "max_user_instances");
    fake.remove("proc/sys/fs");
    fake.expect("inotify", Status::Degraded, "could not be read");
}

#[test]
fn a_machine_of_which_nothing_can_be_read() {
    let fake = Fake { directory: tempfile::tempdir().unwrap() };
    let report = fake.examine();
    assert_eq!(report.status(), Status::Missing);
    assert_eq!(report.lines.len(), CHECKS.len());
}

#[test]
fn names_of_groups_can_hurt_no_terminal() {
    let fake = Fake::fit();
    fake.remove("cgroup/own.service");
    fake.group("a\u{1b}[2J\nok", "4242\n");
    fake.expect("own-group", Status::Ok, "/a\\x1b[2J\\x0aok");
}

#[test]
fn as_text_and_as_json() {
    let fake = Fake::fit();
    fake.write("cgroup/cgroup.subtree_control", "");
    fake.write("cgroup/web.service/cgroup.kill", "13");
    let report = fake.examine();
    let text = report.to_string();
    let line = text.lines().find(|line| line.contains("memory-controller")).unwrap();
    assert!(line.starts_with("missing   memory-controller  available, but not enabled for the groups below -> echo +memory >"), "{line}");
    assert!(text.ends_with("\noomwarden can't do its work here: 31 ok, 1 degraded, 1 missing\n"), "{text}");
    assert_eq!(text.lines().count(), CHECKS.len() + 2);

    let json: serde_json::Value = serde_json::to_value(&report).unwrap();
    assert_eq!(json["status"], "missing");
    assert_eq!(json["checks"].as_array().unwrap().len(), CHECKS.len());
    assert_eq!(json["checks"][1]["name"], "memory-controller");
    assert_eq!(json["checks"][1]["status"], "missing");
    assert_eq!(json["checks"][0]["advice"], serde_json::Value::Null);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn whatever_stands_in_the_files(
        which in prop::sample::select(vec![
            "proc/self/mountinfo", "proc/self/status", "proc/self/limits", "proc/self/cgroup", "proc/sys/kernel/osrelease", "proc/meminfo",
            "proc/swaps", "proc/oom_notifier", "proc/321/comm", "proc/sys/vm/overcommit_memory", "proc/sys/vm/panic_on_oom", "proc/sys/vm/oom_kill_allocating_task", "root/sys/module/oomwarden_lms/version", "proc/sys/fs/inotify/max_user_watches", "cgroup/cgroup.controllers", "cgroup/own.service/cgroup.procs",
        ]),
        cut in any::<prop::sample::Index>(),
        noise in prop::collection::vec(prop::sample::select(b"\0\n\t :-/,=09azAZ\xff".to_vec()), 0..40),
        keep_rest in any::<bool>(),
    ) {
        let fake = Fake::fit();
        let text = fs::read(fake.path(which)).unwrap();
        let (before, after) = text.split_at(cut.index(text.len()));
        let rest = if keep_rest { after } else { &[] };
        fs::write(fake.path(which), [before, &noise, rest].concat()).unwrap();
        prop_assert_eq!(fake.examine().lines.len(), CHECKS.len());
    }
}

#[test]
fn systemd_oomd_is_a_neighbour_where_units_ask_it_to_kill() {
    let fake = Fake::fit();
    fake.write("root/usr/lib/systemd/system/user@.service.d/10-oomd.conf", "[Service]\nManagedOOMMemoryPressure=kill\n");
    fake.expect("systemd-oomd", Status::Ok, "not running");
    fake.write("proc/400/comm", "systemd-oomd\n");
    fake.expect("systemd-oomd", Status::Degraded, "kill in user@.service:");
    // A template has no properties that systemctl could set.
    fake.expect(
        "systemd-oomd",
        Status::Degraded,
        "or that unit only: `mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\n",
    );
    fake.write("root/etc/systemd/system/-.slice.d/swap.conf", "[Slice]\n ManagedOOMSwap = kill\n");
    fake.write("root/etc/systemd/system/db.service", "[Service]\nManagedOOMSwap=auto\nManagedOOMPreference=omit\n");
    fake.write("root/etc/systemd/system/README.d/x", "ManagedOOMSwap=kill\n");
    fake.expect("systemd-oomd", Status::Degraded, "kill in -.slice, user@.service:");
    // What is typed is understood: `-.slice` is no option, and what is only disabled would come
    // back.
    fake.expect(
        "systemd-oomd",
        Status::Degraded,
        "`systemctl set-property -- -.slice ManagedOOMSwap=auto ManagedOOMMemoryPressure=auto`, and so",
    );
    fake.expect("systemd-oomd", Status::Degraded, "`systemctl mask --now systemd-oomd.service systemd-oomd.socket`");
    // Instances are named in the place of their template, but for those that were set otherwise.
    for name in ["user@1000.service", "user@7.service", "user.service"] {
        fake.group(name, "");
    }
    fake.write(
        "root/etc/systemd/system.control/user@7.service.d/50-ManagedOOMMemoryPressure.conf",
        "[Service]\nManagedOOMMemoryPressure=auto\n",
    );
    fake.expect("systemd-oomd", Status::Degraded, "kill in -.slice, user@1000.service:");
    fake.write("root/etc/systemd/system/-.slice.d/zz.conf", "[Slice]\nManagedOOMSwap=auto\n");
    fake.expect("systemd-oomd", Status::Degraded, "`systemctl set-property -- user@1000.service Managed");
    fake.write("root/usr/lib/systemd/user/app.slice", "[Slice]\nManagedOOMSwap=kill\n");
    fake.write("root/etc/systemd/system/user@.service.d/zz.conf", "[Service]\nManagedOOMMemoryPressure=auto\n");
    fake.expect("systemd-oomd", Status::Degraded, "mkdir -p /etc/systemd/user/app.slice.d && printf '[Slice]");
    fake.remove("root");
    fake.expect("systemd-oomd", Status::Ok, "running (process 400), and no unit asks it to kill");
}

#[test]
fn the_daemons_start_names_neighbours_in_a_line_each() {
    let fake = Fake::fit();
    assert!(neighbours(&fake.system()).is_empty());
    fake.write("proc/400/comm", "systemd-oomd\n");
    fake.write("proc/401/comm", "psi-notify\n");
    assert!(neighbours(&fake.system()).is_empty(), "they are in nobody's way");
    fake.write("root/etc/systemd/system/-.slice.d/swap.conf", "[Slice]\nManagedOOMSwap=kill\n");
    fake.write("proc/402/comm", "earlyoom\n");
    fake.write("proc/403/comm", "kubelet\n");
    let lines = neighbours(&fake.system());
    let begins = [
        "systemd-oomd: running (process 400), and told to kill in -.slice",
        "another killer beside oomwarden: earlyoom (process 402)",
        "kubelet: running",
    ];
    assert_eq!(lines.len(), begins.len(), "{lines:?}");
    assert!(lines.iter().zip(begins).all(|(line, begin)| line.starts_with(begin) && line.lines().count() == 1), "{lines:?}");
    assert!(lines[0].contains("; leave it all to oomwarden: `systemctl mask --now"), "{}", lines[0]);
}

#[test]
fn memory_that_is_promised_and_a_kernel_that_panics() {
    let fake = Fake::fit();
    fake.expect("overcommit", Status::Ok, "vm.overcommit_memory=0");
    fake.edit("proc/meminfo", "Committed_AS: 1 kB", "CommitLimit: 4000 kB\nCommitted_AS: 3900 kB");
    fake.expect("overcommit", Status::Ok, "does not apply");
    fake.write("proc/sys/vm/overcommit_memory", "2\n");
    fake.expect("overcommit", Status::Degraded, "(97%): allocations fail");
    fake.expect("overcommit", Status::Degraded, "vm.overcommit_ratio");
    fake.edit("proc/meminfo", "Committed_AS: 3900 kB", "Committed_AS: 300 kB");
    fake.expect("overcommit", Status::Ok, "vm.overcommit_memory=2, Committed_AS 300KiB of CommitLimit");
    fake.remove("proc/sys/vm/overcommit_memory");
    fake.expect("overcommit", Status::Degraded, "could not be read");
    fake.expect("panic-on-oom", Status::Ok, "=0");
    for (value, part) in
        [("1", "the whole machine is out of memory the kernel panics"), ("2", "also when only a group"), ("x", "not understood")]
    {
        fake.write("proc/sys/vm/panic_on_oom", value);
        fake.expect("panic-on-oom", Status::Degraded, part);
        fake.expect("panic-on-oom", Status::Degraded, "sysctl vm.panic_on_oom=0");
    }
    fake.write("proc/sys/vm/panic_on_oom", "1\n");
    fake.expect("panic-on-oom", Status::Degraded, "no OOM is held for it and no table is left with the kernel module");
    fake.write("proc/sys/kernel/panic", "0\n");
    fake.expect("panic-on-oom", Status::Degraded, "stays down");
}

const SHOWN: &str = "LoadState=loaded\nActiveState=active\nMainPID=777\nNeedDaemonReload=no\nUser=\nDynamicUser=no\n\
    CapabilityBoundingSet=cap_dac_override cap_kill cap_ipc_lock cap_sys_resource cap_syslog\nAmbientCapabilities=\n\
    LimitNOFILE=524288\nLimitNOFILESoft=1024\nLimitMEMLOCK=65536\nLimitMEMLOCKSoft=65536\nOOMScoreAdjust=-1000\nOOMPolicy=continue\n\
    MemoryMax=infinity\nMemoryHigh=infinity\nTasksMax=64\nSlice=system.slice\nProtectControlGroups=no\nProtectKernelLogs=no\n";

impl Fake {
    fn expect_of_unit(&self, shown: &str, name: &str, status: Status, part: &str) {
        let unit = unit::Unit::of("w.service", shown).unwrap();
        let finding = examine(&self.system().with_unit(Some(unit))).lines.into_iter().find(|line| line.name == name).unwrap().finding;
        let text = format!("{} -> {}", finding.found, finding.advice.clone().unwrap_or_default());
        assert_eq!(finding.status, status, "{name}: {text}");
        assert!(text.contains(part), "{name}: {text}");
    }
}

/// The caller may do everything; what counts is what the service may.
#[test]
fn a_service_is_judged_by_the_rights_of_its_process() {
    let fake = Fake::fit();
    fake.expect("unit", Status::Ok, "none named");
    let status = STATUS.replace("000001ffffffffff", "0000000000000020").replace("Uid:\t0\t0", "Uid:\t99\t99");
    fake.write("proc/777/status", &status);
    fake.write("proc/777/limits", &LIMITS.replace("524288", "64").replace("8388608              8388608", "65536                65536"));
    fake.write("proc/777/cgroup", "0::/w.service\n");
    fake.write("proc/777/oom_score_adj", "0\n");
    let mount = format!("32 31 0:29 / {} ro,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n", fake.path("cgroup").display());
    fake.write("proc/777/mountinfo", &mount);
    fake.group("w.service", "777\n");
    fake.expect_of_unit(SHOWN, "unit", Status::Degraded, "w.service, process 777, uid 99: oom_score_adj=0: the kernel may choose it");
    fake.expect_of_unit(SHOWN, "own-group", Status::Ok, "/w.service");
    fake.expect_of_unit(SHOWN, "cap-kill", Status::Ok, "granted (uid 99)");
    fake.expect_of_unit(SHOWN, "cap-sys-resource", Status::Degraded, "not granted (uid 99)");
    fake.expect_of_unit(SHOWN, "rlimit-nofile", Status::Degraded, "64, ");
    fake.expect_of_unit(SHOWN, "rlimit-memlock", Status::Degraded, "64KiB");
    fake.expect_of_unit(SHOWN, "kernel-log", Status::Degraded, "CAP_SYSLOG");
    fake.expect_of_unit(SHOWN, "kill-rights", Status::Missing, "mounted read-only");
    fake.expect_of_unit(SHOWN, "psi-triggers", Status::Missing, "Read-only");
    fake.write("proc/777/mountinfo", &mount.replace(" ro,", " rw,"));
    fake.expect_of_unit(SHOWN, "kill-rights", Status::Missing, "Permission denied");
    fake.write("proc/777/status", &STATUS.replace("000001ffffffffff", "0000000000000002"));
    fake.expect_of_unit(SHOWN, "kill-rights", Status::Ok, "may be written");
    fake.expect_of_unit(SHOWN, "psi-triggers", Status::Degraded, "only windows of 2s");
    fake.write("proc/777/oom_score_adj", "-1000\n");
    fake.expect_of_unit(SHOWN, "unit", Status::Ok, "w.service, process 777, uid 0: the rights below are its own");
    for (from, to, part) in [
        ("OOMPolicy=continue", "OOMPolicy=stop", "OOMPolicy=stop: it is ended as well"),
        ("NeedDaemonReload=no", "NeedDaemonReload=yes", "systemctl daemon-reload"),
        ("ProtectControlGroups=no", "ProtectControlGroups=yes", "ProtectControlGroups"),
    ] {
        fake.expect_of_unit(&SHOWN.replace(from, to), "unit", Status::Degraded, part);
    }
}

#[test]
fn a_service_that_does_not_run_is_judged_by_its_settings() {
    let fake = Fake::fit();
    let idle = SHOWN.replace("MainPID=777", "MainPID=0").replace("=active", "=inactive");
    fake.expect_of_unit(&idle, "unit", Status::Degraded, "w.service: it is inactive, so it is judged by its settings");
    fake.expect_of_unit(&idle, "unit", Status::Degraded, "systemctl enable --now w.service");
    fake.expect_of_unit(&idle, "own-group", Status::Ok, "below system.slice, once it runs");
    for name in [
        "cap-kill",
        "cap-sys-resource",
        "cap-ipc-lock",
        "kernel-log",
        "kill-rights",
        "psi-triggers",
        "rlimit-nofile",
        "rlimit-memlock",
        "own-limits",
    ] {
        fake.expect_of_unit(&idle, name, Status::Ok, "");
    }
    for (from, to, name, status, part) in [
        (" cap_kill", "", "cap-kill", Status::Degraded, "not granted (uid 0)"),
        ("User=", "User=4000000000", "cap-kill", Status::Degraded, "not granted (uid 4000000000)"),
        ("User=", "User=4000000000", "kill-rights", Status::Missing, "Permission denied"),
        ("AmbientCapabilities=", "AmbientCapabilities=cap_kill", "cap-kill", Status::Ok, "granted"),
        ("ProtectControlGroups=no", "ProtectControlGroups=yes", "kill-rights", Status::Missing, "read-only"),
        ("ProtectKernelLogs=no", "ProtectKernelLogs=yes", "kernel-log", Status::Degraded, "not readable"),
        ("LimitNOFILE=524288", "LimitNOFILE=8", "rlimit-nofile", Status::Degraded, "8, "),
        ("MemoryMax=infinity", "MemoryMax=1048576", "own-limits", Status::Degraded, "MemoryMax=1048576"),
        ("TasksMax=64", "TasksMax=2", "own-limits", Status::Degraded, "TasksMax=2"),
    ] {
        fake.expect_of_unit(&idle.replace(from, to), name, status, part);
    }
    let refused = |text: &str| unit::Unit::of("w.service", text).unwrap_err().to_string();
    assert!(refused("LoadState=not-found\n").contains("no unit w.service"));
    assert!(refused("LoadState=bad-setting\n").contains("systemctl status w.service"));
    assert!(refused("").contains("can't be loaded"));
}

#[test]
fn marks_for_systemd_oomd_are_told_because_nobody_reads_them_here() {
    let fake = Fake::fit();
    fake.write("cgroup/web.service/user.oomd_omit", "1");
    fake.expect("oomd-marks", Status::Degraded, "/web.service");
    fake.expect("oomd-marks", Status::Degraded, "`exclude`");
}

#[test]
fn units_that_go_on_when_a_process_is_killed_are_listed_for_oom_group() {
    let fake = Fake::fit();
    fake.expect("oom-policy", Status::Ok, "no service has OOMPolicy=continue or Delegate=");
    fake.write("root/usr/lib/systemd/system/ssh.service", "[Service]\nOOMPolicy=continue\n");
    fake.write("root/usr/lib/systemd/system/cron.service", "[Service]\nOOMPolicy=continue\n");
    fake.write("root/etc/systemd/system/cron.service.d/stop.conf", "[Service]\nOOMPolicy=stop\n");
    fake.expect("oom-policy", Status::Ok, "OOMPolicy=continue in ssh.service: `kernel: oom_group` of a policy is not set there");
    fake.write("root/usr/lib/systemd/system/user@.service", "[Service]\nDelegate=pids memory\n");
    fake.expect(
        "oom-policy",
        Status::Ok,
        "; Delegate= without OOMPolicy= in user@.service: it is not set in its own group, only in groups below (and in scopes",
    );
}

#[test]
fn daemons_that_kill_are_neighbours_and_those_that_tell_are_not() {
    let fake = Fake::fit();
    fake.write("proc/500/comm", "psi-notify\n");
    fake.expect("other-killers", Status::Ok, "psi-notify (process 500) only tells");
    fake.write("proc/501/comm", "earlyoom\n");
    fake.write("proc/502/comm", "nohang\n");
    fake.write("proc/503/comm", "nohang-thing\n");
    fake.expect("other-killers", Status::Degraded, "earlyoom (process 501), nohang (process 502) also kills");
}

#[test]
fn the_kubelets_eviction_is_told_with_its_threshold() {
    let fake = Fake::fit();
    fake.expect("kubelet", Status::Ok, "not running");
    fake.write("proc/600/comm", "kubelet\n");
    fake.write("proc/600/cmdline", "/usr/bin/kubelet\0");
    fake.expect("kubelet", Status::Degraded, "memory.available 100Mi (its default)");
    fake.write("proc/600/cmdline", "/usr/bin/kubelet\0--config\0/var/lib/kubelet/config.yaml\0");
    fake.expect("kubelet", Status::Degraded, "could not be read");
    fake.write(
        "root/var/lib/kubelet/config.yaml",
        "kind: KubeletConfiguration\nevictionHard:\n  memory.available: 5%\n  nodefs.available: 10%\n",
    );
    fake.expect("kubelet", Status::Degraded, "memory.available 5% (/var/lib/kubelet/config.yaml)");
    for (text, part) in
        [("evictionHard: {memory.available: 0%}\n", "no eviction"), ("evictionHard: {nodefs.available: 10%}\n", "no eviction")]
    {
        fake.write("root/var/lib/kubelet/config.yaml", text);
        fake.expect("kubelet", Status::Ok, part);
    }
    for text in ["kind: KubeletConfiguration\n", "evictionHard: 7\n", "{"] {
        fake.write("root/var/lib/kubelet/config.yaml", text);
        fake.expect("kubelet", Status::Degraded, "says nothing");
    }
    fake.write("proc/600/cmdline", "/usr/bin/kubelet\0--config=/x\0--eviction-hard=nodefs.available<1%,memory.available<200Mi\0");
    fake.expect("kubelet", Status::Degraded, "memory.available 200Mi (--eviction-hard)");
}

#[test]
fn limits_of_the_own_group_and_of_those_above_it() {
    let fake = Fake::fit();
    for (file, text) in [("memory.max", "max\n"), ("memory.high", "67108864\n"), ("pids.max", "512\n")] {
        fake.write(&format!("cgroup/own.service/{file}"), text);
    }
    fake.expect("own-limits", Status::Ok, "/own.service");
    fake.write("cgroup/own.service/pids.max", "8\n");
    fake.expect("own-limits", Status::Degraded, "TasksMax=32");
    fake.write("cgroup/own.service/memory.max", "16777216\n");
    fake.expect("own-limits", Status::Degraded, "/own.service has memory.max 16MiB");
    fake.remove("cgroup/own.service/memory.max");
    fake.remove("cgroup/own.service/pids.max");
    fake.write("cgroup/memory.max", "1048576\n");
    fake.expect("own-limits", Status::Degraded, "/ has memory.max 1MiB");
    fake.remove("cgroup/memory.max");
    // Whoever may exempt itself does not die with its group.
    fake.remove("cgroup/own.service/memory.high");
    fake.write("cgroup/own.service/memory.oom.group", "1\n");
    fake.expect("own-limits", Status::Ok, "/own.service");
    fake.edit("proc/self/status", "000001ffffffffff", "0000000000000000");
    fake.expect("own-limits", Status::Degraded, "/own.service has memory.oom.group 1");
    fake.write("proc/self/oom_score_adj", "-1000\n");
    fake.expect("own-limits", Status::Ok, "/own.service");
}
