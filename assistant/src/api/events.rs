//! Server-sent events: an answer that comes in parts.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::mpsc;

/// Events that wait for a slow reader; then whoever makes them waits too.
const WAITING: usize = 16;

/// Where events are put in.
pub(super) struct Events(mpsc::Sender<Bytes>);

impl Events {
    /// The response ends when the events are dropped.
    pub(super) fn new() -> (Self, Response) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let headers = [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-store"),
        ];
        let body = Body::new(Receiving(receiver));
        (Self(sender), (headers, body).into_response())
    }

    /// False: nobody reads any more.
    pub(super) async fn send(&self, event: &str, data: &impl Serialize) -> bool {
        // JSON has no line of its own, so the data is one line.
        let data = serde_json::to_string(data).expect("what we answer is JSON");
        let event = format!("event: {event}\ndata: {data}\n\n");
        self.0.send(event.into()).await.is_ok()
    }
}

struct Receiving(mpsc::Receiver<Bytes>);

impl axum::body::HttpBody for Receiving {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(context)
            .map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}
