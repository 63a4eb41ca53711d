//! How much work an expression is for the server, in series that are read or made on the way; pure.

use promql_parser::parser::Expr;

use super::tree::parts;

/// `series` says how many a metric has.
pub(super) fn of(expr: &Expr, series: &impl Fn(&str) -> f64) -> f64 {
    work_and_series(expr, series).0
}

/// Work, and how many series come out at most.
fn work_and_series(expr: &Expr, series: &impl Fn(&str) -> f64) -> (f64, f64) {
    let name = match expr {
        Expr::VectorSelector(selector) => selector.name.as_deref(),
        Expr::MatrixSelector(selector) => selector.vs.name.as_deref(),
        _ => None,
    };
    if let Some(name) = name {
        let read = series(name);
        return (read, read);
    }
    let (work, out) = parts(expr)
        .into_iter()
        .map(|part| work_and_series(part, series))
        .fold((0.0, 0.0_f64), |sum, part| {
            (sum.0 + part.0, sum.1.max(part.1))
        });
    match expr {
        Expr::Aggregate(_) | Expr::Call(_) | Expr::Binary(_) => (work + out, out),
        _ => (work, out),
    }
}
