//! The core group (pods have a file of their own), events and endpoint slices.

use jiff::Timestamp;
use serde_json::Value;

use super::super::Column;
use super::{age, int, integer, join, labels, name, or, scalar, text};
use crate::{meta, time};

pub fn service() -> Vec<Column> {
    vec![
        name(),
        text("Type", "How the service is reached.", |object, _| {
            meta::string(object, &["spec", "type"]).into()
        }),
        text("Cluster-IP", "Address inside the cluster.", |object, _| {
            meta::items(object, &["spec", "clusterIPs"])
                .first()
                .cloned()
                .unwrap_or_else(|| "<none>".into())
        }),
        text("External-IP", "Addresses from outside.", |object, _| {
            external_ip(object).into()
        }),
        text("Port(s)", "Ports, with node ports and protocols.", |object, _| {
            let ports = meta::items(object, &["spec", "ports"]);
            if ports.is_empty() {
                return "<none>".into();
            }
            let texts: Vec<String> = ports.iter().map(port).collect();
            texts.join(",").into()
        }),
        age(),
        text("Selector", "Labels of the pods behind it.", |object, _| {
            labels(object, &["spec", "selector"])
        })
        .wide(),
    ]
}

fn port(port: &Value) -> String {
    let number = meta::i64_at(port, &["port"]).unwrap_or(0);
    let protocol = meta::string(port, &["protocol"]);
    match meta::i64_at(port, &["nodePort"]).unwrap_or(0) {
        0 => format!("{number}/{protocol}"),
        node_port => format!("{number}:{node_port}/{protocol}"),
    }
}

/// Addresses of `status.loadBalancer`, sorted, each once.
fn balancer_addresses(object: &Value) -> Vec<&str> {
    let mut addresses: Vec<&str> = meta::items(object, &["status", "loadBalancer", "ingress"])
        .iter()
        .filter_map(|ingress| {
            let ip = meta::string(ingress, &["ip"]);
            let address = if ip.is_empty() {
                meta::string(ingress, &["hostname"])
            } else {
                ip
            };
            (!address.is_empty()).then_some(address)
        })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn external_ip(service: &Value) -> String {
    let external = meta::items(service, &["spec", "externalIPs"])
        .iter()
        .filter_map(Value::as_str);
    match meta::string(service, &["spec", "type"]) {
        "ClusterIP" | "NodePort" => match join(external, ",") {
            text if text.is_empty() => "<none>".into(),
            text => text,
        },
        "LoadBalancer" => match join(balancer_addresses(service).into_iter().chain(external), ",") {
            text if text.is_empty() => "<pending>".into(),
            text => text,
        },
        "ExternalName" => meta::string(service, &["spec", "externalName"]).into(),
        _ => "<unknown>".into(),
    }
}

pub fn ingress() -> Vec<Column> {
    vec![
        name(),
        text("Class", "Class that serves it.", |object, _| {
            meta::str_at(object, &["spec", "ingressClassName"])
                .unwrap_or("<none>")
                .into()
        }),
        text("Hosts", "Hosts it routes.", |object, _| hosts(object).into()),
        text("Address", "Addresses it is reached at.", |object, _| {
            join(balancer_addresses(object), ",").into()
        }),
        text("Ports", "80, with TLS 443 too.", |object, _| {
            if meta::items(object, &["spec", "tls"]).is_empty() {
                "80".into()
            } else {
                "80, 443".into()
            }
        }),
        age(),
    ]
}

fn hosts(ingress: &Value) -> String {
    const MAX: usize = 3;
    let rules = meta::items(ingress, &["spec", "rules"]);
    let (mut list, mut more) = (Vec::new(), false);
    for rule in rules {
        more |= list.len() == MAX;
        let host = meta::string(rule, &["host"]);
        if !more && !host.is_empty() {
            list.push(host);
        }
    }
    match (list.is_empty(), more) {
        (true, _) => "*".into(),
        (false, true) => format!("{} + {} more...", list.join(","), rules.len() - MAX),
        (false, false) => list.join(","),
    }
}

pub fn node() -> Vec<Column> {
    vec![
        name(),
        text("Status", "Whether the node is ready.", |node, _| {
            node_status(node).into()
        }),
        text("Roles", "Roles from its labels.", |node, _| roles(node).into()),
        age(),
        text("Version", "Version of its agent.", |node, _| {
            meta::string(node, &["status", "nodeInfo", "kubeletVersion"]).into()
        }),
        text("Internal-IP", "Address inside the cluster.", |node, _| {
            address(node, "InternalIP").into()
        })
        .wide(),
        text("External-IP", "Address from outside.", |node, _| {
            address(node, "ExternalIP").into()
        })
        .wide(),
        text("OS-Image", "Operating system.", |node, _| {
            or(node, &["status", "nodeInfo", "osImage"], "<unknown>")
        })
        .wide(),
        text("Kernel-Version", "Kernel.", |node, _| {
            or(node, &["status", "nodeInfo", "kernelVersion"], "<unknown>")
        })
        .wide(),
        text("Container-Runtime", "Container runtime and its version.", |node, _| {
            or(node, &["status", "nodeInfo", "containerRuntimeVersion"], "<unknown>")
        })
        .wide(),
    ]
}

fn node_status(node: &Value) -> String {
    let ready = match meta::condition(node, "Ready") {
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if meta::bool_at(node, &["spec", "unschedulable"]) == Some(true) {
        format!("{ready},SchedulingDisabled")
    } else {
        ready.into()
    }
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = meta::labels(node)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => (!role.is_empty()).then_some(role),
            None if key == "kubernetes.io/role" => value.as_str().filter(|role| !role.is_empty()),
            None => None,
        })
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() {
        "<none>".into()
    } else {
        roles.join(",")
    }
}

fn address<'a>(node: &'a Value, type_: &str) -> &'a str {
    meta::items(node, &["status", "addresses"])
        .iter()
        .find(|address| address["type"] == type_)
        .map_or("<none>", |address| meta::string(address, &["address"]))
}

pub fn namespace() -> Vec<Column> {
    vec![
        name(),
        text("Status", "Active or Terminating.", |object, _| {
            meta::string(object, &["status", "phase"]).into()
        }),
        age(),
    ]
}

pub fn config_map() -> Vec<Column> {
    vec![
        name(),
        text("Data", "Number of entries.", |object, _| {
            let count = |key: &str| meta::map_at(object, &[key]).map_or(0, |map| map.len());
            (count("data") + count("binaryData")).into()
        }),
        age(),
    ]
}

pub fn secret() -> Vec<Column> {
    vec![
        name(),
        text("Type", "What the secret is for.", |object, _| {
            meta::string(object, &["type"]).into()
        }),
        text("Data", "Number of entries.", |object, _| {
            meta::map_at(object, &["data"]).map_or(0, |map| map.len()).into()
        }),
        age(),
    ]
}

pub fn endpoints() -> Vec<Column> {
    vec![
        name(),
        text("Endpoints", "Addresses and ports.", |object, _| {
            endpoint_list(object).into()
        }),
        age(),
    ]
}

fn endpoint_list(endpoints: &Value) -> String {
    const MAX: usize = 3;
    let subsets = meta::items(endpoints, &["subsets"]);
    if subsets.is_empty() {
        return "<none>".into();
    }
    let (mut list, mut count) = (Vec::new(), 0);
    for subset in subsets {
        let addresses = meta::items(subset, &["addresses"]);
        let ports = meta::items(subset, &["ports"]);
        let mut add = |port: Option<i64>| {
            count += addresses.len();
            for address in addresses {
                if list.len() == MAX {
                    break;
                }
                let ip = meta::string(address, &["ip"]);
                list.push(match port {
                    Some(port) if ip.contains(':') => format!("[{ip}]:{port}"),
                    Some(port) => format!("{ip}:{port}"),
                    None => ip.to_string(),
                });
            }
        };
        if ports.is_empty() {
            add(None);
        }
        for port in ports {
            add(Some(meta::i64_at(port, &["port"]).unwrap_or(0)));
        }
    }
    if count > MAX {
        format!("{} + {} more...", list.join(","), count - MAX)
    } else {
        list.join(",")
    }
}

pub fn endpoint_slice() -> Vec<Column> {
    vec![
        name(),
        text("AddressType", "Kind of addresses.", |object, _| {
            meta::string(object, &["addressType"]).into()
        }),
        text("Ports", "Ports.", |object, _| {
            let ports = meta::items(object, &["ports"]).iter().map(|port| {
                meta::i64_at(port, &["port"]).map_or_else(
                    || meta::str_at(port, &["name"]).unwrap_or("*").to_string(),
                    |port| port.to_string(),
                )
            });
            first_three(ports).into()
        }),
        text("Endpoints", "Addresses.", |object, _| {
            let addresses = meta::items(object, &["endpoints"])
                .iter()
                .flat_map(|endpoint| meta::items(endpoint, &["addresses"]))
                .map(scalar);
            first_three(addresses).into()
        }),
        age(),
    ]
}

fn first_three(all: impl Iterator<Item = String>) -> String {
    const MAX: usize = 3;
    let all: Vec<String> = all.collect();
    match all.len() {
        0 => "<unset>".into(),
        count if count > MAX => format!("{} + {} more...", all[..MAX].join(","), count - MAX),
        _ => all.join(","),
    }
}

/// Who reported an event, and where it runs.
fn reporter(event: &Value) -> String {
    let component = match meta::string(event, &["source", "component"]) {
        "" => meta::string(event, &["reportingComponent"]),
        component => component,
    };
    let host = match meta::string(event, &["source", "host"]) {
        "" => meta::string(event, &["reportingInstance"]),
        host => host,
    };
    if host.is_empty() {
        component.into()
    } else {
        format!("{component}, {host}")
    }
}

fn first_seen(event: &Value, now: Timestamp) -> String {
    match meta::string(event, &["firstTimestamp"]) {
        "" => time::age(meta::str_at(event, &["eventTime"]), now),
        at => time::age(Some(at), now),
    }
}

/// Both versions of Event print alike.
pub fn event() -> Vec<Column> {
    vec![
        text("Last Seen", "Time since it last happened.", |event, now| {
            if let Some(at) = meta::str_at(event, &["series", "lastObservedTime"]) {
                return time::age(Some(at), now).into();
            }
            match meta::string(event, &["lastTimestamp"]) {
                "" => first_seen(event, now).into(),
                at => time::age(Some(at), now).into(),
            }
        }),
        text("Type", "Normal or Warning.", |event, _| {
            meta::string(event, &["type"]).into()
        }),
        text("Reason", "What happened, in a word.", |event, _| {
            meta::string(event, &["reason"]).into()
        }),
        text("Object", "What it happened to.", |event, _| {
            let kind = meta::string(event, &["involvedObject", "kind"]).to_lowercase();
            match meta::string(event, &["involvedObject", "name"]) {
                "" => kind.into(),
                name => format!("{kind}/{name}").into(),
            }
        }),
        text("Subobject", "Part of the object.", |event, _| {
            meta::string(event, &["involvedObject", "fieldPath"]).into()
        })
        .wide(),
        text("Source", "Who reported it.", |event, _| reporter(event).into()).wide(),
        text("Message", "What happened, in a sentence.", |event, _| {
            meta::string(event, &["message"]).trim().into()
        }),
        text("First Seen", "Time since it first happened.", |event, now| {
            first_seen(event, now).into()
        })
        .wide(),
        text("Count", "How often it happened.", |event, _| {
            let at = |path: &[&str]| meta::i64_at(event, path).filter(|&count| count != 0);
            at(&["series", "count"]).or_else(|| at(&["count"])).unwrap_or(1).into()
        })
        .wide(),
        Column { priority: 1, ..name() },
    ]
}

fn access_modes(object: &Value, path: &[&str]) -> String {
    let modes = meta::items(object, path);
    let texts = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ]
    .into_iter()
    .filter(|(mode, _)| modes.iter().any(|own| own == mode))
    .map(|(_, short)| short);
    join(texts, ",")
}

fn storage_class(object: &Value) -> Value {
    match meta::annotation(object, "volume.beta.kubernetes.io/storage-class") {
        Some(class) => class.into(),
        None => meta::string(object, &["spec", "storageClassName"]).into(),
    }
}

fn phase(object: &Value) -> Value {
    if meta::is_deleting(object) {
        "Terminating".into()
    } else {
        meta::string(object, &["status", "phase"]).into()
    }
}

fn attributes_class(object: &Value) -> Value {
    meta::str_at(object, &["spec", "volumeAttributesClassName"])
        .unwrap_or("<unset>")
        .into()
}

fn volume_mode() -> Column {
    text("VolumeMode", "Filesystem or Block.", |object, _| {
        meta::str_at(object, &["spec", "volumeMode"])
            .unwrap_or("<unset>")
            .into()
    })
    .wide()
}

pub fn persistent_volume() -> Vec<Column> {
    vec![
        name(),
        text("Capacity", "Size.", |object, _| {
            meta::at(object, &["spec", "capacity", "storage"]).map_or_else(|| "0".into(), |size| scalar(size).into())
        }),
        text("Access Modes", "How it can be mounted.", |object, _| {
            access_modes(object, &["spec", "accessModes"]).into()
        }),
        text("Reclaim Policy", "What becomes of it when released.", |object, _| {
            meta::string(object, &["spec", "persistentVolumeReclaimPolicy"]).into()
        }),
        text("Status", "Where it stands.", |object, _| phase(object)),
        text("Claim", "Claim it is bound to.", |object, _| {
            match meta::at(object, &["spec", "claimRef"]) {
                None => "".into(),
                Some(claim) => format!(
                    "{}/{}",
                    meta::string(claim, &["namespace"]),
                    meta::string(claim, &["name"])
                )
                .into(),
            }
        }),
        text("StorageClass", "Its class.", |object, _| storage_class(object)),
        text("VolumeAttributesClass", "Class of its attributes.", |object, _| {
            attributes_class(object)
        }),
        text("Reason", "Why it failed.", |object, _| {
            meta::string(object, &["status", "reason"]).into()
        }),
        age(),
        volume_mode(),
    ]
}

pub fn persistent_volume_claim() -> Vec<Column> {
    vec![
        name(),
        text("Status", "Where it stands.", |object, _| phase(object)),
        text("Volume", "Volume it is bound to.", |object, _| {
            meta::string(object, &["spec", "volumeName"]).into()
        }),
        text("Capacity", "Size.", |object, _| {
            match (
                meta::string(object, &["spec", "volumeName"]),
                meta::at(object, &["status", "capacity", "storage"]),
            ) {
                ("", _) => "".into(),
                (_, Some(size)) => scalar(size).into(),
                (_, None) => "0".into(),
            }
        }),
        text(
            "Access Modes",
            "How it can be mounted.",
            |object, _| match meta::string(object, &["spec", "volumeName"]) {
                "" => "".into(),
                _ => access_modes(object, &["status", "accessModes"]).into(),
            },
        ),
        text("StorageClass", "Its class.", |object, _| storage_class(object)),
        text("VolumeAttributesClass", "Class of its attributes.", |object, _| {
            attributes_class(object)
        }),
        age(),
        volume_mode(),
    ]
}

pub fn component_status() -> Vec<Column> {
    vec![
        name(),
        text("Status", "Healthy or not.", |object, _| {
            match meta::items(object, &["conditions"])
                .iter()
                .find(|c| c["type"] == "Healthy")
            {
                Some(condition) if condition["status"] == "True" => "Healthy".into(),
                Some(_) => "Unhealthy".into(),
                None => "Unknown".into(),
            }
        }),
        text("Message", "What it says.", |object, _| healthy(object, "message")),
        text("Error", "What went wrong.", |object, _| healthy(object, "error")),
    ]
}

fn healthy(object: &Value, key: &str) -> Value {
    meta::items(object, &["conditions"])
        .iter()
        .find(|condition| condition["type"] == "Healthy")
        .map_or("", |condition| meta::string(condition, &[key]))
        .into()
}

pub fn resource_quota() -> Vec<Column> {
    vec![
        name(),
        text("Request", "Used and allowed, all but limits.", |object, _| {
            quota(object, false).into()
        }),
        text("Limit", "Used and allowed limits.", |object, _| {
            quota(object, true).into()
        }),
        age(),
    ]
}

fn quota(object: &Value, limits: bool) -> String {
    let hard = meta::map_at(object, &["status", "hard"]).into_iter().flatten();
    let texts: Vec<String> = hard
        .filter(|(name, _)| name.starts_with("limits.") == limits)
        .map(|(name, hard)| {
            let used = meta::at(object, &["status", "used", name]).map_or_else(|| "0".into(), scalar);
            format!("{name}: {used}/{}", scalar(hard))
        })
        .collect();
    texts.join(", ")
}

pub fn lease() -> Vec<Column> {
    vec![
        name(),
        text("Holder", "Who holds it.", |object, _| {
            meta::string(object, &["spec", "holderIdentity"]).into()
        }),
        age(),
    ]
}

pub fn priority_class() -> Vec<Column> {
    vec![
        name(),
        integer("Value", "The priority.", |object, _| int(object, &["value"])),
        super::boolean("Global-Default", "Whether pods without a class get it.", |object, _| {
            meta::bool_at(object, &["globalDefault"]).unwrap_or(false).into()
        }),
        age(),
        text("PreemptionPolicy", "Whether its pods may evict others.", |object, _| {
            meta::string(object, &["preemptionPolicy"]).into()
        }),
    ]
}

pub fn runtime_class() -> Vec<Column> {
    vec![
        name(),
        text("Handler", "The runtime's own name for it.", |object, _| {
            meta::string(object, &["handler"]).into()
        }),
        age(),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn line(columns: &[Column], object: &Value) -> String {
        let now = "2024-01-01T00:05:00Z".parse().unwrap();
        let cells: Vec<String> = super::super::cells(columns, object, now).iter().map(scalar).collect();
        cells.join("|")
    }

    #[test]
    fn rows_as_upstream_prints_them() {
        let metadata = json!({"name": "x", "creationTimestamp": "2024-01-01T00:00:00Z"});
        let service_object = json!({"metadata": metadata, "spec": {"type": "NodePort", "clusterIPs": ["10.96.0.9"],
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}], "selector": {"a": "b"}}});
        assert_eq!(
            line(&service(), &service_object),
            "x|NodePort|10.96.0.9|<none>|80:30080/TCP|5m|a=b"
        );
        let node_object = json!({"metadata": {"name": "n", "creationTimestamp": "2024-01-01T00:00:00Z",
            "labels": {"node-role.kubernetes.io/control-plane": ""}}, "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.35.4"},
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}});
        assert_eq!(
            line(&node(), &node_object),
            "n|Ready,SchedulingDisabled|control-plane|5m|v1.35.4|10.0.0.1|<none>|<unknown>|<unknown>|<unknown>"
        );
        let endpoints_object = json!({"metadata": metadata, "subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.2"}],
            "ports": [{"port": 80}, {"port": 81}]}]});
        assert_eq!(
            line(&endpoints(), &endpoints_object),
            "x|1.1.1.1:80,1.1.1.2:80,1.1.1.1:81 + 1 more...|5m"
        );
        let event_object = json!({"metadata": metadata, "type": "Normal", "reason": "R", "message": " m ", "count": 2,
            "involvedObject": {"kind": "Pod", "name": "p"}, "source": {"component": "kubelet", "host": "n"},
            "firstTimestamp": "2024-01-01T00:00:00Z", "lastTimestamp": "2024-01-01T00:04:00Z"});
        assert_eq!(line(&event(), &event_object), "60s|Normal|R|pod/p||kubelet, n|m|5m|2|x");
    }
}
