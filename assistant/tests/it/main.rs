//! The assistant from outside: requests in, answers out, against real parts.

mod diagnose;
mod search;
