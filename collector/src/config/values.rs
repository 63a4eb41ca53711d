//! How the values of keys are written: from text and back.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::signals::{HISTOGRAMS, MAPS};

/// Bounds of buckets, in seconds: what the kernel's clock can tell apart, and an hour.
const BOUNDS: RangeInclusive<f64> = 1e-6..=3600.0;
const MAP_ENTRIES: RangeInclusive<u32> = 64..=4_194_304;

pub(super) fn parse<T: FromStr>(text: &str, expected: &str) -> Result<T, String> {
    text.parse().map_err(|_| expected.to_owned())
}

/// Anything with a text of its own, in a range.
pub(super) fn number<T>(text: &str, range: RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    let expected = || format!("write a number from {} to {}", range.start(), range.end());
    let number: T = text.parse().map_err(|_| expected())?;
    range
        .contains(&number)
        .then_some(number)
        .ok_or_else(expected)
}

/// `example` shows the notation.
pub(super) fn duration(
    text: &str,
    range: RangeInclusive<Duration>,
    example: &str,
) -> Result<Duration, String> {
    let expected = || {
        let [least, most] = [*range.start(), *range.end()].map(humantime::format_duration);
        format!("write a duration from {least} to {most}, such as {example}")
    };
    let duration = humantime::parse_duration(text).map_err(|_| expected())?;
    (range.contains(&duration).then_some(duration)).ok_or_else(expected)
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err("write on or off".to_owned()),
    }
}

pub(super) fn show_switch(on: bool) -> String {
    if on { "on" } else { "off" }.to_owned()
}

/// `tcp_rtt_seconds=0.001,0.01;dns_query_duration_seconds=0.1`.
pub(super) fn buckets(text: &str) -> Result<BTreeMap<String, Vec<f64>>, String> {
    let mut all = BTreeMap::new();
    for (name, list) in entries(text, "tcp_rtt_seconds=0.001,0.01,0.1")? {
        let known = name.strip_prefix(crate::export::PREFIX).unwrap_or(&name);
        let Some((name, most)) = HISTOGRAMS.iter().find(|(histogram, _)| *histogram == known)
        else {
            let names: Vec<&str> = HISTOGRAMS.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "there is no histogram `{name}`, they are {}",
                names.join(", ")
            ));
        };
        let unit = name.rsplit('_').next().unwrap_or(name);
        let bounds = bounds(&list, *most, unit).map_err(|wrong| format!("`{name}`: {wrong}"))?;
        all.insert((*name).to_owned(), bounds);
    }
    Ok(all)
}

fn bounds(list: &str, most: usize, unit: &str) -> Result<Vec<f64>, String> {
    let mut bounds: Vec<f64> = Vec::new();
    for text in list.split(',').map(str::trim) {
        let expected = format!(
            "write {unit} from 0.000001 to {}, such as 0.25",
            BOUNDS.end()
        );
        let bound: f64 = text
            .parse()
            .map_err(|_| format!("`{text}` is no number: {expected}"))?;
        if !BOUNDS.contains(&bound) {
            return Err(format!("{text} cannot be a bound: {expected}"));
        }
        // Programs count in whole microseconds.
        if let Some(last) = bounds.last().filter(|&&last| bound - last < 0.9e-6) {
            return Err(format!(
                "{bound} comes after {last}: write the bounds in ascending order, a microsecond apart or more"
            ));
        }
        bounds.push(bound);
    }
    if bounds.len() > most {
        return Err(format!(
            "{} bounds are too many: the kernel has room for {most}",
            bounds.len()
        ));
    }
    Ok(bounds)
}

pub(super) fn show_buckets(buckets: &BTreeMap<String, Vec<f64>>) -> String {
    let lists = buckets.iter().map(|(name, bounds)| {
        let bounds: Vec<String> = bounds.iter().map(f64::to_string).collect();
        format!("{name}={}", bounds.join(","))
    });
    lists.collect::<Vec<_>>().join(";")
}

/// `tcp_edges=16384;dns_edges=1024`.
pub(super) fn map_capacity(text: &str) -> Result<BTreeMap<String, u32>, String> {
    let mut all = BTreeMap::new();
    for (name, size) in entries(text, "tcp_edges=16384")? {
        if !MAPS.contains(&name.as_str()) {
            return Err(format!(
                "there is no map `{name}` whose size can be chosen, they are {}",
                MAPS.join(", ")
            ));
        }
        let size = number(&size, MAP_ENTRIES).map_err(|wrong| format!("`{name}`: {wrong}"))?;
        all.insert(name, size);
    }
    Ok(all)
}

pub(super) fn show_map_capacity(capacity: &BTreeMap<String, u32>) -> String {
    let sizes = capacity.iter().map(|(name, size)| format!("{name}={size}"));
    sizes.collect::<Vec<_>>().join(";")
}

/// Hides the user and password of every URL in a text.
pub fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        let authority = after.find(['/', ',', ' ', '?', '#']).unwrap_or(after.len());
        masked.push_str(before);
        masked.push_str("://");
        rest = match after[..authority].rfind('@') {
            Some(at) => {
                masked.push_str("***");
                &after[at..]
            }
            None => after,
        };
    }
    masked.push_str(rest);
    masked
}

#[test]
fn passwords_in_addresses_are_hidden() {
    assert_eq!(mask("on"), "on");
    assert_eq!(
        mask("http://a/x@y,https://me:secret@b:9090/,c://d@e"),
        "http://a/x@y,https://***@b:9090/,c://***@e"
    );
}

fn entries(text: &str, example: &str) -> Result<Vec<(String, String)>, String> {
    let entries = text.split(';').map(str::trim);
    let split = |entry: &str| {
        let (name, value) = entry
            .split_once('=')
            .ok_or_else(|| format!("write NAME=VALUE;…, such as {example}"))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    };
    entries
        .filter(|entry| !entry.is_empty())
        .map(split)
        .collect()
}

#[test]
fn a_list_of_bounds_is_taken_as_it_is_or_refused() {
    let check = |text: &str, expected: Result<&[f64], &str>| {
        let found = buckets(&format!("tcp_rtt_seconds={text}"));
        let found = found.map(|all| all["tcp_rtt_seconds"].clone());
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{text}");
    };
    check("0.001, 0.01,0.5", Ok(&[0.001, 0.01, 0.5]));
    check("5", Ok(&[5.0]));
    check(
        "0.01,0.001",
        Err(
            "`tcp_rtt_seconds`: 0.001 comes after 0.01: write the bounds in ascending order, a microsecond apart or more",
        ),
    );
    check(
        "1,1",
        Err(
            "`tcp_rtt_seconds`: 1 comes after 1: write the bounds in ascending order, a microsecond apart or more",
        ),
    );
    check(
        "0,1",
        Err(
            "`tcp_rtt_seconds`: 0 cannot be a bound: write seconds from 0.000001 to 3600, such as 0.25",
        ),
    );
    check(
        "NaN",
        Err(
            "`tcp_rtt_seconds`: NaN cannot be a bound: write seconds from 0.000001 to 3600, such as 0.25",
        ),
    );
    check(
        "",
        Err(
            "`tcp_rtt_seconds`: `` is no number: write seconds from 0.000001 to 3600, such as 0.25",
        ),
    );
    let nineteen: Vec<String> = (1..=19).map(|n| n.to_string()).collect();
    check(
        &nineteen.join(","),
        Err("`tcp_rtt_seconds`: 19 bounds are too many: the kernel has room for 17"),
    );
    assert!(
        buckets("nonsense=1")
            .unwrap_err()
            .starts_with("there is no histogram `nonsense`, they are tcp_")
    );
    assert_eq!(
        buckets("nonsense").unwrap_err(),
        "write NAME=VALUE;…, such as tcp_rtt_seconds=0.001,0.01,0.1"
    );
    let full_name = buckets("runwire_tcp_rtt_seconds=1").unwrap();
    assert_eq!(show_buckets(&full_name), "tcp_rtt_seconds=1");
}

#[test]
fn a_size_of_a_map_is_in_range() {
    assert_eq!(
        show_map_capacity(&map_capacity(" dns_edges = 64; tcp_edges=4194304;").unwrap()),
        "dns_edges=64;tcp_edges=4194304"
    );
    assert_eq!(
        map_capacity("tcp_edges=63").unwrap_err(),
        "`tcp_edges`: write a number from 64 to 4194304"
    );
    assert!(
        map_capacity("active=64")
            .unwrap_err()
            .starts_with("there is no map `active`")
    );
}
