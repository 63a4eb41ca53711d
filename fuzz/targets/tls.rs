//! A handshake as pieces (`C` or `S`, two bytes of length, bytes), as they are and cut smaller; hellos and certificates by themselves.
#![no_main]

use runwire_fuzz::tls::handshake::{Handshake, Side};
use runwire_fuzz::tls::{certificate, hello};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (mut whole, mut cut) = (Handshake::default(), Handshake::default());
    let mut rest = data;
    while let Some((&[side, high, low], after)) = rest.split_first_chunk::<3>() {
        let side = if side == b'C' {
            Side::Client
        } else {
            Side::Server
        };
        let length = usize::from(u16::from_be_bytes([high, low])).min(after.len());
        let (piece, after) = after.split_at(length);
        whole.read(side, piece, 1);
        piece.chunks(7).for_each(|part| cut.read(side, part, 1));
        rest = after;
    }
    whole.close(false, 2);
    cut.close(false, 2);
    let (whole, cut) = (whole.into_outcome(), cut.into_outcome());
    assert_eq!(
        format!("{whole:?}"),
        format!("{cut:?}"),
        "how it was cut does not matter"
    );
    let _ = (hello::client_hello(data), hello::server_hello(data));
    let _ = certificate::read(&hello::certificates(data));
    let _ = certificate::read(&[data]);
});
