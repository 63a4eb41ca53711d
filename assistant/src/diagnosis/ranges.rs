//! The ranges and offsets of expressions: what time they read.

use std::time::Duration;

use promql_parser::parser::{Expr, Offset};

use super::tree::{parts, parts_mut};

/// The range that stands for the window of a request.
pub(super) const PLACEHOLDER: Duration = Duration::from_secs(300);

/// The range that stands for the latest few scrapes, the shortest that can tell anything.
pub(super) const LATEST: Duration = Duration::from_secs(15);

pub(super) fn windowed(expr: &Expr, window: Duration) -> Expr {
    let mut expr = expr.clone();
    set_range(&mut expr, PLACEHOLDER, window);
    expr
}

pub(super) fn has_range(expr: &Expr, range: Duration) -> bool {
    let own = match expr {
        Expr::MatrixSelector(selector) => selector.range == range,
        Expr::Subquery(subquery) => subquery.range == range,
        _ => false,
    };
    own || parts(expr).into_iter().any(|part| has_range(part, range))
}

pub(super) fn set_range(expr: &mut Expr, placeholder: Duration, range: Duration) {
    match expr {
        Expr::MatrixSelector(selector) if selector.range == placeholder => selector.range = range,
        Expr::Subquery(subquery) if subquery.range == placeholder => subquery.range = range,
        _ => {}
    }
    for part in parts_mut(expr) {
        set_range(part, placeholder, range);
    }
}

/// Adds `back` to the offset of every selector. What is inside a subquery moves with it.
pub(super) fn shift(expr: &mut Expr, back: Duration) {
    match expr {
        Expr::VectorSelector(selector) => add_offset(&mut selector.offset, back),
        Expr::MatrixSelector(selector) => add_offset(&mut selector.vs.offset, back),
        Expr::Subquery(subquery) => add_offset(&mut subquery.offset, back),
        _ => parts_mut(expr)
            .into_iter()
            .for_each(|part| shift(part, back)),
    }
}

fn add_offset(offset: &mut Option<Offset>, back: Duration) {
    *offset = Some(match offset.take() {
        None => Offset::Pos(back),
        Some(Offset::Pos(old)) => Offset::Pos(old + back),
        Some(Offset::Neg(old)) if old > back => Offset::Neg(old - back),
        Some(Offset::Neg(old)) => Offset::Pos(back - old),
    });
}
