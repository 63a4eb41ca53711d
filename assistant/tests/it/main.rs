//! The assistant from outside: requests in, answers out, against real parts.

mod access;
mod alone;
mod batch;
mod check;
mod corpus;
mod crash;
mod diagnose;
mod graph;
mod identity;
mod incidents;
mod index;
mod mcp;
mod model;
mod narrate;
mod openapi;
mod own_model;
mod pages;
mod readme;
mod replicas;
mod rerank;
mod search;
mod service;
