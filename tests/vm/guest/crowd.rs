//! Where everybody is, for the message of a scenario that waited in vain.

use std::fs::read_to_string;

/// Prints memory and each process of user space, with kernel threads that are at work: group, state, resident memory, place in the kernel.
pub fn print() {
    let kept = [
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
    ];
    let memory = read_to_string("/proc/meminfo").unwrap_or_default();
    let memory: Vec<&str> = memory.lines().filter(|line| kept.iter().any(|key| line.starts_with(key))).collect();
    println!("{}", memory.join(", "));
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
        let stack: Vec<String> = read("stack").lines().take(12).map(|line| line.trim_start_matches("[<0>] ").to_owned()).collect();
        println!("{pid} {} {} {state} {resident} adj {} {stack:?}", value("Name:"), read("cgroup").trim(), read("oom_score_adj").trim());
    }
}
