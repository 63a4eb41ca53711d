//! How a value is compared with its threshold.

use std::fmt;

use promql_parser::parser::token::{T_EQLC, T_GTE, T_GTR, T_LSS, T_LTE, T_NEQ, TokenType};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
}

impl Comparison {
    pub(super) fn of(operator: TokenType) -> Option<Self> {
        Some(match operator.id() {
            T_GTR => Self::Greater,
            T_GTE => Self::GreaterOrEqual,
            T_LSS => Self::Less,
            T_LTE => Self::LessOrEqual,
            T_EQLC => Self::Equal,
            T_NEQ => Self::NotEqual,
            _ => return None,
        })
    }

    /// `0.1 < x` is `x > 0.1`.
    pub(super) fn flipped(self) -> Self {
        match self {
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Equal => Self::Equal,
            Self::NotEqual => Self::NotEqual,
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Equal => "==",
            Self::NotEqual => "!=",
        })
    }
}
