//! Expressions as trees: their parts, and how new ones are put together without a text that would have to be parsed; pure.

use promql_parser::parser::token::{T_GTR, T_LOR, TokenId, TokenType};
use promql_parser::parser::{
    BinModifier, BinaryExpr, Expr, NumberLiteral, ParenExpr, VectorMatchCardinality,
};

/// The direct parts of an expression.
pub(super) fn parts(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Aggregate(aggregate) => aggregate
            .param
            .iter()
            .map(|param| &**param)
            .chain([&*aggregate.expr])
            .collect(),
        Expr::Unary(unary) => vec![&unary.expr],
        Expr::Binary(binary) => vec![&binary.lhs, &binary.rhs],
        Expr::Paren(paren) => vec![&paren.expr],
        Expr::Subquery(subquery) => vec![&subquery.expr],
        Expr::Call(call) => call.args.args.iter().map(|argument| &**argument).collect(),
        Expr::NumberLiteral(_)
        | Expr::StringLiteral(_)
        | Expr::VectorSelector(_)
        | Expr::MatrixSelector(_)
        | Expr::Extension(_) => Vec::new(),
    }
}

pub(super) fn parts_mut(expr: &mut Expr) -> Vec<&mut Expr> {
    match expr {
        Expr::Aggregate(aggregate) => aggregate
            .param
            .iter_mut()
            .map(|param| &mut **param)
            .chain([&mut *aggregate.expr])
            .collect(),
        Expr::Unary(unary) => vec![&mut unary.expr],
        Expr::Binary(binary) => vec![&mut binary.lhs, &mut binary.rhs],
        Expr::Paren(paren) => vec![&mut paren.expr],
        Expr::Subquery(subquery) => vec![&mut subquery.expr],
        Expr::Call(call) => call
            .args
            .args
            .iter_mut()
            .map(|argument| &mut **argument)
            .collect(),
        Expr::NumberLiteral(_)
        | Expr::StringLiteral(_)
        | Expr::VectorSelector(_)
        | Expr::MatrixSelector(_)
        | Expr::Extension(_) => Vec::new(),
    }
}

pub(super) fn without_parentheses(mut expr: Expr) -> Expr {
    while let Expr::Paren(inner) = expr {
        expr = *inner.expr;
    }
    expr
}

/// What a literal says, with its sign and brackets.
pub(super) fn number(expr: &Expr) -> Option<f64> {
    match expr {
        Expr::NumberLiteral(literal) => Some(literal.val),
        Expr::Unary(unary) => number(&unary.expr).map(|value| -value),
        Expr::Paren(paren) => number(&paren.expr),
        _ => None,
    }
}

pub(super) fn literal(val: f64) -> Expr {
    Expr::NumberLiteral(NumberLiteral { val })
}

/// `(lhs > 0) or (rhs > 0)`
pub(super) fn either(lhs: Expr, rhs: Expr) -> Expr {
    let [lhs, rhs] = [lhs, rhs].map(|side| binary(T_GTR, side, literal(0.0)));
    let mut either = binary_expr(T_LOR, paren(lhs), paren(rhs));
    let matching = BinModifier::default().with_card(VectorMatchCardinality::ManyToMany);
    either.modifier = Some(matching);
    Expr::Binary(either)
}

/// `lhs op rhs`; no set operator.
pub(super) fn binary(op: TokenId, lhs: Expr, rhs: Expr) -> Expr {
    Expr::Binary(binary_expr(op, lhs, rhs))
}

pub(super) fn paren(expr: Expr) -> Expr {
    Expr::Paren(ParenExpr {
        expr: Box::new(expr),
    })
}

fn binary_expr(op: TokenId, lhs: Expr, rhs: Expr) -> BinaryExpr {
    BinaryExpr {
        op: TokenType::new(op),
        lhs: Box::new(lhs),
        rhs: Box::new(rhs),
        modifier: None,
    }
}

#[cfg(test)]
mod tests {
    use promql_parser::parser::parse;

    use super::*;

    #[test]
    fn what_is_put_together_is_what_would_be_parsed() {
        let [a, b] = ["a", "sum(b)"].map(|text| parse(text).unwrap());
        assert_eq!(
            Ok(either(a.clone(), b.clone())),
            parse("(a > 0) or (sum(b) > 0)")
        );
        let ratio = paren(binary(promql_parser::parser::token::T_DIV, a, b));
        assert_eq!(Ok(ratio), parse("(a / sum(b))"));
    }
}
