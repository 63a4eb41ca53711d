//! Times as people read them; pure.

use super::html::escape;

/// `2026-01-31 03:10:00 UTC`, with what a machine reads beside it. What is no time is shown as it is.
pub(super) fn time(text: &str) -> String {
    let shown = text.parse::<jiff::Timestamp>().map_or_else(
        |_| text.to_owned(),
        |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    );
    format!(
        "<time datetime=\"{}\">{}</time>",
        escape(text),
        escape(&shown)
    )
}

/// `12 min`: from one RFC 3339 time to another; nothing where one is none.
pub(super) fn between(from: &str, to: &str) -> String {
    let millis = |text: &str| {
        let time: Option<jiff::Timestamp> = text.parse().ok();
        time.map(|time| time.as_millisecond())
    };
    match (millis(from), millis(to)) {
        (Some(from), Some(to)) => span((to - from).max(0) / 1000),
        _ => String::new(),
    }
}

/// `12 min ago`
pub(super) fn ago(text: &str, now_millis: i64) -> String {
    let now = jiff::Timestamp::from_millisecond(now_millis).unwrap_or_default();
    match between(text, &now.to_string()) {
        span if span.is_empty() => span,
        span => format!("{span} ago"),
    }
}

/// In the largest unit of which there are two, or else the smaller one.
fn span(seconds: i64) -> String {
    match seconds {
        ..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_at_a_glance() {
        assert_eq!(
            time("2026-01-31T03:10:00.25Z"),
            "<time datetime=\"2026-01-31T03:10:00.25Z\">2026-01-31 03:10:00 UTC</time>"
        );
        assert_eq!(time("<b>"), "<time datetime=\"&lt;b&gt;\">&lt;b&gt;</time>");
        for (to, expected) in [
            ("2026-01-31T03:10:40Z", "40 s"),
            ("2026-01-31T03:22:59Z", "12 min"),
            ("2026-01-31T08:10:00Z", "5 h"),
            ("2026-02-05T03:10:00Z", "5 days"),
            ("2026-01-31T03:00:00Z", "0 s"),
            ("later", ""),
        ] {
            assert_eq!(between("2026-01-31T03:10:00Z", to), expected);
        }
        assert_eq!(
            ago("2026-01-31T03:10:00Z", 1_769_829_000_000 + 150_000),
            "2 min ago"
        );
    }
}
