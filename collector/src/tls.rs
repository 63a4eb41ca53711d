//! TLS as it is seen on the wire: records, hellos, certificates, how a handshake ends. Pure, but for
//! [`probe`], which asks servers, if the user wants that.

pub mod certificate;
pub mod handshake;
pub mod hello;
pub mod names;
pub mod probe;
pub mod record;
pub mod table;

#[cfg(test)]
mod tests;
