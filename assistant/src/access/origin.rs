//! Whether a page from elsewhere had the browser send a request (CSRF): a form is sent with all that the browser is known by,
//! such as the cookie of a proxy that logs users in. As Go's `http.CrossOriginProtection` decides it.

use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};

use super::names::Names;

/// Every browser since 2023 sends `Sec-Fetch-Site`, except over plain HTTP; `Origin` they send with whatever changes something.
/// Who sends neither is no browser.
pub(super) fn is_elsewhere(headers: &HeaderMap, names: &Names) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return !matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(origin) = headers.get(ORIGIN) else {
        return false;
    };
    let Some(origin) = origin.to_str().ok().and_then(authority) else {
        return true;
    };
    // A proxy may pass on the name that it was asked for, or say it. A page from elsewhere can have neither sent: it is not
    // asked by its name, and to add a header it would have to ask us first.
    let is_ours = |name: &str| {
        let names = headers.get_all(name).iter();
        names.filter_map(|name| name.to_str().ok()).any(|name| {
            authority(&format!("http://{name}")).as_deref() == Some(&*origin)
                || authority(&format!("https://{name}")).as_deref() == Some(&*origin)
        })
    };
    !(is_ours(HOST.as_str()) || is_ours("x-forwarded-host") || origin == names.authority)
}

/// `https://Host:443/path` → `host`, `http://host:8080` → `host:8080`; none of `null`.
pub(super) fn authority(address: &str) -> Option<String> {
    let (scheme, rest) = address.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?.to_ascii_lowercase();
    let usual = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return None,
    };
    let authority = authority.strip_suffix(usual).unwrap_or(&authority);
    (!authority.is_empty()).then(|| authority.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_says_where_a_request_comes_from() {
        let names = Names::of("https://Runwire.example.com/ops");
        for (headers, elsewhere) in [
            // Alertmanager, curl.
            (&[("host", "runwire:8080")][..], false),
            (&[("host", "a"), ("sec-fetch-site", "same-origin")], false),
            (&[("host", "a"), ("sec-fetch-site", "none")], false),
            (&[("host", "a"), ("sec-fetch-site", "cross-site")], true),
            // Another program on this host, another service of the company.
            (&[("host", "a"), ("sec-fetch-site", "same-site")], true),
            (&[("host", "a"), ("origin", "http://a")], false),
            (&[("host", "A:80"), ("origin", "http://a")], false),
            (&[("host", "a:443"), ("origin", "https://a")], false),
            (&[("host", "a:8080"), ("origin", "http://a:8080")], false),
            (&[("host", "a:8080"), ("origin", "http://a:3000")], true),
            (&[("host", "a"), ("origin", "http://evil.example")], true),
            (&[("host", "a"), ("origin", "null")], true),
            (&[("host", "a"), ("origin", "chrome-extension://a")], true),
            // Behind a proxy that asks by an address of ours, and an old browser.
            (
                &[
                    ("host", "127.0.0.1:8080"),
                    ("origin", "https://runwire.example.com"),
                ],
                false,
            ),
            (
                &[
                    ("host", "127.0.0.1:8080"),
                    ("x-forwarded-host", "ops.example"),
                    ("origin", "https://ops.example"),
                ],
                false,
            ),
        ] {
            let map = HeaderMap::from_iter(
                headers
                    .iter()
                    .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())),
            );
            assert_eq!(is_elsewhere(&map, &names), elsewhere, "{headers:?}");
        }
    }
}
