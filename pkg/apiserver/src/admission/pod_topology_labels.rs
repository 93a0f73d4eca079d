//! PodTopologyLabels: a pod is labelled with the zone and region of the node that it is given to.

use mk8s_api::meta;
use serde::Deserialize;
use serde_json::Value;

use super::Attributes;
use crate::lookup::Lookup;
use crate::memo::Parsed;

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

/// What is read of a node, parsed once per state of each.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Node {
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    labels: Option<Labels>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Labels {
    #[serde(rename = "topology.kubernetes.io/zone")]
    zone: Option<String>,
    #[serde(rename = "topology.kubernetes.io/region")]
    region: Option<String>,
}

#[derive(Default)]
pub struct Nodes(Parsed<Node>);

/// `object` is a Binding, or a Pod that is created on its node.
pub fn admit(call: &Attributes<'_>, object: &mut Value, lookup: &dyn Lookup, nodes: &Nodes) {
    let node = match call.subresource {
        "binding" if meta::string(object, &["target", "kind"]) != "Node" => return,
        "binding" => meta::string(object, &["target", "name"]),
        _ => meta::string(object, &["spec", "nodeName"]),
    };
    let Some(found) = Some(node)
        .filter(|node| !node.is_empty())
        .and_then(|node| lookup.find("", "nodes", "", node))
    else {
        return;
    };
    let node = nodes
        .0
        .get(node, found, |bytes| serde_json::from_slice(bytes).unwrap_or_default());
    let Some(labels) = &node.metadata.labels else { return };
    for (key, value) in LABELS.into_iter().zip([&labels.zone, &labels.region]) {
        if let Some(value) = value {
            meta::object_mut(object, &["metadata", "labels"]).insert(key.into(), value.as_str().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::Request;
    use super::*;
    use crate::lookup::MapLookup;

    #[test]
    fn zone_and_region_are_copied() {
        let lookup = MapLookup::default();
        let labels = json!({LABELS[0]: "z", LABELS[1]: "r", "kubernetes.io/hostname": "n"});
        lookup.put("", "nodes", &json!({"metadata": {"name": "n", "labels": labels}}));
        lookup.put("", "nodes", &json!({"metadata": {"name": "bare"}}));
        let labelled = |subresource, mut object: Value| {
            let request = Request {
                subresource,
                ..Request::create("pods", "default")
            };
            request.with(None, |call| admit(call, &mut object, &lookup, &Nodes::default()));
            object["metadata"]["labels"].clone()
        };
        let own = json!({LABELS[0]: "mine", "a": "b"});
        let binding = |name: &str| json!({"metadata": {"labels": own}, "target": {"kind": "Node", "name": name}});
        assert_eq!(
            labelled("binding", binding("n")),
            json!({LABELS[0]: "z", LABELS[1]: "r", "a": "b"})
        );
        assert_eq!(labelled("binding", binding("bare")), own);
        assert_eq!(labelled("binding", binding("none")), own);
        assert_eq!(labelled("", json!({"spec": {}})), Value::Null);
        let pod = json!({"spec": {"nodeName": "n"}});
        assert_eq!(labelled("", pod), json!({LABELS[0]: "z", LABELS[1]: "r"}));
    }
}
