//! What the collector says of itself: numbers out of its metrics; pure.

/// Metrics in the text format.
pub(super) struct Exposition(pub(super) String);

impl Exposition {
    /// The sum of a metric's series that have all these labels. `name` without the prefix.
    pub(super) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.series(name)
            .filter(|(series, _)| {
                labels
                    .iter()
                    .all(|(label, value)| label_of(series, label) == Some(value))
            })
            .map(|(_, value)| value)
            .sum()
    }

    /// Every value of a metric, by the value of one label.
    pub(super) fn by<'a>(
        &'a self,
        name: &'a str,
        label: &'a str,
    ) -> impl Iterator<Item = (&'a str, f64)> {
        self.series(name)
            .filter_map(move |(series, value)| Some((label_of(series, label)?, value)))
    }

    /// How many samples there are.
    pub(super) fn samples(&self) -> usize {
        self.0.lines().filter(|line| !line.starts_with('#')).count()
    }

    pub(super) fn series<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let (series, value) = line.strip_prefix("runwire_")?.rsplit_once(' ')?;
            let rest = series.strip_prefix(name)?;
            (rest.is_empty() || rest.starts_with('{')).then_some(())?;
            Some((rest, value.parse().ok()?))
        })
    }
}

fn label_of<'a>(series: &'a str, label: &str) -> Option<&'a str> {
    let labels = series.trim_start_matches('{').trim_end_matches('}');
    labels.split("\",").find_map(|pair| {
        let (name, value) = pair.split_once("=\"")?;
        (name == label).then_some(value.trim_end_matches('"'))
    })
}

#[test]
fn sums_what_has_the_labels() {
    let text = "# HELP runwire_opened_total x\nrunwire_opened_total{a=\"x\",role=\"client\"} 3\n\
                runwire_opened_total{a=\"y\",role=\"client\"} 4\nrunwire_opened_total_more 9\nrunwire_lost 2\n";
    let metrics = Exposition(text.to_owned());
    assert_eq!(metrics.sum("opened_total", &[]), 7.0);
    assert_eq!(
        metrics.sum("opened_total", &[("a", "y"), ("role", "client")]),
        4.0
    );
    assert_eq!(metrics.sum("lost", &[]), 2.0);
    assert_eq!(
        metrics.by("opened_total", "a").collect::<Vec<_>>(),
        [("x", 3.0), ("y", 4.0)]
    );
    assert_eq!(metrics.samples(), 4);
}
