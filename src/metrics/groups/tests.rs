use super::*;

struct Group(GroupPath, Option<u64>);

impl GroupReader for Group {
    fn path(&self) -> &GroupPath {
        &self.0
    }

    fn memory_current(&self) -> Option<u64> {
        self.1
    }

    fn limit(&self) -> Option<u64> {
        None
    }

    fn psi_totals_us(&self) -> Option<(u64, u64)> {
        self.1.map(|_| (1_500_000, 250))
    }
}

fn collect(groups: Vec<Group>) -> (Vec<MetricFamily>, u64) {
    let published = Arc::new(Published::default());
    published.publish(groups.into_iter().map(|group| Arc::new(group) as Arc<dyn GroupReader>).collect());
    let dropped = IntCounter::new("dropped_total", "for the test").expect("a sound name");
    let collector = GroupCollector::new(published, dropped.clone()).expect("sound names");
    (collector.collect(), dropped.get())
}

fn series(families: &[MetricFamily], name: &str) -> usize {
    families.iter().filter(|family| family.name() == name).map(|family| family.get_metric().len()).sum()
}

fn group(name: &[u8], bytes: Option<u64>) -> Group {
    Group(GroupPath::root().child(name), bytes)
}

#[test]
fn what_a_group_does_not_tell_has_no_series() {
    let (families, dropped) = collect(vec![group(b"a", Some(4096)), group(b"gone", None)]);
    assert_eq!(series(&families, "oomwarden_group_memory_bytes"), 1);
    assert_eq!(series(&families, "oomwarden_group_memory_limit_bytes"), 0);
    let stalled = families.iter().find(|family| family.name().ends_with("stalled_seconds_total")).expect("there");
    assert!((stalled.get_metric()[0].get_counter().get_value() - 0.000_25).abs() < 1e-9);
    assert_eq!(dropped, 0);
}

#[test]
fn too_many_groups_are_counted_not_shown() {
    let (families, dropped) = collect((0..MAX_SERIES + 7).map(|index| group(index.to_string().as_bytes(), Some(1))).collect());
    assert_eq!(series(&families, "oomwarden_group_memory_bytes"), MAX_SERIES);
    assert_eq!(dropped, 7);
}

#[test]
fn long_names_are_bounded_in_sum() {
    let names = (0..100).map(|index| format!("{index}-{}", "n".repeat(4000)));
    let (families, dropped) = collect(names.map(|name| group(name.as_bytes(), Some(1))).collect());
    let shown = series(&families, "oomwarden_group_memory_bytes");
    assert!(shown <= MAX_LABEL_BYTES / 4000 && shown > 50, "{shown}");
    assert_eq!(shown as u64 + dropped, 100);
}

#[test]
fn names_that_look_alike_make_one_series() {
    let (families, dropped) = collect(vec![group(b"a\n", Some(1)), group(b"a\\x0a", Some(2))]);
    assert_eq!(series(&families, "oomwarden_group_memory_bytes"), 1);
    assert_eq!(dropped, 1);
}
