//! Prometheus' wire format to samples; pure. <https://prometheus.io/docs/prometheus/latest/querying/api/>

use std::collections::BTreeMap;

use serde::Deserialize;

use super::QueryError;

/// Of a warning, so much is told.
const MAX_WARNING: usize = 300;

/// One series of an instant vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// What an instant query gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Vector {
    pub samples: Vec<Sample>,
    /// Why there may be series that are not in it, where the server says so.
    pub partial: Option<String>,
}

/// One series of a range query.
#[derive(Debug, Clone, PartialEq)]
pub struct Range {
    pub labels: BTreeMap<String, String>,
    /// Unix seconds and value.
    pub points: Vec<(f64, f64)>,
}

/// What a query over a range gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    pub ranges: Vec<Range>,
    /// Why there may be series or points that are not in it, where the server says so.
    pub partial: Option<String>,
}

#[derive(Deserialize)]
struct Envelope {
    status: Status,
    data: Option<Data>,
    error: Option<String>,
    /// Of Prometheus and Thanos: what could not be read, and what PromQL finds odd.
    warnings: Option<Vec<String>>,
    /// Of VictoriaMetrics: a storage node did not answer.
    #[serde(rename = "isPartial")]
    is_partial: Option<bool>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Status {
    Success,
    Error,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<VectorItem>),
    Matrix(Vec<MatrixItem>),
    Scalar(Point),
    String(serde::de::IgnoredAny),
}

/// Time, and the value as text, because JSON has no infinities.
type Point = (f64, String);

#[derive(Deserialize)]
struct VectorItem {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    // Absent where the sample is a native histogram, which no evidence asks for.
    value: Option<Point>,
}

#[derive(Deserialize)]
struct MatrixItem {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<Point>,
}

pub(super) fn instant(body: &[u8]) -> Result<Vector, QueryError> {
    let (data, partial) = data(body)?;
    let samples = samples(data)?;
    Ok(Vector { samples, partial })
}

fn samples(data: Data) -> Result<Vec<Sample>, QueryError> {
    match data {
        Data::Vector(items) => items
            .into_iter()
            .filter_map(|item| item.value.map(|point| (item.metric, point)))
            .map(|(labels, (_, text))| {
                Ok(Sample {
                    labels,
                    value: number(&text)?,
                })
            })
            .collect(),
        Data::Scalar((_, text)) => Ok(vec![Sample {
            labels: BTreeMap::new(),
            value: number(&text)?,
        }]),
        Data::Matrix(_) | Data::String(_) => Err(QueryError::Malformed(
            "an instant vector was asked for".into(),
        )),
    }
}

pub(super) fn range(body: &[u8]) -> Result<Matrix, QueryError> {
    let (Data::Matrix(items), partial) = data(body)? else {
        return Err(QueryError::Malformed("a matrix was asked for".into()));
    };
    let point = |(time, text): Point| Ok((time, number(&text)?));
    let ranges: Result<_, QueryError> = items
        .into_iter()
        .map(|item| {
            Ok(Range {
                labels: item.metric,
                points: item
                    .values
                    .into_iter()
                    .map(point)
                    .collect::<Result<_, _>>()?,
            })
        })
        .collect();
    Ok(Matrix {
        ranges: ranges?,
        partial,
    })
}

/// The reason Prometheus gives for refusing a query, if the body is an answer of Prometheus.
pub(super) fn refusal(body: &[u8]) -> Option<String> {
    let envelope: Envelope = serde_json::from_slice(body).ok()?;
    (envelope.status == Status::Error).then_some(envelope.error)?
}

/// With why a part of it may be missing.
fn data(body: &[u8]) -> Result<(Data, Option<String>), QueryError> {
    let envelope: Envelope = serde_json::from_slice(body).map_err(|error| {
        // What asks people to log in answers with status 200.
        let html = body.trim_ascii_start().starts_with(b"<");
        QueryError::Malformed(match html {
            true => "it is a web page; is `prometheus` the address of its API?".into(),
            false => error.to_string(),
        })
    })?;
    let partial = partial(&envelope);
    match (envelope.status, envelope.data) {
        (Status::Success, Some(data)) => Ok((data, partial)),
        (Status::Success, None) => Err(QueryError::Malformed("it has no `data`".into())),
        (Status::Error, _) => Err(QueryError::Refused(
            envelope.error.unwrap_or_else(|| "without a reason".into()),
        )),
    }
}

fn partial(envelope: &Envelope) -> Option<String> {
    let mut warnings = envelope.warnings.iter().flatten();
    let warning = warnings.find(|warning| is_of_missing_series(warning));
    if let Some(warning) = warning {
        let warning: String = warning.chars().take(MAX_WARNING).collect();
        return Some(format!(
            "Prometheus answers with a part of the series: {warning}"
        ));
    }
    (envelope.is_partial == Some(true))
        .then(|| "Prometheus answers with a part of the series: it calls the answer partial".into())
}

/// PromQL's own warnings are about the query; and that Thanos has no store for a time is the end of what was kept.
fn is_of_missing_series(warning: &str) -> bool {
    !warning.starts_with("PromQL ") && !warning.contains("No StoreAPIs matched")
}

fn number(text: &str) -> Result<f64, QueryError> {
    text.parse()
        .map_err(|_| QueryError::Malformed(format!("`{text}` is not a number")))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(body: &str, expected: Expect) {
        let outcome = match instant(body.as_bytes()) {
            Ok(vector) => vector
                .samples
                .iter()
                .map(|sample| format!("{:?} {}\n", sample.labels, sample.value))
                .collect(),
            Err(error) => format!("error: {error}\n"),
        };
        expected.assert_eq(&outcome);
    }

    #[test]
    fn vectors_and_scalars_are_read() {
        check(
            r#"{"status":"success","data":{"resultType":"vector","result":[
                {"metric":{"a":"b"},"value":[1700000000,"0.5"]},{"metric":{},"value":[1700000000.1,"+Inf"]},
                {"metric":{},"value":[1,"NaN"]},{"metric":{"h":"native"},"histogram":[1,{}]}]},"warnings":["w"]}"#,
            expect![[r#"
                {"a": "b"} 0.5
                {} inf
                {} NaN
            "#]],
        );
        check(
            r#"{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}"#,
            expect![[r#"
                {} 1
            "#]],
        );
    }

    #[test]
    fn an_answer_that_lacks_series_is_told_from_a_whole_one() {
        for (more, is_partial) in [
            ("", false),
            (r#","warnings":null,"isPartial":false"#, false),
            (
                r#","warnings":["PromQL warning: bucket label \"le\" is missing"]"#,
                false,
            ),
            (
                r#","warnings":["No StoreAPIs matched for this query"]"#,
                false,
            ),
            (
                r#","warnings":["PromQL info: x","receive series from Addr: s:10901: unavailable"]"#,
                true,
            ),
            (r#","isPartial":true"#, true),
        ] {
            let body = |kind: &str| {
                format!(
                    r#"{{"status":"success","data":{{"resultType":"{kind}","result":[]}}{more}}}"#
                )
            };
            let partial = instant(body("vector").as_bytes()).unwrap().partial;
            assert_eq!(partial.is_some(), is_partial, "{more}: {partial:?}");
            let of_range = range(body("matrix").as_bytes()).unwrap().partial;
            assert_eq!(of_range, partial);
        }
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        check(
            "",
            expect![[r#"
            error: the answer of Prometheus cannot be read: EOF while parsing a value at line 1 column 0
        "#]],
        );
        check(
            r#"{"status":"success"}"#,
            expect![[r#"
                error: the answer of Prometheus cannot be read: it has no `data`
            "#]],
        );
        check(
            r#"{"status":"error","errorType":"execution","error":"query processing would load too many samples"}"#,
            expect![[r#"
                error: Prometheus refuses the query: query processing would load too many samples
            "#]],
        );
        check(
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"x"]}]}}"#,
            expect![[r#"
                error: the answer of Prometheus cannot be read: `x` is not a number
            "#]],
        );
        check(
            r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#,
            expect![[r#"
                error: the answer of Prometheus cannot be read: an instant vector was asked for
            "#]],
        );
    }
}
