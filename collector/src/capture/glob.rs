//! Which interfaces are meant, as a user writes it: `eth*,veth*,!veth0`.

use std::fmt;
use std::str::FromStr;

/// The kernel's limit (IFNAMSIZ), without the zero at the end.
const LONGEST_NAME: usize = 15;
const EXPECTED: &str = "write patterns of interface names such as eth*,veth[0-9]*,!veth0";

/// Patterns of which one must match and none with `!` in front may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Globs {
    wanted: Vec<Glob>,
    excluded: Vec<Glob>,
}

impl Globs {
    pub fn matches(&self, name: &str) -> bool {
        let any = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(name));
        // Who only says what is not wanted wants the rest.
        (self.wanted.is_empty() || any(&self.wanted)) && !any(&self.excluded)
    }
}

impl Default for Globs {
    fn default() -> Self {
        "*,!lo".parse().expect("the default is well formed")
    }
}

impl FromStr for Globs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut globs = Self {
            wanted: Vec::new(),
            excluded: Vec::new(),
        };
        for pattern in text.split(',').map(str::trim) {
            match pattern.strip_prefix('!') {
                Some(pattern) => globs.excluded.push(pattern.parse()?),
                None => globs.wanted.push(pattern.parse()?),
            }
        }
        Ok(globs)
    }
}

impl fmt::Display for Globs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = self.wanted.iter().map(|glob| glob.text.clone());
        let excluded = self.excluded.iter().map(|glob| format!("!{}", glob.text));
        formatter.write_str(&wanted.chain(excluded).collect::<Vec<_>>().join(","))
    }
}

/// `*`: any letters; `?`: one letter; `[a-c7]`: one of these; `[!a]`: any but these.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Glob {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Letter(char),
    AnyLetter,
    AnyLetters,
    OneOf {
        ranges: Vec<(char, char)>,
        inverted: bool,
    },
}

impl Glob {
    fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        // Which beginnings of the name the parts so far match.
        let mut ends = vec![false; name.len() + 1];
        ends[0] = true;
        for part in &self.parts {
            let mut next = vec![false; name.len() + 1];
            for (end, _) in ends.iter().enumerate().filter(|(_, reached)| **reached) {
                match name.get(end) {
                    _ if *part == Part::AnyLetters => next[end..].fill(true),
                    Some(&letter) if part.takes(letter) => next[end + 1] = true,
                    _ => {}
                }
            }
            ends = next;
        }
        ends[name.len()]
    }
}

impl Part {
    fn takes(&self, letter: char) -> bool {
        match self {
            Self::Letter(wanted) => *wanted == letter,
            Self::AnyLetter => true,
            Self::AnyLetters => false,
            Self::OneOf { ranges, inverted } => {
                let found = ranges
                    .iter()
                    .any(|&(from, to)| (from..=to).contains(&letter));
                found != *inverted
            }
        }
    }
}

impl FromStr for Glob {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            parts.push(match letter {
                '*' => Part::AnyLetters,
                '?' => Part::AnyLetter,
                '[' => one_of(&mut letters)?,
                // None of these is in a name.
                ']' | '/' | '!' | '{' | '}' | '\\' | '"' => return Err(EXPECTED.to_owned()),
                letter if letter.is_whitespace() => return Err(EXPECTED.to_owned()),
                letter => Part::Letter(letter),
            });
        }
        let shortest = parts.iter().filter(|part| **part != Part::AnyLetters);
        if parts.is_empty() || shortest.count() > LONGEST_NAME {
            return Err(EXPECTED.to_owned());
        }
        Ok(Self {
            text: text.to_owned(),
            parts,
        })
    }
}

/// What follows `[`.
fn one_of(letters: &mut std::str::Chars<'_>) -> Result<Part, String> {
    let (set, rest) = letters.as_str().split_once(']').ok_or(EXPECTED)?;
    *letters = rest.chars();
    let (set, inverted) = match set.strip_prefix(['!', '^']) {
        Some(set) => (set, true),
        None => (set, false),
    };
    let set: Vec<char> = set.chars().collect();
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < set.len() {
        let is_range = set.get(at + 1) == Some(&'-') && at + 2 < set.len();
        let to = if is_range { set[at + 2] } else { set[at] };
        if to < set[at] {
            return Err(EXPECTED.to_owned());
        }
        ranges.push((set[at], to));
        at += if is_range { 3 } else { 1 };
    }
    match ranges.is_empty() {
        true => Err(EXPECTED.to_owned()),
        false => Ok(Part::OneOf { ranges, inverted }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_match_as_in_a_shell() {
        let check = |globs: &str, yes: &[&str], no: &[&str]| {
            let globs: Globs = globs.parse().unwrap();
            for name in yes {
                assert!(globs.matches(name), "{globs} {name}");
            }
            for name in no {
                assert!(!globs.matches(name), "{globs} {name}");
            }
        };
        check("*", &["lo", "eth0"], &[]);
        check("*,!lo", &["eth0", "lo0"], &["lo"]);
        check("eth?", &["eth0"], &["eth", "eth10", "xeth0"]);
        check("veth*,eth0", &["veth", "veth1a2b", "eth0"], &["eth1"]);
        check("en[ps]*[0-9]", &["enp3s0", "ens1"], &["eno1", "enp"]);
        check("v[!a-c]*", &["vd", "vzz"], &["va", "v", "vcc"]);
        check("!docker*,!lo", &["eth0"], &["lo", "docker0"]);
        check("*a*b*", &["ab", "xaxbx"], &["ba", "a"]);
        check("eth0.100", &["eth0.100"], &["eth0x100"]);
        check("e-[-a]", &["e--", "e-a"], &["e-b"]);
        assert_eq!(Globs::default().to_string(), "*,!lo");
    }

    #[test]
    fn what_cannot_be_a_name_is_refused() {
        for text in [
            "",
            "a,,b",
            "eth[",
            "eth]",
            "a/b",
            "a b",
            "!",
            "!!a",
            "[]",
            "[z-a]",
            "{a}",
            "sixteen-letters-",
        ] {
            let refused = text.parse::<Globs>().unwrap_err();
            assert_eq!(refused, EXPECTED, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_text_is_refused_or_read_back(text in ".{0,24}", name in "[a-z0-9.@-]{1,15}") {
            if let Ok(globs) = text.parse::<Globs>() {
                let again: Globs = globs.to_string().parse().unwrap();
                prop_assert_eq!(globs.matches(&name), again.matches(&name));
            }
        }

        #[test]
        fn a_name_matches_itself(name in "[a-z0-9.@-]{1,15}") {
            let globs: Globs = name.parse().unwrap();
            prop_assert!(globs.matches(&name));
        }
    }
}
