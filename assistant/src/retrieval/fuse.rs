//! Lexical and dense scores → one, on an absolute scale: 0 means nothing in common, 1 all that there could be. Ranks
//! would not do: the best of many bad passages has rank one too, and nobody could tell that it is no answer.

/// What speaks for a passage, each between 0 and 1.
#[derive(Debug, Clone, Copy, Default)]
pub struct Signals {
    /// BM25 of the passage, of its whole page, of the page's title and names.
    pub passage_words: f32,
    pub page_words: f32,
    pub title_words: f32,
    /// 1 if the question names an alert of the page.
    pub name: f32,
    /// Cosine to the passage, and to the page's title and first words.
    pub passage_meaning: f32,
    pub intro_meaning: f32,
}

/// Chosen on the development queries of the retrieval corpus; within a factor of two they hardly matter.
const PASSAGE_WORDS: f32 = 0.5;
const PAGE_WORDS: f32 = 0.5;
const TITLE_WORDS: f32 = 0.3;
const NAME: f32 = 0.3;
const PASSAGE_MEANING: f32 = 1.0;
/// Runbooks say their symptom in the first sentence, so for a question in plain words the intro is what fits; an error
/// line or a payload fits a passage.
const INTRO_MEANING_PROSE: f32 = 0.75;
const INTRO_MEANING_OTHER: f32 = 0.25;

/// A page below this is about something else. A sentence shares fewer words with its answer than an error line does.
/// Set on the development queries of the retrieval corpus, of which only twelve have no answer: a first guess.
const ANSWERABLE_PROSE: f32 = 0.25;
const ANSWERABLE_OTHER: f32 = 0.29;
/// The same where there are words only.
pub const ANSWERABLE_WORDS_ONLY: f32 = 0.25;

impl Signals {
    pub fn score(&self, question: QuestionKind) -> f32 {
        let intro = match question {
            QuestionKind::Prose => INTRO_MEANING_PROSE,
            QuestionKind::Other => INTRO_MEANING_OTHER,
        };
        let all = PASSAGE_WORDS + PAGE_WORDS + TITLE_WORDS + PASSAGE_MEANING + intro;
        let sum = PASSAGE_WORDS * self.passage_words
            + PAGE_WORDS * self.page_words
            + TITLE_WORDS * self.title_words
            + NAME * self.name
            + PASSAGE_MEANING * self.passage_meaning.max(0.0)
            + intro * self.intro_meaning.max(0.0);
        (sum / all).min(1.0)
    }

    pub fn score_of_words(&self) -> f32 {
        let all = PASSAGE_WORDS + PAGE_WORDS + TITLE_WORDS;
        let sum = PASSAGE_WORDS * self.passage_words
            + PAGE_WORDS * self.page_words
            + TITLE_WORDS * self.title_words
            + NAME * self.name;
        (sum / all).min(1.0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionKind {
    /// A person's sentence.
    Prose,
    /// Names, error lines, payloads.
    Other,
}

impl QuestionKind {
    /// The least score of an answer.
    pub fn answerable(self) -> f32 {
        match self {
            Self::Prose => ANSWERABLE_PROSE,
            Self::Other => ANSWERABLE_OTHER,
        }
    }
}

const STOP_WORDS: &str = " a about after again all also am an and any are as at be because been before but by can cannot could did do does \
     doing don down every for from get gets got had has have he her how i if in into is it its just keep keeps me more my new no not now of \
     off on once one only or other our out over same she should since so some still than that the their them then there these they this to too \
     until up us very was we were what when where which while who why will with would you your ";

/// At least this share of a sentence's words carries no meaning of its own.
const STOP_WORD_SHARE: f32 = 0.22;

pub fn kind_of(question: &str) -> QuestionKind {
    let marks = ["=", "{", "}", "\"", "::", "->"];
    if marks.iter().any(|mark| question.contains(mark)) {
        return QuestionKind::Other;
    }
    let mut words = 0.0_f32;
    let mut stops = 0.0_f32;
    for word in question.split(|c: char| !(c.is_alphanumeric() || c == '\'')) {
        if word.is_empty() {
            continue;
        }
        if word.chars().all(char::is_alphabetic) && super::words::humps(word).len() > 1 {
            return QuestionKind::Other;
        }
        words += 1.0;
        let stem = word.split('\'').next().unwrap_or(word).to_lowercase();
        if STOP_WORDS.contains(&format!(" {stem} ")) {
            stops += 1.0;
        }
    }
    if words > 0.0 && stops / words >= STOP_WORD_SHARE {
        QuestionKind::Prose
    } else {
        QuestionKind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_told_from_lines_of_logs() {
        for (question, kind) in [
            (
                "our app keeps dying a few seconds after boot",
                QuestionKind::Prose,
            ),
            ("dial tcp 10.96.0.10:53: i/o timeout", QuestionKind::Other),
            (
                "the alert KubePodCrashLooping is firing",
                QuestionKind::Other,
            ),
            ("alertname=\"X\" is on", QuestionKind::Other),
            ("etcd compaction defrag", QuestionKind::Other),
            ("", QuestionKind::Other),
        ] {
            assert_eq!(kind_of(question), kind, "{question}");
        }
    }

    #[test]
    fn nothing_in_common_is_0_and_everything_is_1() {
        let all = Signals {
            passage_words: 1.0,
            page_words: 1.0,
            title_words: 1.0,
            name: 1.0,
            passage_meaning: 1.0,
            intro_meaning: 1.0,
        };
        for kind in [QuestionKind::Prose, QuestionKind::Other] {
            assert_eq!(Signals::default().score(kind), 0.0);
            assert_eq!(all.score(kind), 1.0);
        }
        assert_eq!(all.score_of_words(), 1.0);
    }
}
