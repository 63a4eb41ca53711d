//! The saved index, behind its checksum.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| runwire_fuzz::retrieval::read_segment(data));
