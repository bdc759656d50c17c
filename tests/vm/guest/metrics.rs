//! A scrape in the Prometheus text format.

/// The text of one scrape.
pub struct Metrics(pub String);

impl Metrics {
    /// The sum of the samples called `name` whose labels include `labels`; `None` if there is none.
    pub fn sample(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let mut sum = None;
        for line in self.0.lines() {
            let Some(rest) = line.strip_prefix(name) else { continue };
            let (set, value) = match rest.strip_prefix('{').and_then(|rest| rest.rsplit_once('}')) {
                Some(parts) => parts,
                None if rest.starts_with(' ') => ("", rest),
                None => continue,
            };
            if wanted.iter().all(|label| set.contains(label))
                && let Some(value) = value.split_whitespace().next().and_then(|value| value.parse::<f64>().ok())
            {
                *sum.get_or_insert(0.0) += value;
            }
        }
        sum
    }
}
