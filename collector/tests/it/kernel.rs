//! A fault or a known amount of traffic in, series out: real programs on the running kernel. These
//! need root. Where the kernel refuses a hook, a test says «skipped: reason» and passes.
//!
//! Every test has namespaces of its own, and looks only at series of those: other traffic of the
//! host does not disturb it.

mod buckets;
mod capture;
mod capture_beside;
mod dns;
mod flows;
mod icmp;
pub(crate) mod lab;
mod listen_queue;
pub(crate) mod measure;
mod neighbour;
mod packet_drop;
mod probe;
mod protocol;
mod random;
mod series;
mod tcp_cost;
mod tcp_exact;
mod tcp_lifecycle;
mod tcp_rejected;
mod tcp_retransmit;
mod tls;
mod tls_pieces;
mod tunnel;
mod udp;
mod verifier;
