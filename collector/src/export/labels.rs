//! Label values, and the two label sets that nearly every metric has.

use crate::enrich::Workload;

/// Labels of what one workload does to another. Filled by [`edge`].
pub const EDGE: &[&str] = &[
    "src_namespace",
    "src_workload",
    "src_kind",
    "dst_namespace",
    "dst_workload",
    "dst_kind",
    "dst_service",
];

/// Labels of what belongs to one workload. Filled by [`owner`].
pub const OWNER: &[&str] = &["namespace", "workload", "kind"];

/// Ends a value. No name that we export holds this control character.
const END: char = '\u{1f}';

/// The label values of a series, in the order of its family's label names. One string, so that a
/// lookup is one hash or comparison. An empty value is a label that is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(String);

impl Labels {
    pub fn new(values: &[&str]) -> Self {
        Self::default().with(values)
    }

    /// These labels, and `values` after them.
    #[must_use]
    pub fn with(mut self, values: &[&str]) -> Self {
        self.0
            .reserve(values.iter().map(|value| value.len() + 1).sum());
        for value in values {
            if value.contains(END) {
                self.0.push_str(&value.replace(END, "?"));
            } else {
                self.0.push_str(value);
            }
            self.0.push(END);
        }
        self
    }

    pub(super) fn begin_with(&self, first: &Self) -> bool {
        self.0.starts_with(&first.0)
    }

    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.0.split_terminator(END)
    }
}

pub fn edge(src: &Workload, dst: &Workload) -> Labels {
    edge_by(src, dst, "")
}

/// As [`edge`], of connections to a Service's address.
pub fn edge_by(src: &Workload, dst: &Workload, service: &str) -> Labels {
    Labels::new(&[
        &src.namespace,
        &src.name,
        src.kind.as_str(),
        &dst.namespace,
        &dst.name,
        dst.kind.as_str(),
        service,
    ])
}

pub fn owner(workload: &Workload) -> Labels {
    Labels::new(&[&workload.namespace, &workload.name, workload.kind.as_str()])
}

#[test]
fn values_come_back_as_they_went_in() {
    let labels = Labels::new(&["a", "", "b\u{1f}c"]).with(&["d"]);
    assert_eq!(labels.values().collect::<Vec<_>>(), ["a", "", "b?c", "d"]);
    assert_eq!(Labels::default().values().count(), 0);
}
