//! What kernel and user space exchange. Made from `bpf/include/abi.h`; change that.

#![allow(
    dead_code,
    non_camel_case_types,
    missing_docs,
    clippy::allow_attributes_without_reason,
    reason = "generated, with the names of the C"
)]

include!(concat!(env!("OUT_DIR"), "/abi.rs"));
