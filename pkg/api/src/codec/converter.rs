//! The words of upstream's converter, which makes an object of a tree where no text is read: after a strategic merge and after
//! an apply. It knows Go's kinds, and no path.

use serde_json::Number;

use crate::schema::{Node, Scalar, What};

/// What stands where it does not fit.
pub(super) enum Found {
    String,
    Bool,
    Number(Number),
    Object,
    Array,
}

impl Found {
    /// As Go's JSON reader names it; a number is told where it is only too large or not whole.
    pub(super) fn in_json(&self, node: &Node) -> String {
        match self {
            Found::String => "string".into(),
            Found::Bool => "bool".into(),
            Found::Object => "object".into(),
            Found::Array => "array".into(),
            Found::Number(number) => match node.what {
                What::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::IntOrString) => format!("number {number}"),
                _ => "number".into(),
            },
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Found::String => "string",
            Found::Bool => "bool",
            Found::Object => "map",
            Found::Array => "slice",
            Found::Number(number) if number.is_f64() => "float64",
            Found::Number(_) => "int64",
        }
    }
}

/// Why a value is none of a type, which Go calls `go_type`. None for types that read themselves, from JSON.
pub(super) fn words(node: &Node, go_type: &str, found: &Found) -> Option<String> {
    let from = found.kind();
    let What::Scalar(scalar) = &node.what else {
        return match &node.what {
            What::Object(_) => Some(format!("cannot restore struct from: {from}")),
            What::Map(_) => Some(format!("cannot restore map from {from}")),
            What::List(_) => Some(format!("cannot restore slice from {from}")),
            _ => None,
        };
    };
    let to = match scalar {
        Scalar::Bytes => return Some(format!("cannot restore slice from {from}")),
        Scalar::String => "string",
        Scalar::Bool => "bool",
        Scalar::Int32 => "int32",
        Scalar::Int64 => "int64",
        Scalar::Double => "float64",
        _ => return None,
    };
    Some(match (to, from) {
        // What Go's language converts and JSON does not.
        ("string", "int64") | ("int32" | "int64", "float64") => format!("cannot convert {from} to {go_type}"),
        _ => format!("unrecognized type: {to}"),
    })
}

/// A number in a field of `bits` bits, as Go converts one: what is too large loses its upper bits. None where it is not whole.
pub(super) fn wrapped(number: &Number, bits: u32) -> Option<i64> {
    let whole = match number.as_i64() {
        Some(value) => value,
        None => {
            let value = number.as_f64().filter(|value| value.fract() == 0.0)?;
            // Go says of larger ones only that the result is some number; on the machines that it runs on most, this one.
            if value.abs() < 2_f64.powi(63) {
                value as i64
            } else {
                i64::MIN
            }
        }
    };
    Some(if bits == 32 { i64::from(whole as i32) } else { whole })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use crate::codec::{DecodeError, Validation, convert};
    use crate::schema;

    fn converted(patch: Value) -> Result<Value, DecodeError> {
        let ty = schema::by_api_version("apps/v1", "Deployment").unwrap();
        convert(patch, ty, Validation::Warn).map(|decoded| decoded.value)
    }

    /// Strategic merges, and what upstream's server says of each.
    const TOLD: &[(&str, &str)] = &[
        (r#"{"spec":{"replicas":"one"}}"#, "unrecognized type: int32"),
        (r#"{"spec":{"replicas":1.5}}"#, "cannot convert float64 to int32"),
        (r#"{"spec":{"replicas":true}}"#, "unrecognized type: int32"),
        (r#"{"spec":{"replicas":[1]}}"#, "unrecognized type: int32"),
        (r#"{"spec":{"replicas":{"a":1}}}"#, "unrecognized type: int32"),
        (r#"{"spec":{"paused":"x"}}"#, "unrecognized type: bool"),
        (r#"{"spec":{"paused":1}}"#, "unrecognized type: bool"),
        (r#"{"spec":5}"#, "cannot restore struct from: int64"),
        (r#"{"spec":"x"}"#, "cannot restore struct from: string"),
        (r#"{"spec":[1]}"#, "cannot restore struct from: slice"),
        (r#"{"metadata":{"labels":"x"}}"#, "cannot restore map from string"),
        (r#"{"metadata":{"labels":{"a":1}}}"#, "cannot convert int64 to string"),
        (r#"{"metadata":{"labels":{"a":true}}}"#, "unrecognized type: string"),
        (r#"{"metadata":{"labels":{"a":1.5}}}"#, "unrecognized type: string"),
        (r#"{"metadata":{"labels":{"a":[1]}}}"#, "unrecognized type: string"),
        (r#"{"metadata":{"finalizers":"x"}}"#, "cannot restore slice from string"),
        (r#"{"metadata":{"finalizers":[1]}}"#, "cannot convert int64 to string"),
        (r#"{"metadata":{"annotations":[1]}}"#, "cannot restore map from slice"),
        (
            r#"{"spec":{"template":{"spec":{"containers":"x"}}}}"#,
            "cannot restore slice from string",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"c","image":5}]}}}}"#,
            "cannot convert int64 to string",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"c","ports":[{"containerPort":"80"}]}]}}}}"#,
            "unrecognized type: int32",
        ),
        (
            r#"{"spec":{"template":{"spec":{"restartPolicy":5}}}}"#,
            "cannot convert int64 to v1.RestartPolicy",
        ),
        (
            r#"{"spec":{"template":{"spec":{"restartPolicy":true}}}}"#,
            "unrecognized type: string",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"x"}}}]}}}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":true}}}]}}}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            r#"{"metadata":{"creationTimestamp":"yesterday"}}"#,
            r#"parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006""#,
        ),
        (
            r#"{"metadata":{"creationTimestamp":5}}"#,
            "json: cannot unmarshal number into Go value of type string",
        ),
        (
            r#"{"spec":{"strategy":{"rollingUpdate":{"maxSurge":true}}}}"#,
            "json: cannot unmarshal bool into Go value of type int32",
        ),
        (
            r#"{"spec":{"strategy":{"rollingUpdate":{"maxSurge":1.5}}}}"#,
            "json: cannot unmarshal number 1.5 into Go value of type int32",
        ),
        (
            r#"{"spec":{"strategy":{"rollingUpdate":{"maxSurge":[1]}}}}"#,
            "json: cannot unmarshal array into Go value of type int32",
        ),
        (
            r#"{"spec":{"template":{"spec":{"terminationGracePeriodSeconds":"x"}}}}"#,
            "unrecognized type: int64",
        ),
        (
            r#"{"spec":{"template":{"spec":{"securityContext":[1]}}}}"#,
            "cannot restore struct from: slice",
        ),
        (
            r#"{"spec":{"template":{"spec":{"nodeSelector":{"a":5}}}}}"#,
            "cannot convert int64 to string",
        ),
        (
            r#"{"spec":{"selector":{"matchExpressions":[{"key":"a","operator":"In","values":"x"}]}}}"#,
            "cannot restore slice from string",
        ),
    ];

    #[test]
    fn what_does_not_fit_is_told_in_the_converters_words() {
        for (patch, words) in TOLD {
            let told = converted(serde_json::from_str(patch).unwrap());
            assert_eq!(told, Err(DecodeError::Type((*words).into())), "{patch}");
        }
    }

    #[test]
    fn whole_floats_are_integers_and_large_ones_are_cut() {
        for (replicas, kept) in [
            (json!(2.0), 2_i64),
            (json!(3_000_000_000_u32), -1_294_967_296),
            (json!(-5), -5),
        ] {
            let whole = converted(json!({"spec": {"replicas": replicas}})).unwrap();
            assert_eq!(whole["spec"]["replicas"], json!(kept), "{replicas}");
        }
    }
}
