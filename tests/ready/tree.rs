//! A case as text: a machine, its groups, and what is expected of the ready policies.
//!
//! ```text
//! node 4000 swap=1000                 memory and swap of the node, MiB
//! tree
//! system.slice                        two spaces of indentation a level
//!   ssh.service sshd:6@-1000          `sshd` with 6 MiB of anonymous memory, oom_score_adj -1000
//!   web.service php-fpm:40x8          eight of them
//!   db.service 900 max=1000           one process, called like the group, and a limit
//! never ssh.service                   no ready policy may kill it, whatever happens
//! never server: db.service            this one may not
//! when node                           a trouble (see `Trouble`)
//!   default db.service web.service    who dies in turn, while it lasts, until nobody may
//!   server web.service ... x.service  any others between; also at the end
//!   batch nobody
//! ```
//!
//! A group is named by its path or the end of it; `NAME#COMM` is one process of it. More words for
//! a group: `high=`, `file=` (page cache), `shmem=`, `swap=`, `growth=` (MiB, the last a second),
//! `unit` (memory.oom.group), `threaded`, `own`.

use std::collections::HashSet;

/// Bytes in a MiB.
pub const MIB: u64 = 1 << 20;

/// One process.
#[derive(Clone, Debug)]
pub struct Process {
    pub comm: String,
    pub mib: u64,
    pub adj: i64,
}

impl Process {
    /// What the kernel shows as oom_score on a node with so much memory and swap.
    pub fn oom_score(&self, node_mib: u64) -> u32 {
        if self.adj == -1000 {
            return 0;
        }
        let points = self.mib as i64 * 1000 / node_mib.max(1) as i64 + self.adj;
        ((1000 + points).max(0) * 2 / 3) as u32
    }
}

/// One group.
#[derive(Clone, Debug, Default)]
pub struct Group {
    pub path: String,
    pub parent: Option<usize>,
    pub end: usize,
    pub processes: Vec<Process>,
    pub max: Option<u64>,
    pub high: Option<u64>,
    pub file: u64,
    pub shmem: u64,
    pub swap: u64,
    pub growth: i64,
    pub unit: bool,
    pub threaded: bool,
    pub own: bool,
}

/// What is wrong.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// Available memory is below every level that the policy names; no swap is left.
    Node,
    /// The same, and the whole node stalls.
    Thrash,
    /// The kernel module reports that the kernel is about to kill.
    Oom,
    /// This group is at its memory.max or memory.high and stalls all the time, or only for a second
    /// (`short`); the node has swap left (`swap`); half of it at least is page cache (`cache`).
    Limit { group: usize, short: bool, swap: bool, cache: bool },
    /// The kernel killed a process of this group.
    OomKill { group: usize },
}

/// What is expected of one policy in one trouble.
#[derive(Debug)]
pub struct Expected {
    pub policy: String,
    pub line_up: Vec<String>,
}

/// A case.
#[derive(Debug, Default)]
pub struct Case {
    pub node_mib: u64,
    pub swap_mib: u64,
    pub groups: Vec<Group>,
    /// Policy (empty: each) and group.
    pub never: Vec<(String, usize)>,
    pub whens: Vec<(String, Trouble, Vec<Expected>)>,
}

impl Case {
    /// Reads a case.
    pub fn read(text: &str) -> Case {
        let mut case = Case::default();
        let mut in_tree = false;
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match (words[0], line.starts_with(' ')) {
                ("node", false) => {
                    case.node_mib = words[1].parse().unwrap();
                    case.swap_mib = words.get(2).map_or(0, |word| word.strip_prefix("swap=").unwrap().parse().unwrap());
                }
                ("tree", false) => {
                    in_tree = true;
                    case.groups.push(Group { path: "/".into(), ..Group::default() });
                }
                ("never", false) => {
                    in_tree = false;
                    let (policy, names) = match words[1].strip_suffix(':') {
                        Some(policy) => (policy, &words[2..]),
                        None => ("", &words[1..]),
                    };
                    for name in names {
                        let group = case.find(name);
                        case.never.push((policy.into(), group));
                    }
                }
                ("when", false) => {
                    in_tree = false;
                    let trouble = case.trouble(&words[1..]);
                    case.whens.push((words[1..].join(" "), trouble, Vec::new()));
                }
                _ if in_tree => case.add(line),
                (policy, true) => {
                    let line_up = words[1..].iter().map(|word| case.full(word)).collect();
                    let when = case.whens.last_mut().unwrap_or_else(|| panic!("expected of nothing: {line}"));
                    when.2.push(Expected { policy: policy.into(), line_up });
                }
                _ => panic!("what is {line:?}?"),
            }
        }
        let mut paths = HashSet::new();
        assert!(case.groups.iter().all(|group| paths.insert(&group.path)), "a group stands twice");
        for at in 0..case.groups.len() {
            let below = format!("{}/", case.groups[at].path.trim_end_matches('/'));
            let inside = case.groups[at + 1..].iter().take_while(|group| group.path.starts_with(&below)).count();
            case.groups[at].end = at + 1 + inside;
        }
        case
    }

    fn trouble(&self, words: &[&str]) -> Trouble {
        let has = |word: &str| words.contains(&word);
        match words[0] {
            "node" => Trouble::Node,
            "thrash" => Trouble::Thrash,
            "oom" => Trouble::Oom,
            "oom_kill" => Trouble::OomKill { group: self.find(words[1]) },
            "limit" => Trouble::Limit { group: self.find(words[1]), short: has("short"), swap: has("swap"), cache: has("cache") },
            other => panic!("no trouble is called {other}"),
        }
    }

    /// A line of the tree.
    fn add(&mut self, line: &str) {
        let depth = (line.len() - line.trim_start().len()) / 2 + 1;
        let mut words = line.split_whitespace();
        let name = words.next().unwrap();
        let depth_of = |group: &Group| if group.parent.is_none() { 0 } else { group.path.matches('/').count() };
        let parent = self.groups.iter().rposition(|group| depth_of(group) + 1 == depth).unwrap_or_else(|| panic!("no parent for {name}"));
        let path = format!("{}/{name}", self.groups[parent].path.trim_end_matches('/'));
        let mut group = Group { path, parent: Some(parent), ..Group::default() };
        for word in words {
            group.word(name, word);
        }
        self.groups.push(group);
    }

    /// The group whose path this is, or ends so.
    pub fn find(&self, name: &str) -> usize {
        let end = format!("/{name}");
        let is = |path: &str| if name.starts_with('/') { path == name } else { path.ends_with(&end) };
        let found: Vec<usize> = (0..self.groups.len()).filter(|at| is(&self.groups[*at].path)).collect();
        assert_eq!(found.len(), 1, "{name} is {found:?}");
        found[0]
    }

    /// An expected word with the whole path.
    fn full(&self, word: &str) -> String {
        if ["...", "nobody"].contains(&word) {
            return word.into();
        }
        let (name, comm) = word.split_once('#').map_or((word, None), |(name, comm)| (name, Some(comm)));
        let path = &self.groups[self.find(name)].path;
        comm.map_or_else(|| path.clone(), |comm| format!("{path}#{comm}"))
    }
}

impl Group {
    fn word(&mut self, name: &str, word: &str) {
        if let Some((key, value)) = word.split_once('=') {
            let mib = value.parse::<u64>().unwrap_or_else(|_| panic!("{word} of {name}"));
            match key {
                "max" => self.max = Some(mib),
                "high" => self.high = Some(mib),
                "file" => self.file = mib,
                "shmem" => self.shmem = mib,
                "swap" => self.swap = mib,
                "growth" => self.growth = mib as i64,
                _ => panic!("{word} of {name}"),
            }
            return;
        }
        match word {
            "unit" => self.unit = true,
            "threaded" => self.threaded = true,
            "own" => self.own = true,
            _ => {
                let (comm, rest) = word.rsplit_once(':').unwrap_or((name, word));
                let (rest, count) = rest.split_once('x').map_or((rest, 1), |(rest, count)| (rest, count.parse().unwrap()));
                let (mib, adj) = rest.split_once('@').unwrap_or((rest, "0"));
                let mib = mib.parse().unwrap_or_else(|_| panic!("{word} of {name}"));
                let process = Process { comm: comm.into(), mib, adj: adj.parse().unwrap() };
                self.processes.extend(std::iter::repeat_n(process, count));
            }
        }
    }
}
