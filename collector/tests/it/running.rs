//! The program itself, as a user runs it. These need root.

mod capabilities;
mod clients;
pub(crate) mod collector;
mod command_line;
mod first_bytes;
mod flow_store;
mod reload;
mod restart;
