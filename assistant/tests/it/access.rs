//! Who may ask: tokens, proxies, limits, over a real socket, plain and TLS, and with clients that are slow.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode, header};
use runwire_assistant::access::Access;
use runwire_assistant::api;
use runwire_assistant::config::{AccessSettings, Auth, Config, ConfigError, Settings};
use runwire_assistant::metrics::Metrics;
use runwire_assistant::server::tls::Certificate;
use runwire_assistant::server::{self, Limits};
use runwire_assistant::watched::Troubles;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::service::{Answer, indexed, send};

const ALICE: &str = "correct-horse-battery";

fn config(listen: &str, access: AccessSettings) -> Config {
    let settings = Settings {
        listen: Some(listen.parse().unwrap()),
        runbooks: Some(vec![std::env::temp_dir()]),
        access,
        ..Settings::default()
    };
    Config::load(settings, "error").unwrap()
}

fn open(listen: &str, access: AccessSettings) -> Result<Access, ConfigError> {
    Access::open(&config(listen, access), Arc::new(Metrics::default()))
}

fn tokens(folder: &TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("tokens");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn where_others_can_reach_us_somebody_must_have_said_who_may_ask() {
    let words = |listen: &str, access: AccessSettings| {
        open(listen, access).err().map(|error| error.to_string())
    };
    let with = |auth: Option<Auth>| AccessSettings {
        auth,
        ..AccessSettings::default()
    };
    assert_eq!(words("127.0.0.1:8080", with(None)), None);
    assert_eq!(words("[::1]:8080", with(None)), None);
    assert_eq!(words("0.0.0.0:8080", with(Some(Auth::Off))), None);
    for (listen, auth) in [
        ("0.0.0.0:8080", None),
        ("[::]:8080", None),
        ("127.0.0.1:8080", Some(Auth::Required)),
    ] {
        let sentence = words(listen, with(auth)).unwrap();
        assert!(
            sentence.starts_with("`auth` is") && sentence.contains("`auth: off`"),
            "{sentence}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let bad = AccessSettings {
        tokens: Some(tokens(&folder, &format!("{ALICE}\n"))),
        ..AccessSettings::default()
    };
    let sentence = words("0.0.0.0:8080", bad).unwrap();
    assert!(
        sentence.contains("line 1 has no name") && !sentence.contains(ALICE),
        "{sentence}"
    );
}

/// Asks as from an address, with headers.
async fn ask(router: &axum::Router, from: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    send_as(router, Request::get(path), from, headers).await
}

async fn send_as(
    router: &axum::Router,
    mut request: axum::http::request::Builder,
    from: &str,
    headers: &[(&str, &str)],
) -> Answer {
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::empty()).unwrap();
    let peer: SocketAddr = format!("{from}:4000").parse().unwrap();
    request.extensions_mut().insert(ConnectInfo(peer));
    send(router, request).await
}

/// DNS rebinding: to a browser on this host, a page whose name leads here is of the same origin as we are.
#[tokio::test]
async fn on_loopback_no_page_reaches_us_by_a_name_of_its_own() {
    let service = indexed();
    let router = |listen: &str, auth: Option<Auth>| {
        let access = AccessSettings {
            auth,
            ..AccessSettings::default()
        };
        Arc::new(open(listen, access).unwrap()).protect(service.router.clone())
    };
    let on_loopback = router("127.0.0.1:8080", None);
    let elsewhere = router("0.0.0.0:8080", Some(Auth::Off));
    for (router, host, path, status) in [
        (&on_loopback, "evil.example:8080", "/runbooks", 403),
        (&on_loopback, "evil.example:8080", "/?q=dns", 403),
        (&on_loopback, "evil.example:8080", "/healthz", 200),
        (&on_loopback, "localhost:8080", "/runbooks", 200),
        (&on_loopback, "127.0.0.1:8080", "/runbooks", 200),
        (&elsewhere, "runwire.ops.svc:8080", "/runbooks", 200),
    ] {
        let answer = ask(router, "127.0.0.1", path, &[("host", host)]).await;
        assert_eq!(answer.status.as_u16(), status, "{host} {path}");
        if status == 403 {
            assert_eq!(answer.json()["status"], 403);
            assert!(answer.body.contains("`external_url`"), "{}", answer.body);
        }
    }
}

/// The same page can send any header that a proxy on this host would, but not under a name that it does not own.
#[tokio::test]
async fn on_loopback_a_page_of_elsewhere_is_no_proxy() {
    let service = indexed();
    let settings = |listen: &str, external_url: &str| Settings {
        listen: Some(listen.parse().unwrap()),
        external_url: Some(external_url.into()),
        runbooks: Some(vec![std::env::temp_dir()]),
        access: AccessSettings {
            trusted_proxies: Some(vec![
                "127.0.0.1".parse().unwrap(),
                "10.0.0.0/8".parse().unwrap(),
            ]),
            ..AccessSettings::default()
        },
        ..Settings::default()
    };
    // Beside the proxy in a pod it may listen on all addresses.
    for listen in ["127.0.0.1:8080", "0.0.0.0:8080"] {
        let settings = settings(listen, "https://runwire.example.com");
        let config = Config::load(settings, "error").unwrap();
        let access = Access::open(&config, Arc::new(Metrics::default())).unwrap();
        let router = Arc::new(access).protect(service.router.clone());
        for (from, host, status) in [
            ("127.0.0.1", "evil.example:8080", 403),
            ("::ffff:127.0.0.1", "evil.example:8080", 403),
            // As oauth2-proxy passes requests on, and as nginx does.
            ("127.0.0.1", "runwire.example.com", 200),
            ("127.0.0.1", "127.0.0.1:8080", 200),
            ("127.0.0.1", "localhost:8080", 200),
            ("::ffff:127.0.0.1", "runwire", 200),
            // There it is a proxy and nothing else.
            ("10.1.2.3", "runwire.ops.example", 200),
        ] {
            let from = match from.contains(':') {
                true => format!("[{from}]"),
                false => from.to_owned(),
            };
            let headers = [("host", host), ("x-forwarded-user", "bob")];
            let answer = ask(&router, &from, "/runbooks", &headers).await;
            assert_eq!(answer.status.as_u16(), status, "{listen} {from} {host}");
            if status == 403 {
                assert!(answer.body.contains("`external_url`"), "{}", answer.body);
            }
            let nobody = ask(&router, &from, "/runbooks", &headers[..1]).await;
            assert_eq!(nobody.status, StatusCode::UNAUTHORIZED, "{from} {host}");
        }
    }
}

/// The proxy's cookie goes with a form that a page from elsewhere sends, and so does being on this host.
#[tokio::test]
async fn what_changes_something_comes_from_our_own_pages() {
    let folder = tempfile::tempdir().unwrap();
    let service = indexed();
    let router = |access: AccessSettings| {
        let access = open("127.0.0.1:8080", access).unwrap();
        Arc::new(access).protect(service.router.clone())
    };
    let anybody = router(AccessSettings::default());
    let users = router(AccessSettings {
        trusted_proxies: Some(vec!["127.0.0.1".parse().unwrap()]),
        tokens: Some(tokens(&folder, &format!("alice:{ALICE}\n"))),
        ..AccessSettings::default()
    });
    let bearer = format!("Bearer {ALICE}");
    let user = ("x-forwarded-user", "bob");
    let from_elsewhere = ("sec-fetch-site", "cross-site");
    let origin = ("origin", "https://evil.example");
    for (router, headers, refused) in [
        (&anybody, vec![from_elsewhere], true),
        (&anybody, vec![origin], true),
        (&anybody, vec![("origin", "http://localhost:8080")], false),
        (&anybody, vec![], false),
        (&users, vec![user, from_elsewhere], true),
        (&users, vec![user, origin], true),
        (
            &users,
            vec![user, ("sec-fetch-site", "same-origin"), origin],
            false,
        ),
        (&users, vec![user], false),
        // A page cannot know it.
        (&users, vec![("authorization", &*bearer), origin], false),
    ] {
        let headers = [vec![("host", "localhost:8080")], headers].concat();
        for path in ["/incidents/1/feedback", "/webhook/alertmanager", "/mcp"] {
            let answer = send_as(router, Request::post(path), "127.0.0.1", &headers).await;
            let is_refused = answer.status == StatusCode::FORBIDDEN;
            assert_eq!(is_refused, refused, "{path} {headers:?}: {}", answer.body);
        }
        // Links lead here from anywhere.
        let read = ask(router, "127.0.0.1", "/runbooks/tls", &headers).await;
        assert_eq!(read.status, StatusCode::OK, "{headers:?}");
    }
}

#[tokio::test]
async fn people_who_are_refused_get_a_page_and_programs_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let service = indexed();
    let router = |access: AccessSettings| {
        let access = open("127.0.0.1:8080", access).unwrap();
        api::with_pages(Arc::new(access).protect(service.router.clone()))
    };
    let anybody = router(AccessSettings::default());
    let users = router(AccessSettings {
        tokens: Some(tokens(&folder, &format!("alice:{ALICE}\n"))),
        rate_limit: Some(1),
        ..AccessSettings::default()
    });
    let bearer = format!("Bearer {ALICE}");
    let alice = ("authorization", &*bearer);
    for _ in 0..6 {
        ask(&users, "127.0.0.1", "/runbooks", &[alice]).await;
    }
    for (router, path, headers, status, words) in [
        (
            &users,
            "//evil.example/?q=%22%3Cb%3E",
            vec![alice],
            429,
            "href=\"/evil.example/?q=%22%3Cb%3E\">Try again",
        ),
        (&users, "/runbooks/tls", vec![], 401, "curl -H"),
        (
            &anybody,
            "/",
            vec![("host", "evil.example")],
            403,
            "external_url",
        ),
        (&anybody, "/nothing", vec![], 404, "href=\"/runbooks\""),
        (
            &anybody,
            "/runbooks/none",
            vec![],
            404,
            "href=\"/runbooks\"",
        ),
        (
            &anybody,
            "/incidents",
            vec![],
            503,
            "href=\"/incidents\">Try again",
        ),
    ] {
        let asked = |accept: &'static str| [headers.clone(), vec![("accept", accept)]].concat();
        let browser = asked("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");
        let page = ask(router, "127.0.0.1", path, &browser).await;
        assert_eq!(page.status.as_u16(), status, "{path}: {}", page.body);
        let kind = page.header(header::CONTENT_TYPE);
        assert_eq!(kind, "text/html; charset=utf-8", "{path}");
        let policy = page.header(header::CONTENT_SECURITY_POLICY);
        assert!(policy.starts_with("default-src 'none'"), "{path}");
        assert!(page.body.contains(words), "{words} in {}", page.body);
        assert!(page.body.contains("role=\"alert\""), "{}", page.body);
        // It looks like the others, although nothing else is shown.
        let style = page.body.split("stylesheet\" href=\"").nth(1).unwrap();
        let style = style.split('"').next().unwrap();
        assert_eq!(
            ask(router, "127.0.0.1", style, &headers).await.status,
            StatusCode::OK
        );

        let problem = ask(router, "127.0.0.1", path, &asked("*/*")).await;
        assert_eq!(problem.status.as_u16(), status, "{path}");
        assert_eq!(problem.json()["status"], status);
        for name in [header::RETRY_AFTER, header::WWW_AUTHENTICATE] {
            assert_eq!(page.header(name.clone()), problem.header(name));
        }
    }
}

#[tokio::test]
async fn tokens_and_proxies_let_in_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let access = AccessSettings {
        tokens: Some(tokens(&folder, &format!("alice:{ALICE}\n"))),
        trusted_proxies: Some(vec!["10.0.0.0/8".parse().unwrap()]),
        ..AccessSettings::default()
    };
    let service = indexed();
    let access = Arc::new(open("127.0.0.1:0", access).unwrap());
    let router = access.protect(service.router.clone());
    let bearer = format!("Bearer {ALICE}");
    let lower = format!("bearer {ALICE}");
    for (from, path, headers, status) in [
        ("192.0.2.1", "/runbooks", vec![], 401),
        ("192.0.2.1", "/nothing", vec![], 401),
        (
            "192.0.2.1",
            "/runbooks",
            vec![("authorization", "Bearer wrong")],
            401,
        ),
        (
            "192.0.2.1",
            "/runbooks",
            vec![("authorization", ALICE)],
            401,
        ),
        (
            "192.0.2.1",
            "/runbooks",
            vec![("authorization", "Basic YTpi")],
            401,
        ),
        (
            "192.0.2.1",
            "/runbooks",
            vec![("authorization", &*bearer)],
            200,
        ),
        (
            "192.0.2.1",
            "/runbooks",
            vec![("authorization", &*lower)],
            200,
        ),
        (
            "192.0.2.1",
            "/runbooks",
            vec![("x-forwarded-user", "mallory")],
            401,
        ),
        (
            "10.1.2.3",
            "/runbooks",
            vec![("x-forwarded-user", "bob")],
            200,
        ),
        (
            "10.1.2.3",
            "/runbooks",
            vec![("x-forwarded-user", "jürgen")],
            200,
        ),
        ("10.1.2.3", "/runbooks", vec![("x-forwarded-user", "")], 401),
        (
            "10.1.2.3",
            "/runbooks",
            vec![("x-forwarded-user", "bob"), ("x-forwarded-user", "eve")],
            401,
        ),
        (
            "10.1.2.3",
            "/runbooks",
            vec![("x-auth-request-user", "bob")],
            401,
        ),
        ("10.1.2.3", "/runbooks", vec![], 401),
        ("192.0.2.1", "/healthz", vec![], 200),
        ("192.0.2.1", "/readyz", vec![], 200),
        ("192.0.2.1", "/metrics", vec![], 200),
    ] {
        let answer = ask(&router, from, path, &headers).await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{from} {path} {headers:?}: {}",
            answer.body
        );
        if status == 401 {
            assert_eq!(answer.header(header::WWW_AUTHENTICATE), "Bearer");
            assert_eq!(
                answer.header(header::CONTENT_TYPE),
                "application/problem+json"
            );
            assert!(answer.json()["detail"].as_str().unwrap().len() > 20);
        }
    }
}

#[tokio::test]
async fn a_caller_that_asks_too_often_is_told_when_to_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let access = AccessSettings {
        tokens: Some(tokens(&folder, &format!("alice:{ALICE}\nbob:of-bob\n"))),
        metrics_auth: Some(Auth::Required),
        rate_limit: Some(1),
        ..AccessSettings::default()
    };
    let service = indexed();
    let router = Arc::new(open("127.0.0.1:0", access).unwrap()).protect(service.router.clone());
    let alice = format!("Bearer {ALICE}");
    let mut refused = None;
    for _ in 0..7 {
        let answer = ask(
            &router,
            "192.0.2.1",
            "/metrics",
            &[("authorization", &alice)],
        )
        .await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            refused = Some(answer);
        }
    }
    let refused = refused.expect("seven at once are more than five");
    assert_eq!(refused.header(header::RETRY_AFTER), "1");
    assert!(
        refused.json()["detail"]
            .as_str()
            .unwrap()
            .contains("one caller")
    );
    // Alertmanager sends again what it gets a 5xx for, and nothing else.
    let mut refused = None;
    for _ in 0..7 {
        let answer = ask(
            &router,
            "192.0.2.1",
            "/webhook/alertmanager",
            &[("authorization", &alice)],
        )
        .await;
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            refused = Some(answer);
        }
    }
    let refused = refused.expect("the limit is for notifications too");
    assert_eq!(refused.header(header::RETRY_AFTER), "1");
    let bob = ask(
        &router,
        "192.0.2.1",
        "/metrics",
        &[("authorization", "Bearer of-bob")],
    )
    .await;
    assert_eq!(bob.status, StatusCode::OK);
    assert_eq!(
        ask(&router, "192.0.2.1", "/metrics", &[]).await.status,
        StatusCode::UNAUTHORIZED
    );
}

/// Waits until a condition holds: files are looked at every two seconds.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn new_tokens_count_at_once_and_a_broken_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = tokens(&folder, &format!("alice:{ALICE}\n"));
    let access = AccessSettings {
        tokens: Some(path.clone()),
        ..AccessSettings::default()
    };
    let service = indexed();
    let access = Arc::new(open("127.0.0.1:0", access).unwrap());
    let troubles = Arc::new(Troubles::default());
    tokio::spawn(Arc::clone(&access).keep_fresh(Arc::clone(&troubles)));
    let router = access.protect(service.router.clone());
    let status = async |token: &str| {
        let bearer = format!("Bearer {token}");
        ask(
            &router,
            "192.0.2.1",
            "/runbooks",
            &[("authorization", &bearer)],
        )
        .await
        .status
    };
    assert_eq!(status(ALICE).await, StatusCode::OK);
    std::fs::write(&path, "a secret without a name\n").unwrap();
    eventually("the trouble is told", async || {
        troubles.all().contains_key("tokens")
    })
    .await;
    assert_eq!(status(ALICE).await, StatusCode::OK);
    let told = format!("{:?}", troubles.all());
    assert!(
        told.contains("line 1") && !told.contains("secret without"),
        "{told}"
    );
    std::fs::write(&path, "alice:another-token\n").unwrap();
    eventually("the new token counts", async || {
        status("another-token").await == StatusCode::OK
    })
    .await;
    assert_eq!(status(ALICE).await, StatusCode::UNAUTHORIZED);
    assert!(troubles.all().is_empty());
}

struct Running {
    address: SocketAddr,
    stop: watch::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

async fn run(tls: Option<tokio_rustls::TlsAcceptor>, limits: Limits) -> Running {
    let service = indexed();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(());
    let task = tokio::spawn(async move {
        let metrics = Metrics::default();
        server::serve(listener, service.router, tls, limits, &metrics, stopped).await;
    });
    Running {
        address,
        stop,
        task,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_is_cut_and_holds_up_nobody() {
    let limits = Limits {
        connections: 2,
        head: Duration::from_millis(300),
        answer: Duration::from_millis(600),
        unread: Duration::from_millis(300),
        farewell: Duration::from_millis(500),
    };
    let running = run(None, limits).await;
    let address = running.address;
    let cut = tokio::task::spawn_blocking(move || {
        let mut told = Vec::new();
        for bytes in [
            "",
            "GET / HTTP/1.1\r\nhost: a\r\nx:",
            "POST /search HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
            "POST /search HTTP/1.1\r\nhost: a\r\naccept: text/html\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
        ] {
            let started = Instant::now();
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            stream.write_all(bytes.as_bytes()).unwrap();
            let mut answer = String::new();
            // Closed or reset: either is an end.
            let _ = stream.read_to_string(&mut answer);
            assert!(started.elapsed() < Duration::from_secs(4), "{bytes}");
            told.push(answer);
        }
        // Both places are taken by clients that say nothing, and the third is served when they are gone.
        let idle: Vec<_> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        drop(idle);
        told.push(answer);
        told
    })
    .await
    .unwrap();
    assert!(
        cut[2].starts_with("HTTP/1.1 408") && cut[2].contains("too long"),
        "{}",
        cut[2]
    );
    assert!(
        cut[3].starts_with("HTTP/1.1 408") && cut[3].contains("<p>Go back and send it again.</p>"),
        "{}",
        cut[3]
    );
    assert!(cut[4].starts_with("HTTP/1.1 200"), "{}", cut[4]);
    drop(running.stop);
    tokio::time::timeout(Duration::from_secs(5), running.task)
        .await
        .unwrap()
        .unwrap();
}

/// A certificate for localhost and its key, made by openssl; `None` where there is none.
fn certificate(folder: &Path, name: &str) -> Option<(PathBuf, PathBuf)> {
    let (certificate, key) = (
        folder.join(format!("{name}.crt")),
        folder.join(format!("{name}.key")),
    );
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .args(["-days", "2", "-subj", &format!("/CN={name}")])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output();
    made.is_ok_and(|made| made.status.success())
        .then_some((certificate, key))
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "a skipped test must say so")]
async fn https_is_served_and_a_new_certificate_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (Some(first), Some(second)) = (
        certificate(folder.path(), "first"),
        certificate(folder.path(), "second"),
    ) else {
        println!("skipped: no openssl");
        return;
    };
    let (cert, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let put = |pair: &(PathBuf, PathBuf)| {
        std::fs::copy(&pair.0, &cert).unwrap();
        std::fs::copy(&pair.1, &key).unwrap();
    };
    put(&first);
    let certificate = Certificate::open(cert.clone(), key.clone()).unwrap();
    let troubles = Arc::new(Troubles::default());
    let metrics = Arc::new(Metrics::default());
    let running = run(Some(certificate.acceptor().unwrap()), Limits::default()).await;
    tokio::spawn(certificate.keep_fresh(Arc::clone(&troubles), Arc::clone(&metrics)));
    let trusts = async |pair: &(PathBuf, PathBuf)| {
        let authority = reqwest::Certificate::from_pem(&std::fs::read(&pair.0).unwrap()).unwrap();
        let client =
            runwire_assistant::prometheus::client_builder(Duration::from_secs(5), Vec::new())
                .tls_certs_only([authority])
                .build()
                .unwrap();
        let url = format!("https://localhost:{}/healthz", running.address.port());
        client
            .get(url)
            .send()
            .await
            .is_ok_and(|answer| answer.status().is_success())
    };
    assert!(trusts(&first).await && !trusts(&second).await);
    // A key that is not the certificate's: nothing changes, and it is told.
    std::fs::copy(&second.1, &key).unwrap();
    eventually("the trouble is told", async || {
        troubles.all().contains_key("tls_certificate")
    })
    .await;
    assert!(trusts(&first).await);
    put(&second);
    eventually("the new certificate is shown", async || {
        trusts(&second).await
    })
    .await;
    assert!(!trusts(&first).await && troubles.all().is_empty());
    assert!(metrics.encode().contains(
        "runwire_assistant_file_reloads_total{key=\"tls_certificate\",outcome=\"refused\"} 1"
    ));
}
