//! The page for people with a browser.
//!
//! - [`house`]: groups and deeds, for those who may know the names of other people's groups.

pub(super) mod house;

use std::fmt::Write as _;
use std::time::Duration;

/// What the landing page shows.
pub(super) struct Landing {
    /// The fingerprint of the policy in force.
    pub(super) hash: String,
    /// How many rules it has.
    pub(super) rules: String,
    /// The groups are armed.
    pub(super) ready: bool,
    /// Time since the start.
    pub(super) up: Duration,
    /// What comes below the links.
    pub(super) details: String,
}

/// The landing page.
pub(super) fn landing(page: &Landing) -> String {
    let Landing { hash, rules, ready, up, details } = page;
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>oomwarden</title></head>\n<body>\n\
         <h1>oomwarden {version}</h1>\n<p>A cgroup v2 aware out-of-memory manager.</p>\n\
         <ul>\n<li><a href=\"/metrics\">/metrics</a>: metrics for Prometheus</li>\n\
         <li><a href=\"/-/healthy\">/-/healthy</a>: whether it makes progress</li>\n\
         <li><a href=\"/-/ready\">/-/ready</a>: whether its groups are armed (now: {ready})</li>\n</ul>\n\
         <dl>\n<dt>Policy</dt><dd><code>{hash}</code></dd>\n<dt>Rules</dt><dd>{rules}</dd>\n\
         <dt>Up for</dt><dd>{uptime}</dd>\n</dl>\n{details}</body>\n</html>\n",
        hash = escape(hash),
        version = env!("CARGO_PKG_VERSION"),
        ready = if *ready { "yes" } else { "no" },
        uptime = uptime(*up),
    )
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// `2d 3h 4m 5s`, without leading zeros.
fn uptime(up: Duration) -> String {
    let seconds = up.as_secs();
    let mut text = String::new();
    for (value, unit) in [(seconds / 86_400, 'd'), (seconds / 3600 % 24, 'h'), (seconds / 60 % 60, 'm')] {
        if value > 0 || !text.is_empty() {
            let _ = write!(text, "{value}{unit} ");
        }
    }
    let _ = write!(text, "{}s", seconds % 60);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_is_for_people() {
        for (seconds, text) in [(0, "0s"), (61, "1m 1s"), (3600, "1h 0m 0s"), (86_400 + 59, "1d 0h 0m 59s")] {
            assert_eq!(uptime(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn text_is_escaped_for_html() {
        assert_eq!(escape("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
    }
}
