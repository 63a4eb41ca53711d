//! Names as the kernel hands them over, and the question of a datagram.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // No name on the wire is longer.
    runwire_fuzz::signals::dns::read(&data[..data.len().min(255)]);
    let _ = runwire_fuzz::protocol::classify_datagram(data);
});
