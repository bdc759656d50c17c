//! The explanation for people: what it comes to first, then why.

use std::fmt::Write as _;

use anstyle::Style;

use super::{Cover, Exclusion, Explanation, Limits, Numbers, RuleRelation};
use crate::terminal::{Columns, DEADLY, FAINT, HOLDS, SAFE, STRONG, Styled, many};
use crate::units::Bytes;

/// How many groups or processes are named.
const NAMED: usize = 8;

impl Explanation {
    /// The explanation as text with colours.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a text can't fail, here and below.
        let _ = writeln!(out, "{}  {}", Styled(STRONG, &self.group), self.presence());
        if !self.perhaps.is_empty() {
            let _ = writeln!(out, "  perhaps {} is meant", named(&self.perhaps));
        }
        let _ = writeln!(out, "  {}", self.sum());
        out.push('\n');
        self.entries(&mut out);
        if let Some(numbers) = &self.numbers {
            numbers.text(&mut out);
        }
        self.rules_text(&mut out);
        self.processes_text(&mut out);
        out
    }

    fn presence(&self) -> String {
        match (&self.numbers, self.exists) {
            (Some(numbers), _) => {
                let below = usize::try_from(numbers.groups_below).unwrap_or(usize::MAX);
                let processes =
                    numbers.processes.map_or_else(|| "processes that can't be counted".to_owned(), |count| many(count, "process"));
                let kind = match (numbers.threaded, numbers.has_memory) {
                    (true, _) => ", threaded: never a subject, never a candidate",
                    (false, false) => ", without memory controller: never a subject, never a candidate",
                    (false, true) => "",
                };
                format!("{} below it, {processes}{kind}", many(below, "group"))
            }
            (None, Some(false)) => "does not exist: explained by its name alone".to_owned(),
            (None, _) => "explained by its name alone".to_owned(),
        }
    }

    /// What it comes to.
    fn sum(&self) -> String {
        if let Some(exclusion) = self.exclusions.iter().find(|exclusion| exclusion.applies == Some(true)) {
            let place = exclusion.cover.place.as_ref().map_or_else(String::new, |place| format!(" ({place})"));
            // A process can end.
            let ever = if exclusion.comm.is_some() { "not a victim now" } else { "never a victim" };
            return Styled(SAFE, format_args!("{ever}: excluded by {}{place}", exclusion.text)).to_string();
        }
        if self.group == "/" {
            return Styled(SAFE, "never a victim: the root").to_string();
        }
        if let Some(pid) = self.daemon {
            return Styled(SAFE, format_args!("never a victim: oomwarden itself runs in it, as process {pid}")).to_string();
        }
        if let Some(process) = self.processes.iter().find(|process| process.spares_group) {
            let pid = process.pid.map_or_else(|| "a process".to_owned(), |pid| format!("process {pid} ({})", process.comm));
            return Styled(SAFE, format_args!("not a victim now: {pid} {}", process.reason)).to_string();
        }
        let rules: Vec<String> = self.rules.iter().filter_map(RuleRelation::danger).collect();
        if rules.is_empty() {
            return Styled(SAFE, "no rule can make it a victim").to_string();
        }
        let whole = match (self.spared_below.len(), self.processes.is_empty()) {
            (0, true) => "",
            _ => ", but not as a whole: something in it must live",
        };
        Styled(DEADLY, format_args!("may be killed by {}{whole}", rules.join(", "))).to_string()
    }

    fn entries(&self, out: &mut String) {
        let mut table = Columns::new(0);
        let from = self.importance.from.as_ref().map_or_else(|| "no line names it".to_owned(), Cover::text);
        table.row(Style::new(), ["importance".to_owned(), self.importance.value.to_string(), from]);
        if self.exclusions.is_empty() {
            table.row(Style::new(), ["excluded".to_owned(), "no".to_owned()]);
        }
        for exclusion in &self.exclusions {
            let style = if exclusion.applies == Some(true) { SAFE } else { Style::new() };
            table.row(style, ["excluded".to_owned(), exclusion.answer().to_owned(), exclusion.why()]);
        }
        let now = self.numbers.as_ref().and_then(|numbers| numbers.oom_group);
        let now = now.map_or_else(String::new, |on| format!("; memory.oom.group is {} now", u8::from(on)));
        match &self.oom_group {
            Some(cover) if self.oom_group_spared => {
                let but = format!("{}, but an exclusion, `kill_one_in` or oomwarden is in the way{now}", cover.text());
                table.row(SAFE, ["oom_group".to_owned(), "no".to_owned(), but]);
            }
            Some(cover) => table.row(Style::new(), ["oom_group".to_owned(), "yes".to_owned(), format!("{}{now}", cover.text())]),
            None => table.row(Style::new(), ["oom_group".to_owned(), "no".to_owned(), format!("the policy does not set it{now}")]),
        }
        if let Some(cover) = &self.kill_one_in {
            table.row(Style::new(), ["kill_one_in".to_owned(), "yes".to_owned(), cover.text()]);
        }
        if !self.spared_below.is_empty() {
            table.row(SAFE, ["contains".to_owned(), "excluded".to_owned(), named(&self.spared_below)]);
        }
        table.write(out);
    }

    fn rules_text(&self, out: &mut String) {
        if self.rules.is_empty() {
            out.push_str("\nno rule has to do with it\n");
            return;
        }
        out.push('\n');
        let headings: &[&str] = match self.exists {
            Some(true) => &["rule", "mode", "watches", "victim", "then", "right now"],
            _ => &["rule", "mode", "watches", "victim", "then"],
        };
        let mut table = Columns::headed(0, headings);
        for rule in &self.rules {
            let style = if rule.standing.as_ref().is_some_and(|standing| standing.rank == Some(1)) { HOLDS } else { Style::new() };
            table.row(style, rule.row().into_iter().chain(self.numbers.as_ref().map(|_| rule.now())));
        }
        table.write(out);
    }

    fn processes_text(&self, out: &mut String) {
        if self.processes.is_empty() {
            return;
        }
        out.push_str("\nprocesses for whose sake it lives\n");
        let mut table = Columns::headed(2, &["pid", "comm", "group", "why"]).right(0);
        for process in self.processes.iter().take(NAMED) {
            let pid = process.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
            table.row(Style::new(), [pid, process.comm.clone(), process.group.clone(), process.reason.clone()]);
        }
        table.write(out);
        if self.processes.len() > NAMED {
            let _ = writeln!(out, "  and {} more (--json has them all)", self.processes.len() - NAMED);
        }
    }
}

fn named(groups: &[String]) -> String {
    let mut text = groups.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if groups.len() > NAMED {
        let _ = write!(text, " and {} more", groups.len() - NAMED);
    }
    text
}

impl Cover {
    fn text(&self) -> String {
        let place = self.place.as_ref().map_or_else(String::new, |place| format!("{place}: "));
        let inherited = if self.inherited { format!(", inherited from {}", self.matched) } else { String::new() };
        format!("{place}{}{inherited}", self.glob)
    }
}

impl Exclusion {
    fn answer(&self) -> &'static str {
        match self.applies {
            Some(true) => "yes",
            Some(false) => "not now",
            None => "perhaps",
        }
    }

    fn why(&self) -> String {
        match &self.comm {
            Some(comm) => format!("{}, while it holds a process named {comm}", self.cover.text()),
            None => self.cover.text(),
        }
    }
}

impl Numbers {
    fn text(&self, out: &mut String) {
        let known = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), |bytes| Bytes(bytes).to_string());
        out.push('\n');
        let mut table = Columns::new(0);
        let parts = format!("what its death frees: anonymous {}, swap {}", known(self.anon_bytes), known(self.swap_bytes));
        table.row(Style::new(), ["usage".to_owned(), known(self.usage_bytes), parts]);
        // The root has no such number.
        if let Some(current) = self.current_bytes {
            let parts = format!("against limits: memory.current {} less what can be reclaimed", Bytes(current));
            table.row(Style::new(), ["charged".to_owned(), known(self.charged_bytes), parts]);
        }
        for (name, limits) in [("memory.max", &self.max), ("memory.high", &self.high)] {
            table.row(Style::new(), [name.to_owned(), limits.value(), limits.whose()]);
        }
        if let Some(low) = self.low_bytes.filter(|low| *low > 0) {
            table.row(Style::new(), ["memory.low".to_owned(), Bytes(low).to_string(), "protected from reclaim".to_owned()]);
        }
        if self.populated == Some(false) {
            table.row(FAINT, ["populated".to_owned(), "no".to_owned(), "an empty group is nobody's victim".to_owned()]);
        }
        table.write(out);
    }
}

impl Limits {
    fn value(&self) -> String {
        self.smallest_bytes.map_or_else(|| "none".to_owned(), |bytes| Bytes(bytes).to_string())
    }

    fn whose(&self) -> String {
        match (&self.smallest_of, self.own_bytes, self.smallest_bytes) {
            (Some(_), Some(own), Some(smallest)) if own == smallest => "its own".to_owned(),
            (Some(group), Some(own), _) => format!("of {group}; its own is {}", Bytes(own)),
            (Some(group), None, _) => format!("of {group}; it has none of its own"),
            (None, ..) => "neither its own nor one above it".to_owned(),
        }
    }
}

impl RuleRelation {
    /// The rule, if the group may die by it.
    fn danger(&self) -> Option<String> {
        let victim = self.victim.as_ref()?;
        let observes = if self.mode == "observe" { " (which only observes)" } else { "" };
        Some(if victim.cover.inherited && victim.by != "leaves" {
            format!("{}{observes} with {}", self.rule, victim.cover.matched)
        } else {
            format!("{}{observes}", self.rule)
        })
    }

    fn row(&self) -> [String; 5] {
        let at = |cover: &Cover| if cover.inherited { format!("above it: {}", cover.matched) } else { format!("yes: {}", cover.glob) };
        let watches = self.watches.as_ref().map_or_else(|| "no".to_owned(), at);
        let victim = match &self.victim {
            None => "no".to_owned(),
            Some(may_die) if may_die.by == "subject" && may_die.cover.inherited => format!("with {}", may_die.cover.matched),
            Some(may_die) if may_die.by == "subject" => "as the subject".to_owned(),
            Some(may_die) if may_die.by == "leaves" => format!("if it is a leaf below {}", may_die.cover.matched),
            Some(may_die) if may_die.cover.inherited => format!("with {}", may_die.cover.matched),
            Some(may_die) => format!("among {}", may_die.cover.glob),
        };
        let then = if self.then.is_empty() { "-".to_owned() } else { self.then.join(", ") };
        [format!("{} ({})", self.rule, self.place_text()), self.mode.to_owned(), watches, victim, then]
    }

    fn now(&self) -> String {
        self.standing.as_ref().map_or_else(|| "not a candidate".to_owned(), |standing| standing.reason.clone())
    }

    fn place_text(&self) -> String {
        self.place.as_ref().map(ToString::to_string).unwrap_or_default()
    }
}
