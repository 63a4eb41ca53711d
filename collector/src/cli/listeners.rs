//! Listening sockets in `runwire-collector status`: those that have something to tell.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::http::get;
use super::table::{Cell, Colour, cell, coloured};
use crate::config::Config;

/// The fullest ones.
const SHOWN: usize = 10;

/// What `/api/listeners` says, as far as it is shown.
#[derive(Deserialize)]
struct Listeners {
    listeners: Vec<Listener>,
}

#[derive(Deserialize, Serialize)]
pub(super) struct Listener {
    namespace: String,
    workload: String,
    address: IpAddr,
    port: u16,
    length: u32,
    limit: u32,
    full: bool,
    half_open: u32,
    drops: u32,
}

/// Those that have something in their queue or have turned something away. None while listeners are
/// not measured.
pub(super) fn busy_listeners(config: &Config) -> Vec<Listener> {
    get(config.listen, "/api/listeners")
        .map(|answer| busy(&answer))
        .unwrap_or_default()
}

fn busy(answer: &str) -> Vec<Listener> {
    let listeners: Vec<Listener> = serde_json::from_str(answer)
        .map(|answer: Listeners| answer.listeners)
        .unwrap_or_default();
    let is_busy =
        |listener: &Listener| listener.length > 0 || listener.half_open > 0 || listener.drops > 0;
    listeners.into_iter().filter(is_busy).take(SHOWN).collect()
}

pub(super) fn listener_rows(listeners: &[Listener]) -> Vec<Vec<Cell>> {
    let head = ["LISTENER", "OF", "QUEUE", "HALF-OPEN", "DROPS"];
    let mut rows = vec![head.map(cell).into()];
    for listener in listeners {
        let colour = match (listener.full, listener.drops) {
            (true, _) => Colour::Bad,
            (false, 0) => Colour::Plain,
            (false, _) => Colour::Warn,
        };
        rows.push(vec![
            cell(SocketAddr::new(listener.address, listener.port).to_string()),
            cell(format!("{}/{}", listener.namespace, listener.workload)),
            coloured(format!("{}/{}", listener.length, listener.limit), colour),
            cell(listener.half_open.to_string()),
            cell(listener.drops.to_string()),
        ]);
    }
    rows
}

#[test]
fn only_listeners_with_something_to_tell_are_shown() {
    let listeners = busy(
        r#"{"listeners":[
            {"namespace":"host","workload":"web","kind":"netns","address":"::","port":80,
             "length":3,"limit":2,"full":true,"half_open":1,"drops":7},
            {"namespace":"host","workload":"db","kind":"netns","address":"10.0.0.1","port":5432,
             "length":0,"limit":128,"full":false,"half_open":0,"drops":0}]}"#,
    );
    assert_eq!(
        super::table::render(&listener_rows(&listeners), false),
        "LISTENER  OF        QUEUE  HALF-OPEN  DROPS\n[::]:80   host/web  3/2    1          7\n"
    );
    assert!(busy("not measured").is_empty());
}
