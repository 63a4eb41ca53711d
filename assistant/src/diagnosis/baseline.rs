//! What a value is compared with: the same query an hour, a day or a week ago, but never a time inside the incident; pure.

use std::time::Duration;

/// The time that counts, of values of the same query at several earlier ones: the median, which neither one odd day nor an
/// incident that began before the nearest of them moves; of two, the older one.
///
/// `age` is how long the incident is known to last: what lies inside it is no baseline.
pub fn robust(values: &[(Duration, f64)], age: Option<Duration>) -> Option<(Duration, f64)> {
    let mut values: Vec<(Duration, f64)> = values
        .iter()
        .filter(|(back, value)| value.is_finite() && is_before(*back, age))
        .copied()
        .collect();
    values.sort_by_key(|value| value.0);
    if let [_, older] = values[..] {
        return Some(older);
    }
    values.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// Whether so long ago the incident had not begun.
pub fn is_before(back: Duration, age: Option<Duration>) -> bool {
    age.is_none_or(|age| back > age)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(values: &[(u64, f64)], age: Option<u64>, expected: Option<f64>) {
        let values: Vec<(Duration, f64)> = values
            .iter()
            .map(|(hours, value)| (Duration::from_secs(hours * 3600), *value))
            .collect();
        let age = age.map(|hours| Duration::from_secs(hours * 3600));
        assert_eq!(
            robust(&values, age).map(|(_, value)| value),
            expected,
            "{values:?}"
        );
    }

    #[test]
    fn one_odd_time_does_not_count() {
        check(&[(1, 9.0), (24, 1.0), (168, 2.0)], None, Some(2.0));
        check(&[(1, 1.0), (24, 50.0), (168, 2.0)], None, Some(2.0));
        check(&[(1, 9.0), (24, 1.0)], None, Some(1.0));
        check(&[(1, 9.0)], None, Some(9.0));
        check(&[], None, None);
        check(&[(1, f64::NAN)], None, None);
    }

    #[test]
    fn what_lies_inside_the_incident_does_not_count() {
        check(&[(1, 9.0), (24, 1.0)], Some(2), Some(1.0));
        check(&[(1, 9.0)], Some(2), None);
        check(&[(1, 9.0)], Some(1), None);
    }

    proptest! {
        #[test]
        fn the_order_of_the_values_means_nothing(mut values in prop::collection::vec((1_u64..300, -1e6..1e6_f64), 0..6)) {
            values.sort_by_key(|(hours, _)| *hours);
            values.dedup_by_key(|(hours, _)| *hours);
            let forward: Vec<_> = values.iter().map(|(hours, value)| (Duration::from_secs(*hours), *value)).collect();
            let backward: Vec<_> = forward.iter().rev().copied().collect();
            prop_assert_eq!(robust(&forward, None), robust(&backward, None));
        }
    }
}
