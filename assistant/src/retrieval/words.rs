//! Text → words, the same for pages and questions. A name is kept whole and also taken apart:
//! `KubePodCrashLooping` is found by «kube pod crash looping», and `net.core.somaxconn` by «somaxconn».

/// Longer runs are hashes and base64: no one asks for them.
const MAX_WORD_BYTES: usize = 80;

/// Every word of the text in its order, lower case, names both whole and in parts.
pub fn words(text: &str) -> Vec<String> {
    analyse(text).into_iter().map(|word| word.text).collect()
}

pub(super) struct Word {
    pub(super) text: String,
    /// Its parts follow as words of their own.
    pub(super) is_compound: bool,
}

pub(super) fn analyse(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    for run in text.split(|c: char| !(c.is_alphanumeric() || is_joint(c))) {
        let run = run.trim_matches(is_joint);
        if run.is_empty() {
            continue;
        }
        let pieces: Vec<&str> = run
            .split(is_joint)
            .filter(|piece| !piece.is_empty())
            .collect();
        if pieces.len() > 1 {
            push(&mut words, run, true);
        }
        for piece in pieces {
            let scripts: Vec<&str> = by_script(piece).collect();
            if scripts.len() > 1 {
                push(&mut words, piece, true);
            }
            for part in scripts {
                if part.starts_with(is_unspaced) {
                    pairs(part, &mut words);
                } else {
                    name(part, &mut words);
                }
            }
        }
    }
    words
}

fn name(name: &str, words: &mut Vec<Word>) {
    let humps = humps(name);
    push(words, name, humps.len() > 1);
    if humps.len() > 1 {
        for hump in humps {
            push(words, hump, false);
        }
    }
}

/// Where words are not set apart, any two letters that follow each other are taken for one: no dictionary, and what is asked
/// for is found inside a sentence.
fn pairs(text: &str, words: &mut Vec<Word>) {
    let letters: Vec<(usize, char)> = text.char_indices().collect();
    let Some(last) = letters.len().checked_sub(1) else {
        return;
    };
    if last != 1 {
        push(words, text, last > 1);
    }
    for pair in letters.windows(2) {
        push(
            words,
            &text[pair[0].0..pair[1].0 + pair[1].1.len_utf8()],
            false,
        );
    }
}

/// Runs of letters that are all of scripts without spaces between words, or none of them.
fn by_script(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let unspaced = is_unspaced(rest.chars().next()?);
        let end = rest.find(|c| is_unspaced(c) != unspaced);
        let (run, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        Some(run)
    })
}

/// Chinese, Japanese, Thai, Lao, Burmese and Khmer, and Korean, whose endings stick to its words.
fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{e00}'..='\u{eff}'
            | '\u{1000}'..='\u{109f}'
            | '\u{1780}'..='\u{17ff}'
            | '\u{3005}'..='\u{30ff}'
            | '\u{3400}'..='\u{4dbf}'
            | '\u{4e00}'..='\u{9fff}'
            | '\u{ac00}'..='\u{d7af}'
            | '\u{f900}'..='\u{faff}'
            | '\u{20000}'..='\u{323af}')
}

/// `CamelCase` → `Camel`, `Case`; `HTTPServer` → `HTTP`, `Server`; one element if there is nothing to take apart.
pub fn humps(word: &str) -> Vec<&str> {
    let chars: Vec<(usize, char)> = word.char_indices().collect();
    let mut humps = Vec::new();
    let mut start = 0;
    for at in 1..chars.len() {
        let (offset, this) = chars[at];
        let before = chars[at - 1].1;
        let next_is_lower = chars
            .get(at + 1)
            .is_some_and(|(_, next)| next.is_lowercase());
        let begins = this.is_uppercase()
            && (before.is_lowercase()
                || before.is_numeric()
                || (before.is_uppercase() && next_is_lower));
        if begins {
            humps.push(&word[start..offset]);
            start = offset;
        }
    }
    humps.push(&word[start..]);
    humps
}

fn is_joint(c: char) -> bool {
    matches!(c, '_' | '-' | '.' | ':')
}

fn push(words: &mut Vec<Word>, word: &str, is_compound: bool) {
    if word.len() <= MAX_WORD_BYTES {
        words.push(Word {
            text: word.to_lowercase(),
            is_compound,
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_kept_whole_and_taken_apart() {
        for (text, expected) in [
            (
                "KubePodCrashLooping",
                "kubepodcrashlooping kube pod crash looping",
            ),
            ("HTTPServer2Go", "httpserver2go http server2 go"),
            (
                "net.core.somaxconn",
                "net.core.somaxconn net core somaxconn",
            ),
            ("kube-dns_x", "kube-dns_x kube dns x"),
            (
                "dial tcp 10.96.0.10:53: i/o timeout",
                "dial tcp 10.96.0.10:53 10 96 0 10 53 i o timeout",
            ),
            (
                "ECONNREFUSED, (connection refused).",
                "econnrefused connection refused",
            ),
            ("Größe -- ... _", "größe"),
            ("磁盘已满, CPU高", "磁盘已满 磁盘 盘已 已满 cpu高 cpu 高"),
            ("", ""),
        ] {
            assert_eq!(words(text).join(" "), expected, "{text}");
        }
    }

    #[test]
    fn a_sentence_without_spaces_is_found_by_its_words() {
        let sentence =
            words(&"ノードのディスクが一杯になると新しいポッドは起動できません".repeat(3));
        for word in words("ディスク").iter().skip(1) {
            assert!(sentence.contains(word), "{word}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_lower_case_words(text in "\\PC{0,200}") {
            for word in words(&text) {
                prop_assert!(!word.is_empty());
                prop_assert_eq!(&word.to_lowercase(), &word);
            }
        }
    }
}
