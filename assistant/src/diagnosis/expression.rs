//! The PromQL of a piece of evidence, taken apart: `LEFT op NUMBER`. LEFT is what is asked, so that the value is known on
//! either side of the threshold. Everything is done on the parsed expression, never on its text.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use promql_parser::label::MatchOp;
use promql_parser::parser::token::{T_DIV, T_GTR, T_LAND, T_LUNLESS, T_MAX, T_NEQ, T_SUM};
use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};

use super::ranges::{LATEST, PLACEHOLDER, has_range, set_range, shift, windowed};
use super::scope::Scope;
use super::tree::{number, parts, without_parentheses};
use super::{bound, cost, narrow, spine, tree};

pub use super::comparison::Comparison;
pub use super::narrow::Names;

/// Stands for any names, to see where they would be asked for.
static PROBE: LazyLock<Names> =
    LazyLock::new(|| Names::new("probe").expect("a regular expression"));

/// Walking an expression recurses, so how deep one can be is bounded before it is parsed.
const MAX_LENGTH: usize = 8192;
const MAX_OPERATORS: usize = 256;

/// Windows of which an expression keeps the query: that of the default, and the recent parts of a few.
const MOST_WINDOWS: usize = 8;

#[derive(Debug, Clone)]
pub struct Expression {
    left: Expr,
    comparison: Comparison,
    threshold: f64,
    metrics: BTreeSet<String>,
    derived: Derived,
}

/// What follows from LEFT, worked out when it is first wanted: a question reads hundreds of expressions, and the next one the same.
#[derive(Debug, Default)]
struct Derived {
    spine: OnceLock<Option<Expr>>,
    floored: OnceLock<Option<Expr>>,
    is_of_pairs: OnceLock<bool>,
    bound: OnceLock<Option<Expr>>,
    /// LEFT as it is asked, by window; the latest few.
    queries: Mutex<Vec<(Duration, String)>>,
}

/// A clone is made to be changed.
impl Clone for Derived {
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    #[error("is not PromQL: {0}")]
    Syntax(String),
    #[error(
        "is too long or too deep: at most {MAX_LENGTH} characters and {MAX_OPERATORS} operators and brackets"
    )]
    TooComplex,
    #[error("must be a comparison with a number at its top level, as in `rate(x[5m]) > 0.1`")]
    NotComparison,
    #[error("must compare without `bool`, which would hide the series that are fine")]
    Bool,
    #[error("compares two numbers and asks for no metric")]
    NoMetric,
    #[error("has a selector without a plain metric name: `{0}`")]
    Unnamed(String),
}

impl Expression {
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        let expr = parsed(text)?;
        let Expr::Binary(binary) = without_parentheses(expr) else {
            return Err(ExpressionError::NotComparison);
        };
        let comparison = Comparison::of(binary.op).ok_or(ExpressionError::NotComparison)?;
        if binary.return_bool() {
            return Err(ExpressionError::Bool);
        }
        let (left, comparison, threshold) = match (number(&binary.lhs), number(&binary.rhs)) {
            (None, Some(threshold)) => (*binary.lhs, comparison, threshold),
            (Some(threshold), None) => (*binary.rhs, comparison.flipped(), threshold),
            (Some(_), Some(_)) => return Err(ExpressionError::NoMetric),
            (None, None) => return Err(ExpressionError::NotComparison),
        };
        let left = without_parentheses(left);
        let mut metrics = BTreeSet::new();
        collect_metrics(&left, &mut metrics)?;
        if metrics.is_empty() {
            return Err(ExpressionError::NoMetric);
        }
        Ok(Self {
            left,
            comparison,
            threshold,
            metrics,
            derived: Derived::default(),
        })
    }

    /// With every `[15s]` turned into `latest`.
    #[must_use]
    pub fn with_latest(self: Arc<Self>, latest: Duration) -> Arc<Self> {
        if latest == LATEST || !has_range(&self.left, LATEST) {
            return self;
        }
        let mut changed = Self::clone(&self);
        set_range(&mut changed.left, LATEST, latest);
        Arc::new(changed)
    }

    /// LEFT, with every `[5m]` turned into `window`.
    pub fn query(&self, window: Duration) -> String {
        let queries = &self.derived.queries;
        let mut queries = queries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = queries.iter().find(|(length, _)| *length == window) {
            return known.clone();
        }
        let query = windowed(&self.left, window).to_string();
        if queries.len() >= MOST_WINDOWS {
            queries.remove(0);
        }
        queries.push((window, query.clone()));
        query
    }

    /// [`Expression::query`] for the series alone that have the scope at an end; `None` where that cannot be said.
    pub fn query_for(&self, window: Duration, scope: &Scope) -> Option<String> {
        let left = windowed(&self.left, window);
        // Without a grouping all labels are kept.
        let labels = self.labels();
        let has = |label: &str| labels.as_ref().is_none_or(|labels| labels.contains(label));
        narrow::narrowed(&left, has, scope)
    }

    /// How many series are beyond the threshold over any of `windows`, of pairs between which workloads; no series where none is.
    /// `compared`: the threshold is for a change, so that any value may be beyond it, and it is not told between whom. Quantiles are
    /// bounded from above, so there may be fewer.
    pub fn query_beyond(&self, windows: &[Duration], compared: bool) -> String {
        let bound = self.bound().unwrap_or(&self.left);
        let look = |window: &Duration| windowed(bound, *window).to_string();
        let looks: BTreeSet<String> = windows.iter().map(look).collect();
        let beyond: Vec<String> = looks
            .into_iter()
            .map(|left| match compared {
                true => format!("({left})"),
                false => format!("(({left}) {} {})", self.comparison, self.threshold),
            })
            .collect();
        let beyond = beyond.join(" or ");
        match !compared && self.tells_pairs() {
            true => count_pairs(&beyond),
            false => format!("count({beyond})"),
        }
    }

    fn tells_pairs(&self) -> bool {
        let tells = |label| self.labels().is_some_and(|labels| labels.contains(label));
        tells("src_workload") && tells("dst_workload")
    }

    /// How many series of what it is about (see [`spine`]) are above 0; no series where none is. Then none is beyond the
    /// threshold, either, over `window` or any shorter one. `None`: that would not follow.
    pub fn query_spine(&self, window: Duration) -> Option<String> {
        let spine = windowed(self.spine()?, window);
        Some(format!("count(({spine}) > 0)"))
    }

    /// How many series of what it is about reach the floors that are set for them, over any of `windows`; no series where none does.
    /// Then none is beyond the threshold, either. `None`: there is no floor, or that would not follow.
    pub fn query_floored(&self, windows: &[Duration]) -> Option<String> {
        Some(format!("count({})", either_of(self.floored()?, windows)))
    }

    /// Between which workloads that is. Only pairs of these can be beyond the threshold. `None`: it is not about pairs, or there is no
    /// floor.
    pub fn query_floored_pairs(&self, windows: &[Duration]) -> Option<String> {
        let floored = self.floored().filter(|_| self.is_of_pairs())?;
        Some(count_pairs(&either_of(floored, windows)))
    }

    /// The same where [`Expression::query_spine`] finds any.
    pub fn query_spine_pairs(&self, window: Duration) -> Option<String> {
        let spine = self.spine().filter(|_| self.is_of_pairs())?;
        Some(count_pairs(&either_of(spine, &[window])))
    }

    /// Whether a filter on the result's pairs is one on the spine: without a spine between some pair, there is no result between it.
    fn is_of_pairs(&self) -> bool {
        let is_of_pairs = || {
            let probe = Self {
                left: self.left_among(&PROBE)?,
                ..self.clone()
            };
            let looks = [Some(probe.spine()?), probe.floored()];
            let mut looks = looks.into_iter().flatten();
            Some(looks.all(|look| narrow::is_of_pairs_among(look, &PROBE)))
        };
        let known = &self.derived.is_of_pairs;
        *known.get_or_init(|| is_of_pairs().unwrap_or(false))
    }

    /// The same for those series alone whose workloads are among `names` at every end that the result
    /// tells. `None`: it tells none, or that cannot be said of it.
    pub fn among(&self, names: &Names) -> Option<Self> {
        Some(Self {
            left: self.left_among(names)?,
            ..self.clone()
        })
    }

    /// [`Expression::among`] for the ends of pairs alone.
    pub fn of_pairs_among(&self, names: &Names) -> Option<Self> {
        let labels = self.labels()?;
        let left = narrow::of_pairs_among(&self.left, |label| labels.contains(label), names)?;
        Some(Self {
            left,
            ..self.clone()
        })
    }

    fn left_among(&self, names: &Names) -> Option<Expr> {
        let labels = self.labels()?;
        narrow::among(&self.left, |label| labels.contains(label), names)
    }

    /// How much work [`Expression::query_beyond`] is, in series that are read or made on the way. `series` says how many a
    /// metric has.
    pub fn cost(&self, series: &impl Fn(&str) -> f64) -> f64 {
        cost::of(self.bound().unwrap_or(&self.left), series)
    }

    /// The same of [`Expression::query_spine`].
    pub fn cost_of_spine(&self, series: &impl Fn(&str) -> f64) -> f64 {
        self.spine().map_or(0.0, |spine| cost::of(spine, series))
    }

    /// The same of [`Expression::query_floored`], for each window; `None` where there is no such query.
    pub fn cost_of_floored(&self, series: &impl Fn(&str) -> f64) -> Option<f64> {
        self.floored().map(|floored| cost::of(floored, series))
    }

    fn floored(&self) -> Option<&Expr> {
        let floored = || {
            if let Some(bound) = self.bound() {
                let value = bound::without_exclusions(bound)?;
                let least = tree::literal(self.threshold);
                return Some(tree::binary(T_GTR, tree::paren(value), least));
            }
            let many = self.wants_more_than_nothing();
            let floored = many.then(|| spine::with_floors(&self.left, self.threshold));
            floored
                .flatten()
                .or_else(|| spine::of_any_with_floors(&self.left))
        };
        self.derived.floored.get_or_init(floored).as_ref()
    }

    fn spine(&self) -> Option<&Expr> {
        let spine = || {
            let many = self.wants_more_than_nothing();
            let spine = many.then(|| spine::of(&self.left)).flatten();
            let spine = spine.or_else(|| spine::of_any(&self.left));
            spine.map(spine::of_sums)
        };
        self.derived.spine.get_or_init(spine).as_ref()
    }

    /// Whether only what is above 0 can be beyond the threshold.
    fn wants_more_than_nothing(&self) -> bool {
        match self.comparison {
            Comparison::Greater => self.threshold >= 0.0,
            Comparison::GreaterOrEqual => self.threshold > 0.0,
            _ => false,
        }
    }

    /// Whether [`Expression::query`] is sure to be no more work than [`Expression::query_beyond`], and its answer about as short:
    /// it leaves out what is below a floor, or [`Expression::query_spine`] has said as much already.
    pub fn is_sparse(&self) -> bool {
        let says_as_much = || {
            let spine = matches!(self.comparison, Comparison::Greater) && self.threshold == 0.0;
            spine && spine::of(&self.left).as_ref() == Some(&self.left)
        };
        !self.is_bounded() && (spine::of_any(&self.left).is_some() || says_as_much())
    }

    /// Whether [`Expression::query_beyond`] is much cheaper than the query itself.
    pub fn is_bounded(&self) -> bool {
        self.bound().is_some()
    }

    fn bound(&self) -> Option<&Expr> {
        let bound = || match self.comparison {
            Comparison::Greater | Comparison::GreaterOrEqual => bound::from_above(&self.left),
            _ => None,
        };
        self.derived.bound.get_or_init(bound).as_ref()
    }

    /// [`Expression::query`] as it was `back` earlier.
    pub fn query_before(&self, window: Duration, back: Duration) -> String {
        let mut left = windowed(&self.left, window);
        shift(&mut left, back);
        left.to_string()
    }

    /// [`Expression::query`] without the floors that leave out what is rare: `x >= 3` becomes `x`, and `x and y >= 3` too.
    /// Over a short range even a lasting fault is below them, and then only the bare value tells «still» from «no more». Below a floor
    /// of a rate it is not, so that stays, as the least that the rate is taken for.
    pub fn query_without_floors(&self, window: Duration) -> String {
        windowed(&without_floors(self.left.clone()), window).to_string()
    }

    /// Whether LEFT looks at a range, so that its value depends on the window.
    pub fn has_window(&self) -> bool {
        has_range(&self.left, PLACEHOLDER)
    }

    /// Whether it is about how much there is of something, and not about what happens: every `[5m]` is of a function such as
    /// `avg_over_time`. What is not there any more has no level, where what happens may only be rare.
    pub fn is_level(&self) -> bool {
        self.has_window() && !has_changes(&self.left)
    }

    pub fn holds(&self, value: f64) -> bool {
        let threshold = self.threshold;
        match self.comparison {
            Comparison::Greater => value > threshold,
            Comparison::GreaterOrEqual => value >= threshold,
            Comparison::Less => value < threshold,
            Comparison::LessOrEqual => value <= threshold,
            Comparison::Equal => value == threshold,
            Comparison::NotEqual => value != threshold,
        }
    }

    /// How far `value` is on the side of the threshold that counts: larger is stronger, in natural logarithms where
    /// threshold and value allow a ratio.
    pub fn strength(&self, value: f64) -> f64 {
        let ratio = match self.comparison {
            Comparison::Greater | Comparison::GreaterOrEqual => value / self.threshold,
            Comparison::Less | Comparison::LessOrEqual => self.threshold / value,
            Comparison::Equal | Comparison::NotEqual => return 0.0,
        };
        if ratio > 0.0 && ratio.is_finite() {
            ratio.ln()
        } else {
            0.0
        }
    }

    /// Orders values so that the one that shows the evidence best comes first.
    pub fn strongest_first(&self, a: f64, b: f64) -> std::cmp::Ordering {
        match self.comparison {
            Comparison::Less | Comparison::LessOrEqual => a.total_cmp(&b),
            Comparison::Greater
            | Comparison::GreaterOrEqual
            | Comparison::Equal
            | Comparison::NotEqual => b.total_cmp(&a),
        }
    }

    /// `> 0.01`
    pub fn threshold(&self) -> String {
        format!("{} {}", self.comparison, self.threshold)
    }

    pub fn threshold_value(&self) -> f64 {
        self.threshold
    }

    pub fn comparison(&self) -> Comparison {
        self.comparison
    }

    /// The names of the metrics it asks for.
    pub fn metrics(&self) -> &BTreeSet<String> {
        &self.metrics
    }

    /// The labels that a series of LEFT has, where the expression says so.
    pub fn labels(&self) -> Option<BTreeSet<String>> {
        result_labels(&self.left)
    }
}

/// The metrics that any expression reads, each by its plain name. One that could read others is an error.
pub fn selected(text: &str) -> Result<BTreeSet<String>, ExpressionError> {
    let mut metrics = BTreeSet::new();
    collect_metrics(&parsed(text)?, &mut metrics)?;
    Ok(metrics)
}

/// The longest `[…]` of an expression; `None` where it has a subquery, whose cost no bracket tells.
pub fn longest_range(text: &str) -> Option<Duration> {
    fn of(expr: &Expr) -> Option<Duration> {
        let own = match expr {
            Expr::Subquery(_) => return None,
            Expr::MatrixSelector(selector) => selector.range,
            _ => Duration::ZERO,
        };
        parts(expr)
            .into_iter()
            .try_fold(own, |longest, part| Some(longest.max(of(part)?)))
    }
    of(&parsed(text).ok()?)
}

/// The expression as a tree that can be walked.
pub(super) fn parsed(text: &str) -> Result<Expr, ExpressionError> {
    let operators = text
        .bytes()
        .filter(|byte| b"+-*/%^(<>=!".contains(byte))
        .count();
    if text.len() > MAX_LENGTH || operators > MAX_OPERATORS {
        return Err(ExpressionError::TooComplex);
    }
    let expr = understood(text)?;
    // A range of `[0]` is taken, and refused as the `[0s]` that it is shown as.
    understood(&expr.to_string())?;
    Ok(expr)
}

fn understood(text: &str) -> Result<Expr, ExpressionError> {
    // The parser panics at a range or an offset in plain seconds that no duration holds, such as `x[1e30]`.
    std::panic::catch_unwind(|| parser::parse(text))
        .unwrap_or_else(|_| {
            Err("a range or an offset in plain seconds is longer than can be".to_owned())
        })
        .map_err(ExpressionError::Syntax)
}

fn count_pairs(found: &str) -> String {
    format!("count by (src_workload, dst_workload) ({found})")
}

/// What is above nothing over any of `windows`.
fn either_of(expr: &Expr, windows: &[Duration]) -> String {
    let looks = windows.iter().map(|window| windowed(expr, *window));
    let looks: BTreeSet<String> = looks.map(|look| format!("({look}) > 0")).collect();
    match looks.len() {
        1 => looks.into_iter().collect(),
        _ => format!("({})", Vec::from_iter(looks).join(") or (")),
    }
}

/// Whether anything is derived from how a value changes over the window.
fn has_changes(expr: &Expr) -> bool {
    let own = match expr {
        Expr::Call(call) => {
            let ranges = call.args.args.iter();
            !call.func.name.ends_with("_over_time")
                && ranges.into_iter().any(|range| match &**range {
                    Expr::MatrixSelector(selector) => selector.range == PLACEHOLDER,
                    Expr::Subquery(subquery) => subquery.range == PLACEHOLDER,
                    _ => false,
                })
        }
        _ => false,
    };
    own || parts(expr).into_iter().any(has_changes)
}

/// Whether it is how fast something happens, which no range is too short for, and not how often it has happened.
fn is_rate(expr: &Expr) -> bool {
    let named = |name: &str| calls(expr, name);
    named("rate") && !named("increase")
}

fn calls(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Call(call) if call.func.name == name)
        || parts(expr).into_iter().any(|part| calls(part, name))
}

/// A share of what is slower than its floor is one of the floor: of a tenth of a second of waiting it is little.
fn at_least(value: Expr, floor: f64) -> Expr {
    parser::parse(&format!("clamp_min({value}, {floor})")).unwrap_or(value)
}

fn without_floors(expr: Expr) -> Expr {
    match expr {
        Expr::Paren(mut paren) => {
            *paren.expr = without_floors(*paren.expr);
            Expr::Paren(paren)
        }
        Expr::Binary(mut binary) => {
            let comparison = Comparison::of(binary.op).is_some();
            let floor = |expr: &Expr| matches!(expr, Expr::Binary(inner) if Comparison::of(inner.op).is_some());
            if comparison && let Some(floor) = number(&binary.rhs) {
                let least = is_rate(&binary.lhs) && floor > 0.0;
                let value = without_floors(*binary.lhs);
                return if least { at_least(value, floor) } else { value };
            }
            if comparison && number(&binary.lhs).is_some() {
                return without_floors(*binary.rhs);
            }
            if binary.op.id() == T_LAND && floor(&without_parentheses(*binary.rhs.clone())) {
                return without_floors(*binary.lhs);
            }
            // What `unless` excludes is another kind of traffic, not a rare one.
            if binary.op.id() != T_LUNLESS {
                *binary.rhs = without_floors(*binary.rhs);
            }
            // Nothing of nothing is no value, and must not stand before the alternatives of an `or`.
            if binary.op.id() == T_DIV && number(&binary.rhs).is_none() {
                let whole = tree::paren(*binary.rhs);
                *binary.rhs = tree::paren(tree::binary(T_NEQ, whole, tree::literal(0.0)));
            }
            *binary.lhs = without_floors(*binary.lhs);
            Expr::Binary(binary)
        }
        // Of a sum the parts that are rare count too; how many parts there are is another question.
        Expr::Aggregate(mut aggregate) if [T_SUM, T_MAX].contains(&aggregate.op.id()) => {
            *aggregate.expr = without_floors(*aggregate.expr);
            Expr::Aggregate(aggregate)
        }
        Expr::Call(mut call) if call.func.name.starts_with("label_") => {
            for argument in &mut call.args.args {
                **argument = without_floors((**argument).clone());
            }
            Expr::Call(call)
        }
        other => other,
    }
}

fn collect_metrics(expr: &Expr, metrics: &mut BTreeSet<String>) -> Result<(), ExpressionError> {
    match expr {
        Expr::VectorSelector(selector) => {
            metrics.insert(metric_name(selector)?);
        }
        Expr::MatrixSelector(selector) => {
            metrics.insert(metric_name(&selector.vs)?);
        }
        _ => {
            for part in parts(expr) {
                collect_metrics(part, metrics)?;
            }
        }
    }
    Ok(())
}

fn metric_name(selector: &VectorSelector) -> Result<String, ExpressionError> {
    // VictoriaMetrics' `or` between matchers can name any other metric.
    if !selector.matchers.or_matchers.is_empty() {
        return Err(ExpressionError::Unnamed(selector.to_string()));
    }
    let by_matcher = || {
        selector
            .matchers
            .matchers
            .iter()
            .find(|matcher| matcher.name == "__name__" && matcher.op == MatchOp::Equal)
            .map(|matcher| matcher.value.clone())
    };
    selector
        .name
        .clone()
        .or_else(by_matcher)
        .ok_or_else(|| ExpressionError::Unnamed(selector.to_string()))
}

fn result_labels(expr: &Expr) -> Option<BTreeSet<String>> {
    match expr {
        Expr::Aggregate(aggregate) => match &aggregate.modifier {
            Some(LabelModifier::Include(labels)) => Some(labels.labels.iter().cloned().collect()),
            Some(LabelModifier::Exclude(_)) => None,
            None => Some(BTreeSet::new()),
        },
        Expr::Paren(paren) => result_labels(&paren.expr),
        Expr::Unary(unary) => result_labels(&unary.expr),
        Expr::Binary(binary) => match (number(&binary.lhs), number(&binary.rhs)) {
            (Some(_), None) => result_labels(&binary.rhs),
            (None, _) => result_labels(&binary.lhs).or_else(|| result_labels(&binary.rhs)),
            (Some(_), Some(_)) => None,
        },
        Expr::Call(call) => {
            let mut labels = call.args.args.iter().find_map(|part| result_labels(part))?;
            if call.func.name == "histogram_quantile" {
                labels.remove("le");
            }
            Some(labels)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
