//! What a patched text says that it is: upstream decodes it as that, whatever the URL names.

use mk8s_api::registry::go_type;
use mk8s_api::{meta, schema};
use serde_json::Value;

use super::decode::{NO_GROUP_VERSION, NO_KIND, missing, names, unregistered};

/// The kind that is wanted, of a scheme that knows the built-in ones.
pub struct Wanted<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    /// Whether what names no version is upstream's own form of the kind, and not the wanted version's.
    pub internal: bool,
}

/// What a text says that it is, where it may say so.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    Wanted,
    /// Upstream's own form, in which no field has the name that it has in a text.
    Internal,
}

/// # Errors
/// Why it is none of the kind that is wanted, in upstream's words.
pub fn said(value: &Value, wanted: &Wanted<'_>) -> Result<Said, String> {
    let (api_version, kind) = names(value).map_err(|why| format!("{NO_KIND}: {why}"))?;
    let kind = if kind.is_empty() { wanted.kind } else { kind };
    let own = go_type(wanted.group, wanted.kind);
    let unknown = |said: &str| Err(format!("converting ({said}) to ({own}): unknown conversion"));
    if api_version.matches('/').count() > 1 {
        return Err(format!("{NO_GROUP_VERSION}: {api_version}"));
    }
    let (group, version) = match meta::split_api_version(api_version) {
        ("", "") if !wanted.internal => (wanted.group, wanted.version),
        said => said,
    };
    match (group, version) {
        ("", "") if kind == wanted.kind => Ok(Said::Internal),
        ("", "") if schema::by_gvk(wanted.group, wanted.version, kind).is_some() => {
            unknown(&go_type(wanted.group, kind))
        }
        ("", "") => Err(unregistered(
            kind,
            &format!("the internal version of group {:?}", wanted.group),
        )),
        (_, "") => Err(missing("apiVersion", value.to_string().as_bytes())),
        said if said == (wanted.group, wanted.version) && kind == wanted.kind => Ok(Said::Wanted),
        (group, version) if schema::by_gvk(group, version, kind).is_some() => unknown(&format!("{version}.{kind}")),
        (group, version) => {
            let api_version = meta::join_api_version(group, version);
            Err(unregistered(kind, &format!("version {api_version:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// All asked of v1.35.4.
    #[test]
    fn a_text_is_what_it_says() {
        let wanted = |internal| Wanted {
            group: "apps",
            version: "v1",
            kind: "Deployment",
            internal,
        };
        for (text, expected) in [
            (json!({"apiVersion": "apps/v1", "kind": "Deployment"}), Ok(Said::Wanted)),
            (json!({"apiVersion": "apps/v1"}), Ok(Said::Wanted)),
            (json!({"kind": "Deployment"}), Ok(Said::Internal)),
            (json!({"apiVersion": "/", "kind": null}), Ok(Said::Internal)),
            (
                json!({"kind": "DaemonSet"}),
                Err("converting (apps.DaemonSet) to (apps.Deployment): unknown conversion"),
            ),
            (
                json!({"kind": "Pod"}),
                Err(
                    r#"no kind "Pod" is registered for the internal version of group "apps" in scheme "pkg/runtime/scheme.go:111""#,
                ),
            ),
            (
                json!({"apiVersion": "apps/v1", "kind": "DaemonSet"}),
                Err("converting (v1.DaemonSet) to (apps.Deployment): unknown conversion"),
            ),
            (
                json!({"apiVersion": "v1"}),
                Err(r#"no kind "Deployment" is registered for version "v1" in scheme "pkg/runtime/scheme.go:111""#),
            ),
            (
                json!({"apiVersion": "a/b/c"}),
                Err("unexpected GroupVersion string: a/b/c"),
            ),
            (
                json!({"apiVersion": "v1/"}),
                Err(r#"Object 'apiVersion' is missing in '{"apiVersion":"v1/"}'"#),
            ),
            (
                json!({"kind": 7}),
                Err(
                    "couldn't get version/kind; json parse error: json: cannot unmarshal number into Go struct field .kind of type string",
                ),
            ),
        ] {
            let expected = expected.map_err(str::to_string);
            assert_eq!(said(&text, &wanted(true)), expected, "{text}");
        }
        assert_eq!(said(&json!({}), &wanted(false)), Ok(Said::Wanted));
    }
}
