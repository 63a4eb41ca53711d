//! Alertmanager's notifications become incidents, kept in a real SQLite or PostgreSQL, whatever is sent how often.

use std::time::Duration;

use axum::http::{StatusCode, header};
use runwire_assistant::incidents::Place;
use serde_json::{Value, json};

mod alertmanager;
mod deliver;
mod desk;
pub(crate) mod kill;
mod over;
mod postgres;
mod trouble;

use desk::{Desk, alert, notification};

const START: &str = "2026-11-20T03:10:00Z";
const LATER: &str = "2026-11-20T04:10:00Z";

/// The same for every kind of store.
async fn on_both(check: impl AsyncFn(Place)) {
    let folder = tempfile::tempdir().unwrap();
    check(Place::Sqlite(folder.path().join("state/a b%?.db"))).await;
    if let Some(server) = postgres::start() {
        check(Place::Postgres(server.url.clone())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_notification_is_one_incident_also_at_once_and_after_a_restart() {
    on_both(async |place| {
        let desk = Desk::at(place.clone());
        let group = notification("g", &[alert("a", START, None), alert("b", START, None)]);
        let answers = futures_all((0..16).map(|_| desk.notify(&group))).await;
        assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
        let ids: Vec<Value> = answers
            .iter()
            .map(|a| a.json()["incidents"].clone())
            .collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");

        // Another process over the same store, at the same time and later.
        let other = Desk::at(place);
        assert_eq!(other.notify(&group).await.json()["incidents"], ids[0]);
        let list = other.list("").await;
        assert_eq!(list.len(), 1);
        assert_eq!(list[0]["alerts"], 2);
        assert_eq!(list[0]["started_at"], START);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incident_ends_with_its_last_alert_and_a_new_start_is_a_new_one() {
    on_both(async |place| {
        let desk = Desk::at(place);
        let both = notification("g", &[alert("a", START, None), alert("b", START, None)]);
        let first = desk.notify(&both).await.json()["incidents"][0].clone();
        let end = "2026-11-20T03:20:00Z";
        desk.notify(&notification(
            "g",
            &[alert("a", START, Some(end)), alert("b", START, None)],
        ))
        .await;
        assert_eq!(desk.list("state=firing").await.len(), 1);
        // One that joins belongs to the open incident.
        let joined = notification(
            "g",
            &[alert("b", START, Some(end)), alert("c", END_OF_B, None)],
        );
        assert_eq!(desk.notify(&joined).await.json()["incidents"][0], first);
        desk.notify(&notification("g", &[alert("c", END_OF_B, Some(LATER))]))
            .await;
        let over = desk.list("state=resolved").await;
        assert_eq!(over.len(), 1);
        assert_eq!(over[0]["resolved_at"], LATER);

        // What is late does not open it again.
        desk.notify(&both).await;
        assert_eq!(desk.list("state=firing").await, Vec::<Value>::new());
        let again = desk
            .notify(&notification("g", &[alert("a", LATER, None)]))
            .await;
        assert_ne!(again.json()["incidents"][0], first);
        assert_eq!(desk.list("").await.len(), 2);
    })
    .await;
}
const END_OF_B: &str = "2026-11-20T03:20:00Z";

/// Year 1 is how Go writes no time, and 1970 how others do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incident_is_over_when_its_alerts_are_whatever_their_end_says() {
    on_both(async |place| {
        let desk = Desk::at(place);
        let (year_1, year_1970) = ("0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z");
        for (start, end) in [
            (START, year_1),
            (START, year_1970),
            (START, ""),
            (year_1970, year_1970),
            (year_1, year_1),
        ] {
            let group = format!("{start} {end}");
            desk.notify(&notification(&group, &[alert("a", start, None)]))
                .await;
            let over = notification(&group, &[alert("a", start, Some(end))]);
            for _ in 0..2 {
                let answer = desk.notify(&over).await;
                assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
            }
            assert_eq!(
                desk.list("state=firing").await,
                Vec::<Value>::new(),
                "{group}"
            );
            // When we were told is the most that is known.
            for incident in desk.list("state=resolved").await {
                assert!(incident["resolved_at"].as_str() > Some(LATER), "{incident}");
            }
        }
        assert_eq!(desk.list("").await.len(), 5);
    })
    .await;
}

/// Alertmanager keeps one alert for each set of labels: of one that ends and fires anew between two notifications it tells
/// the new start alone, and often not before that has ended too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_that_fires_anew_between_two_notifications_had_ended_before() {
    on_both(async |place| {
        let desk = Desk::at(place);
        for (group, told_anew) in [("unseen", false), ("seen", true)] {
            desk.notify(&notification(
                group,
                &[alert("a", START, None), alert("b", START, None)],
            ))
            .await;
            let (anew, end) = ("2026-11-20T03:20:00Z", "2026-11-20T03:30:00Z");
            if told_anew {
                let both = [alert("a", anew, None), alert("b", START, None)];
                desk.notify(&notification(group, &both)).await;
                assert_eq!(desk.list("state=firing").await[0]["alerts_firing"], 2);
                // What comes late says nothing of the one that began after it.
                let late = [alert("a", START, Some("2026-11-20T03:15:00Z"))];
                desk.notify(&notification(group, &late)).await;
                assert_eq!(desk.list("state=firing").await[0]["alerts_firing"], 2);
            }
            let over = [alert("a", anew, Some(end)), alert("b", START, Some(LATER))];
            desk.notify(&notification(group, &over)).await;
            assert_eq!(desk.list("state=firing").await, Vec::<Value>::new());
            assert_eq!(desk.list("state=resolved").await[0]["resolved_at"], LATER);
        }
        assert_eq!(desk.list("").await.len(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incident_is_diagnosed_at_once_and_kept_again_only_when_evidence_changes() {
    on_both(async |place| {
        let mut desk = Desk::at(place);
        let work = desk.work();
        desk.notify(&notification("g", &[alert("a", START, None)]))
            .await;
        let page = desk
            .wait_for(|incident| {
                incident["diagnoses"]
                    .as_array()
                    .is_some_and(|all| !all.is_empty())
            })
            .await;
        // No Prometheus is there: that is what the diagnosis says, and it is no «nothing found».
        let diagnosis = &page["diagnoses"][0]["diagnosis"];
        assert_eq!(diagnosis["status"], "unknown");
        assert_eq!(diagnosis["degraded"][0]["part"], "prometheus");
        assert_eq!(page["status"], "unknown");
        // It is looked at every second, and nothing is new.
        desk.until_metric("runwire_assistant_incident_diagnoses_total{outcome=\"unchanged\"} 2")
            .await;
        let page = desk
            .get(&format!("/incidents/{}", page["id"].as_str().unwrap()))
            .await
            .json();
        assert_eq!(page["diagnoses"].as_array().unwrap().len(), 1);
        work.abort();
        let audit = desk.audit();
        assert!(audit.len() >= 3, "one line for each: {audit:?}");
        assert_eq!(audit[0]["via"], "webhook");
        assert_eq!(audit[0]["incident"], page["id"]);
        assert_eq!(audit[0]["status"], "unknown");

        // Prometheus is there: other evidence, another diagnosis.
        let Some(server) = crate::diagnose::prometheus::start("# EOF\n") else {
            return;
        };
        desk.look_at(&server.url);
        let work = desk.work();
        let page = desk
            .wait_for(|incident| {
                incident["diagnoses"]
                    .as_array()
                    .is_some_and(|all| all.len() == 2)
            })
            .await;
        assert_eq!(page["diagnoses"][0]["number"], 2);
        assert_ne!(
            page["diagnoses"][0]["diagnosis"]["degraded"],
            page["diagnoses"][1]["diagnosis"]["degraded"]
        );
        work.abort();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_store_could_not_take_is_taken_by_both() {
    on_both(async |place| {
        let desk = Desk::at(place);
        // Such as no database can compress: a group by all labels, of which one is long.
        let mut number = 1_u64;
        let mut next = || {
            number = number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            format!("{:08x}", number >> 32)
        };
        let long: String = (0..2000).map(|_| next()).collect();
        let groups = [format!("{long}a"), format!("{long}b")];
        for group in groups.iter().chain(&groups) {
            let answer = desk
                .notify(&notification(group, &[alert("a", START, None)]))
                .await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        }
        assert_eq!(desk.list("").await.len(), 2);
        let answer = desk.get("/incidents/a%00b").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.body);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_is_stored_and_diagnosed() {
    on_both(async |place| {
        let desk = Desk::at(place);
        let work = desk.work();
        let groups: Vec<Value> = (0..60)
            .map(|group| {
                let alerts: Vec<Value> = (0..150)
                    .map(|i| alert(&format!("{group}-{i}"), START, None))
                    .collect();
                notification(&format!("group {group}"), &alerts)
            })
            .collect();
        let large: Vec<Value> = (0..1000)
            .map(|i| alert(&format!("l{i}"), START, None))
            .collect();
        let large = notification("large", &large);
        let answers = futures_all(
            groups
                .iter()
                .chain([&large])
                .map(|group| desk.notify(group)),
        )
        .await;
        for answer in &answers {
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        }
        desk.until_metric("runwire_assistant_incident_diagnoses_total{outcome=\"new\"} 61")
            .await;
        work.abort();
        let page = desk.get("/incidents?limit=500").await.json();
        let alerts: i64 = page["incidents"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["alerts"].as_i64().unwrap())
            .sum();
        assert_eq!(alerts, 10_000);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_assistants_share_the_work_of_one_postgres() {
    let Some(server) = postgres::start() else {
        return;
    };
    let desks = [
        Desk::at(Place::Postgres(server.url.clone())),
        Desk::at(Place::Postgres(server.url.clone())),
    ];
    for group in 0..40 {
        let group = notification(&format!("{group}"), &[alert("a", START, None)]);
        desks[group_parity(&group)].notify(&group).await;
    }
    let work: Vec<_> = desks.iter().map(Desk::work).collect();
    let done = async || -> usize {
        let mut done = 0;
        for desk in &desks {
            let metrics = desk.get("/metrics").await.body;
            let line = metrics.lines().find_map(|line| {
                line.strip_prefix("runwire_assistant_incident_diagnoses_total{outcome=\"new\"} ")
            });
            done += line.map_or(0, |n| n.parse::<usize>().unwrap());
        }
        done
    };
    desk::until(async || done().await >= 40).await;
    // Nobody does what another did.
    assert_eq!(done().await, 40);
    work.iter().for_each(|work| work.abort());
}

fn group_parity(group: &Value) -> usize {
    group["groupKey"].as_str().unwrap().len() % 2
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incidents_are_filtered_and_paged() {
    on_both(async |place| {
        let desk = Desk::at(place);
        for minute in 10..15 {
            let start = format!("2026-11-20T03:{minute}:00Z");
            let mut one = alert("a", &start, None);
            one["labels"]["namespace"] = if minute < 12 { "shop" } else { "bank" }.into();
            let mut group = notification(&format!("{minute}"), &[one.clone()]);
            group["commonLabels"] = one["labels"].clone();
            desk.notify(&group).await;
        }
        let first = desk.get("/incidents?limit=3").await.json();
        let next = first["next"].as_str().unwrap();
        let second = desk
            .get(&format!("/incidents?limit=3&after={next}"))
            .await
            .json();
        assert_eq!(second["next"], Value::Null);
        let starts: Vec<&str> = [&first, &second]
            .iter()
            .flat_map(|page| page["incidents"].as_array().unwrap())
            .map(|incident| incident["started_at"].as_str().unwrap())
            .collect();
        let expected: Vec<String> = (10..15)
            .rev()
            .map(|m| format!("2026-11-20T03:{m}:00Z"))
            .collect();
        assert_eq!(starts, expected);
        for (query, count) in [
            ("namespace=shop", 2),
            ("namespace=none", 0),
            ("alertname=CheckoutSlow", 5),
            ("alertname=Other", 0),
            ("to=2026-11-20T03:12:00Z", 3),
            ("from=2026-11-20T03:12:00Z", 5),
            ("state=resolved", 0),
            ("namespace=bank&to=2026-11-20T03:12:30Z", 1),
        ] {
            assert_eq!(desk.list(query).await.len(), count, "{query}");
        }
        for (query, words) in [
            ("state=open", "`state` is"),
            ("limit=0", "1 to 500"),
            ("from=now", "RFC 3339"),
            (
                "from=2026-11-20T03:12:00Z&to=2026-11-20T03:11:00Z",
                "later than",
            ),
            ("after=x", "`next` of an earlier"),
            ("colour=red", "unknown field"),
        ] {
            let answer = desk.get(&format!("/incidents?{query}")).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
            assert!(answer.body.contains(words), "{}", answer.body);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_say_whether_the_cause_was_right_and_it_is_counted_also_after_a_restart() {
    on_both(async |place| {
        let desk = Desk::at(place.clone());
        let id = desk.notify(&notification("g", &[alert("a", START, None)])).await.json()["incidents"][0].clone();
        let address = format!("/incidents/{}/feedback", id.as_str().unwrap());
        let say = async |body: Value| desk.post(&address, &body).await.status;
        assert_eq!(
            say(json!({"verdict": "wrong", "failure_mode": "dns-servfail", "comment": "it was <b>DNS</b>\u{0}"})).await,
            StatusCode::NO_CONTENT
        );
        assert_eq!(say(json!({"verdict": "right"})).await, StatusCode::NO_CONTENT);
        assert_eq!(say(json!({"verdict": "maybe"})).await, StatusCode::BAD_REQUEST);
        assert_eq!(say(json!({"verdict": "right", "failure_mode": "magic"})).await, StatusCode::BAD_REQUEST);
        assert_eq!(say(json!({"verdict": "right", "note": "x"})).await, StatusCode::UNPROCESSABLE_ENTITY);
        let unknown = desk.post("/incidents/none/feedback", &json!({"verdict": "right"})).await;
        assert_eq!(unknown.status, StatusCode::NOT_FOUND);

        let form = desk.post_form(&address, "verdict=right&comment=as+it+says").await;
        assert_eq!(form.status, StatusCode::SEE_OTHER);
        let page = desk.get(&format!("/incidents/{}", id.as_str().unwrap())).await.json();
        assert_eq!(page["feedback"].as_array().unwrap().len(), 3);
        assert_eq!(page["feedback"][2]["comment"], "as it says");

        let wrong = "runwire_assistant_feedback_total{verdict=\"wrong\",failure_mode=\"dns-servfail\"} 1";
        assert!(desk.get("/metrics").await.body.contains(wrong));
        let other = Desk::at(place);
        let work = other.work();
        other.until_metric(wrong).await;
        work.abort();
    })
    .await;
}

#[tokio::test]
async fn a_browser_gets_pages_in_which_nothing_of_an_alert_runs() {
    let desk = Desk::temporary();
    let mut hostile = alert("a", START, None);
    hostile["labels"]["alertname"] = "<script>alert(1)</script>".into();
    hostile["annotations"]["summary"] = "<img src=x onerror=alert(1)>".into();
    let mut group = notification("g", &[hostile.clone()]);
    group["commonLabels"] = hostile["labels"].clone();
    group["commonAnnotations"] = hostile["annotations"].clone();
    let id = desk.notify(&group).await.json()["incidents"][0].clone();
    let own = format!("/incidents/{}", id.as_str().unwrap());
    // The first page shows what went on of late, too.
    for path in ["/incidents", &own, "/"] {
        let page = desk.get_html(path).await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(page.header(header::CONTENT_TYPE).starts_with("text/html"));
        assert!(page.body.contains("&lt;script&gt;"), "{}", page.body);
        assert!(
            !page.body.contains("<script>alert") && !page.body.contains("<img"),
            "{}",
            page.body
        );
    }
    let none = desk.get("/incidents/none").await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);
    assert_eq!(
        none.header(header::CONTENT_TYPE),
        "application/problem+json"
    );
    let none = desk.get_html("/incidents/%3Cscript%3E").await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);
    assert!(none.header(header::CONTENT_TYPE).starts_with("text/html"));
    assert!(
        none.body.contains("there is no incident `&lt;script&gt;`"),
        "{}",
        none.body
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_of_an_incident_shows_its_diagnosis_as_an_answer_is_shown() {
    let Some(server) = crate::diagnose::prometheus::start("# EOF\n") else {
        return;
    };
    let mut desk = Desk::temporary();
    desk.look_at(&server.url);
    let work = desk.work();
    desk.notify(&notification("g", &[alert("a", START, None)]))
        .await;
    let incident = desk
        .wait_for(|incident| incident["diagnoses"][0].is_object())
        .await;
    work.abort();
    let page = desk.get_html(incident["url"].as_str().unwrap()).await.body;
    let diagnosis = &incident["diagnoses"][0]["diagnosis"];
    let summary = html_escaped(diagnosis["summary"].as_str().unwrap());
    for part in [
        &*format!("<p>{summary}</p>"),
        "<span class=\"outcome\">firing</span>",
        "class=\"checked\"",
        "<code>alertname=CheckoutSlow</code>",
        "value=\"wrong\"",
        "name=\"failure_mode\" value=\"none\"",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
}

/// As our own alerts do: then the scope that is kept has the other end too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_of_an_alert_that_names_both_ends_shows_its_diagnosis_too() {
    let desk = Desk::temporary();
    let work = desk.work();
    let mut group = notification("g", &[alert("a", START, None)]);
    for (label, value) in [("src_workload", "cart"), ("dst_workload", "payments")] {
        group["alerts"][0]["labels"][label] = value.into();
        group["commonLabels"][label] = value.into();
    }
    desk.notify(&group).await;
    let incident = desk
        .wait_for(|incident| incident["diagnoses"][0].is_object())
        .await;
    work.abort();
    let scope = &incident["diagnoses"][0]["diagnosis"]["scope"];
    assert_eq!(scope["peer_workload"], "payments");
    let page = desk.get_html(incident["url"].as_str().unwrap()).await.body;
    assert!(page.contains("class=\"checked\""), "{page}");
}

fn html_escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&#39;")
}

#[tokio::test]
async fn what_is_no_notification_is_refused_and_changes_nothing() {
    let desk = Desk::temporary();
    let good = notification("g", &[alert("a", START, None)]);
    let mut old = good.clone();
    old["version"] = "3".into();
    let mut no_time = good.clone();
    no_time["alerts"][0]["startsAt"] = "soon".into();
    for (body, status) in [
        (old.to_string(), StatusCode::UNPROCESSABLE_ENTITY),
        (no_time.to_string(), StatusCode::UNPROCESSABLE_ENTITY),
        ("{}".into(), StatusCode::UNPROCESSABLE_ENTITY),
        ("{".into(), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(
            desk.post_text("/webhook/alertmanager", &body).await.status,
            status,
            "{body}"
        );
    }
    assert_eq!(desk.list("").await, Vec::<Value>::new());
}

#[tokio::test]
async fn old_incidents_are_forgotten_and_so_are_too_many() {
    let desk = Desk::temporary();
    for group in 0..6 {
        let end = (group < 4).then(|| format!("2026-11-20T03:2{group}:00Z"));
        let group = notification(&format!("{group}"), &[alert("a", START, end.as_deref())]);
        desk.notify(&group).await;
    }
    // Two of the four resolved ones go, the open ones stay.
    assert_eq!(desk.forget(Duration::from_secs(3600), 2).await, 2);
    let left = desk.list("").await;
    let ends: Vec<&Value> = left
        .iter()
        .map(|i| &i["resolved_at"])
        .filter(|end| !end.is_null())
        .collect();
    assert_eq!(left.len(), 4);
    assert!(
        ends.iter()
            .all(|end| end.as_str().unwrap() >= "2026-11-20T03:22:00Z"),
        "{ends:?}"
    );
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(desk.forget(Duration::from_millis(10), 100).await, 4);
}

async fn futures_all<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.map(Box::pin).map(Some).collect();
    let mut done: Vec<Option<T>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut is_pending = false;
        for (future, done) in all.iter_mut().zip(&mut done) {
            if let Some(waiting) = future {
                match waiting.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => {
                        *done = Some(value);
                        *future = None;
                    }
                    std::task::Poll::Pending => is_pending = true,
                }
            }
        }
        if is_pending {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    done.into_iter().flatten().collect()
}
