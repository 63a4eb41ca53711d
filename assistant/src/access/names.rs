//! By which names we may be called where a browser on this host could be the one who asks. A page from elsewhere can have its
//! own name lead to this host (DNS rebinding); to the browser it is then of the same origin as we are, and sends any header
//! but `Host`, and those that begin with `Sec-`. The name that it asks for gives it away.

use std::net::IpAddr;

use axum::http::HeaderMap;
use axum::http::header::HOST;
use axum::http::uri::Authority;

/// Names with a dot that lead nowhere but to the host itself.
const LOCAL: [&str; 3] = ["localhost", "localdomain", "localdomain6"];

pub(super) struct Names {
    /// The host of `external_url`, under which a proxy may pass requests on.
    external: String,
    /// The same with its port, unless that is the usual one.
    pub(super) authority: String,
}

impl Names {
    pub(super) fn of(external_url: &str) -> Self {
        let rest = external_url.split_once("://").map_or("", |(_, rest)| rest);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        Self {
            external: host(authority).unwrap_or_default(),
            authority: super::origin::authority(external_url).unwrap_or_default(),
        }
    }

    /// A request without a name comes from no browser.
    pub(super) fn allow(&self, headers: &HeaderMap) -> bool {
        headers.get_all(HOST).iter().all(|value| {
            value.is_empty()
                || value
                    .to_str()
                    .is_ok_and(|value| host(value).is_some_and(|host| self.is_ours(&host)))
        })
    }

    /// Addresses, and names without a dot, nobody elsewhere can own.
    fn is_ours(&self, host: &str) -> bool {
        let last = host.rsplit('.').next().unwrap_or_default();
        host.parse::<IpAddr>().is_ok()
            || !host.contains('.')
            || LOCAL.contains(&last)
            || host == self.external
    }
}

/// `LocalHost.:8080` → `localhost`, `[::1]:8080` → `::1`
fn host(authority: &str) -> Option<String> {
    let authority: Authority = authority.parse().ok()?;
    let host = authority.host().trim_start_matches('[');
    let host = host.trim_end_matches([']', '.']).to_ascii_lowercase();
    (!host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_others_can_own_are_not_ours() {
        let names = Names::of("https://Runwire.example.com:8443/ops");
        let allow = |host: &str| {
            let headers = HeaderMap::from_iter([(HOST, host.parse().unwrap())]);
            names.allow(&headers)
        };
        for host in [
            "",
            "localhost",
            "LocalHost.:8080",
            "a.localhost:8080",
            "localhost.localdomain",
            "ip6-localhost",
            "127.0.0.1:8080",
            "[::1]:8080",
            "runwire",
            "runwire.example.com",
        ] {
            assert!(allow(host), "{host}");
        }
        for host in [
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "runwire.example.com.evil.example",
            "evil.example:80:80",
            "a b",
            "evil.example/localhost",
        ] {
            assert!(!allow(host), "{host}");
        }
        assert!(names.allow(&HeaderMap::new()));
    }
}
