//! Rows of memory and of the flow store, as one answer: no flow twice.

use std::cmp::Reverse;

use super::parameters::Parameters;
use crate::agent::Agent;
use crate::flow_store::{ClusterRow, Found, Query, Unread};
use crate::flows::{Clock, Row};

/// An array, as JSON.
pub(super) fn rows(agent: &Agent, asked: &Parameters) -> Result<String, Unread> {
    let flows = agent.fresh_flows().lock();
    let clock = Clock::now();
    let filter = asked.filter(clock);
    let rows = flows.rows(&filter, asked.sort, asked.limit, clock);
    let known = if asked.has_range() {
        flows.ids()
    } else {
        Vec::new()
    };
    let forgotten_until = clock.time(flows.forgotten_until());
    drop(flows);
    let index = agent.cluster().index();
    let (keys, shown): (Vec<_>, Vec<_>) = (rows.into_iter())
        .map(|row: Row| {
            let key = Reverse(asked.sort.key(&row.measures()));
            (key, ClusterRow::of(row, &index))
        })
        .unzip();
    drop(index);
    // Memory has all that ended since it forgot anything, and since this run began.
    let is_in_memory = |began| {
        let complete = forgotten_until.max(Some(began));
        asked.from > complete
    };
    let store = agent
        .flow_store()
        .filter(|store| asked.has_range() && !is_in_memory(store.began()));
    let Some(store) = store else {
        return Ok(json(&shown));
    };
    let stored = store.read(&Query {
        filter: &filter,
        from: asked.from,
        to: asked.to,
        sort: asked.sort,
        limit: asked.limit,
        known: &known,
    })?;
    let shown = shown.into_iter().map(|row| json(&row));
    let mut all: Vec<Found> = keys.into_iter().zip(shown).collect();
    all.extend(stored);
    all.sort_by_key(|(key, _)| *key);
    all.truncate(asked.limit);
    let mut body = "[".to_owned();
    // Each row goes as it is copied: there may be a hundred thousand.
    for (at, (_, row)) in all.into_iter().enumerate() {
        body.push_str(if at == 0 { "" } else { "," });
        body.push_str(&row);
    }
    body.push(']');
    Ok(body)
}

fn json(of: &impl serde::Serialize) -> String {
    serde_json::to_string(of).expect("rows are text and numbers")
}
