//! What must be more than nothing so that an expression can be: of «failures, if at least three, for each attempt» it is the
//! failures. A healthy cluster has few series of what goes wrong and many of what goes on, so this is looked at first, and
//! over the whole window alone: what is nothing there is nothing in its recent part too.

use promql_parser::parser::token::{
    T_AVG, T_COUNT, T_DIV, T_GTE, T_GTR, T_LAND, T_LOR, T_LUNLESS, T_MAX, T_MUL, T_SUB, T_SUM,
};
use promql_parser::parser::{self, BinaryExpr, Call, Expr, NumberLiteral};

/// Functions that give more than nothing over a range only if they do over a longer one.
const MONOTONE: [&str; 8] = [
    "rate",
    "increase",
    "avg_over_time",
    "max_over_time",
    "sum_over_time",
    "count_over_time",
    "last_over_time",
    "changes",
];

/// Where `expr` has a series above 0, the result has one, too. No metric is taken to be negative. `None`: nothing simpler
/// than `expr` itself is known.
pub(super) fn of(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Paren(paren) => of(&paren.expr),
        Expr::VectorSelector(_) => Some(expr.clone()),
        Expr::Call(call) => of_call(call, expr),
        Expr::Aggregate(aggregate) => match aggregate.op.id() {
            T_SUM | T_MAX | T_AVG => {
                let mut aggregate = aggregate.clone();
                aggregate.expr = Box::new(of(&aggregate.expr)?);
                Some(Expr::Aggregate(aggregate))
            }
            // A series that is nothing is one more series.
            T_COUNT if is_filter(&aggregate.expr) => of(&aggregate.expr),
            _ => None,
        },
        Expr::Binary(binary) => of_binary(binary),
        _ => None,
    }
}

fn of_call(call: &Call, expr: &Expr) -> Option<Expr> {
    match call.func.name {
        "label_replace" => of(call.args.args.first()?),
        name if MONOTONE.contains(&name) => match call.args.args.as_slice() {
            [range] if matches!(**range, Expr::MatrixSelector(_)) => Some(expr.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn of_binary(binary: &BinaryExpr) -> Option<Expr> {
    match (binary.op.id(), number(&binary.lhs), number(&binary.rhs)) {
        (T_LAND | T_LUNLESS, None, None) => of(&binary.lhs),
        (T_LOR, None, None) => {
            // What is nothing on the left must not hide what is something on the right.
            let (lhs, rhs) = (of(&binary.lhs)?, of(&binary.rhs)?);
            parser::parse(&format!("({lhs} > 0) or ({rhs} > 0)")).ok()
        }
        (T_DIV | T_SUB | T_MUL, None, None) if is_positive(&binary.rhs) => of(&binary.lhs),
        (T_DIV | T_MUL, None, Some(factor)) if factor > 0.0 => of(&binary.lhs),
        (T_MUL, Some(factor), None) if factor > 0.0 => of(&binary.rhs),
        (T_GTR | T_GTE, None, Some(_)) if passes_more_than_nothing(binary) => of(&binary.lhs),
        _ => None,
    }
}

/// Whether nothing in it can be below 0.
fn is_positive(expr: &Expr) -> bool {
    match expr {
        Expr::Unary(_) => false,
        Expr::Binary(binary) if binary.op.id() == T_SUB => false,
        Expr::Call(call) if matches!(call.func.name, "delta" | "deriv" | "idelta") => false,
        Expr::NumberLiteral(literal) => literal.val >= 0.0,
        _ => super::expression::parts(expr).into_iter().all(is_positive),
    }
}

fn is_filter(expr: &Expr) -> bool {
    match expr {
        Expr::Paren(paren) => is_filter(&paren.expr),
        Expr::Binary(binary) => passes_more_than_nothing(binary),
        _ => false,
    }
}

/// Whether only what is above 0 passes.
fn passes_more_than_nothing(binary: &BinaryExpr) -> bool {
    match (binary.op.id(), number(&binary.rhs)) {
        (T_GTR, Some(least)) => least >= 0.0 && !binary.return_bool(),
        (T_GTE, Some(least)) => least > 0.0 && !binary.return_bool(),
        (T_LAND | T_LUNLESS, None) => is_filter(&binary.lhs),
        _ => false,
    }
}

fn number(expr: &Expr) -> Option<f64> {
    match expr {
        Expr::NumberLiteral(NumberLiteral { val }) => Some(*val),
        Expr::Paren(paren) => number(&paren.expr),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let spine = of(&parser::parse(text).unwrap());
        let expected = expected.map(|text| parser::parse(text).unwrap().to_string());
        assert_eq!(spine.map(|expr| expr.to_string()), expected, "{text}");
    }

    #[test]
    fn what_it_is_divided_by_and_what_it_needs_beside_it_do_not_matter() {
        for text in [
            "sum by (a) (rate(x[5m])) / sum by (a) (rate(y[5m]))",
            "(sum by (a) (rate(x[5m])) >= 3) / sum by (a) (rate(y[5m])) * 2",
            "(sum by (a) (rate(x[5m])) and sum by (a) (y) >= 3) unless z > 2",
            "0.5 * sum by (a) (rate(x[5m])) - sum by (a) (z)",
            "count by (b) (sum by (a) (rate(x[5m])) > 0.2)",
            "sum by (a) (label_replace(rate(x[5m]), \"a\", \"$1\", \"b\", \"(.*)\"))",
        ] {
            check(text, Some("sum by (a) (rate(x[5m]))"));
        }
        check(
            "(rate(x[5m]) >= 1) / y or rate(z[5m]) / y",
            Some("(rate(x[5m]) > 0) or (rate(z[5m]) > 0)"),
        );
    }

    #[test]
    fn what_can_be_more_than_nothing_by_itself_has_no_spine() {
        for text in [
            "1 - rate(x[5m])",
            "x + y",
            "x == 0",
            "x < 5",
            "x >= 0",
            "x > -1",
            "-x",
            "count by (a) (x)",
            "sum by (a) (x < 5)",
            "clamp_min(x, 1)",
            "absent(x)",
            "min_over_time(x[5m])",
            "rate(x[5m]) or y == 0",
            "x >= bool 3",
            "x > y",
            "x / (y - z)",
            "min by (a) (x >= 3)",
        ] {
            check(text, None);
        }
    }
}
