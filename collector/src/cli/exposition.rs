//! What commands read from the running collector's own /metrics.

/// A line of an exposition in the older text format.
pub(super) struct Sample<'a> {
    /// The whole line without its value.
    pub(super) series: &'a str,
    pub(super) name: &'a str,
    pub(super) value: f64,
}

impl<'a> Sample<'a> {
    /// `None` for comments.
    fn parse(line: &'a str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let name = series.split('{').next().unwrap_or_default();
        (!name.starts_with('#')).then_some(())?;
        Some(Self {
            series,
            name,
            value: value.parse().ok()?,
        })
    }

    /// Names and values, in order, as written.
    pub(super) fn labels(&self) -> Vec<(&'a str, &'a str)> {
        let Some((_, mut rest)) = self.series.split_once('{') else {
            return Vec::new();
        };
        let mut labels = Vec::new();
        while let Some((name, after)) = rest.split_once("=\"") {
            let Some(end) = closing_quote(after) else {
                break;
            };
            labels.push((name.trim_start_matches(','), &after[..end]));
            rest = &after[end + 1..];
        }
        labels
    }

    pub(super) fn label(&self, name: &str) -> Option<&'a str> {
        let labels = self.labels();
        labels
            .into_iter()
            .find(|(label, _)| *label == name)
            .map(|(_, value)| value)
    }
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !escaped => return Some(at),
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}

pub(super) fn samples(exposition: &str) -> impl Iterator<Item = Sample<'_>> {
    exposition.lines().filter_map(Sample::parse)
}

#[test]
fn samples_are_read_with_their_labels() {
    let text = "# TYPE a counter\na{x=\"1,\\\"}\",y=\"\"} 2\nb 3e1\n";
    let read: Vec<_> = samples(text)
        .map(|sample| (sample.name, sample.labels(), sample.value))
        .collect();
    assert_eq!(
        read,
        [
            ("a", vec![("x", "1,\\\"}"), ("y", "")], 2.0),
            ("b", vec![], 30.0)
        ]
    );
}
