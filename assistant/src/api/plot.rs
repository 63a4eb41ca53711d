//! The last hour of a value, or what there is of it, as an SVG without styles of its own: the page's style sheet says how it looks; pure.

use std::fmt::Write;

use super::html::escape;
use crate::diagnosis::quantity;

const WIDTH: f64 = 240.0;
const HEIGHT: f64 = 48.0;
/// Points that are further apart than this many seconds are not joined.
const GAP: f64 = 150.0;

/// What is younger than this is not spread any wider.
const NARROWEST: f64 = 120.0;

/// `points` are Unix seconds and values; the plot ends at `end` and is `span` seconds wide, or as wide as the values are old
/// where nothing is older.
pub(super) fn plot(
    points: &[(f64, f64)],
    end: f64,
    span: f64,
    threshold: Option<f64>,
    unit: Option<&str>,
) -> String {
    if points.is_empty() {
        return "<p class=\"plot none\">no values in the last hour</p>\n".into();
    }
    let oldest = points.first().map_or(end, |point| point.0);
    let span = (end - oldest).clamp(NARROWEST.min(span), span);
    let values = || points.iter().map(|point| point.1);
    let most = values().fold(f64::MIN, f64::max);
    let least = values().fold(f64::MAX, f64::min);
    let last = points.last().map_or(0.0, |point| point.1);
    // A threshold far above the values would press them flat: it is told in words then.
    let line = threshold.filter(|limit| *limit <= most.abs().max(1e-9) * 4.0);
    let top = line.map_or(most, |limit| most.max(limit));
    let bottom = least.min(0.0);
    let height = if top > bottom { top - bottom } else { 1.0 };
    // A little room at the sides, so that the last point is whole.
    let x =
        |time: f64| (2.0 + (time - (end - span)) / span * (WIDTH - 4.0)).clamp(2.0, WIDTH - 2.0);
    let y = |value: f64| HEIGHT - 2.0 - (value - bottom) / height * (HEIGHT - 4.0);

    let mut path = String::new();
    let mut before: Option<f64> = None;
    for &(time, value) in points {
        let joined = before.is_some_and(|before| time - before <= GAP);
        let command = if joined { 'L' } else { 'M' };
        // Writing to a String cannot fail.
        let _ = write!(path, "{command}{:.1} {:.1}", x(time), y(value));
        if !joined {
            // A point that stands alone is a dot.
            path.push_str("h0.01");
        }
        before = Some(time);
    }
    let area = area(points, x, y);
    let words = format!(
        "{} before until then: {}, last {}",
        minutes(span),
        reach(least, most, unit),
        quantity(last, unit)
    );
    let key = match line {
        Some(_) => "<span class=\"key\">┄ limit</span>",
        None => "",
    };
    let limit = line.map_or_else(String::new, |limit| {
        let y = y(limit);
        format!("<line class=\"limit\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"></line>")
    });
    format!(
        "<figure class=\"plot\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{words}\"><title>{words}</title><path class=\"area\" d=\"{area}\"></path>{limit}<path class=\"line\" d=\"{path}\"></path></svg>\
         <figcaption><span>{} before</span><span>{}</span>{key}<span>then</span></figcaption></figure>\n",
        minutes(span),
        escape(&reach(least, most, unit)),
        words = escape(&words),
    )
}

/// `0 % to 31 %`, or the one value that there was.
fn reach(least: f64, most: f64, unit: Option<&str>) -> String {
    let (least, most) = (quantity(least, unit), quantity(most, unit));
    if least == most {
        return least;
    }
    format!("{least} to {most}")
}

fn minutes(seconds: f64) -> String {
    format!("{} min", (seconds / 60.0).round())
}

/// What lies below the line, in as many pieces as the line has.
fn area(points: &[(f64, f64)], x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) -> String {
    let ground = y(0.0).min(HEIGHT);
    let mut path = String::new();
    for piece in points.chunk_by(|one, next| next.0 - one.0 <= GAP) {
        let (Some(first), Some(last)) = (piece.first(), piece.last()) else {
            continue;
        };
        let _ = write!(path, "M{:.1} {ground:.1}", x(first.0));
        for &(time, value) in piece {
            let _ = write!(path, "L{:.1} {:.1}", x(time), y(value));
        }
        let _ = write!(path, "L{:.1} {ground:.1}Z", x(last.0));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_not_joined_and_the_limit_is_drawn() {
        let points = [(0.0, 0.0), (60.0, 1.0), (600.0, 2.0)];
        let svg = plot(&points, 3600.0, 3600.0, Some(1.0), Some("ratio"));
        let line = svg.split("class=\"line\"").nth(1).unwrap();
        assert_eq!(line.matches('M').count(), 2, "{svg}");
        assert!(
            svg.contains("class=\"limit\"")
                && svg.contains("60 min before until then: 0 % to 2 times, last 2 times")
        );
        assert!(!plot(&points, 3600.0, 3600.0, Some(1e6), None).contains("class=\"limit\""));
        assert!(!svg.contains("style"), "the policy of the page forbids it");
    }

    #[test]
    fn nothing_measured_is_said_and_a_flat_line_is_a_line() {
        assert!(plot(&[], 1.0, 1.0, None, None).contains("no values"));
        let young = plot(&[(3500.0, 1.0), (3590.0, 1.0)], 3600.0, 3600.0, None, None);
        assert!(
            young.contains("2 min before</span><span>1</span>"),
            "{young}"
        );
        let flat = plot(&[(0.0, 0.0), (60.0, 0.0)], 60.0, 60.0, None, None);
        assert!(!flat.contains("NaN") && !flat.contains("inf"), "{flat}");
    }
}
