//! The file of tokens: `NAME:TOKEN` or `NAME:sha256:HEX`, one a line; `#` begins a comment. No message shows what stands in it.

use std::sync::Arc;

use subtle::ConstantTimeEq;

use crate::hash::sha256;

/// Only hashes are kept: of equal length, so that comparing them takes equal time.
pub(super) struct Tokens(Vec<([u8; 32], Arc<str>)>);

impl Tokens {
    /// Looks at all of them, whether or not one of the first fits: time tells nothing.
    pub(super) fn name_of(&self, token: &[u8]) -> Option<Arc<str>> {
        let given = sha256(token);
        let mut found = None;
        for (hash, name) in &self.0 {
            if bool::from(hash.ct_eq(&given)) {
                found = Some(name);
            }
        }
        found.cloned()
    }
}

pub(super) fn parse(files: &[Vec<u8>]) -> Result<Tokens, String> {
    let text = files.first().map(Vec::as_slice).unwrap_or_default();
    let text = std::str::from_utf8(text).map_err(|_| "it is not text in UTF-8".to_owned())?;
    let mut tokens = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let token = token(line).map_err(|reason| format!("line {} {reason}", index + 1))?;
        tokens.push(token);
    }
    if tokens.is_empty() {
        return Err("there is no token in it; write NAME:TOKEN, one a line".into());
    }
    Ok(Tokens(tokens))
}

fn token(line: &str) -> Result<([u8; 32], Arc<str>), String> {
    let (name, token) = line
        .split_once(':')
        .ok_or("has no name; write NAME:TOKEN or NAME:sha256:HEX")?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(
            "has a name with other characters than letters, digits and ._-@ in front of its colon"
                .into(),
        );
    }
    let token = token.trim();
    if token.is_empty() || token.contains(char::is_whitespace) {
        return Err("has no token after its name, or one with spaces in it".into());
    }
    let hash = match token.strip_prefix("sha256:") {
        Some(hex) => {
            unhex(hex).ok_or("has something else than 64 hexadecimal digits after sha256:")?
        }
        None => sha256(token.as_bytes()),
    };
    Ok((hash, name.into()))
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Tokens, String> {
        parse(&[text.as_bytes().to_vec()])
    }

    #[test]
    fn tokens_are_known_plain_and_as_hashes() {
        let hash = crate::hash::hex(&sha256(b"of-carol"));
        let tokens = read(&format!(
            "# people\n\nalice: of-alice\nbob:b:o:b\ncarol:sha256:{hash}\n"
        ))
        .unwrap();
        let name = |token: &str| tokens.name_of(token.as_bytes());
        assert_eq!(name("of-alice").as_deref(), Some("alice"));
        assert_eq!(name("b:o:b").as_deref(), Some("bob"));
        assert_eq!(name("of-carol").as_deref(), Some("carol"));
        for wrong in ["", "of-alic", "of-alice2", hash.as_str()] {
            assert_eq!(name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_line_and_never_shown() {
        for (text, words) in [
            ("", "no token in it"),
            ("# only\n", "no token in it"),
            ("a:t\nsecret-value\n", "line 2 has no name"),
            ("a b:secret-value", "other characters"),
            ("a:", "no token after"),
            ("a:secret-value x", "spaces"),
            ("a:sha256:secret-value", "64 hexadecimal digits"),
        ] {
            let error = read(text).err().unwrap();
            assert!(
                error.contains(words) && !error.contains("secret-value"),
                "{text}: {error}"
            );
        }
    }
}
