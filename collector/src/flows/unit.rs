//! Numbers for people: three digits and a unit.

/// Bytes, in decimal units.
pub fn size(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            let decimals = match value {
                v if unit == "B" && v.fract() == 0.0 => 0,
                v if v < 9.995 => 2,
                v if v < 99.95 => 1,
                _ => 0,
            };
            return format!("{value:.decimals$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.2} TB")
}

/// A duration.
pub fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 1e-3 => (s * 1e6, "us"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s if s < 120.0 => (s, "s"),
        s if s < 7200.0 => (s / 60.0, "min"),
        s => (s / 3600.0, "h"),
    };
    let decimals = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

#[test]
fn numbers_have_three_digits() {
    let sizes = [0.0, 999.0, 999.6, 5000.0, 12_345.0, 123_456.0, 3e9, 5e12];
    assert_eq!(
        sizes.map(size),
        [
            "0 B", "999 B", "1.00 kB", "5.00 kB", "12.3 kB", "123 kB", "3.00 GB", "5.00 TB"
        ]
    );
    let times = [0.000_25, 0.0123, 1.0, 75.0, 600.0, 7200.0];
    assert_eq!(
        times.map(time),
        [
            "250 us", "12.3 ms", "1.00 s", "75.0 s", "10.0 min", "2.00 h"
        ]
    );
}
