//! Runbook search and network diagnosis.
//!
//! ```text
//! runbooks/*.md ─ load ─► Runbook ─► Section ─ chunk ─► Passage ─┬─ embed ─► DenseIndex
//!                                                                └─────────► LexicalIndex
//! POST /search    query ─► both indexes ─► fuse ─► Hit[]
//! POST /webhook/alertmanager ─► incidents (SQLite, PostgreSQL) ─► diagnosed, kept, told on
//! POST /diagnose  query, alert, scope ─► FailureMode[] ─► PromQL ─► Evidence[] ─► Hypothesis[] ─► Diagnosis
//! ```

pub mod access;
pub mod api;
pub mod audit;
pub mod cli;
pub mod config;
pub mod diagnosis;
pub mod error;
pub mod graph;
pub mod hash;
pub mod incidents;
pub mod metrics;
pub mod narrate;
pub mod parallel;
pub mod prometheus;
pub mod retrieval;
pub mod runbook;
pub mod server;
pub mod watched;
