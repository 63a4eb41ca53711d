//! Stands in for the metrics endpoint of kube-proxy: the names, buckets and conduct of the real one, and no rules of its own.
//!
//! Scraped from the host, as the real one on its node, so it listens there, on 127.0.0.1.

mod exposition;
mod state;

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{io, thread};

use anyhow::{Context, Result};
use serde::Deserialize;

use self::state::State;
use super::Live;
use crate::scenario::Family;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// Every server has one; this one is scraped over IPv4.
    #[serde(rename = "family")]
    _family: Family,
    port: u16,
    /// From one change of endpoints to the next.
    #[serde(default = "default_change")]
    change_seconds: f64,
    /// What it takes to write the rules.
    #[serde(default = "default_sync")]
    sync_ms: u32,
    /// A write that has begun does not end; changes still come.
    #[serde(default)]
    freeze: bool,
}

fn default_change() -> f64 {
    5.0
}

fn default_sync() -> u32 {
    60
}

pub(super) fn run(live: &Live<Settings>) -> Result<()> {
    let port = live.get().port;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("cannot listen on 127.0.0.1:{port}"))?;
    let state = Arc::new(Mutex::new(State::start(now())));
    let shown = Arc::clone(&state);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shown = Arc::clone(&shown);
            // Prometheus reads the error.
            thread::spawn(move || drop(serve(&stream, &shown)));
        }
    });
    loop {
        let settings = live.get();
        (state.lock().unwrap_or_else(PoisonError::into_inner)).advance(now(), &settings);
        thread::sleep(Duration::from_millis(20));
    }
}

/// Answers every request of a connection with the metrics.
fn serve(stream: &TcpStream, state: &Mutex<State>) -> io::Result<()> {
    let mut out = stream;
    let lines = BufReader::new(stream).lines();
    for line in lines {
        // The empty line ends a request; it has no body.
        if !line?.is_empty() {
            continue;
        }
        let body = exposition::text(&state.lock().unwrap_or_else(PoisonError::into_inner));
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8";
        let length = body.len();
        out.write_all(format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes())?;
    }
    Ok(())
}

fn now() -> f64 {
    (SystemTime::now().duration_since(UNIX_EPOCH)).map_or(0.0, |since| since.as_secs_f64())
}
