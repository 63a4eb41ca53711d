//! Who we are to Prometheus: headers of a tenant, a token or a password from a file, authorities to believe.

use std::sync::Arc;

use reqwest::Certificate;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::config::{ConfigError, IdentitySettings};
use crate::hash::base64;
use crate::watched::Watched;

/// What is sent with every query. Nothing of it is ever shown.
#[derive(Clone, Default)]
pub struct Identity {
    pub(super) headers: HeaderMap,
    pub(super) authorities: Vec<Certificate>,
    secret: Option<Arc<Secret>>,
}

struct Secret {
    /// `None`: a bearer token.
    user: Option<String>,
    file: Watched<String>,
}

impl Identity {
    pub fn open(keys: &IdentitySettings) -> Result<Self, ConfigError> {
        let mut headers = HeaderMap::new();
        for header in keys.prometheus_headers.iter().flatten() {
            let (name, value) = parse_header(header).ok_or_else(|| {
                ConfigError::value(
                    "prometheus_headers",
                    "has an item that is no header; write `X-Scope-OrgID: team`",
                )
            })?;
            headers.append(name, value);
        }
        let authorities = match &keys.prometheus_ca {
            Some(path) => {
                let wrong = |reason: String| {
                    let path = path.display();
                    ConfigError::value(
                        "prometheus_ca",
                        format!(
                            "names {path}, which cannot be used: {reason}; give certificates in PEM"
                        ),
                    )
                };
                let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
                let found =
                    Certificate::from_pem_bundle(&pem).map_err(|error| wrong(error.to_string()))?;
                if found.is_empty() {
                    return Err(wrong("there is no certificate in it".into()));
                }
                found
            }
            None => Vec::new(),
        };
        let (key, path, user) = match (
            &keys.prometheus_token,
            &keys.prometheus_user,
            &keys.prometheus_password,
        ) {
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
                return Err(ConfigError::value(
                    "prometheus_token",
                    "is set, and so is a user or a password; give one or the other",
                ));
            }
            (None, Some(_), None) => {
                return Err(ConfigError::value(
                    "prometheus_password",
                    "is not set, but `prometheus_user` is; give the file with the password",
                ));
            }
            (None, None, Some(_)) => {
                return Err(ConfigError::value(
                    "prometheus_user",
                    "is not set, but `prometheus_password` is; give the name of the user",
                ));
            }
            (Some(path), None, None) => ("prometheus_token", path, None),
            (None, Some(user), Some(path)) => ("prometheus_password", path, Some(user.clone())),
            (None, None, None) => {
                return Ok(Self {
                    headers,
                    authorities,
                    secret: None,
                });
            }
        };
        let parse = match &user {
            Some(_) => parse_secret,
            None => parse_token,
        };
        let file = Watched::open(key, vec![path.clone()], parse)
            .map_err(|reason| ConfigError::value(key, reason))?;
        Ok(Self {
            headers,
            authorities,
            secret: Some(Arc::new(Secret { user, file })),
        })
    }

    pub(super) fn file(&self) -> Option<&Watched<String>> {
        self.secret.as_ref().map(|secret| &secret.file)
    }

    /// The Authorization header as the file has it now.
    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        let secret = self.secret.as_ref()?;
        let word = secret.file.current();
        let text = match &secret.user {
            Some(user) => format!("Basic {}", base64(format!("{user}:{word}").as_bytes())),
            None => format!("Bearer {word}"),
        };
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

fn parse_header(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':')?;
    let mut value = HeaderValue::from_str(value.trim()).ok()?;
    value.set_sensitive(true);
    Some((HeaderName::try_from(name.trim()).ok()?, value))
}

/// A header takes no other characters: without a word, queries would be sent as nobody's.
fn parse_token(files: &[Vec<u8>]) -> Result<String, String> {
    let line = parse_secret(files)?;
    let token = line.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a token has no spaces and none but ASCII's characters".into());
    }
    Ok(token.to_owned())
}

/// One line, as editors and Kubernetes leave it: with or without an end, or a mark of its encoding.
fn parse_secret(files: &[Vec<u8>]) -> Result<String, String> {
    let text = files.first().map(Vec::as_slice).unwrap_or_default();
    let text = std::str::from_utf8(text).map_err(|_| "it is not text in UTF-8".to_owned())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() || text.contains(char::is_control) {
        return Err("it must hold one line".into());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_token_is_told_and_not_left_out() {
        let token = |text: &str| parse_token(&[text.as_bytes().to_vec()]);
        for text in ["eyJ.a-b_c=", "eyJ.a-b_c= \r\n", "\u{feff}eyJ.a-b_c=\n"] {
            assert_eq!(token(text).as_deref(), Ok("eyJ.a-b_c="), "{text:?}");
        }
        for text in ["", "\n", "tökén", "two words", "two\nlines"] {
            let error = token(text).unwrap_err();
            assert!(!error.contains("ö") && !error.contains("words"), "{error}");
        }
        assert_eq!(
            parse_secret(&["pässword ".into()]).as_deref(),
            Ok("pässword ")
        );
    }
}
