//! What Alertmanager posts (payload version 4), checked. Keys that are not used are ignored, so versions may add some.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

use crate::hash::fnv;

pub type Labels = BTreeMap<String, String>;

/// A group of alerts at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    pub group_key: String,
    pub receiver: String,
    pub common_labels: Labels,
    pub common_annotations: Labels,
    pub external_url: String,
    /// Alerts that Alertmanager left out.
    pub truncated: i64,
    /// Each alert once.
    pub alerts: Vec<Alert>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// With `starts_at` what tells one alert of a group from another.
    pub fingerprint: String,
    /// Unix time in milliseconds.
    pub starts_at: i64,
    /// `None` while it fires.
    pub ended_at: Option<i64>,
    pub labels: Labels,
    pub annotations: Labels,
    pub generator_url: String,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AlertmanagerNotification)]
pub struct Payload {
    #[schema(example = "4", pattern = "^4$")]
    version: String,
    #[schema(example = "{}:{alertname=\"CheckoutLatencyHigh\"}", min_length = 1)]
    group_key: String,
    #[serde(default)]
    receiver: String,
    #[serde(default)]
    common_labels: Labels,
    #[serde(default)]
    common_annotations: Labels,
    #[serde(default, rename = "externalURL")]
    external_url: String,
    #[serde(default)]
    truncated_alerts: u32,
    #[schema(min_items = 1)]
    alerts: Vec<PayloadAlert>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AlertmanagerAlert)]
struct PayloadAlert {
    #[schema(example = "firing", pattern = "^(firing|resolved)$")]
    status: String,
    labels: Labels,
    #[serde(default)]
    annotations: Labels,
    #[schema(example = "2026-11-20T03:10:00Z", format = DateTime)]
    starts_at: String,
    /// Of no account while the alert fires. Of one that is resolved: when, if it is later than `startsAt`; else it is when this
    /// came.
    #[serde(default)]
    ends_at: String,
    #[serde(default, rename = "generatorURL")]
    generator_url: String,
    #[serde(default)]
    fingerprint: String,
}

impl Notification {
    /// Of a payload that came at `now`, in milliseconds. The sentence says what is wrong with it.
    pub fn of(payload: Payload, now: i64) -> Result<Self, String> {
        if payload.version != "4" {
            return Err(format!(
                "`version` is \"{}\"; send Alertmanager's webhook payload of version 4",
                payload.version
            ));
        }
        if payload.group_key.is_empty() {
            return Err("`groupKey` is empty; send it as Alertmanager makes it".into());
        }
        if payload.alerts.is_empty() {
            return Err("`alerts` is empty; send at least one".into());
        }
        // By their identity: an alert that is there twice is one, and the order does not matter.
        let mut alerts = BTreeMap::new();
        for (i, alert) in payload.alerts.into_iter().enumerate() {
            let alert = Alert::of(alert, now).map_err(|reason| format!("`alerts[{i}].{reason}"))?;
            alerts.insert((alert.fingerprint.clone(), alert.starts_at), alert);
        }
        Ok(Self {
            group_key: key(payload.group_key),
            receiver: text(payload.receiver),
            common_labels: texts(payload.common_labels),
            common_annotations: texts(payload.common_annotations),
            external_url: text(payload.external_url),
            truncated: i64::from(payload.truncated_alerts),
            alerts: alerts.into_values().collect(),
        })
    }
}

impl Alert {
    fn of(alert: PayloadAlert, now: i64) -> Result<Self, String> {
        let time = |text: &str| {
            let time = text.parse::<jiff::Timestamp>().ok()?;
            Some(time.as_millisecond())
        };
        let starts_at = time(&alert.starts_at).ok_or_else(|| {
            format!(
                "startsAt` is \"{}\"; give RFC 3339, such as 2026-01-31T03:10:00Z",
                alert.starts_at
            )
        })?;
        let ended_at = match alert.status.as_str() {
            "firing" => None,
            // It is over, whatever stands there. What is no time, or one before it began (year 1 is Go's «none»), does not say
            // when: then it is when we were told. 0 is what the tables have for «fires».
            "resolved" => {
                let told = time(&alert.ends_at).filter(|end| *end > 0 && *end >= starts_at);
                Some(told.unwrap_or(now).max(starts_at))
            }
            other => {
                return Err(format!(
                    "status` is \"{other}\"; give \"firing\" or \"resolved\""
                ));
            }
        };
        let labels = texts(alert.labels);
        // Alertmanager always sends one; what imitates it may not.
        let fingerprint = match alert.fingerprint.is_empty() {
            false => key(alert.fingerprint),
            true => format!("{:032x}", fnv(&[format!("{labels:?}").as_bytes()])),
        };
        Ok(Self {
            fingerprint,
            starts_at,
            ended_at,
            labels,
            annotations: texts(alert.annotations),
            generator_url: text(alert.generator_url),
        })
    }
}

fn texts(labels: Labels) -> Labels {
    labels
        .into_iter()
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

/// PostgreSQL finds no rows by a text of thousands of bytes, and refuses to keep it: a group by all labels may be as long.
const MAX_KEY_BYTES: usize = 1000;

/// A text that rows are found by. Of one that is too long the rest is a number made from it.
fn key(key: String) -> String {
    let key = text(key);
    if key.len() <= MAX_KEY_BYTES {
        return key;
    }
    let start = &key[..key.floor_char_boundary(MAX_KEY_BYTES)];
    format!("{start}…{:032x}", fnv(&[key.as_bytes()]))
}

/// PostgreSQL keeps no NUL in a text.
fn text(mut text: String) -> String {
    if text.contains('\0') {
        text = text.replace('\0', "\u{fffd}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-28T04:00:00Z
    const NOW: i64 = 1_795_838_400_000;

    fn read(change: impl FnOnce(&mut serde_json::Value)) -> Result<Notification, String> {
        // As Alertmanager 0.33 sends it.
        let mut payload = serde_json::json!({
            "receiver": "runwire", "status": "firing", "notification_reason": "first",
            "alerts": [{
                "status": "firing", "labels": {"alertname": "A"}, "annotations": {"summary": "s"},
                "startsAt": "2026-11-28T03:10:00.123456789+01:00", "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://p/graph", "fingerprint": "f1"
            }],
            "groupLabels": {"alertname": "A"}, "commonLabels": {"alertname": "A"}, "commonAnnotations": {},
            "externalURL": "http://am", "version": "4", "groupKey": "{}:{}", "truncatedAlerts": 0
        });
        change(&mut payload);
        let payload = serde_json::from_value(payload).map_err(|error| error.to_string())?;
        Notification::of(payload, NOW)
    }

    #[test]
    fn a_notification_is_read_and_each_alert_is_there_once() {
        let notification = read(|payload| {
            let alert = payload["alerts"][0].clone();
            payload["alerts"].as_array_mut().unwrap().push(alert);
        })
        .unwrap();
        assert_eq!(notification.alerts.len(), 1);
        assert_eq!(notification.alerts[0].starts_at, 1_795_831_800_123);
        assert_eq!(notification.alerts[0].ended_at, None);
    }

    #[test]
    fn an_alert_without_fingerprint_is_known_by_its_labels() {
        let fingerprint = |name: &str| {
            let notification = read(|payload| {
                payload["alerts"][0]["fingerprint"] = "".into();
                payload["alerts"][0]["labels"]["alertname"] = name.into();
            });
            notification.unwrap().alerts[0].fingerprint.clone()
        };
        assert_eq!(fingerprint("A"), fingerprint("A"));
        assert_ne!(fingerprint("A"), fingerprint("B"));
    }

    #[test]
    fn what_cannot_be_right_is_refused_with_a_sentence() {
        type Change = fn(&mut serde_json::Value);
        let cases: [(Change, &str); 5] = [
            (|p| p["version"] = "3".into(), "version 4"),
            (|p| p["groupKey"] = "".into(), "`groupKey` is empty"),
            (|p| p["alerts"] = serde_json::json!([]), "`alerts` is empty"),
            (
                |p| p["alerts"][0]["status"] = "x".into(),
                "`alerts[0].status` is \"x\"",
            ),
            (
                |p| p["alerts"][0]["startsAt"] = "now".into(),
                "`alerts[0].startsAt` is \"now\"",
            ),
        ];
        for (change, words) in cases {
            let reason = read(change).unwrap_err();
            assert!(reason.contains(words), "{reason}");
        }
    }

    #[test]
    fn what_is_resolved_is_over_whatever_its_end_says() {
        const START: &str = "2026-11-28T03:10:00Z";
        for (start, end, expected) in [
            (START, "2026-11-28T03:20:00Z", "2026-11-28T03:20:00Z"),
            (START, START, START),
            (START, "0001-01-01T00:00:00Z", "2026-11-28T04:00:00Z"),
            (START, "1970-01-01T00:00:00Z", "2026-11-28T04:00:00Z"),
            (START, "", "2026-11-28T04:00:00Z"),
            (START, "soon", "2026-11-28T04:00:00Z"),
            (
                "1970-01-01T00:00:00Z",
                "1970-01-01T00:00:00Z",
                "2026-11-28T04:00:00Z",
            ),
            (
                "0001-01-01T00:00:00Z",
                "0001-01-01T00:00:00Z",
                "2026-11-28T04:00:00Z",
            ),
            // A clock that is ahead of ours.
            ("2026-11-28T04:00:07Z", "", "2026-11-28T04:00:07Z"),
        ] {
            let notification = read(|payload| {
                let alert = &mut payload["alerts"][0];
                alert["status"] = "resolved".into();
                alert["startsAt"] = start.into();
                alert["endsAt"] = end.into();
            });
            let ended_at = notification.unwrap().alerts[0].ended_at;
            let expected: jiff::Timestamp = expected.parse().unwrap();
            assert_eq!(ended_at, Some(expected.as_millisecond()), "{start} {end}");
        }
    }
}
