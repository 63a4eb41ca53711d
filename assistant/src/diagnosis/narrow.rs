//! An expression for the whole cluster → the same for one workload or namespace, on the parsed expression; pure. What it gives is
//! what the whole gives, filtered. For clusters whose whole result is too large to be had.

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::token::{T_COUNT_VALUES, T_LAND, T_LOR, T_LUNLESS};
use promql_parser::parser::value::ValueType;
use promql_parser::parser::{
    self, BinModifier, BinaryExpr, Call, Expr, LabelModifier, StringLiteral, VectorMatchCardinality,
};

use super::scope::Scope;

/// The labels that may name an end of what is measured.
const ENDS: [(&str, &str); 3] = [
    ("src_namespace", "src_workload"),
    ("dst_namespace", "dst_workload"),
    ("namespace", "workload"),
];

/// A query for those series alone that have the scope's workload or namespace at an end. `None`: the expression does not keep the
/// labels that say so, or the scope names neither.
pub(super) fn narrowed(expr: &Expr, has: impl Fn(&str) -> bool, scope: &Scope) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    for (namespace, workload) in ENDS {
        let wanted: Vec<(&str, &str)> =
            [(namespace, &scope.namespace), (workload, &scope.workload)]
                .into_iter()
                .filter_map(|(label, value)| Some((label, value.as_deref()?)))
                .collect();
        // An end of which the result does not tell all that the scope says cannot be the scope's.
        if wanted.is_empty() || !has(workload) || !wanted.iter().all(|(label, _)| has(label)) {
            continue;
        }
        let mut end = expr.clone();
        for (label, value) in wanted {
            end = only(end, &Matcher::new(MatchOp::Equal, label, value))?;
        }
        parts.push(end.to_string());
    }
    match parts.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("({})", several.join(") or ("))),
    }
}

/// Names of workloads as a regular expression. It is compiled once: that takes longer than all else here.
#[derive(Debug, Clone)]
pub struct Names(Matcher);

impl Names {
    /// `None`: it is no regular expression.
    pub fn new(pattern: &str) -> Option<Self> {
        match parser::parse(&format!("x{{workload=~\"{pattern}\"}}")).ok()? {
            Expr::VectorSelector(mut selector) => selector.matchers.matchers.pop().map(Self),
            _ => None,
        }
    }

    fn at(&self, label: &str) -> Matcher {
        Matcher {
            name: label.to_owned(),
            ..self.0.clone()
        }
    }
}

/// The expression for those series alone whose workloads are among `names` at every end that the result tells. `None`: it tells
/// none, or that cannot be said of it.
pub(super) fn among(expr: &Expr, has: impl Fn(&str) -> bool, names: &Names) -> Option<Expr> {
    let mut among = None;
    for (_, workload) in ENDS.iter().filter(|(_, workload)| has(workload)) {
        let expr = among.unwrap_or_else(|| expr.clone());
        among = Some(only(expr, &names.at(workload))?);
    }
    among
}

/// The same for the ends of pairs alone: what is told of one workload, such as a router, may matter to pairs that it is no end of.
pub(super) fn of_pairs_among(
    expr: &Expr,
    has: impl Fn(&str) -> bool,
    names: &Names,
) -> Option<Expr> {
    among(expr, |label| label != "workload" && has(label), names)
}

/// Whether all that the expression reads is asked for by pairs among `names`.
pub(super) fn is_of_pairs_among(expr: &Expr, names: &Names) -> bool {
    let matchers = match expr {
        Expr::VectorSelector(selector) => &selector.matchers,
        Expr::MatrixSelector(selector) => &selector.vs.matchers,
        _ => {
            let parts = super::tree::parts(expr);
            let mut parts = parts
                .into_iter()
                .filter(|part| !matches!(part, Expr::NumberLiteral(_) | Expr::StringLiteral(_)));
            return parts.all(|part| is_of_pairs_among(part, names));
        }
    };
    let wanted = ["src_workload", "dst_workload"].map(|label| names.at(label));
    wanted.iter().all(|one| matchers.matchers.contains(one))
}

/// The expression such that only series whose label the matcher admits are in its result.
fn only(expr: Expr, matcher: &Matcher) -> Option<Expr> {
    let label = matcher.name.as_str();
    Some(match expr {
        Expr::VectorSelector(mut selector) => {
            selector.matchers.matchers.push(matcher.clone());
            Expr::VectorSelector(selector)
        }
        Expr::MatrixSelector(mut selector) => {
            selector.vs.matchers.matchers.push(matcher.clone());
            Expr::MatrixSelector(selector)
        }
        Expr::Paren(mut paren) => {
            *paren.expr = only(*paren.expr, matcher)?;
            Expr::Paren(paren)
        }
        Expr::Unary(mut unary) => {
            *unary.expr = only(*unary.expr, matcher)?;
            Expr::Unary(unary)
        }
        Expr::Subquery(mut subquery) => {
            *subquery.expr = only(*subquery.expr, matcher)?;
            Expr::Subquery(subquery)
        }
        Expr::Aggregate(mut aggregate) => {
            // A group lies within one value of the label, or the label is gone.
            let keeps = match &aggregate.modifier {
                Some(LabelModifier::Include(labels)) => has(&labels.labels, label),
                Some(LabelModifier::Exclude(labels)) => !has(&labels.labels, label),
                None => false,
            };
            if !keeps || aggregate.op.id() == T_COUNT_VALUES {
                return None;
            }
            *aggregate.expr = only(*aggregate.expr, matcher)?;
            Expr::Aggregate(aggregate)
        }
        Expr::Binary(binary) => Expr::Binary(binary_only(binary, matcher)?),
        Expr::Call(call) => Expr::Call(call_only(call, matcher)?),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => return None,
    })
}

fn has(labels: &[String], label: &str) -> bool {
    labels.iter().any(|name| name == label)
}

fn call_only(mut call: Call, matcher: &Matcher) -> Option<Call> {
    // These make the label, or lose it.
    let target = match call.func.name {
        "label_replace" | "label_join" => match call.args.args.get(1).map(|target| &**target) {
            Some(Expr::StringLiteral(StringLiteral { val })) => val.as_str(),
            _ => return None,
        },
        "absent" | "absent_over_time" | "scalar" | "vector" => return None,
        _ => "",
    };
    if target == matcher.name {
        return None;
    }
    let mut found = false;
    for argument in &mut call.args.args {
        if matches!(argument.value_type(), ValueType::Vector | ValueType::Matrix) {
            **argument = only((**argument).clone(), matcher)?;
            found = true;
        }
    }
    found.then_some(call)
}

fn binary_only(mut binary: BinaryExpr, matcher: &Matcher) -> Option<BinaryExpr> {
    let label = matcher.name.as_str();
    let is_scalar = |expr: &Expr| expr.value_type() == ValueType::Scalar;
    if is_scalar(&binary.lhs) {
        *binary.rhs = only(*binary.rhs, matcher)?;
        return Some(binary);
    }
    if is_scalar(&binary.rhs) {
        *binary.lhs = only(*binary.lhs, matcher)?;
        return Some(binary);
    }
    let matched = match &binary.modifier {
        Some(BinModifier {
            matching: Some(LabelModifier::Include(labels)),
            ..
        }) => has(&labels.labels, label),
        Some(BinModifier {
            matching: Some(LabelModifier::Exclude(labels)),
            ..
        }) => !has(&labels.labels, label),
        _ => true,
    };
    let cardinality = binary.modifier.as_ref().map(|modifier| &modifier.card);
    let is_set = matches!(binary.op.id(), T_LAND | T_LOR | T_LUNLESS);
    // The side whose labels the result has.
    let right_leads = match cardinality {
        Some(VectorMatchCardinality::OneToMany(more)) if !has(&more.labels, label) => true,
        Some(VectorMatchCardinality::ManyToOne(more)) if !has(&more.labels, label) => false,
        Some(VectorMatchCardinality::OneToMany(_) | VectorMatchCardinality::ManyToOne(_)) => {
            return None;
        }
        // Between one and one, what is not matched is not in the result.
        _ if !matched && !is_set => return None,
        _ => false,
    };
    if binary.op.id() == T_LOR && !matched {
        return None;
    }
    let (leading, other) = match right_leads {
        true => (&mut binary.rhs, &mut binary.lhs),
        false => (&mut binary.lhs, &mut binary.rhs),
    };
    **leading = only((**leading).clone(), matcher)?;
    // The other side must hold all that the leading one may meet; less is only cheaper.
    match only((**other).clone(), matcher) {
        Some(narrow) if matched => **other = narrow,
        _ if binary.op.id() == T_LOR => return None,
        _ => {}
    }
    Some(binary)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;
    use crate::diagnosis::expression::Expression;

    fn scope(namespace: Option<&str>, workload: Option<&str>) -> Scope {
        Scope {
            namespace: namespace.map(str::to_owned),
            workload: workload.map(str::to_owned),
            ..Scope::default()
        }
    }

    fn check(text: &str, expected: Expect) {
        let expression = Expression::parse(text).unwrap();
        let query = expression.query_for(Duration::from_secs(300), &scope(None, Some("a")));
        expected.assert_eq(query.as_deref().unwrap_or("whole"));
    }

    #[test]
    fn selectors_get_the_scope_where_the_result_keeps_its_labels() {
        check(
            "sum by (src_workload, dst_workload) (rate(x[5m])) / (sum by (src_workload, dst_workload) (rate(y[5m])) >= 3) > 1",
            expect![[
                r#"(sum by (src_workload, dst_workload) (rate(x{src_workload="a"}[5m])) / (sum by (src_workload, dst_workload) (rate(y{src_workload="a"}[5m])) >= 3)) or (sum by (src_workload, dst_workload) (rate(x{dst_workload="a"}[5m])) / (sum by (src_workload, dst_workload) (rate(y{dst_workload="a"}[5m])) >= 3))"#
            ]],
        );
        check(
            "(sum by (workload) (x) and on (n) sum by (n) (y)) > 1",
            expect![[r#"sum by (workload) (x{workload="a"}) and on (n) sum by (n) (y)"#]],
        );
        check(
            "histogram_quantile(0.9, sum by (workload, le) (rate(x_bucket[5m]))) > 1",
            expect![[
                r#"histogram_quantile(0.9, sum by (workload, le) (rate(x_bucket{workload="a"}[5m])))"#
            ]],
        );
    }

    #[test]
    fn what_loses_or_makes_the_label_is_left_whole() {
        for text in [
            "sum(x) > 1",
            "sum by (node) (x) > 1",
            r#"sum by (workload) (label_replace(x, "workload", "$1", "pod", "(.*)")) > 1"#,
            "(sum by (workload) (x) / on (n) sum by (n) (y)) > 1",
            r#"count_values("workload", x) > 1"#,
        ] {
            check(text, expect!["whole"]);
        }
    }

    proptest! {
        #[test]
        fn no_name_breaks_out_of_its_quotes(namespace in ".*", workload in any::<String>()) {
            let scope = scope(Some(&namespace), Some(&workload));
            let expression = Expression::parse("sum by (namespace, workload) (rate(x{a=\"b\"}[5m])) > 1").unwrap();
            let query = expression.query_for(Duration::from_secs(300), &scope).unwrap();
            let Ok(Expr::Aggregate(aggregate)) = parser::parse(&query) else {
                return Err(TestCaseError::fail(query));
            };
            let Expr::Call(call) = *aggregate.expr else {
                return Err(TestCaseError::fail(query));
            };
            let [argument] = call.args.args.as_slice() else {
                return Err(TestCaseError::fail(query));
            };
            let Expr::MatrixSelector(selector) = &**argument else {
                return Err(TestCaseError::fail(query));
            };
            let values: Vec<&str> = selector.vs.matchers.matchers.iter().map(|matcher| matcher.value.as_str()).collect();
            prop_assert_eq!(values, ["b", namespace.as_str(), workload.as_str()], "{}", query);
        }
    }
}
