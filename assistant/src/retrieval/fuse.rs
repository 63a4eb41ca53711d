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

/// How passages are ordered. All but the first are there to be compared with it, see `runwire-eval retrieval`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ranking {
    /// Every signal on an absolute scale, and the pages of a named alert first.
    #[default]
    Fused,
    /// BM25 and cosine of the passage, added.
    Sum,
    /// The two by their ranks (Cormack, Clarke and Büttcher, SIGIR 2009), k = 60.
    ReciprocalRank,
    Meaning,
    Words,
}

/// Where a passage stands in the two lists, from 0.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ranks {
    pub words: Option<usize>,
    pub meaning: Option<usize>,
}

const RECIPROCAL_RANK_K: f32 = 60.0;

impl Ranking {
    /// Between 0 and 1.
    pub fn score(self, signals: &Signals, question: QuestionKind, ranks: Ranks) -> f32 {
        let meaning = signals.passage_meaning.max(0.0);
        match self {
            Self::Fused => signals.score(question),
            Self::Sum => (signals.passage_words + meaning) / 2.0,
            Self::ReciprocalRank => {
                let of = |rank: Option<usize>| {
                    rank.map_or(0.0, |rank| {
                        (RECIPROCAL_RANK_K + 1.0) / (RECIPROCAL_RANK_K + 1.0 + rank as f32)
                    })
                };
                (of(ranks.words) + of(ranks.meaning)) / 2.0
            }
            Self::Meaning => meaning,
            Self::Words => signals.passage_words,
        }
    }
}

/// How much each signal counts.
struct Weights {
    passage_words: f32,
    page_words: f32,
    title_words: f32,
    name: f32,
    passage_meaning: f32,
    intro_meaning: f32,
}

/// A person's sentence shares few words with its answer, and most of them in one place; runbooks say their symptom in the first
/// sentences.
const PROSE: Weights = Weights {
    passage_words: 1.0,
    page_words: 0.25,
    title_words: 0.15,
    name: 0.3,
    passage_meaning: 1.0,
    intro_meaning: 0.75,
};
/// An error line or a payload fits words, and a passage rather than the intro.
const OTHER: Weights = Weights {
    passage_words: 1.1,
    page_words: 1.1,
    title_words: 0.3,
    name: 0.3,
    passage_meaning: 1.0,
    intro_meaning: 0.25,
};

/// A page below this is about something else. Set on questions over three corpora: 193 of 198 with an answer get it, see
/// `eval/RESULTS.md`.
pub const ANSWERABLE: f32 = 0.26;
/// The same where there are words only.
pub const ANSWERABLE_WORDS_ONLY: f32 = 0.22;

impl Signals {
    pub fn score(&self, question: QuestionKind) -> f32 {
        let weights = question.weights();
        let (words, all_words) = self.weigh_words(&weights);
        let sum = words
            + weights.passage_meaning * self.passage_meaning.max(0.0)
            + weights.intro_meaning * self.intro_meaning.max(0.0);
        (sum / (all_words + weights.passage_meaning + weights.intro_meaning)).min(1.0)
    }

    /// Among passages of one page, which share all that is said of the page, words count as much as meaning: the section is
    /// asked for by its name.
    pub fn score_within_page(&self) -> f32 {
        self.passage_words + self.passage_meaning.max(0.0)
    }

    pub fn score_of_words(&self) -> f32 {
        let (words, all_words) = self.weigh_words(&OTHER);
        (words / all_words).min(1.0)
    }

    /// With the most that it could be.
    fn weigh_words(&self, weights: &Weights) -> (f32, f32) {
        let sum = weights.passage_words * self.passage_words
            + weights.page_words * self.page_words
            + weights.title_words * self.title_words
            + weights.name * self.name;
        let all = weights.passage_words + weights.page_words + weights.title_words;
        (sum, all)
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
    fn weights(self) -> Weights {
        match self {
            Self::Prose => PROSE,
            Self::Other => OTHER,
        }
    }
}

const STOP_WORDS: &str = " a about after again all also am an and any are aren arent as at be because been before but by can cannot cant could couldn couldnt \
     did didn didnt do does doesn doesnt doing don dont down every for from get gets got had has have he her how i if in into is isn isnt it its just keep keeps me more my new no not now of \
     off on once one only or other our out over same she should since so some still than that the their them then there these they this to too \
     until up us very was wasn wasnt we were what when where which while who why will with won wont would you your ";

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
