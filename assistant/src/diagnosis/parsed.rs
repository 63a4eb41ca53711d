//! The expressions of the runbooks, each parsed once: a question reads hundreds of them, and their regular expressions take
//! longer to compile than all else that is done for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::expression::Expression;

/// More than runbooks have; texts of pages that were edited since are forgotten with all others.
const MOST: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Parsed(Mutex<HashMap<String, Result<Arc<Expression>, String>>>);

impl Parsed {
    /// The expression, or what is wrong with it.
    pub(super) fn expression(&self, text: &str) -> Result<Arc<Expression>, String> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parsed) = known.get(text) {
            return parsed.clone();
        }
        let parsed = Expression::parse(text).map(Arc::new);
        let parsed = parsed.map_err(|error| format!("its expression {error}"));
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(text.to_owned(), parsed.clone());
        parsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_the_same_as_what_is_new() {
        let parsed = Parsed::default();
        for text in ["sum(rate(x{a=~\"b|c\"}[5m])) > 1", "sum(", "x"] {
            let [first, again] = [(); 2].map(|()| format!("{:?}", parsed.expression(text)));
            assert_eq!(first, again);
            assert_eq!(first.starts_with("Ok"), text.ends_with('1'), "{first}");
        }
    }
}
