//! What Alertmanager posts, and the scope of each alert.
#![no_main]

use runwire_fuzz::diagnosis::scope::Scope;
use runwire_fuzz::incidents::notification::{Notification, Payload};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(payload) = serde_json::from_slice::<Payload>(data) else {
        return;
    };
    let Ok(notification) = Notification::of(payload, 1_795_838_400_000) else {
        return;
    };
    assert!(!notification.alerts.is_empty());
    for alert in &notification.alerts {
        assert!(alert.ended_at.is_none_or(|end| end >= alert.starts_at));
        let _ = Scope::of_alert(&alert.labels).check();
    }
});
