//! The real Alertmanager sends real notifications to the real program.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::kill::Program;

struct Alertmanager {
    child: Child,
    url: String,
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Alertmanager {
    fn start(place: &Path, webhook: &str) -> Self {
        let config = place.join("alertmanager.yml");
        let text = format!(
            "route: {{receiver: runwire, group_by: [alertname], group_wait: 1s, group_interval: 1s, repeat_interval: 3s}}\n\
             receivers: [{{name: runwire, webhook_configs: [{{url: '{webhook}'}}]}}]\n"
        );
        std::fs::write(&config, text).unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.path={}",
                place.join("alertmanager").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let alertmanager = Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
        };
        let started = Instant::now();
        while !alertmanager.amtool(&["alert", "query"]) {
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "alertmanager does not start"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        alertmanager
    }

    fn amtool(&self, arguments: &[&str]) -> bool {
        Command::new("amtool")
            .arg(format!("--alertmanager.url={}", self.url))
            .args(arguments)
            .output()
            .unwrap()
            .status
            .success()
    }
}

#[test]
fn alertmanager_tells_of_an_incident_until_it_is_resolved() {
    if Command::new("amtool").arg("--version").output().is_err() {
        skipped("prometheus-alertmanager is not installed");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let mut program = Program::start(place.path());
    let webhook = format!("http://{}/webhook/alertmanager", program.address);
    let alertmanager = Alertmanager::start(place.path(), &webhook);
    let add = |instance: &str, more: &[&str]| {
        let instance = format!("instance={instance}");
        let mut arguments = vec![
            "alert",
            "add",
            "CheckoutLatencyHigh",
            "namespace=shop",
            &instance,
        ];
        arguments.push("--annotation=summary=the checkout is slow");
        arguments.extend(more);
        assert!(alertmanager.amtool(&arguments));
    };
    add("a", &[]);
    add("b", &[]);
    let all = program.wait(|all| {
        all.first()
            .is_some_and(|i| i["alerts"] == 2 && !i["status"].is_null())
    });
    assert_eq!(all.len(), 1, "{all:#?}");
    assert_eq!(all[0]["alertname"], "CheckoutLatencyHigh");
    assert_eq!(all[0]["labels"]["namespace"], "shop");
    assert_eq!(all[0]["annotations"]["summary"], "the checkout is slow");

    // It repeats itself every few seconds: still one. And it goes on when the assistant was away.
    program.kill();
    std::thread::sleep(Duration::from_secs(4));
    drop(program);
    let program = Program::start(place.path());
    let metric = "runwire_assistant_alert_notifications_total{outcome=\"known\"}";
    drop(alertmanager);
    assert_eq!(program.incidents().len(), 1);
    let second = tempfile::tempdir().unwrap();
    let webhook = format!("http://{}/webhook/alertmanager", program.address);
    // Its own state is lost; what it says again is known.
    let alertmanager = Alertmanager::start(second.path(), &webhook);
    let starts: Vec<String> = members(&program)
        .iter()
        .map(|m| m["starts_at"].as_str().unwrap().to_owned())
        .collect();
    let add = |instance: &str, start: &str, more: &[&str]| {
        let (instance, start) = (format!("instance={instance}"), format!("--start={start}"));
        let mut arguments = vec![
            "alert",
            "add",
            "CheckoutLatencyHigh",
            "namespace=shop",
            &instance,
            &start,
        ];
        arguments.push("--annotation=summary=the checkout is slow");
        arguments.extend(more);
        assert!(alertmanager.amtool(&arguments));
    };
    add("a", &starts[0], &[]);
    add("b", &starts[1], &[]);
    let started = Instant::now();
    while !program.ask("GET", "/metrics", "").1.contains(metric) {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "it says nothing"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(program.incidents().len(), 1);

    let now = String::from_utf8(
        Command::new("date")
            .args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])
            .output()
            .unwrap()
            .stdout,
    )
    .unwrap();
    let end = format!("--end={}", now.trim());
    add("a", &starts[0], &[&end]);
    add("b", &starts[1], &[&end]);
    let all = program.wait(|all| all.iter().all(|incident| incident["state"] == "resolved"));
    assert_eq!(all.len(), 1, "{all:#?}");
    assert_eq!(all[0]["alerts_firing"], 0);
}

fn members(program: &Program) -> Vec<serde_json::Value> {
    let url = program.incidents()[0]["url"].as_str().unwrap().to_owned();
    let page: serde_json::Value = serde_json::from_str(&program.ask("GET", &url, "").1).unwrap();
    let mut members = page["members"].as_array().unwrap().clone();
    members.sort_by_key(|member| member["labels"]["instance"].as_str().unwrap().to_owned());
    members
}

#[expect(clippy::print_stdout, reason = "a skipped test must say so")]
fn skipped(reason: &str) {
    println!("skipped: {reason}");
}
