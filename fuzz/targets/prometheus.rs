//! What Prometheus, or what stands in its place, answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| runwire_fuzz::prometheus::read(data));
