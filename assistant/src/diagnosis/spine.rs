//! What must be more than nothing so that an expression can be: of «failures, if at least three, for each attempt» it is the
//! failures. A healthy cluster has few series of what goes wrong and many of what goes on, so this is looked at first, and
//! over the whole window alone: what is nothing there is nothing in its recent part too.

use promql_parser::parser::token::{
    T_AVG, T_COUNT, T_DIV, T_GTE, T_GTR, T_LAND, T_LOR, T_LUNLESS, T_MAX, T_MUL, T_SUB, T_SUM,
    TokenId,
};
use promql_parser::parser::{BinaryExpr, Call, Expr};

use super::tree::{self, either, number, parts};

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

/// Functions that give less than nothing of what is not negative itself.
const FALLING: [&str; 12] = [
    "delta",
    "deriv",
    "idelta",
    "predict_linear",
    "double_exponential_smoothing",
    "holt_winters",
    "ln",
    "log2",
    "log10",
    "cos",
    "sin",
    "tan",
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

/// What must be above nothing so that `expr` has a series at all, whatever its value: «answers for each question» has one where
/// there are questions. Where several things must, the first. `None`: nothing but that somebody measures it.
pub(super) fn of_any(expr: &Expr) -> Option<Expr> {
    any(expr, &mut |binary| of(&binary.lhs))
}

fn any(expr: &Expr, of: &mut dyn FnMut(&BinaryExpr) -> Option<Expr>) -> Option<Expr> {
    match expr {
        Expr::Paren(paren) => any(&paren.expr, of),
        Expr::Aggregate(aggregate) => any(&aggregate.expr, of),
        Expr::Call(call) => match call.func.name {
            "label_replace" | "label_join" | "clamp_min" | "clamp_max" => {
                any(call.args.args.first()?, of)
            }
            _ => None,
        },
        Expr::Binary(binary) if passes_more_than_nothing(binary) => of(binary),
        Expr::Binary(binary) => match binary.op.id() {
            T_LUNLESS => any(&binary.lhs, of),
            T_LOR => {
                let lhs = any(&binary.lhs, of)?;
                Some(either(lhs, any(&binary.rhs, of)?))
            }
            // A comparison as a number is there whatever it says.
            _ if binary.return_bool() => None,
            _ => any(&binary.lhs, of).or_else(|| any(&binary.rhs, of)),
        },
        _ => None,
    }
}

/// What a value must at least be.
#[derive(Clone, Copy)]
struct Floor {
    op: TokenId,
    least: f64,
}

/// The spine with its floors: of «failures, if at least three, for each attempt» «failures, if at least three». Where `expr` has a
/// series above `least`, the result has one above 0, too. It has to be looked at over every window. `None`: it has no floor, and
/// the spine says as much.
pub(super) fn with_floors(expr: &Expr, least: f64) -> Option<Expr> {
    let mut found = false;
    let floor = Floor { op: T_GTE, least };
    let floored = floored(expr, (least > 0.0).then_some(floor), &mut found)?;
    found.then_some(floored)
}

/// The same for [`of_any`].
pub(super) fn of_any_with_floors(expr: &Expr) -> Option<Expr> {
    let mut found = false;
    let floored = any(expr, &mut |binary| floored_binary(binary, None, &mut found))?;
    found.then_some(floored)
}

fn floored(expr: &Expr, floor: Option<Floor>, found: &mut bool) -> Option<Expr> {
    match expr {
        Expr::Paren(paren) => floored(&paren.expr, floor, found),
        Expr::Binary(binary) => floored_binary(binary, floor, found),
        _ if of(expr).as_ref() == Some(expr) => Some(match floor {
            Some(Floor { op, least }) => {
                *found = true;
                tree::binary(op, expr.clone(), tree::literal(least))
            }
            None => expr.clone(),
        }),
        Expr::Call(call) if matches!(call.func.name, "label_replace" | "label_join") => {
            floored(call.args.args.first()?, None, found)
        }
        Expr::Aggregate(aggregate) => match aggregate.op.id() {
            T_SUM | T_MAX | T_AVG => {
                let mut aggregate = aggregate.clone();
                aggregate.expr = Box::new(floored(&aggregate.expr, None, found)?);
                Some(Expr::Aggregate(aggregate))
            }
            T_COUNT if is_filter(&aggregate.expr) => floored(&aggregate.expr, None, found),
            _ => None,
        },
        _ => None,
    }
}

fn floored_binary(binary: &BinaryExpr, floor: Option<Floor>, found: &mut bool) -> Option<Expr> {
    let scaled = |factor: f64| {
        floor.map(|floor| Floor {
            least: floor.least * factor,
            ..floor
        })
    };
    match (binary.op.id(), number(&binary.lhs), number(&binary.rhs)) {
        (op @ (T_GTR | T_GTE), None, Some(least)) if passes_more_than_nothing(binary) => {
            let own = (least > 0.0).then_some(Floor { op, least });
            let higher = |floor: Floor| own.is_none_or(|own| own.least < floor.least);
            floored(
                &binary.lhs,
                floor.filter(|floor| higher(*floor)).or(own),
                found,
            )
        }
        (T_LAND | T_LUNLESS, None, None) => floored(&binary.lhs, floor, found),
        (T_LOR, None, None) => {
            let lhs = floored(&binary.lhs, floor, found)?;
            Some(either(lhs, floored(&binary.rhs, floor, found)?))
        }
        // A difference is at most what something is taken from.
        (T_SUB, None, None) if is_positive(&binary.rhs) => floored(&binary.lhs, floor, found),
        (T_DIV | T_MUL, None, None) if is_positive(&binary.rhs) => {
            floored(&binary.lhs, None, found)
        }
        (T_DIV, None, Some(factor)) if factor > 0.0 => floored(&binary.lhs, scaled(factor), found),
        (T_MUL, None, Some(factor)) if factor > 0.0 => {
            floored(&binary.lhs, scaled(1.0 / factor), found)
        }
        (T_MUL, Some(factor), None) if factor > 0.0 => {
            floored(&binary.rhs, scaled(1.0 / factor), found)
        }
        _ => None,
    }
}

/// Without the sums around it: a sum of what is not negative is nothing only where all of that is. The groups need not be
/// made then.
pub(super) fn of_sums(expr: Expr) -> Expr {
    match expr {
        Expr::Paren(paren) => of_sums(*paren.expr),
        Expr::Aggregate(aggregate) if matches!(aggregate.op.id(), T_SUM | T_MAX | T_AVG) => {
            of_sums(*aggregate.expr)
        }
        Expr::Binary(mut binary) if binary.op.id() == T_LOR => {
            *binary.lhs = of_sums(*binary.lhs);
            *binary.rhs = of_sums(*binary.rhs);
            Expr::Binary(binary)
        }
        Expr::Binary(mut binary) if is_above_nothing(&binary) => {
            *binary.lhs = of_sums(*binary.lhs);
            Expr::Binary(binary)
        }
        other => other,
    }
}

fn is_above_nothing(binary: &BinaryExpr) -> bool {
    binary.op.id() == T_GTR && number(&binary.rhs) == Some(0.0)
}

fn of_call(call: &Call, expr: &Expr) -> Option<Expr> {
    match call.func.name {
        "label_replace" | "label_join" => of(call.args.args.first()?),
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
            Some(either(lhs, rhs))
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
        Expr::Call(call) if FALLING.contains(&call.func.name) => false,
        Expr::NumberLiteral(literal) => literal.val >= 0.0,
        _ => parts(expr).into_iter().all(is_positive),
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

#[cfg(test)]
mod tests {
    use promql_parser::parser;

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
            "sum by (a) (label_join(rate(x[5m]) >= 2, \"b\", \"/\", \"a\") / on (b) group_left () y)",
        ] {
            check(text, Some("sum by (a) (rate(x[5m]))"));
        }
        check(
            "(rate(x[5m]) >= 1) / y or rate(z[5m]) / y",
            Some("(rate(x[5m]) > 0) or (rate(z[5m]) > 0)"),
        );
    }

    #[test]
    fn what_counts_where_it_is_little_must_be_there() {
        let check = |text: &str, expected: Option<&str>| {
            let any = of_any(&parser::parse(text).unwrap());
            let expected = expected.map(|text| parser::parse(text).unwrap().to_string());
            assert_eq!(any.map(|expr| expr.to_string()), expected, "{text}");
        };
        for text in [
            "sum by (a) (label_join((rate(x[5m]) >= 2) / y >= 0.1, \"b\", \"\", \"a\") * 0 + on (b) z) / y",
            "clamp_min(z, 0) / (rate(x[5m]) >= 3) == 0",
            "(z and rate(x[5m]) > 0) unless y > 2",
        ] {
            check(text, Some("rate(x[5m])"));
        }
        check("(z and x > 1) or (z and y > 1)", Some("(x > 0) or (y > 0)"));
        for text in [
            "x",
            "x == 0",
            "(z and x > 1) or z",
            "z unless x > 1",
            "x >= bool 3",
            "count_over_time(x[5m])",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn floors_are_kept_where_they_are_about_the_spine() {
        let check = |text: &str, least: f64, expected: Option<&str>| {
            let floored = with_floors(&parser::parse(text).unwrap(), least);
            assert_eq!(
                floored.map(|expr| expr.to_string()).as_deref(),
                expected,
                "{text}"
            );
        };
        check(
            "(sum by (a) (rate(x[5m])) >= 3) / sum by (a) (rate(y[5m]))",
            0.1,
            Some("sum by (a) (rate(x[5m])) >= 3"),
        );
        // The higher of two.
        check("((x >= 3) unless y > 2) - z", 5.0, Some("x >= 5"));
        check("((x > 3) / 2) * 4", 1.0, Some("x > 3"));
        check("x * 2", 3.0, Some("x >= 1.5"));
        check(
            "sum by (a) (label_join((x >= 2) / y, \"b\", \"\", \"a\"))",
            0.0,
            Some("sum by (a) (x >= 2)"),
        );
        check(
            "(x - y >= 3) / z or (u >= 4)",
            0.0,
            Some("(x >= 3 > 0) or (u >= 4 > 0)"),
        );
        for text in ["x / y", "x > 0", "x / y >= 0.5", "(y + x) >= 2"] {
            check(text, 0.0, None);
        }
        let any = parser::parse("0 * sum by (a) ((x >= 2) / y) + z").unwrap();
        assert_eq!(
            of_any_with_floors(&any)
                .map(|expr| expr.to_string())
                .as_deref(),
            Some("x >= 2")
        );
    }

    #[test]
    fn sums_need_not_be_made_to_see_that_there_is_something() {
        for (text, expected) in [
            ("sum by (a) (max by (a, b) (x))", "x"),
            (
                "(sum by (a) (x) > 0) or (sum by (b) (y) > 0)",
                "x > 0 or y > 0",
            ),
            ("count by (a) (x)", "count by (a) (x)"),
            ("sum by (a) (x) > 2", "sum by (a) (x) > 2"),
        ] {
            let plain = of_sums(parser::parse(text).unwrap());
            let expected = parser::parse(expected).unwrap();
            assert_eq!(plain.to_string(), expected.to_string(), "{text}");
        }
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
            "x - predict_linear(y[1h], 3600)",
            "x - ln(y)",
            "min by (a) (x >= 3)",
        ] {
            check(text, None);
        }
    }
}
