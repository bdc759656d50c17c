//! Where everybody is, for the message of a scenario that waited in vain.

use std::collections::HashMap;
use std::fs::read_to_string;
use std::time::Duration;

use super::kernel_log::KernelLog;

const MEMORY: [&str; 12] = [
    "MemFree:",
    "MemAvailable:",
    "Active(anon):",
    "Inactive(anon):",
    "Unevictable:",
    "Shmem:",
    "Slab:",
    "KernelStack:",
    "PageTables:",
    "Percpu:",
    "SwapFree:",
    "Writeback:",
];

/// What grows while memory is sought.
const SOUGHT: [&str; 10] = [
    "pgfault",
    "allocstall_normal",
    "allocstall_movable",
    "pgscan_kswapd",
    "pgscan_direct",
    "pgsteal_direct",
    "pswpout",
    "pswpin",
    "compact_stall",
    "oom_kill",
];

/// Prints memory and each process of user space, with kernel threads that are at work: group, state, resident memory, processor and its time, place
/// in the kernel. What can be at work is looked at twice: a processor without ticks is not let run by its hypervisor, or lost a wake-up.
pub fn print() {
    println!("{}", kept("/proc/meminfo", &MEMORY));
    for look in 0..2 {
        if look > 0 {
            std::thread::sleep(Duration::from_millis(200));
        }
        println!("{}", interrupts());
        println!("{}", kept("/proc/stat", &["cpu"]));
        println!("{}", kept("/proc/vmstat", &SOUGHT));
        println!("{}", kept("/proc/pressure/memory", &["some", "full"]));
        processes();
    }
    // Stacks of what runs, of what is blocked, and free memory by zone.
    for line in asked_of_the_kernel(&["l", "w", "m"]) {
        println!("kernel: {line}");
    }
}

/// What the kernel writes to its log when these keys of sysrq are pressed.
fn asked_of_the_kernel(keys: &[&str]) -> Vec<String> {
    let Ok(mut log) = KernelLog::from_now() else { return Vec::new() };
    for key in keys {
        drop(std::fs::write("/proc/sysrq-trigger", key));
    }
    log.lines().unwrap_or_default()
}

/// Processors that let nobody run: a thread that goes before all others (migration) has waited there for two looks in a row.
#[derive(Default)]
pub struct Standstill {
    /// Threads that waited at the last look, and for how many.
    waiting: HashMap<u32, u32>,
}

impl Standstill {
    /// Looks, and tells of a standstill once, with where the processors are. To be called once a second.
    pub fn look(&mut self) -> Option<String> {
        let entries = std::fs::read_dir("/proc").ok()?;
        let before = std::mem::take(&mut self.waiting);
        let mut told = None;
        for pid in entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()).take_while(|pid| *pid < 100) {
            let stat = read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if !stat.contains("(migration/") || !stat.contains(") R") {
                continue;
            }
            let looks = before.get(&pid).copied().unwrap_or(0) + 1;
            self.waiting.insert(pid, looks);
            if looks == 3 {
                let name = stat.split_whitespace().nth(1).unwrap_or_default();
                told = Some(format!("{name} has not run for two seconds: {}", asked_of_the_kernel(&["l"]).join(" | ")));
            }
        }
        told
    }
}

/// Those that ever came.
fn interrupts() -> String {
    let text = read_to_string("/proc/interrupts").unwrap_or_default();
    let came = |line: &&str| line.split_whitespace().skip(1).map_while(|count| count.parse().ok()).any(|count: u64| count > 0);
    text.lines().filter(came).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ")
}

fn kept(file: &str, keys: &[&str]) -> String {
    let text = read_to_string(file).unwrap_or_default();
    let lines = text.lines().map(str::trim).filter(|line| keys.iter().any(|key| line.starts_with(key)));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ")
}

fn processes() {
    let Ok(entries) = std::fs::read_dir("/proc") else { return };
    for pid in entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()) {
        let read = |file: &str| read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let status = read("status");
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let (state, resident) = (value("State:"), value("VmRSS:"));
        if resident.is_empty() && !state.starts_with(['R', 'D', 'Z']) {
            continue;
        }
        // Behind the name, which may hold anything: fields 14, 15 and 39 of proc_pid_stat(5).
        let stat = read("stat");
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
        let ran = format!("on {} for {}+{} ticks", field(39), field(14), field(15));
        let stack: Vec<String> = read("stack").lines().take(12).map(|line| line.trim_start_matches("[<0>] ").to_owned()).collect();
        println!(
            "{pid} {} {} {state} {resident} {ran} adj {} {stack:?}",
            value("Name:"),
            read("cgroup").trim(),
            read("oom_score_adj").trim()
        );
    }
}
