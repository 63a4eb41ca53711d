//! Quantiles from above, at a fraction of their cost: of values that are not negative, at most a share of 1 − φ can be larger
//! than their mean divided by 1 − φ (Markov's inequality). A mean reads two series where a quantile reads one for every
//! bucket. Only for looking whether anything can be beyond a threshold at all; nobody is shown a bound.

use promql_parser::label::Labels;
use promql_parser::parser::token::{
    T_DIV, T_GTE, T_GTR, T_LAND, T_LOR, T_LSS, T_LTE, T_LUNLESS, T_MUL, T_SUM,
};
use promql_parser::parser::{AggregateExpr, BinaryExpr, Call, Expr, LabelModifier};

use super::tree::{binary, literal, paren};

/// A quantile is read off within a bucket; the next bound is about twice the last.
const BUCKET_RATIO: f64 = 2.0;

/// The expression with its quantiles replaced, so that nothing is left out that the expression itself gives, and no value is
/// smaller. `None`: it holds no quantile of which that could be said.
pub(super) fn from_above(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Paren(paren) => {
            let mut paren = paren.clone();
            paren.expr = Box::new(from_above(&paren.expr)?);
            Some(Expr::Paren(paren))
        }
        Expr::Call(call) => mean(call),
        Expr::Binary(binary) => {
            match binary.op.id() {
                T_LAND | T_LOR => both(binary, from_above),
                // The less is excluded, the more is left.
                T_LUNLESS => both_by(binary, from_above, fewer),
                T_GTR | T_GTE if is_number(&binary.rhs) => both(binary, from_above),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The expression without what only leaves out series: nothing that it gives is missing, and each value is as it was.
pub(super) fn without_exclusions(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Paren(paren) => without_exclusions(&paren.expr),
        Expr::Binary(binary) => match binary.op.id() {
            T_LAND | T_LUNLESS => without_exclusions(&binary.lhs),
            // Without the exclusions of its left side, that may hide what the right one gives.
            T_LOR => None,
            _ => Some(expr.clone()),
        },
        _ => Some(expr.clone()),
    }
}

/// The same for what excludes: no series that the expression itself does not give.
fn fewer(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Paren(paren) => {
            let mut paren = paren.clone();
            paren.expr = Box::new(fewer(&paren.expr)?);
            Some(Expr::Paren(paren))
        }
        Expr::Binary(binary)
            if is_number(&binary.rhs) && matches!(binary.op.id(), T_LSS | T_LTE) =>
        {
            both(binary, from_above)
        }
        _ => None,
    }
}

fn both(binary: &BinaryExpr, bound: fn(&Expr) -> Option<Expr>) -> Option<Expr> {
    both_by(binary, bound, bound)
}

/// A side without a quantile stays as it is.
fn both_by(
    binary: &BinaryExpr,
    left: fn(&Expr) -> Option<Expr>,
    right: fn(&Expr) -> Option<Expr>,
) -> Option<Expr> {
    let (lhs, rhs) = (left(&binary.lhs), right(&binary.rhs));
    if lhs.is_none() && rhs.is_none() {
        return None;
    }
    let mut binary = binary.clone();
    if let Some(lhs) = lhs {
        *binary.lhs = lhs;
    }
    if let Some(rhs) = rhs {
        *binary.rhs = rhs;
    }
    Some(Expr::Binary(binary))
}

/// `histogram_quantile(φ, sum by (…, le) (rate(x_bucket[…])))` → `sum by (…) (rate(x_sum[…])) / sum by (…) (rate(x_count[…])) * …`
fn mean(call: &Call) -> Option<Expr> {
    let [quantile, buckets] = call.args.args.as_slice() else {
        return None;
    };
    let (Expr::NumberLiteral(quantile), Expr::Aggregate(buckets)) = (&**quantile, &**buckets)
    else {
        return None;
    };
    let factor = BUCKET_RATIO / (1.0 - quantile.val);
    let fits = call.func.name == "histogram_quantile" && factor.is_finite() && factor > 0.0;
    if !fits || buckets.op.id() != T_SUM {
        return None;
    }
    let (sum, count) = (part(buckets, "_sum")?, part(buckets, "_count")?);
    let mean = paren(binary(T_DIV, sum, count));
    Some(binary(T_MUL, mean, literal(factor)))
}

fn part(buckets: &AggregateExpr, suffix: &str) -> Option<Expr> {
    let mut part = buckets.clone();
    let Some(LabelModifier::Include(by)) = &part.modifier else {
        return None;
    };
    let by: Vec<&str> = by.labels.iter().map(String::as_str).collect();
    let others = by.iter().copied().filter(|label| *label != "le").collect();
    part.modifier = Some(LabelModifier::Include(Labels::new(others)));
    let Expr::Call(rate) = &mut *part.expr else {
        return None;
    };
    if !matches!(rate.func.name, "rate" | "increase") {
        return None;
    }
    let [range] = rate.args.args.as_mut_slice() else {
        return None;
    };
    let Expr::MatrixSelector(selector) = &mut **range else {
        return None;
    };
    let name = selector.vs.name.as_ref()?.strip_suffix("_bucket")?;
    selector.vs.name = Some(format!("{name}{suffix}"));
    Some(Expr::Aggregate(part))
}

fn is_number(expr: &Expr) -> bool {
    matches!(expr, Expr::NumberLiteral(_))
}

#[cfg(test)]
mod tests {
    use promql_parser::parser;

    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let bound = from_above(&parser::parse(text).unwrap());
        let expected = expected.map(|text| parser::parse(text).unwrap().to_string());
        assert_eq!(bound.map(|expr| expr.to_string()), expected, "{text}");
    }

    const QUANTILE: &str = "histogram_quantile(0.75, sum by (a, le) (rate(x_bucket{b=\"c\"}[5m])))";
    const MEAN: &str =
        "(sum by (a) (rate(x_sum{b=\"c\"}[5m])) / sum by (a) (rate(x_count{b=\"c\"}[5m]))) * 8";

    #[test]
    fn a_quantile_is_bounded_by_the_mean() {
        check(QUANTILE, Some(MEAN));
        check(
            &format!("({QUANTILE} and sum by (a) (y) >= 3 unless {QUANTILE} < 0.005)"),
            Some(&format!(
                "({MEAN} and sum by (a) (y) >= 3 unless {MEAN} < 0.005)"
            )),
        );
        check(&format!("{QUANTILE} > 2"), Some(&format!("{MEAN} > 2")));
    }

    #[test]
    fn what_only_leaves_out_need_not_be_asked() {
        let check = |text: &str, expected: Option<&str>| {
            let bare = without_exclusions(&parser::parse(text).unwrap());
            assert_eq!(bare.map(|expr| expr.to_string()).as_deref(), expected);
        };
        check("(x and y >= 3 unless z < 2)", Some("x"));
        check("x / y", Some("x / y"));
        check("x unless z or y", None);
    }

    #[test]
    fn what_a_larger_value_would_leave_out_is_not_bounded() {
        for text in [
            &format!("{QUANTILE} < 2"),
            &format!("2 / {QUANTILE}"),
            &format!("y unless {QUANTILE} > 2"),
            "histogram_quantile(0.75, rate(x_bucket[5m]))",
            "histogram_quantile(1, sum by (le) (rate(x_bucket[5m])))",
            "rate(x_sum[5m])",
        ] {
            check(text, None);
        }
    }
}
