//! `Prometheus`: queries over its HTTP API, bounded in time, size and number; every way to fail is a [`QueryError`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, LOCATION};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

mod identity;
mod response;

use crate::metrics::Metrics;
use crate::watched::Troubles;

pub use identity::Identity;
pub use response::{Matrix, Range, Sample, Vector};

/// A query that takes longer than this part of its time-out is a slow one.
const SLOW: u32 = 4;

/// How the server is reached and how much is asked of it.
#[derive(Clone)]
pub struct Settings {
    pub url: String,
    /// For one query, connecting included. Longer than anyone waits: what comes late is there for who asks next.
    pub timeout: Duration,
    /// Queries on their way at the same time, over all requests; and as many slow ones beside them.
    pub concurrency: usize,
    /// Largest answer that is read. What is larger is an error, not a cut.
    pub max_response_bytes: usize,
    pub identity: Identity,
}

impl Settings {
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            timeout: Duration::from_secs(4),
            concurrency: 16,
            max_response_bytes: 32 << 20,
            identity: Identity::default(),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    #[error("cannot reach Prometheus: {0}")]
    Unreachable(String),
    #[error("Prometheus did not answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// The server understood the request and refuses the query.
    #[error("Prometheus refuses the query: {0}")]
    Refused(String),
    #[error("Prometheus answers status {0}")]
    Status(u16),
    /// Never followed: the headers that say who we are would go along.
    #[error(
        "Prometheus answers with a redirect to {0}; set `prometheus` to the address that answers itself"
    )]
    Redirect(String),
    /// Others were asked first, or were late already, when the time was over for which somebody waited.
    #[error("Prometheus was busy with other queries")]
    Busy,
    #[error("the answer of Prometheus is larger than {} MiB", .0 >> 20)]
    TooLarge(usize),
    #[error("the answer of Prometheus cannot be read: {0}")]
    Malformed(String),
}

impl QueryError {
    /// One word for the metrics.
    fn name(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::TimedOut(_) => "timed_out",
            Self::Refused(_) => "refused",
            Self::Status(_) => "status",
            Self::Redirect(_) => "redirect",
            Self::Busy => "busy",
            Self::TooLarge(_) => "too_large",
            Self::Malformed(_) => "malformed",
        }
    }

    /// Whether the answer is more than is given, or than is read.
    pub fn is_too_much(&self) -> bool {
        match self {
            Self::TooLarge(_) => true,
            // Prometheus' and VictoriaMetrics' words for it.
            Self::Refused(reason) => {
                reason.contains("too many samples") || reason.contains("-search.max")
            }
            _ => false,
        }
    }

    /// Whether the next query would fail in the same way, so that asking on is useless.
    pub fn is_server_down(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Redirect(_))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("`{url}` is not the address of a Prometheus: {reason}")]
    Url { url: String, reason: String },
    #[error("cannot set up the HTTP client: {0}")]
    Setup(#[source] reqwest::Error),
}

/// A Prometheus, or anything that speaks its query API. Cheap to clone; clones share the bound on queries.
#[derive(Clone)]
pub struct Prometheus {
    client: prometheus_http_query::Client,
    permits: Arc<Semaphore>,
    /// For queries that are slow, or that nobody waits for any more.
    late: Arc<Semaphore>,
    settings: Arc<Settings>,
    metrics: Option<Arc<Metrics>>,
    asked: Arc<AtomicU64>,
}

impl Prometheus {
    pub fn new(settings: Settings) -> Result<Self, ClientError> {
        let identity = &settings.identity;
        let http = client_builder(settings.timeout, identity.authorities.clone())
            .default_headers(identity.headers.clone())
            .build()
            .map_err(ClientError::Setup)?;
        let client = prometheus_http_query::Client::from(http, &settings.url).map_err(|error| {
            ClientError::Url {
                url: settings.url.clone(),
                reason: error.to_string(),
            }
        })?;
        if !matches!(client.base_url().scheme(), "http" | "https") {
            return Err(ClientError::Url {
                url: settings.url,
                reason: "it must begin with http:// or https://".into(),
            });
        }
        Ok(Self {
            client,
            permits: Arc::new(Semaphore::new(settings.concurrency.max(1))),
            late: Arc::new(Semaphore::new(settings.concurrency.max(1))),
            settings: Arc::new(settings),
            metrics: None,
            asked: Arc::default(),
        })
    }

    /// Counts queries, how they end and how long they take.
    pub fn with_metrics(self, metrics: Arc<Metrics>) -> Self {
        Self {
            metrics: Some(metrics),
            ..self
        }
    }

    /// Takes a new token or password into use for as long as it is polled.
    pub async fn keep_fresh(self, troubles: Arc<Troubles>) {
        let nobody = Arc::new(Metrics::default());
        let metrics = self.metrics.as_ref().unwrap_or(&nobody);
        let Some(file) = self.settings.identity.file() else {
            return;
        };
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            file.poll(&troubles, metrics).await;
        }
    }

    pub fn url(&self) -> &str {
        &self.settings.url
    }

    /// Queries that were sent so far, by all clones.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Evaluates `query` at `time_millis` (Unix time). A scalar comes back as one sample without labels.
    pub async fn instant(&self, query: &str, time_millis: i64) -> Result<Vector, QueryError> {
        self.instant_until(query, time_millis, self.patience())
            .await
    }

    /// The same for somebody who waits `until` then. A query that is not sent by then is not sent at all; one that is sent and
    /// slow goes on beside those that have their turn, also after that time, if not too many others do.
    pub async fn instant_until(
        &self,
        query: &str,
        time_millis: i64,
        until: Instant,
    ) -> Result<Vector, QueryError> {
        let request = self
            .client
            .query(query)
            .query("time", seconds(time_millis))
            .timeout(millis(self.settings.timeout));
        let request = match self.settings.identity.authorization() {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        };
        let body = self.ask(request.post_raw(), until).await?;
        response::instant(&body)
    }

    /// Evaluates `query` from `start` to `end` (Unix seconds, both included).
    pub async fn range(
        &self,
        query: &str,
        start: i64,
        end: i64,
        step: Duration,
    ) -> Result<Matrix, QueryError> {
        let request = self
            .client
            .query_range(query, start, end, step.as_secs_f64())
            .timeout(millis(self.settings.timeout));
        let request = match self.settings.identity.authorization() {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        };
        let body = self.ask(request.post_raw(), self.patience()).await?;
        response::range(&body)
    }

    /// Whether the server is there and answers queries: the part of `/readyz` that is about Prometheus.
    pub async fn check(&self) -> Result<(), QueryError> {
        let request = self.client.query("1");
        let request = match self.settings.identity.authorization() {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        };
        let body = self.ask(request.post_raw(), self.patience()).await?;
        response::instant(&body).map(|_| ())
    }

    fn patience(&self) -> Instant {
        Instant::now() + self.settings.timeout
    }

    async fn ask(
        &self,
        request: impl Future<Output = Result<reqwest::Response, prometheus_http_query::Error>>,
        until: Instant,
    ) -> Result<Vec<u8>, QueryError> {
        let timeout = self.settings.timeout;
        let Ok(permit) = timeout_at(until, self.permits.acquire()).await else {
            return Err(QueryError::Busy);
        };
        if Instant::now() >= until {
            return Err(QueryError::Busy);
        }
        self.asked.fetch_add(1, Ordering::Relaxed);
        let started = Instant::now();
        let exchange = tokio::time::timeout(timeout, self.exchange(request));
        tokio::pin!(exchange);
        // A few slow queries must not keep the others from their turn.
        let mut late = None;
        let mut answer = None;
        for end in [until.min(started + timeout / SLOW), until] {
            if late.is_none() {
                answer = timeout_at(end, &mut exchange).await.ok();
            }
            if answer.is_some() {
                break;
            }
            late = late.or_else(|| self.late.try_acquire().ok());
        }
        if answer.is_none() && late.is_some() {
            drop(permit);
            answer = Some(exchange.await);
        }
        let answer = match answer {
            Some(Ok(answer)) => answer,
            Some(Err(_)) => Err(QueryError::TimedOut(timeout)),
            None => Err(QueryError::Busy),
        };
        if let Some(metrics) = &self.metrics {
            let outcome = answer.as_ref().map_or_else(QueryError::name, |_| "ok");
            metrics.add(
                "runwire_assistant_prometheus_queries_total",
                "Queries to Prometheus by how they ended",
                &[("outcome", outcome)],
                1.0,
            );
            metrics.observe(
                "runwire_assistant_prometheus_query_duration_seconds",
                "Time from sending a query to Prometheus to its whole answer",
                &[],
                started.elapsed(),
            );
        }
        answer
    }

    async fn exchange(
        &self,
        request: impl Future<Output = Result<reqwest::Response, prometheus_http_query::Error>>,
    ) -> Result<Vec<u8>, QueryError> {
        let mut response = request.await.map_err(|error| self.send_error(&error))?;
        let status = response.status();
        if status.is_redirection() {
            let target = response.headers().get(LOCATION);
            let target = target.and_then(|target| target.to_str().ok());
            return Err(QueryError::Redirect(shown(target)));
        }
        let limit = self.settings.max_response_bytes;
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.body_error(&error))?
        {
            if body.len() + chunk.len() > limit {
                return Err(QueryError::TooLarge(limit));
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(body);
        }
        // Prometheus explains a refused query in JSON; what stands between us may answer anything.
        Err(match response::refusal(&body) {
            Some(reason) => QueryError::Refused(reason),
            None => QueryError::Status(status.as_u16()),
        })
    }

    fn send_error(&self, error: &prometheus_http_query::Error) -> QueryError {
        let cause = std::error::Error::source(error)
            .and_then(|source| source.downcast_ref::<reqwest::Error>());
        match cause {
            Some(cause) if cause.is_timeout() => QueryError::TimedOut(self.settings.timeout),
            Some(cause) => QueryError::Unreachable(innermost(cause)),
            None => QueryError::Unreachable(innermost(error)),
        }
    }

    fn body_error(&self, error: &reqwest::Error) -> QueryError {
        if error.is_timeout() {
            QueryError::TimedOut(self.settings.timeout)
        } else {
            QueryError::Malformed(innermost(error))
        }
    }
}

/// A label's value, for a string in double quotes.
pub fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// An HTTP client without proxies and with one TLS library for the whole process.
pub fn http_client(timeout: Duration) -> Result<reqwest::Client, ClientError> {
    client_builder(timeout, Vec::new())
        .build()
        .map_err(ClientError::Setup)
}

/// The same, for those who have more to say about it. A server's certificate may come from `authorities`, or from the system's.
pub fn client_builder(
    timeout: Duration,
    authorities: Vec<reqwest::Certificate>,
) -> reqwest::ClientBuilder {
    // Fails only if somebody was first, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(timeout)
        .timeout(timeout)
        // Followed, what we post would become a GET without a body, and its answer would be taken for that of what we posted.
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("runwire-assistant/", env!("CARGO_PKG_VERSION")));
    if *SYSTEM_HAS_AUTHORITIES {
        builder.tls_certs_merge(authorities)
    } else {
        builder.tls_certs_only(authorities)
    }
}

/// In a bare container there are none, and then no client that wants them can be made, not even for `http://`.
static SYSTEM_HAS_AUTHORITIES: LazyLock<bool> = LazyLock::new(|| {
    let made = reqwest::Client::builder().no_proxy().build();
    if let Err(error) = &made {
        tracing::warn!(
            error = innermost(error),
            "the system's certificate authorities cannot be used, so https:// is trusted only where the config names authorities; \
             install ca-certificates"
        );
    }
    made.is_ok()
});

/// The last cause in the chain: «connection refused» rather than «error sending request».
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Where a redirect leads, without what may be secret in it.
fn shown(target: Option<&str>) -> String {
    let target = target.unwrap_or("nowhere");
    let end = target.find(['?', '#']).unwrap_or(target.len());
    match target[..end].split_once('@') {
        Some((_, host)) => host.to_owned(),
        None => target[..end].to_owned(),
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Unix seconds as Prometheus reads them, without a fraction where there is none.
fn seconds(time_millis: i64) -> String {
    match time_millis.rem_euclid(1000) {
        0 => (time_millis / 1000).to_string(),
        fraction => format!("{}.{fraction:03}", time_millis.div_euclid(1000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_written_as_seconds() {
        assert_eq!(seconds(1_700_000_000_000), "1700000000");
        assert_eq!(seconds(1_700_000_000_250), "1700000000.250");
    }

    #[test]
    fn an_address_that_is_none_is_named() {
        for url in ["", "prometheus:9090", "ftp://x", "http//x"] {
            let error = Prometheus::new(Settings::new(url))
                .err()
                .map(|e| e.to_string());
            assert!(
                error.is_some_and(|e| e.contains(&format!("`{url}`"))),
                "{url}"
            );
        }
    }
}
