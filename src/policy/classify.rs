//! What a policy says of one group, by its path and its parent's class alone.

use super::model::{AmongGroups, GroupClass, Policy, Victim};

impl Policy {
    /// Classes the group with this path (from the cgroup root, beginning with `/`; the root is `/`).
    ///
    /// `parent` is the parent's class, `None` for the root: exclusions, importance and
    /// `kill_one_in` hold for descendants. Rules do not: a group is a subject or a candidate by its
    /// own path only.
    #[must_use]
    pub fn classify(&self, path: &[u8], parent: Option<&GroupClass>) -> GroupClass {
        let mut class = parent.map_or_else(GroupClass::default, |parent| GroupClass {
            excluded: parent.excluded,
            comm_excludes: parent.comm_excludes,
            importance_entries: parent.importance_entries,
            kill_one: parent.kill_one,
            ..GroupClass::default()
        });
        for (index, exclude) in self.exclude.iter().enumerate().filter(|(_, exclude)| exclude.group.matches(path)) {
            if exclude.comm.is_some() {
                class.comm_excludes.insert(index);
            } else if let Ok(index) = u16::try_from(index) {
                class.excluded = Some(class.excluded.map_or(index, |known| known.min(index)));
            }
        }
        for (index, entry) in self.importance.iter().enumerate() {
            if entry.group.matches(path) {
                class.importance_entries.insert(index);
            }
        }
        let first = class.importance_entries.iter().next().and_then(|index| self.importance.get(index));
        class.importance = first.map_or(0, |entry| entry.value);
        for (index, rule) in self.rules.iter().enumerate() {
            if rule.watch.matches(path) {
                class.subject_of.insert(index);
            }
            if let Victim::Among(among) = &rule.victim
                && matches!(&among.groups, AmongGroups::Globs(globs) if globs.matches(path))
            {
                class.among.insert(index);
            }
        }
        class.oom_group = self.oom_group.as_ref().is_some_and(|globs| globs.matches(path));
        class.kill_one |= self.kill_one_in.as_ref().is_some_and(|globs| globs.matches(path));
        class
    }

    /// Whether it names groups below `path`, there or not, for whose sake memory.oom.group must not
    /// be set at `path`: the kernel would kill them along with it.
    #[must_use]
    pub fn keeps_oom_group_from(&self, path: &[u8]) -> bool {
        let excluded = self.exclude.iter().map(|exclude| &exclude.group);
        excluded.chain(&self.kill_one_in).any(|globs| globs.name_some_below(path))
    }
}

impl GroupClass {
    /// Whether the policy lets no kill take a group of this class whole for what one of its
    /// processes does, so that memory.oom.group must be set neither there nor above it.
    #[must_use]
    pub fn forbids_oom_group(&self) -> bool {
        // A process with the name that an exclusion asks for may start at any moment.
        self.excluded.is_some() || !self.comm_excludes.is_empty() || self.kill_one
    }
}

#[cfg(test)]
mod tests;
