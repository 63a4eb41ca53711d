//! Alerts that end while they are silenced: Alertmanager says nothing, a real Prometheus shows it.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use runwire_assistant::incidents::over::look;
use runwire_assistant::prometheus::{Prometheus, Settings};
use serde_json::Value;

use super::desk::{Desk, alert, notification};
use crate::diagnose::hostile::{says, server};
use crate::diagnose::prometheus::start;

const MINUTE: i64 = 60;
const WEEK: i64 = 8 * 24 * 60;

/// Samples each half minute, from and to minutes after `zero`.
fn samples(text: &mut String, series: &str, zero: i64, spans: &[(i64, i64)]) {
    for (from, to) in spans {
        for half in 2 * from..=2 * to {
            writeln!(text, "{series} 1 {}", zero + half * MINUTE / 2).unwrap();
        }
    }
}

fn written(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).unwrap();
    time.to_string()
}

fn client(url: &str) -> Prometheus {
    Prometheus::new(Settings {
        timeout: Duration::from_secs(4),
        ..Settings::new(url)
    })
    .unwrap()
}

fn state_of<'a>(list: &'a [Value], name: &str) -> &'a Value {
    let group = format!("{{}}:{{group=\"{name}\"}}");
    list.iter()
        .find(|incident| incident["group_key"] == group.as_str())
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_in_silence_is_over_when_prometheus_shows_it() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let zero = i64::try_from(now.as_secs()).unwrap() / MINUTE * MINUTE;
    // All are told of at minute 0 as firing since minute -10.
    let ours = |name: &str| {
        format!("ALERTS{{alertname=\"CheckoutSlow\",alertstate=\"firing\",instance=\"{name}\"}}")
    };
    let mut text = String::from("# TYPE ALERTS gauge\n");
    samples(&mut text, &ours("silenced"), zero, &[(-10, 20)]);
    let goes_on = [(-10, 50), (75, 120), (WEEK - 30, WEEK)];
    samples(&mut text, &ours("goes-on"), zero, &goes_on);
    samples(&mut text, &ours("another-day"), zero, &[(-40, 20)]);
    samples(&mut text, &ours("told-by-another"), zero, &[(-10, -6)]);
    text.push_str("# TYPE up gauge\n");
    let up = [(-60, 52), (75, 120), (WEEK - 30, WEEK)];
    samples(&mut text, "up{job=\"x\"}", zero, &up);
    text.push_str("# EOF\n");
    let Some(server_of_series) = start(&text) else {
        return;
    };
    let prometheus = client(&server_of_series.url);
    let names = [
        "silenced",
        "goes-on",
        "another-day",
        "told-by-another",
        "not-shown",
    ];

    super::on_both(async |place| {
        let desk = Desk::at(place);
        let since = written(zero - 10 * MINUTE);
        for name in names {
            let firing = notification(name, &[alert(name, &since, None)]);
            assert!(desk.notify(&firing).await.status.is_success());
        }
        let look_at = async |prometheus: &Prometheus, minute: i64| {
            let now = (zero + minute * MINUTE) * 1000;
            look(&desk.incidents, prometheus, now).await.unwrap()
        };
        // Nothing is concluded where nothing is known.
        let partial = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[]},\"warnings\":[\"store s:10901: unavailable\"]}";
        for url in ["http://127.0.0.1:1", &server(says(partial)).0] {
            for minute in [36, WEEK] {
                assert_eq!(look_at(&client(url), minute).await, 0, "{url} {minute}");
            }
        }
        // Not yet; now; Prometheus was away, came back, and shows what went on all the time.
        for (minute, over) in [(34, 0), (36, 1), (60, 0), (72, 0), (80, 0), (110, 0)] {
            assert_eq!(look_at(&prometheus, minute).await, over, "minute {minute}");
        }
        let list = desk.list("").await;
        for name in names {
            let is_over = name == "silenced";
            let state = if is_over { "resolved" } else { "firing" };
            assert_eq!(state_of(&list, name)["state"], state, "{name}");
        }
        let silenced = state_of(&list, "silenced");
        assert_eq!(silenced["resolved_by"], "prometheus");
        assert_eq!(silenced["resolved_at"], written(zero + 20 * MINUTE));
        let page = desk.get_html(silenced["url"].as_str().unwrap()).await;
        assert!(page.body.contains("Prometheus shows it firing no more"));

        // After a week without a word, of what is not shown either.
        assert_eq!(look_at(&prometheus, WEEK).await, 3);
        let list = desk.list("").await;
        assert_eq!(state_of(&list, "goes-on")["state"], "firing");
        assert_eq!(state_of(&list, "not-shown")["resolved_by"], "silence");

        // Whatever was concluded, Alertmanager knows better.
        let firing = notification("not-shown", &[alert("not-shown", &since, None)]);
        desk.notify(&firing).await;
        let end = written(zero + 19 * MINUTE);
        let resolved = notification("silenced", &[alert("silenced", &since, Some(&end))]);
        desk.notify(&resolved).await;
        let list = desk.list("").await;
        assert_eq!(state_of(&list, "not-shown")["state"], "firing");
        assert_eq!(state_of(&list, "not-shown")["resolved_by"], Value::Null);
        assert_eq!(state_of(&list, "silenced")["resolved_by"], "alertmanager");
        assert_eq!(state_of(&list, "silenced")["resolved_at"], end);
    })
    .await;
}
