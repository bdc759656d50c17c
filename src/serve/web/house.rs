//! The page with groups and deeds: for those who may know the names of other people's groups.

use std::fmt::Write as _;

use super::escape;
use crate::serve::status::{Status, time};
use crate::units::Bytes;

/// A table whose cells are escaped here.
fn table<const N: usize>(out: &mut String, title: &str, headings: [&str; N], rows: impl Iterator<Item = [String; N]>) {
    // Writing to a text can't fail, here and below.
    let _ = write!(out, "<h2>{}</h2>\n<table border=\"1\" cellpadding=\"4\">\n<tr>", escape(title));
    for heading in headings {
        let _ = write!(out, "<th>{}</th>", escape(heading));
    }
    out.push_str("</tr>\n");
    for row in rows {
        out.push_str("<tr>");
        for cell in row {
            let _ = write!(out, "<td>{}</td>", escape(&cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table>\n");
}

/// What is put on the landing page below the links.
pub(in crate::serve) fn details(status: &Status) -> String {
    let mut out = String::new();
    out.push_str("<ul>\n<li><a href=\"/api/v1/status\">/api/v1/status</a>, <a href=\"/api/v1/kills\">/api/v1/kills</a>: the same as JSON</li>\n</ul>\n");
    if let Some(paused) = &status.paused {
        let left = time(paused.remaining_seconds);
        let by = paused.by.map_or_else(String::new, |by| format!(", by {by}"));
        let _ = writeln!(out, "<p><strong>Deeds are paused until {} ({left} left{}).</strong></p>", escape(&paused.until), escape(&by));
    }
    for degraded in &status.degraded {
        let _ = writeln!(out, "<p><strong>Degraded ({}): {}</strong></p>", escape(&degraded.reason), escape(&degraded.text));
    }
    if status.is_refused_without_reason() {
        out.push_str("<p><strong>The policy that was offered last is refused; an older one is in force.</strong></p>\n");
    }
    if !status.breakers.is_empty() {
        let row = |breaker: &crate::serve::status::BreakerStatus| {
            [breaker.rule.clone(), breaker.subject.clone(), time(breaker.closes_in_seconds)]
        };
        table(&mut out, "Open breakers", ["rule", "subject", "closes in"], status.breakers.iter().map(row));
    }
    let _ = writeln!(
        out,
        "<p>{} groups ({} on a timer), {} PSI triggers armed ({} on a timer); kernel module: {}.</p>",
        status.groups.total,
        status.groups.by_timer,
        status.psi_triggers.armed,
        status.psi_triggers.by_timer,
        status.module.as_ref().map_or_else(|| "not loaded".to_owned(), |module| format!("level {}", escape(&module.level))),
    );
    let rules = status
        .rules
        .iter()
        .map(|rule| [rule.name.clone(), rule.mode.clone(), rule.watch.join(" "), rule.when.join("; "), rule.kills.to_string()]);
    table(&mut out, "Rules", ["rule", "mode", "watches", "when", "kills"], rules);
    let bytes = |bytes: Option<u64>, without: &str| bytes.map_or_else(|| without.to_owned(), |bytes| Bytes(bytes).to_string());
    let subjects = status.subjects.iter().map(|subject| {
        [subject.group.clone(), bytes(subject.memory_bytes, "unknown"), bytes(subject.limit_bytes, "none"), subject.rules.join(" ")]
    });
    table(&mut out, "Watched groups", ["group", "memory", "limit", "rules"], subjects);
    if status.subjects_left_out > 0 {
        let _ = writeln!(out, "<p>and {} more</p>", status.subjects_left_out);
    }
    let deeds = status.last.iter().map(crate::serve::status::Deed::row);
    table(&mut out, "Last deeds", ["time", "what", "group", "rule", "after", "processes", "freed"], deeds);
    out
}
