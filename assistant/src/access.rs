//! Who may ask, and how often: bearer tokens, users that a trusted proxy names, and a limit for each.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use crate::config::{Auth, Config, ConfigError, Network};
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::watched::{Troubles, Watched};

mod limit;
mod names;
mod origin;
mod tokens;

use limit::Limits;
use names::Names;
use tokens::Tokens;

/// How often files are looked at.
const RELOAD: Duration = Duration::from_secs(2);

/// Names from a proxy are names, not texts.
const MAX_USER: usize = 200;

const WEBHOOK: &str = "/webhook/alertmanager";

/// Who asks, as the token's or the user's name; in the extensions of every request that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller(pub Arc<str>);

impl Caller {
    /// Where nobody has to say who they are.
    pub fn anonymous() -> Self {
        Self("anonymous".into())
    }

    pub fn of(extensions: &axum::http::Extensions) -> Self {
        extensions.get().cloned().unwrap_or_else(Self::anonymous)
    }
}

pub struct Access {
    is_required: bool,
    metrics_need_it: bool,
    tokens: Option<Watched<Tokens>>,
    webhook_tokens: Option<Watched<Tokens>>,
    proxies: Vec<Network>,
    user_header: HeaderName,
    names: Names,
    /// Who need not say who they are may call us by `names` alone: it is this host that asks.
    is_for_this_host: bool,
    limits: Limits,
    metrics: Arc<Metrics>,
}

impl Access {
    /// Reads the files. Where others could reach us, somebody must have said how they are told apart, or that they need not be.
    pub fn open(config: &Config, metrics: Arc<Metrics>) -> Result<Self, ConfigError> {
        let keys = &config.access;
        let proxies = keys.trusted_proxies.clone().unwrap_or_default();
        let has_way_in = keys.tokens.is_some() || !proxies.is_empty();
        let is_required = match keys.auth {
            Some(auth) => auth == Auth::Required,
            None => has_way_in || !config.listen.ip().is_loopback(),
        };
        if is_required && !has_way_in {
            return Err(ConfigError::value(
                "auth",
                format!(
                    "is {}, and nothing says who may ask: give a file of tokens with `tokens`, or the addresses of `trusted_proxies`, or say `auth: off` to answer everybody",
                    match keys.auth {
                        Some(_) => "required".to_owned(),
                        None =>
                            format!("not set, others than this host can reach {}", config.listen),
                    }
                ),
            ));
        }
        let name = keys.user_header.as_deref().unwrap_or("X-Forwarded-User");
        let user_header = HeaderName::try_from(name).map_err(|_| {
            ConfigError::value(
                "user_header",
                format!("is \"{name}\", which no header is called; give a name such as X-Auth-Request-User"),
            )
        })?;
        let open = |key: &'static str, path: &Option<std::path::PathBuf>| {
            let path = path.clone();
            path.map(|path| Watched::open(key, vec![path], tokens::parse))
                .transpose()
                .map_err(|reason| ConfigError::value(key, reason))
        };
        Ok(Self {
            is_required,
            metrics_need_it: keys.metrics_auth == Some(Auth::Required),
            tokens: open("tokens", &keys.tokens)?,
            webhook_tokens: open("webhook_tokens", &keys.webhook_tokens)?,
            proxies,
            user_header,
            names: Names::of(&config.external_url),
            is_for_this_host: config.listen.ip().is_loopback() && !is_required,
            limits: Limits::new(keys.rate_limit.unwrap_or(20)),
            metrics,
        })
    }

    /// The same routes for those who may ask.
    pub fn protect(self: Arc<Self>, router: Router) -> Router {
        router.layer(from_fn_with_state(self, admit))
    }

    /// Takes new tokens into use for as long as it is polled. A file that is wrong leaves the old ones.
    pub async fn keep_fresh(self: Arc<Self>, troubles: Arc<Troubles>) {
        loop {
            tokio::time::sleep(RELOAD).await;
            for file in [&self.tokens, &self.webhook_tokens].into_iter().flatten() {
                file.poll(&troubles, &self.metrics).await;
            }
        }
    }

    fn caller(&self, request: &Request) -> Result<Caller, ApiError> {
        let path = request.uri().path();
        let is_open = match path {
            "/healthz" | "/readyz" => true,
            "/metrics" => !self.metrics_need_it,
            // The same for everybody, and a page that refuses somebody needs them.
            _ => path.starts_with("/assets/"),
        };
        if is_open {
            return Ok(Caller::anonymous());
        }
        let headers = request.headers();
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map(|peer| peer.0.ip().to_canonical());
        let caller = if let Some(caller) = self.by_token(path, headers) {
            // No browser sends a token by itself.
            caller
        } else if let Some(caller) = peer.and_then(|peer| self.by_proxy(peer, headers)) {
            // Where the proxy is, on this host, there may be a browser too, and a page in it can send the header as well.
            if peer.is_some_and(|peer| peer.is_loopback()) {
                self.check_name(headers)?;
            }
            self.check_origin(request)?;
            caller
        } else if self.is_required || (path == WEBHOOK && self.webhook_tokens.is_some()) {
            // A webhook with tokens of its own asks for them, also where nobody else has to.
            return Err(self.refuse(headers));
        } else {
            if self.is_for_this_host {
                self.check_name(headers)?;
            }
            self.check_origin(request)?;
            return Ok(Caller::anonymous());
        };
        self.limits
            .take(&caller.0, Instant::now())
            .map_err(|wait| {
                self.count("rate_limited");
                match path {
                    // Of refusals, Alertmanager sends again only what is refused with 5xx: in a storm the rest would be told
                    // minutes later.
                    WEBHOOK => ApiError::Unavailable(
                        "more notifications than one caller may send; send it again in a second"
                            .into(),
                    ),
                    _ => ApiError::RateLimited(wait),
                }
            })?;
        Ok(caller)
    }

    fn by_token(&self, path: &str, headers: &HeaderMap) -> Option<Caller> {
        let token = bearer(headers)?;
        let webhook = self.webhook_tokens.as_ref().filter(|_| path == WEBHOOK);
        [webhook, self.tokens.as_ref()]
            .into_iter()
            .flatten()
            .find_map(|file| file.current().name_of(token))
            .map(Caller)
    }

    /// The header counts only from a proxy: anybody can send it.
    fn by_proxy(&self, peer: IpAddr, headers: &HeaderMap) -> Option<Caller> {
        if !self.proxies.iter().any(|proxy| proxy.contains(peer)) {
            return None;
        }
        let mut values = headers.get_all(&self.user_header).iter();
        // Names have letters that ASCII has not.
        let user = std::str::from_utf8(values.next()?.as_bytes()).ok()?.trim();
        // Two of them: one is not the proxy's.
        if values.next().is_some() || user.is_empty() || user.len() > MAX_USER {
            return None;
        }
        Some(Caller(user.into()))
    }

    fn check_name(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.names.allow(headers) {
            return Ok(());
        }
        self.count("unknown_host");
        Err(ApiError::Forbidden(
            "the Host header has a name that is not known here; ask for localhost or 127.0.0.1, or give the address that users know as `external_url`".into(),
        ))
    }

    /// What is only read may be asked for from anywhere: links to it stand in chats and alerts.
    fn check_origin(&self, request: &Request) -> Result<(), ApiError> {
        let only_reads = matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::OPTIONS
        );
        if only_reads || !origin::is_elsewhere(request.headers(), &self.names) {
            return Ok(());
        }
        self.count("other_origin");
        Err(ApiError::Forbidden(
            "the browser says that a page from elsewhere sent this; send it from a page of this service, under the address that is given as `external_url`".into(),
        ))
    }

    fn refuse(&self, headers: &HeaderMap) -> ApiError {
        let (reason, sentence) = if headers.contains_key(header::AUTHORIZATION) {
            (
                "wrong_token",
                "the Authorization header has no token that is known here; ask whoever runs this assistant for one",
            )
        } else {
            (
                "no_token",
                "say who asks: send the header `Authorization: Bearer TOKEN`",
            )
        };
        self.count(reason);
        ApiError::Unauthorized(sentence.into())
    }

    fn count(&self, reason: &str) {
        self.metrics.add(
            "runwire_assistant_requests_refused_total",
            "Requests that were not let in, by why",
            &[("reason", reason)],
            1.0,
        );
    }
}

async fn admit(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response {
    match access.caller(&request) {
        Ok(caller) => {
            // Nobody behind this point needs the secret, so nobody can tell it.
            request.headers_mut().remove(header::AUTHORIZATION);
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}
