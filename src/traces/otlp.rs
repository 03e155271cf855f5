//! Spans as OTLP's JSON. Pure.

use serde_json::{Value as Json, json};

use super::{Span, Value};

/// The body of one export.
pub(super) fn document(spans: &[Span]) -> Json {
    let version = env!("CARGO_PKG_VERSION");
    let service = [("service.name", text("quittance")), ("service.version", text(version))];
    json!({ "resourceSpans": [{
        "resource": { "attributes": attributes(&service) },
        "scopeSpans": [{
            "scope": { "name": "quittance", "version": version },
            "spans": spans.iter().map(span).collect::<Vec<_>>(),
        }],
    }] })
}

/// How many spans a collector says that it did not take, in its answer to an export.
pub(super) fn rejected(answer: &[u8]) -> usize {
    let answer: Json = serde_json::from_slice(answer).unwrap_or_default();
    let count = &answer["partialSuccess"]["rejectedSpans"];
    let count = count.as_u64().or_else(|| count.as_str()?.parse().ok());
    count.and_then(|count| usize::try_from(count).ok()).unwrap_or_default()
}

fn span(span: &Span) -> Json {
    let mut out = json!({
        "traceId": format!("{:032x}", span.trace.as_u128()),
        "spanId": format!("{:016x}", span.id),
        "name": span.name,
        "kind": span.kind as u8,
        "startTimeUnixNano": span.began.to_string(),
        "endTimeUnixNano": span.ended.to_string(),
        "attributes": attributes(&span.attributes),
    });
    if let Some(parent) = span.parent {
        out["parentSpanId"] = format!("{parent:016x}").into();
    }
    if span.failed {
        out["status"] = json!({ "code": 2 });
    }
    out
}

fn attributes(all: &[(&str, Value)]) -> Vec<Json> {
    let value = |value: &Value| match value {
        Value::Text(text) => json!({ "stringValue": text }),
        // Whole numbers of 64 bits are texts in protobuf's JSON.
        Value::Number(number) => json!({ "intValue": number.to_string() }),
        Value::Flag(flag) => json!({ "boolValue": flag }),
    };
    all.iter().map(|(key, of)| json!({ "key": key, "value": value(of) })).collect()
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_collector_rejects_is_read_from_its_answer() {
        for (answer, count) in [
            ("", 0),
            ("{}", 0),
            ("<html>", 0),
            (r#"{"partialSuccess":{}}"#, 0),
            (r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"x"}}"#, 3),
            (r#"{"partialSuccess":{"rejectedSpans":4}}"#, 4),
        ] {
            assert_eq!(rejected(answer.as_bytes()), count, "{answer}");
        }
    }
}
