//! The query string of a page: whom it is about and when. A link from an alert may hold anything, and the page must come up
//! all the same, so what cannot be used is left out and said.

use std::time::Duration;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use serde::Deserialize;

use super::diagnose::{WINDOW, parse_window, settled};
use super::links::query_string;
use crate::diagnosis::Scope;
use crate::diagnosis::live::Moment;

/// Empty fields are those of a form that was not filled in.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    pub(super) q: String,
    #[serde(alias = "ns")]
    pub(super) namespace: String,
    pub(super) workload: String,
    pub(super) pod: String,
    #[serde(alias = "at")]
    pub(super) time: String,
    pub(super) window: String,
}

impl Asked {
    /// The query string as it was sent, and what is wrong with it.
    pub(super) fn read(query: Result<Query<Self>, QueryRejection>) -> (Self, Vec<String>) {
        match query {
            Ok(Query(asked)) => (asked, Vec::new()),
            Err(error) => (Self::default(), vec![error.body_text()]),
        }
    }

    /// What is named in the scope.
    pub(super) fn scope(&self) -> Scope {
        let name = |text: &String| Some(text.trim().to_owned()).filter(|name| !name.is_empty());
        Scope {
            namespace: name(&self.namespace),
            workload: name(&self.workload),
            pod: name(&self.pod),
            ..Scope::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.q.trim().is_empty() && self.scope().is_empty()
    }

    /// Scope and time, to be kept in links between pages.
    pub(super) fn kept(&self) -> String {
        query_string(&[
            ("namespace", self.namespace.trim()),
            ("workload", self.workload.trim()),
            ("pod", self.pod.trim()),
            ("time", self.time.trim()),
            ("window", self.window.trim()),
        ])
    }

    /// The moment that a page shows; what makes no sense goes into `notes`.
    pub(super) fn moment(&self, now_millis: i64, notes: &mut Vec<String>) -> Moment {
        let mut scope = self.scope();
        if let Err(reason) = scope.check() {
            notes.push(reason);
            scope = Scope::default();
        }
        let mut time_millis = settled(now_millis);
        if !self.time.trim().is_empty() {
            match read_time(&self.time, now_millis) {
                Ok(time) => time_millis = time,
                Err(reason) => notes.push(reason),
            }
        }
        let mut window: Duration = WINDOW;
        if !self.window.trim().is_empty() {
            match parse_window(self.window.trim()) {
                Ok(given) => window = given,
                Err(reason) => notes.push(reason),
            }
        }
        Moment {
            scope,
            time_millis,
            window,
        }
    }
}

/// RFC 3339, Unix seconds or milliseconds, a date and time without zone (UTC: what a form sends), and how Go prints a time
/// (what an alert's template gives).
pub(super) fn read_time(text: &str, now_millis: i64) -> Result<i64, String> {
    let text = text.trim();
    let numeric = text.parse::<f64>().ok().map(|number| {
        let millis = if number >= 1e11 {
            number
        } else {
            number * 1000.0
        };
        (0.0..253_402_300_800_000.0)
            .contains(&millis)
            .then_some(millis.round() as i64)
    });
    let civil = || {
        let time: jiff::civil::DateTime = text.parse().ok()?;
        let zoned = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        Some(zoned.timestamp().as_millisecond())
    };
    // In a query that nobody encoded, the plus of an offset has become a space.
    let signed = |offset: &str| match offset.starts_with(['+', '-']) {
        true => offset.to_owned(),
        false => format!("+{offset}"),
    };
    let plus = || {
        let (time, offset) = text
            .split_once(' ')
            .filter(|(time, _)| time.contains('T'))?;
        let written = format!("{time}{}", signed(offset));
        Some(written.parse::<jiff::Timestamp>().ok()?.as_millisecond())
    };
    let go = || {
        let (time, _zone) = text.rsplit_once(' ').filter(|(_, zone)| zone.len() <= 5)?;
        let (date_time, offset) = time.rsplit_once(' ')?;
        let offset = signed(offset);
        let (hours, minutes) = offset.split_at_checked(3)?;
        let date_time = date_time.trim_end().replacen(' ', "T", 1);
        let written = format!("{date_time}{hours}:{minutes}");
        Some(written.parse::<jiff::Timestamp>().ok()?.as_millisecond())
    };
    let millis = match numeric {
        Some(millis) => millis,
        None => text
            .parse::<jiff::Timestamp>()
            .map(|time| time.as_millisecond())
            .ok()
            .or_else(civil)
            .or_else(plus)
            .or_else(go),
    };
    let millis = millis.ok_or_else(|| {
        format!(
            "`time` is \"{text}\"; give RFC 3339, such as 2026-01-31T03:10:00Z, or Unix seconds"
        )
    })?;
    if millis > now_millis {
        return Err(format!(
            "`time` is \"{text}\", which is in the future; give a time that has passed, or leave it out"
        ));
    }
    Ok(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_alerts_forms_and_people_write_them() {
        const NOW: i64 = 2_000_000_000_000;
        for text in [
            "2026-01-31T03:10:00Z",
            "2026-01-31T04:10:00+01:00",
            "2026-01-31T03:10",
            "2026-01-31T03:10:00",
            "2026-01-31 03:10:00 +0000 UTC",
            "2026-01-31 03:10:00.000 +0000 UTC",
            "2026-01-31 03:10:00  0000 UTC",
            "2026-01-31T04:10:00 01:00",
            "1769829000",
            "1769829000000",
        ] {
            assert_eq!(read_time(text, NOW), Ok(1_769_829_000_000), "{text}");
        }
        for text in [
            "yesterday",
            "NaN",
            "-5",
            "é é é",
            "2099-01-01T00:00:00Z",
            "1e300",
            "a +é b",
        ] {
            assert!(read_time(text, NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_said_and_left_out() {
        let asked = Asked {
            namespace: "a\"}".into(),
            time: "soon".into(),
            window: "forever".into(),
            ..Asked::default()
        };
        let mut notes = Vec::new();
        let moment = asked.moment(1_800_000_000_700, &mut notes);
        assert_eq!(notes.len(), 3, "{notes:?}");
        assert!(moment.scope.is_empty());
        assert_eq!(moment.time_millis, 1_800_000_000_000);
        assert_eq!(moment.window, WINDOW);
    }
}
