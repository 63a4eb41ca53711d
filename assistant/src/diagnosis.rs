//! Diagnosis.
pub mod expression;
