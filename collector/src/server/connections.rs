//! Accepts connections, and sees to it that no client is a burden: each has a time in which its
//! request must come and its answer be taken, and there are only so many of them.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;
use tracing::{debug, info, warn};

use super::problem;
use crate::agent::max_open_fds;

const MAX_CONNECTIONS: usize = 512;
/// File descriptors that are not for clients: without them signals could not be read.
const OWN_FDS: usize = 200;
/// Where the limit leaves next to nothing.
const LEAST_CONNECTIONS: usize = 8;
/// For the head of a request, and between requests.
const HEAD: Duration = Duration::from_secs(30);
const HEAD_BYTES: usize = 32 * 1024;
/// For a body to come and an answer to be made.
pub const ANSWER: Duration = Duration::from_secs(60);
/// A client that takes nothing of its answer for so long is gone.
const UNREAD_MILLISECONDS: u32 = 30_000;

/// So many clients are served at a time.
pub fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(most_connections(max_open_fds())))
}

/// Apart from the others, so that neither keeps the other out.
pub fn places_for_administration() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(LEAST_CONNECTIONS))
}

/// The address beside this one on which this host alone is served; `None` if it is one itself, or
/// all addresses.
pub fn loopback_beside(address: SocketAddr) -> Option<SocketAddr> {
    let ip = address.ip().to_canonical();
    let beside = match address.ip() {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    (!ip.is_loopback() && !ip.is_unspecified()).then(|| SocketAddr::new(beside, address.port()))
}

/// Serves until the other end of `stopped` is dropped, and then what was asked before.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    places: Arc<Semaphore>,
    mut stopped: watch::Receiver<()>,
) {
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
                // Once, however long it lasts; `runwire_process_open_fds` shows it.
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
        let connection = converse(stream, peer, router.clone(), stopped.clone());
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// `limit` is how many file descriptors the process may have open, as far as known.
fn most_connections(limit: Option<f64>) -> usize {
    let left = limit.map_or(MAX_CONNECTIONS, |limit| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number that is not negative"
        )]
        let limit = limit as usize;
        limit.saturating_sub(OWN_FDS)
    });
    left.clamp(LEAST_CONNECTIONS, MAX_CONNECTIONS)
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

async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    mut stopped: watch::Receiver<()>,
) {
    // Loses us no more than a safeguard.
    let _ = setsockopt(&stream, sockopt::TcpUserTimeout, &UNREAD_MILLISECONDS);
    let service = service_fn(move |request| answer(router.clone(), peer, request));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
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

fn answer(
    router: Router,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response, Infallible>> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(peer));
    async move {
        match timeout(ANSWER, router.oneshot(request)).await {
            Ok(response) => response,
            Err(_) => Ok(problem(
                StatusCode::REQUEST_TIMEOUT,
                "the request took too long: send it again, and at once",
            )),
        }
    }
}

#[test]
fn clients_get_the_file_descriptors_that_signals_do_not_need() {
    assert_eq!(most_connections(None), 512);
    assert_eq!(most_connections(Some(1024.0)), 512);
    assert_eq!(most_connections(Some(230.0)), 30);
    assert_eq!(most_connections(Some(64.0)), 8);
}

#[test]
fn what_is_served_on_no_loopback_address_has_one_beside_it() {
    let beside = |address: &str| {
        let beside = loopback_beside(address.parse().unwrap());
        beside.map(|beside| beside.to_string())
    };
    assert_eq!(beside("10.0.0.7:9435").as_deref(), Some("127.0.0.1:9435"));
    assert_eq!(beside("[fd00::7]:9435").as_deref(), Some("[::1]:9435"));
    for itself in [
        "127.0.0.2:1",
        "[::1]:1",
        "[::ffff:127.0.0.1]:1",
        "0.0.0.0:1",
        "[::]:1",
    ] {
        assert_eq!(beside(itself), None, "{itself}");
    }
}
