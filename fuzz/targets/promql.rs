//! A line of PromQL: parsed, and narrowed to a scope whose name tries to break out. What comes out is PromQL again.
#![no_main]

use std::collections::BTreeSet;
use std::time::Duration;

use runwire_fuzz::diagnosis::expression::{Expression, ExpressionError, longest_range, selected};
use runwire_fuzz::diagnosis::lint::{Exported, lint};
use runwire_fuzz::diagnosis::scope::Scope;

// What the program catches is not a finding; what it does not catch still ends the fuzzer.
libfuzzer_sys::fuzz_target!(init: std::panic::set_hook(Box::new(|_| {})), |data: &[u8]| {
    let (name, text) = runwire_fuzz::halves(data);
    let (name, text) = (String::from_utf8_lossy(name), String::from_utf8_lossy(text));
    let exported = Exported::read(&name);
    let _ = (
        lint(&text, Some(&exported)),
        selected(&text),
        longest_range(&text),
    );
    let Ok(expression) = Expression::parse(&text) else {
        return;
    };
    let window = Duration::from_secs(300);
    let metrics = selected(&expression.query(window)).expect("a query is PromQL");
    let scope = Scope {
        namespace: Some(name.clone().into_owned()),
        workload: Some(name.into_owned()),
        ..Scope::default()
    };
    if let Some(narrowed) = expression.query_for(window, &scope) {
        let of_narrowed = metrics_of(&narrowed);
        assert!(of_narrowed.is_none_or(|it| it == metrics), "a scope asks for no other metric");
    }
    for compared in [false, true] {
        let _ = metrics_of(&expression.query_beyond(&[window, window / 5], compared));
    }
    let _ = expression.query_before(window, Duration::from_secs(3600));
    let _ = expression.query_without_floors(window);
});

/// `None`: what is made of a query may be more complex than a runbook may say. It has two windows, and every sign of an escaped name counts.
fn metrics_of(query: &str) -> Option<BTreeSet<String>> {
    match selected(query) {
        Err(ExpressionError::TooComplex) => None,
        selected => Some(selected.expect("what is made of a query is PromQL")),
    }
}
