//! What a container may learn of its own pod: fields and resources, for env and downwardAPI volumes alike.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};

use crate::{pod, resources};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    #[error("container {0} not found")]
    Container(String),
    #[error("unsupported container resource : {0}")]
    Resource(String),
    #[error("invalid divisor {0}")]
    Divisor(String),
}

/// What the pod's own fields don't hold.
#[derive(Clone, Debug, Default)]
pub struct RuntimeValues {
    pub host_ip: String,
    pub pod_ips: Vec<String>,
    /// Stands in for a limit that is not set: what the node can give.
    pub allocatable: BTreeMap<String, i64>,
}

pub fn field(pod: &Pod, selector: &ObjectFieldSelector, values: &RuntimeValues) -> Result<String, Error> {
    let path = selector.field_path.as_str();
    let own = |s: &Option<String>| s.clone().unwrap_or_default();
    if let Some((base, key)) = subscript(path) {
        let map = match base {
            "metadata.labels" => pod::labels(pod),
            "metadata.annotations" => pod::annotations(pod),
            _ => return Err(Error::Field(path.to_owned())),
        };
        return Ok(map.get(key).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => own(&pod.metadata.name),
        "metadata.namespace" => own(&pod.metadata.namespace),
        "metadata.uid" => own(&pod.metadata.uid),
        "metadata.labels" => format_map(pod::labels(pod)),
        "metadata.annotations" => format_map(pod::annotations(pod)),
        "spec.nodeName" => own(&pod::spec(pod).node_name),
        "spec.serviceAccountName" => own(&pod::spec(pod).service_account_name),
        "status.hostIP" | "status.hostIPs" => values.host_ip.clone(),
        "status.podIP" => values.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => values.pod_ips.join(","),
        _ => return Err(Error::Field(path.to_owned())),
    })
}

/// `metadata.labels['key']` → (`metadata.labels`, `key`)
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (base, rest) = path.split_once("['")?;
    Some((base, rest.strip_suffix("']")?))
}

/// One `key="value"` per line, in order of the keys, quoted as Go quotes.
pub fn format_map(map: &BTreeMap<String, String>) -> String {
    let lines: Vec<String> = map.iter().map(|(k, v)| format!("{k}={}", quote(v))).collect();
    lines.join("\n")
}

fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

pub fn resource(
    pod: &Pod,
    container: &Container,
    selector: &ResourceFieldSelector,
    values: &RuntimeValues,
) -> Result<String, Error> {
    let container = match selector.container_name.as_deref().filter(|n| !n.is_empty()) {
        Some(name) => pod::container(pod, name).ok_or_else(|| Error::Container(name.to_owned()))?,
        None => container,
    };
    let (kind, name) = selector.resource.split_once('.').unwrap_or(("", ""));
    let hugepages = name.starts_with("hugepages-");
    if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !hugepages {
        return Err(Error::Resource(selector.resource.clone()));
    }
    let amount = match kind {
        "limits" => resources::limit(container, name)
            .filter(|v| *v > 0)
            .or_else(|| values.allocatable.get(name).copied())
            .unwrap_or(0),
        "requests" => resources::request(container, name).unwrap_or(0),
        _ => return Err(Error::Resource(selector.resource.clone())),
    };
    let divisor = match &selector.divisor {
        Some(q) if q.0 != "0" && !q.0.is_empty() => resources::amount(name, q),
        _ if name == "cpu" => 1000,
        _ => 1,
    };
    if divisor <= 0 {
        return Err(Error::Divisor(
            selector.divisor.as_ref().map(|d| d.0.clone()).unwrap_or_default(),
        ));
    }
    // Rounded up; a sum could pass what the number holds.
    Ok((amount / divisor + i64::from(amount % divisor > 0)).to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_and_resources() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"b": "2", "a": "x\"y"}},
            "spec": {"nodeName": "node", "containers": [{"name": "c", "image": "i", "resources": {
                "limits": {"cpu": "1500m", "ephemeral-storage": "9223372036854775807"}, "requests": {"memory": "64Mi"}}}]},
        }))
        .unwrap();
        let values = RuntimeValues {
            host_ip: "10.0.0.1".into(),
            pod_ips: vec!["10.244.0.5".into()],
            allocatable: [("memory".to_owned(), 1 << 30)].into(),
        };
        for (path, expected) in [
            ("metadata.name", Some("p")),
            ("metadata.labels", Some("a=\"x\\\"y\"\nb=\"2\"")),
            ("metadata.labels['b']", Some("2")),
            ("metadata.annotations['none']", Some("")),
            ("status.podIP", Some("10.244.0.5")),
            ("status.hostIP", Some("10.0.0.1")),
            ("spec.nodeName", Some("node")),
            ("spec.restartPolicy", None),
        ] {
            let selector = ObjectFieldSelector {
                field_path: path.into(),
                api_version: None,
            };
            assert_eq!(field(&pod, &selector, &values).ok().as_deref(), expected, "{path}");
        }
        for (name, divisor, expected) in [
            ("limits.cpu", None, Some("2")),
            ("limits.cpu", Some("1m"), Some("1500")),
            ("requests.memory", Some("1Mi"), Some("64")),
            ("limits.memory", None, Some("1073741824")),
            ("requests.cpu", None, Some("0")),
            ("limits.ephemeral-storage", Some("2"), Some("4611686018427387904")),
            ("limits.gpu", None, None),
        ] {
            let selector = ResourceFieldSelector {
                resource: name.into(),
                divisor: divisor.map(|d| k8s_openapi::apimachinery::pkg::api::resource::Quantity(d.into())),
                container_name: None,
            };
            let got = resource(&pod, &pod::containers(&pod)[0], &selector, &values).ok();
            assert_eq!(got.as_deref(), expected, "{name} {divisor:?}");
        }
    }
}
