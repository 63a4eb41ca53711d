//! The first bytes of each side of a connection, whole and as they trickle in; segments in any order.
#![no_main]

use runwire_fuzz::protocol::{Patience, classify};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (client, server) = runwire_fuzz::halves(data);
    let early = classify(client, server, Patience::More);
    assert!(
        classify(client, server, Patience::Decide).is_some(),
        "whoever must decide does"
    );
    if early.is_some() {
        assert_eq!(
            early,
            classify(client, server, Patience::Decide),
            "what is certain stays so"
        );
    }
    runwire_fuzz::signals::protocol::read(data);
});
