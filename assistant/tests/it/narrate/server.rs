//! A server that speaks OpenAI's `/v1/chat/completions`, whole and as a stream, with the faults that real ones have.

use std::io::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Debug, Clone, Copy)]
pub(super) enum Behaviour {
    Says(&'static str),
    /// Does not know `stream`.
    SaysWholeAlways(&'static str),
    /// With a `Retry-After` in seconds.
    Status(u16, Option<u64>),
    /// 429 with `Retry-After: 1` for the first request.
    BusyOnce(&'static str),
    /// A body as it is, with status 200.
    Raw(&'static str),
    /// Takes the request and says nothing.
    Silent,
    /// Streams this and closes, without an end.
    Cut(&'static str),
    /// Streams this and then nothing.
    Stalls(&'static str),
    StreamsNonsense,
    Endless,
}

#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) key: String,
    pub(super) body: Value,
}

pub(super) struct Server {
    pub(super) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub(super) async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let all = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let all = all.clone();
                // Who asks may have gone by now.
                tokio::spawn(async move { serve(stream, behaviour, &all).await });
            }
        });
        Self { url, asked }
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    behaviour: Behaviour,
    asked: &Mutex<Vec<Asked>>,
) -> Result<(), Error> {
    let request = read(&mut stream).await?;
    let is_stream = request.body["stream"] == true;
    let count = {
        let mut asked = asked.lock().unwrap();
        asked.push(request);
        asked.len()
    };
    match behaviour {
        Behaviour::Says(text) if is_stream => say(&mut stream, text, true).await,
        Behaviour::Says(text) | Behaviour::SaysWholeAlways(text) => {
            whole(&mut stream, &completion(text)).await
        }
        Behaviour::Status(status, wait) => refuse(&mut stream, status, wait).await,
        Behaviour::BusyOnce(_) if count == 1 => refuse(&mut stream, 429, Some(1)).await,
        Behaviour::BusyOnce(text) => whole(&mut stream, &completion(text)).await,
        Behaviour::Raw(body) => whole(&mut stream, body).await,
        Behaviour::Silent => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(())
        }
        Behaviour::Cut(text) => say(&mut stream, text, false).await,
        Behaviour::Stalls(text) => {
            say(&mut stream, text, false).await?;
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(())
        }
        Behaviour::StreamsNonsense => {
            begin(&mut stream).await?;
            stream
                .write_all(b": a comment\n\ndata: {nonsense\n\n")
                .await
        }
        Behaviour::Endless if is_stream => {
            begin(&mut stream).await?;
            loop {
                stream
                    .write_all(delta(&"on and on ".repeat(100)).as_bytes())
                    .await?;
            }
        }
        Behaviour::Endless => whole(&mut stream, &completion(&"on and on ".repeat(100_000))).await,
    }
}

async fn read(stream: &mut TcpStream) -> Result<Asked, Error> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let n = stream.read(&mut chunk).await?;
        bytes.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            assert!(n > 0, "no request");
            continue;
        };
        assert!(head.starts_with("POST /v1/chat/completions "), "{head}");
        let header = |name: &str| {
            head.lines().find_map(|line| {
                let (found, value) = line.split_once(':')?;
                found
                    .eq_ignore_ascii_case(name)
                    .then(|| value.trim().to_owned())
            })
        };
        let length: usize = header("content-length").unwrap().parse().unwrap();
        if body.len() >= length {
            return Ok(Asked {
                key: header("authorization").unwrap_or_default(),
                body: serde_json::from_str(body).unwrap(),
            });
        }
    }
}

fn completion(text: &str) -> String {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "tiny",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    })
    .to_string()
}

fn delta(text: &str) -> String {
    let event = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "tiny",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}],
    });
    format!("data: {event}\n\n")
}

async fn whole(stream: &mut TcpStream, body: &str) -> Result<(), Error> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await
}

async fn refuse(stream: &mut TcpStream, status: u16, wait: Option<u64>) -> Result<(), Error> {
    let wait = wait.map_or_else(String::new, |seconds| format!("retry-after: {seconds}\r\n"));
    let body = r#"{"error": {"message": "sk-secret is not welcome", "type": "x"}}"#;
    let answer = format!(
        "HTTP/1.1 {status} No\r\n{wait}content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await
}

async fn begin(stream: &mut TcpStream) -> Result<(), Error> {
    stream
        .write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n",
        )
        .await
}

/// A few characters at a time, as models do.
async fn say(stream: &mut TcpStream, text: &str, whole: bool) -> Result<(), Error> {
    begin(stream).await?;
    let characters: Vec<char> = text.chars().collect();
    for piece in characters.chunks(5) {
        stream
            .write_all(delta(&piece.iter().collect::<String>()).as_bytes())
            .await?;
        stream.flush().await?;
    }
    if whole {
        stream.write_all(b"data: [DONE]\n\n").await?;
    }
    Ok(())
}
