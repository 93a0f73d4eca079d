//! YAML in: the same pass as JSON, straight from the parser's events. Scalars are read as YAML 1.1 does, as kubectl and
//! upstream do (`0644` is octal, `yes` is true).

use serde::de::DeserializeSeed as _;
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{DuplicateKeyPolicy, Error, Options};

use super::typed::{Context, Decoded, Validation};
use super::{DecodeError, doubles};
use crate::schema::Schema;

/// Decodes a YAML body (server-side apply sends such, and some clients all). Of several documents it is the first, as
/// Go's reader has it.
pub fn decode(bytes: &[u8], ty: Option<&Schema>, validation: Validation) -> Result<Decoded, DecodeError> {
    let mut context = Context::new(validation);
    let value =
        serde_saphyr::with_deserializer_from_slice_with_options(first_document(bytes), options(), |deserializer| {
            context.seed(ty).deserialize(deserializer)
        });
    match value {
        Ok(value) => {
            let text = context
                .takes_doubles()
                .then(|| std::str::from_utf8(first_document(bytes)).ok())
                .flatten();
            let mut decoded = context.finish(value);
            let mut doubles = text.map(doubles::of).unwrap_or_default();
            // Where they are refused, all of them are one error.
            if validation == Validation::Strict && !doubles.is_empty() {
                doubles = vec![format!("yaml: unmarshal errors:\n  {}", doubles.join("\n  "))];
            }
            decoded.problems.splice(..0, doubles);
            Ok(decoded)
        }
        Err(Error::Budget {
            breach: BudgetBreach::Depth { .. },
            ..
        }) => Err(DecodeError::TooDeep),
        Err(error) => Err(context.error(&format_args!("yaml: {error}"))),
    }
}

/// A stream's bytes up to where its second document begins.
fn first_document(bytes: &[u8]) -> &[u8] {
    let (mut at, mut begun) = (0, false);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let marks = |mark: &[u8]| {
            let rest = line.strip_prefix(mark);
            rest.is_some_and(|rest| rest.first().is_none_or(u8::is_ascii_whitespace))
        };
        if marks(b"---") && begun {
            return &bytes[..at];
        }
        at += line.len();
        if marks(b"...") {
            return &bytes[..at];
        }
        let blank = matches!(line.trim_ascii_start(), b"" | [b'#', ..]) || line.starts_with(b"%");
        begun |= !blank;
    }
    bytes
}

/// Fewer levels than in other formats: a level takes this reader 20 KB of stack where nothing is optimized, and a request
/// has 2 MB.
pub const MAX_LEVELS: usize = 64;

fn options() -> Options {
    let mut options = Options::default();
    // The pass itself notes them.
    options.duplicate_keys = DuplicateKeyPolicy::PassThrough;
    options.legacy_octal_numbers = true;
    options.with_snippet = false;
    if let Some(budget) = &mut options.budget {
        budget.max_depth = MAX_LEVELS;
    }
    options
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::schema::by_gvk;

    #[test]
    fn yaml_is_read_as_upstream_reads_it() {
        let text = "\
apiVersion: v1
kind: Pod
metadata:
  name: a
  labels: &labels {app: web, version: '1'}
  annotations: *labels
spec:
  hostNetwork: yes
  priority: 0x10
  containers:
  - name: c
    imgae: i
    command: [\"sh\", '-c', |
      echo one
      echo two
      ]
    resources: {limits: {cpu: 1, memory: 1Gi}}
  volumes:
  - name: v
    secret:
      defaultMode: 0644
  priority: 5
";
        // The block scalar inside a flow list is no YAML.
        assert!(decode(text.as_bytes(), by_gvk("", "v1", "Pod"), Validation::Strict).is_err());
        let text = text.replace(
            "[\"sh\", '-c', |\n      echo one\n      echo two\n      ]",
            "\n    - |\n      echo one\n      echo two",
        );
        let decoded = decode(text.as_bytes(), by_gvk("", "v1", "Pod"), Validation::Strict).unwrap();
        assert_eq!(
            decoded.value,
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "a", "labels": {"app": "web", "version": "1"}, "annotations": {"app": "web", "version": "1"}},
                "spec": {"hostNetwork": true, "priority": 5,
                    "containers": [{"name": "c", "command": ["echo one\necho two\n"], "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}],
                    "volumes": [{"name": "v", "secret": {"defaultMode": 420}}]}, "status": {}})
        );
        assert_eq!(
            decoded.problems,
            [
                "yaml: unmarshal errors:\n  line 22: key \"priority\" already set in map",
                r#"unknown field "spec.containers[0].imgae""#,
            ]
        );
    }

    #[test]
    fn a_stream_is_its_first_document() {
        for (stream, first) in [
            ("a: 1\n---\nb: [\n", "a: 1\n"),
            ("# x\n\n---\na: 1\n--- {}\n", "# x\n\n---\na: 1\n"),
            (
                "%YAML 1.1\n---\na: |\n  ---\n  b\n",
                "%YAML 1.1\n---\na: |\n  ---\n  b\n",
            ),
            ("a: 1\n...\nb: 2", "a: 1\n...\n"),
            ("---\n---\na: 1", "---\n"),
            ("----: 1\n---", "----: 1\n"),
        ] {
            assert_eq!(first_document(stream.as_bytes()), first.as_bytes(), "{stream}");
        }
        let decoded = decode(b"a: 1\n---\nb: [\n", None, Validation::Warn).unwrap();
        assert_eq!(decoded.value, json!({"a": 1}));
    }

    #[test]
    fn wrong_types_are_refused() {
        let number = b"metadata:\n  labels:\n    a: 1\n";
        assert_eq!(
            decode(number, by_gvk("", "v1", "Pod"), Validation::Warn),
            Err(DecodeError::Type(
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string".into()
            ))
        );
        let quoted = decode(b"a: 'yes'\nb: 2001-01-01\nc: ~\n8080: x\n", None, Validation::Warn).unwrap();
        assert_eq!(
            quoted.value,
            json!({"a": "yes", "b": "2001-01-01", "c": null, "8080": "x"})
        );
    }

    #[test]
    fn what_later_documents_have_twice_is_not_told() {
        let stream = b"a: 1\na: 2\n---\nb: 1\nb: 1\n";
        let decoded = decode(stream, None, Validation::Warn).unwrap();
        assert_eq!(decoded.problems.len(), 1, "{:?}", decoded.problems);
    }
}
