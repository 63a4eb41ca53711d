//! Accepts connections, plain or TLS, and sees to it that no client is a burden: each has a time in which its request must
//! come and its answer be taken, and there are only so many of them.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::Request;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;
use tracing::{debug, info, warn};

use crate::api::with_pages;
use crate::error::ApiError;
use crate::metrics::Metrics;

mod patient;
pub mod tls;

use patient::Patient;

/// How long clients are waited for, and how many there may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub connections: usize,
    /// For the head of a request, between requests, and for the TLS handshake.
    pub head: Duration,
    /// For a body to come and an answer to begin.
    pub answer: Duration,
    /// A client that takes nothing of its answer for so long is gone.
    pub unread: Duration,
    /// After this, what is still being answered at the end is cut.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            head: Duration::from_secs(30),
            answer: Duration::from_secs(60),
            unread: Duration::from_secs(30),
            farewell: Duration::from_secs(10),
        }
    }
}

const HEAD_BYTES: usize = 32 << 10;

/// Serves until the other end of `stopped` is dropped or sends, and then what was asked before.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    metrics: &Metrics,
    mut stopped: watch::Receiver<()>,
) {
    let router = with_pages(router.layer(from_fn_with_state(limits.answer, in_time)));
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    let mut is_failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            _ = stopped.changed() => break,
        };
        // Those that are over are forgotten.
        while connections.try_join_next().is_some() {}
        let (stream, peer, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                metrics.add(
                    "runwire_assistant_accept_failures_total",
                    "Tries to accept a connection that failed; for want of a file descriptor, most likely",
                    &[],
                    1.0,
                );
                // Once, however long it lasts.
                if !is_failing {
                    warn!(%error, "cannot accept connections; they wait until a file descriptor is free");
                }
                is_failing = true;
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if is_failing {
            info!("connections are accepted again");
            is_failing = false;
        }
        let (router, tls, stopped) = (router.clone(), tls.clone(), stopped.clone());
        connections.spawn(async move {
            greet(stream, peer, router, tls, limits, stopped).await;
            drop(place);
        });
    }
    drop(listener);
    let rest = async { while connections.join_next().await.is_some() {} };
    if timeout(limits.farewell, rest).await.is_err() {
        warn!("clients that still listened were cut off");
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await;
    let place = place.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

async fn greet(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    stopped: watch::Receiver<()>,
) {
    // Answers are small and whole: waiting to fill a segment only delays them.
    let _ = stream.set_nodelay(true);
    let stream = Patient::new(stream, limits.unread);
    let Some(tls) = tls else {
        return converse(stream, peer, router, limits, stopped).await;
    };
    match timeout(limits.head, tls.accept(stream)).await {
        Ok(Ok(stream)) => converse(stream, peer, router, limits, stopped).await,
        Ok(Err(error)) => debug!(%peer, %error, "no TLS with a client"),
        Err(_) => debug!(%peer, "a client did not finish its TLS handshake"),
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: SocketAddr,
    router: Router,
    limits: Limits,
    mut stopped: watch::Receiver<()>,
) {
    let service = service_fn(move |request| answer(router.clone(), peer, request));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!(%peer, %error, "a client went");
    }
}

async fn answer(
    router: Router,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(peer));
    router.oneshot(request).await
}

async fn in_time(State(patience): State<Duration>, request: Request<Body>, next: Next) -> Response {
    match timeout(patience, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::TooSlow.into_response(),
    }
}
