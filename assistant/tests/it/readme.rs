//! The README's requests to the assistant, sent as they stand there.

use axum::body::Body;
use axum::http::Request;

use crate::service::{indexed, send};

/// Words of a command line in a shell: quotes keep spaces, also over lines.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, piece) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(piece.to_owned());
        } else {
            words.extend(piece.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// Every `curl` to the assistant's port, up to the end of its line or of its quotes.
fn commands(readme: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut inside = false;
    let mut open: Option<String> = None;
    for line in readme.lines() {
        if line.starts_with("```") {
            inside = !inside && line == "```sh";
            continue;
        }
        if !inside || (open.is_none() && !line.starts_with("curl -s localhost:8080/")) {
            continue;
        }
        let mut command = open.take().unwrap_or_default();
        command.push_str(line);
        command.push('\n');
        if command.matches('\'').count() % 2 == 1 {
            open = Some(command);
        } else {
            found.push(words(&command));
        }
    }
    found
}

#[tokio::test]
async fn its_requests_are_answered() {
    let service = indexed();
    let commands = commands(include_str!("../../../README.md"));
    assert!(commands.len() >= 8, "{commands:?}");
    for command in commands {
        let path = command[2].strip_prefix("localhost:8080").unwrap();
        let mut request = Request::builder()
            .uri(path)
            .header("host", "localhost:8080");
        let mut body = String::new();
        let mut options = command[3..].iter();
        while let Some(option) = options.next() {
            let value = options
                .next()
                .unwrap_or_else(|| panic!("{option} has no value"));
            match option.as_str() {
                "-H" => {
                    let (name, value) = value.split_once(": ").unwrap();
                    request = request.header(name, value);
                }
                "-d" => {
                    request = request.method("POST");
                    body = value.clone();
                }
                other => panic!("a test does not know curl's {other}"),
            }
        }
        let answer = send(&service.router, request.body(Body::from(body)).unwrap()).await;
        assert!(
            answer.status.is_success(),
            "{command:?}: {} {}",
            answer.status,
            answer.body
        );
        let answer = answer.json();
        assert!(
            answer["error"].is_null() && answer["result"]["isError"] != true,
            "{command:?}: {answer}"
        );
    }
}
