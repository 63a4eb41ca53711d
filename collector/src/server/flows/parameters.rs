//! What a request for flows may ask. Says in a sentence which parameter is wrong, and what it may be.

use axum::extract::Query;
use axum::http::Uri;
use jiff::{SignedDuration, Timestamp};
use regex::{Regex, RegexBuilder};

use crate::flows::{Clock, End, Filter, Sort, Span, State, Statistic};

const DEFAULT_LIMIT: usize = 1000;
const MAX_LIMIT: usize = 100_000;
const MAX_PATTERN: usize = 1000;
/// What a compiled pattern may take.
const MAX_PATTERN_BYTES: usize = 1 << 20;
/// Numbers from here on are milliseconds; as seconds they would be in the year 5138.
const MILLISECONDS: f64 = 1e11;

const NAMES: [&str; 15] = [
    "namespace",
    "workload",
    "src",
    "dst",
    "port",
    "protocol",
    "state",
    "role",
    "include",
    "exclude",
    "from",
    "to",
    "sort",
    "limit",
    "stats-type",
];

/// What happens to parameters that there are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    Refused,
    /// Data sources send some of their own.
    Ignored,
}

#[derive(Debug)]
pub(super) struct Parameters {
    filter: Filter,
    pub(super) from: Option<Timestamp>,
    pub(super) to: Option<Timestamp>,
    pub(super) sort: Sort,
    pub(super) limit: usize,
    pub(super) statistic: Statistic,
}

impl Parameters {
    pub(super) fn of(uri: &Uri, unknown: Unknown) -> Result<Self, String> {
        let Query(pairs): Query<Vec<(String, String)>> = Query::try_from_uri(uri)
            .map_err(|_| "the query is not name=value&…: encode what is special".to_owned())?;
        let mut parameters = Self {
            filter: Filter::default(),
            from: None,
            to: None,
            sort: Sort::default(),
            limit: DEFAULT_LIMIT,
            statistic: Statistic::default(),
        };
        for (name, value) in &pairs {
            // A dashboard variable without a value.
            if value.is_empty() {
                continue;
            }
            if !NAMES.contains(&name.as_str()) {
                if unknown == Unknown::Refused {
                    let names = NAMES.join(", ");
                    return Err(format!("there is no parameter `{name}`; they are {names}"));
                }
                continue;
            }
            parameters
                .set(name, value)
                .map_err(|expected| format!("`{name}` is `{value}`: {expected}"))?;
        }
        if let (Some(from), Some(to)) = (parameters.from, parameters.to)
            && from > to
        {
            return Err("`from` is later than `to`: exchange them".to_owned());
        }
        Ok(parameters)
    }

    pub(super) fn has_range(&self) -> bool {
        self.from.is_some() || self.to.is_some()
    }

    /// The filter, its times in those of the kernel.
    pub(super) fn filter(&self, clock: Clock) -> Filter {
        let span = self.has_range().then(|| Span {
            from: self.from.map_or(0, |from| clock.monotonic(from)),
            to: clock.monotonic(self.to.unwrap_or(clock.wall)),
        });
        Filter {
            span,
            ..self.filter.clone()
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let filter = &mut self.filter;
        match name {
            "namespace" => filter.namespace = Some(value.to_owned()),
            "workload" => filter.workload = Some(value.to_owned()),
            "src" => filter.source = Some(whom(value)?),
            "dst" => filter.destination = Some(whom(value)?),
            "port" => {
                let port: Option<u16> = value.parse().ok().filter(|&port| port > 0);
                filter.port = Some(port.ok_or("write a number from 1 to 65535")?);
            }
            "protocol" => {
                let known = [("tcp", 6), ("udp", 17)];
                filter.protocol = Some(one_of(&value.to_lowercase(), &known)?);
            }
            "state" => {
                let known = State::ALL.map(|state| (state.as_str(), state));
                filter.state = Some(one_of(value, &known)?);
            }
            "role" => {
                let known = [("client", End::Client), ("server", End::Server)];
                filter.role = Some(one_of(value, &known)?);
            }
            "include" => filter.include = Some(pattern(value)?),
            "exclude" => filter.exclude = Some(pattern(value)?),
            "from" => self.from = Some(time(value)?),
            "to" => self.to = Some(time(value)?),
            "sort" => self.sort = one_of(value, &Sort::ALL)?,
            "limit" => {
                let limit = value.parse().ok();
                let limit = limit.filter(|limit| (1..=MAX_LIMIT).contains(limit));
                self.limit = limit.ok_or(format!("write a number from 1 to {MAX_LIMIT}"))?;
            }
            _ => self.statistic = one_of(value, &Statistic::ALL)?,
        }
        Ok(())
    }
}

fn whom(value: &str) -> Result<crate::flows::Whom, String> {
    let expected = "write an address, a network such as 10.0.0.0/8, or the name of a workload";
    value.parse().map_err(|()| expected.to_owned())
}

fn one_of<T: Copy>(value: &str, known: &[(&str, T)]) -> Result<T, String> {
    let found = known.iter().find(|(name, _)| *name == value);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        format!("write one of {}", names.join(", "))
    })
}

fn pattern(value: &str) -> Result<Regex, String> {
    if value.len() > MAX_PATTERN {
        return Err(format!("write at most {MAX_PATTERN} characters"));
    }
    RegexBuilder::new(value)
        .size_limit(MAX_PATTERN_BYTES)
        .dfa_size_limit(MAX_PATTERN_BYTES)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "the pattern is too large; repeat less".to_owned(),
            _ => "this is no regular expression; escape what is special with \\".to_owned(),
        })
}

fn time(value: &str) -> Result<Timestamp, String> {
    let expected =
        || "write a time such as 2026-11-20T03:10:00Z, or seconds or milliseconds since 1970";
    // A plus sign for the zone that was not encoded.
    if let Ok(time) = value.replace(' ', "+").parse() {
        return Ok(time);
    }
    let number: f64 = value.parse().map_err(|_| expected())?;
    let seconds = if number.abs() >= MILLISECONDS {
        number / 1000.0
    } else {
        number
    };
    SignedDuration::try_from_secs_f64(seconds)
        .and_then(Timestamp::from_duration)
        .map_err(|_| expected().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &str) -> Result<Parameters, String> {
        let uri = format!("/api/flows?{query}").parse().unwrap();
        Parameters::of(&uri, Unknown::Refused)
    }

    #[test]
    fn times_are_understood_as_they_come() {
        let expected: Timestamp = "2026-11-20T03:10:00.25Z".parse().unwrap();
        for text in [
            "2026-11-20T03:10:00.25Z",
            "2026-11-20T04:10:00.25+01:00",
            "2026-11-20T04:10:00.25%2B01:00",
            "1795144200.25",
            "1795144200250",
        ] {
            assert_eq!(
                of(&format!("from={text}")).unwrap().from,
                Some(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |query: &str, expected: &str| {
            assert_eq!(of(query).unwrap_err(), expected);
        };
        check("port=0", "`port` is `0`: write a number from 1 to 65535");
        check(
            "port=http",
            "`port` is `http`: write a number from 1 to 65535",
        );
        check(
            "protocol=sctp",
            "`protocol` is `sctp`: write one of tcp, udp",
        );
        check(
            "state=done",
            "`state` is `done`: write one of connecting, open, closing, closed, failed",
        );
        check(
            "include=(",
            "`include` is `(`: this is no regular expression; escape what is special with \\",
        );
        check(
            "exclude=(a%7B1000%7D)%7B1000%7D",
            "`exclude` is `(a{1000}){1000}`: the pattern is too large; repeat less",
        );
        check(
            "from=yesterday",
            "`from` is `yesterday`: write a time such as 2026-11-20T03:10:00Z, or seconds or milliseconds since 1970",
        );
        check("from=20&to=10", "`from` is later than `to`: exchange them");
        check(
            "from=1e400",
            "`from` is `1e400`: write a time such as 2026-11-20T03:10:00Z, or seconds or milliseconds since 1970",
        );
        check(
            "limit=-1",
            "`limit` is `-1`: write a number from 1 to 100000",
        );
        check(
            "src=10.0.0.300",
            "`src` is `10.0.0.300`: write an address, a network such as 10.0.0.0/8, or the name of a workload",
        );
        assert!(
            of("destination=a")
                .unwrap_err()
                .starts_with("there is no parameter `destination`; they are namespace, ")
        );
        assert!(
            of("include=&from=&namespace=").is_ok(),
            "a variable without a value"
        );
    }
}
